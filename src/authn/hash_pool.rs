//! Dedicated low-priority threads for hashing the secrets of API keys (AUTHN-12).
//!
//! [`super::hashing`] sends jobs here. The fixed number of threads bounds the memory of concurrent
//! hashes. Their lower priority keeps the threads that serve requests responsive.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The hashing threads. They end when this value is dropped.
#[derive(Debug)]
pub(super) struct HashPool {
    jobs: Sender<Job>,
}

impl HashPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system could not start a thread.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("hashing".to_owned()).spawn(move || run_jobs(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `work` on a thread of the pool. Returns `None` if it panicked. Dropping the future does
    /// not cancel the work.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, result) = oneshot::channel();
        let job = Box::new(move || {
            // Fails if the caller has dropped the future.
            let _ = sender.send(work());
        });
        self.jobs.send(job).ok()?;
        result.await.ok()
    }
}

fn run_jobs(queue: &Mutex<Receiver<Job>>) {
    lower_priority();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // The panic hook logs a panic; the thread continues with the next job.
        let _ = catch_unwind(AssertUnwindSafe(job));
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

    #[tokio::test]
    async fn a_panic_does_not_stop_the_pool() {
        let pool = HashPool::start(1).unwrap();
        assert_eq!(pool.run(|| -> u8 { panic!("panic of a test") }).await, None);
        assert_eq!(pool.run(|| 1).await, Some(1));
    }

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
