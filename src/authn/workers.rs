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

/// Threads that hash and do nothing else. There are as many as hash at once, so what memory they keep is bounded, and
/// they give way to the threads that answer.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// They end when this is dropped. An error if the operating system has no thread left.
    pub(super) fn start(number: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..number {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("hashing".to_owned()).spawn(move || work_off(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// What the work gives, or nothing if it panicked. It goes on if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, done) = oneshot::channel();
        let job = Box::new(move || {
            // Unless whoever wanted to know has gone.
            let _ = sender.send(work());
        });
        self.jobs.send(job).ok()?;
        done.await.ok()
    }
}

fn work_off(queue: &Mutex<Receiver<Job>>) {
    give_way();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // A panic is told by the hook; the thread is for the next one.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// On Linux a thread has a priority of its own; elsewhere it would be that of the whole process. Lowering it needs no right.
#[cfg(target_os = "linux")]
fn give_way() {
    if let Err(error) = rustix::process::nice(10) {
        tracing::warn!(%error, "hashing keeps the priority of answering");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_takes_nobody_elses_turn() {
        let workers = Workers::start(1).unwrap();
        assert_eq!(workers.run(|| -> u8 { panic!("as in a test") }).await, None);
        assert_eq!(workers.run(|| 1).await, Some(1));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn authn_12_hashing_gives_way_to_answering() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let answering = priority();
        let hashing = Workers::start(1).unwrap().run(priority).await;
        // The lowest there is is 19.
        assert_eq!(hashing, Some((answering + 10).min(19)));
        assert_eq!(priority(), answering);
    }
}
