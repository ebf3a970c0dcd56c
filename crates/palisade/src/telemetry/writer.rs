//! Non-blocking writer for the log lines of `serve` (LOG-01).
//!
//! Lines go through a bounded queue to a thread that writes them to standard error. If standard
//! error is not read fast enough (a full disk behind a log driver, a blocked pipe), lines are
//! dropped and counted; no request, probe or shutdown waits. A second thread reports dropped lines
//! and writes the summaries of [`super::repeats`].

use std::{
    io::{self, BufWriter, Stderr, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{metrics, repeats};

/// Maximum number of queued lines: about 8 MiB, as the length of a line is bounded.
const QUEUE_LEN: usize = 16_384;
/// Maximum time that process exit waits for the queue to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Lines wait this long for others, so that a busy service writes many of them at once. Waking the
/// thread and writing cost more than making a line.
const BATCH_TIME: Duration = Duration::from_millis(2);

/// Writes batches of lines. The thread flushes when its queue is empty.
struct Batches(BufWriter<Stderr>);

impl Write for Batches {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(BATCH_TIME);
        Ok(())
    }
}

/// Handles of the two threads.
#[derive(Debug)]
pub(super) struct Writer {
    guard: WorkerGuard,
    reporter: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Starts both threads. Returns where to write lines, and the handles to finish with.
pub(super) fn start() -> (NonBlocking, Writer) {
    let (output, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE_LEN)
        .thread_name("log")
        .finish(Batches(BufWriter::new(io::stderr())));
    repeats::start();
    let (stop, stopped) = mpsc::channel();
    let dropped = output.error_counter();
    let report = move || {
        let mut reported = 0;
        loop {
            let is_running = matches!(stopped.recv_timeout(repeats::PERIOD), Err(RecvTimeoutError::Timeout));
            repeats::summarise();
            reported = report_dropped(&dropped, reported);
            if !is_running {
                return;
            }
        }
    };
    // Without this thread, repeated lines would be counted but never reported.
    let thread = thread::Builder::new().name("log-reports".to_owned()).spawn(report);
    let thread = thread.inspect_err(|error| tracing::error!(%error, "repeated log lines are not reported")).ok();
    (output, Writer { guard, reporter: thread.map(|thread| (stop, thread)) })
}

/// Reports the lines that were dropped since `reported`. Returns the total number of dropped lines.
fn report_dropped(dropped: &ErrorCounter, reported: usize) -> usize {
    let total = dropped.dropped_lines();
    let new = total.saturating_sub(reported);
    if new > 0 {
        metrics::record_telemetry("lines", "lost", new);
        tracing::warn!(lost = new, "log lines were lost: standard error is not read fast enough");
    }
    total
}

impl Writer {
    /// Writes the queued lines, within [`FLUSH_TIMEOUT`].
    pub(super) fn finish(self) {
        let (done, is_done) = mpsc::channel();
        // In a separate thread, because a write to a blocked standard error never returns.
        thread::spawn(move || {
            if let Some((stop, reporter)) = self.reporter {
                drop(stop);
                let _ = reporter.join();
            }
            drop(self.guard);
            let _ = done.send(());
        });
        let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
    }
}
