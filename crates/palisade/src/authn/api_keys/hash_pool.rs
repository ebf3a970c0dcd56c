//! Dedicated low-priority threads for hashing the secrets of API keys (AUTHN-12).
//!
//! [`super::hashing`] sends jobs here. The fixed number of threads bounds the memory of concurrent
//! hashes. Their lower priority keeps the threads that serve requests responsive.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// The hashing threads: a runtime of their own, which only runs hashes. Present until the drop.
#[derive(Debug)]
pub(super) struct HashPool(Option<Runtime>);

impl HashPool {
    /// Starts the threads.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("hashing").on_thread_start(lower_priority);
        builder.build().map(Some).map(Self)
    }

    /// Runs `work` on a thread of the pool. Returns `None` if it panicked. Dropping the future does
    /// not cancel the work.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.0.as_ref()?.spawn(async { work() }).await.ok()
    }
}

impl Drop for HashPool {
    /// Does not wait for the hashes that run: an async task must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the current thread, which needs no privilege. Only on Linux: elsewhere it
/// would change the priority of the whole process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(10) {
        tracing::warn!(%error, "could not lower the priority of hashing threads");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn authn_12_hashing_threads_have_a_lower_priority() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let hashing = HashPool::start(1).unwrap().run(priority).await;
        // The lowest priority is 19.
        assert_eq!(hashing, Some((before + 10).min(19)));
        assert_eq!(priority(), before);
    }
}
