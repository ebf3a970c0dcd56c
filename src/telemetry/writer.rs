//! Writes the log lines of a server without ever waiting for who reads them.
//!
//! Lines go through a bounded queue to a thread that writes them to standard error. A reader that
//! stops (a full disk behind a log driver, a pipe that nothing empties) costs lines, which are
//! counted, and delays no request, no probe and no shutdown. The same thread that reports lost
//! lines writes the summaries of [`super::repeats`].

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{
    metrics::{self, Fate},
    repeats,
};

/// Most lines that wait to be written: about 8 MiB, since a line is bounded.
const QUEUE: usize = 16_384;
/// How long the end of the process waits for what is in the queue.
const LAST_LINES: Duration = Duration::from_millis(1_500);

/// The threads behind the log of a server.
#[derive(Debug)]
pub(super) struct Writer {
    guard: WorkerGuard,
    reports: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Starts the threads. Lines are written to what is returned first.
pub(super) fn start() -> (NonBlocking, Writer) {
    let (output, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE)
        .thread_name("log")
        .finish(std::io::stderr());
    repeats::begin();
    let (stop, stopped) = mpsc::channel();
    let lost = output.error_counter();
    let report = move || {
        let mut reported = 0;
        loop {
            let goes_on = matches!(stopped.recv_timeout(repeats::PERIOD), Err(RecvTimeoutError::Timeout));
            repeats::summarise();
            reported = report_lost(&lost, reported);
            if !goes_on {
                return;
            }
        }
    };
    // Without this thread, repeated lines would be counted and never reported.
    let reports = thread::Builder::new().name("log-reports".to_owned()).spawn(report);
    let reports = reports.inspect_err(|error| tracing::error!(%error, "repeated log lines are not reported")).ok();
    (output, Writer { guard, reports: reports.map(|thread| (stop, thread)) })
}

/// Reports the lines that were lost since `reported`. Gives how many were lost in all.
fn report_lost(lost: &ErrorCounter, reported: usize) -> usize {
    let all = lost.dropped_lines();
    let new = all.saturating_sub(reported);
    if new > 0 {
        metrics::telemetry("lines", Fate::Lost, new);
        tracing::warn!(lost = new, "log lines were lost: standard error is not read fast enough");
    }
    all
}

impl Writer {
    /// Writes what waits, unless that takes too long.
    pub(super) fn finish(self) {
        let (done, is_done) = mpsc::channel();
        // In a thread that nothing waits for longer: it may hang in a write.
        thread::spawn(move || {
            if let Some((stop, reports)) = self.reports {
                drop(stop);
                let _ = reports.join();
            }
            drop(self.guard);
            let _ = done.send(());
        });
        let _ = is_done.recv_timeout(LAST_LINES);
    }
}
