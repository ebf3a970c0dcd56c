//! [`eventually`]: polls a condition until it holds, and fails the test after 20 s.

use std::time::{Duration, Instant};

/// The service promises seconds for most of what tests wait for. This bound is longer because it
/// must hold on a machine with any load: a test checks that the condition becomes true at all. It
/// is shorter than 30 s, after which the HTTP/2 keep-alive closes connections for another reason.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Bound for PostgreSQL, whose recovery after a crash depends on the disk.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(1);

/// Polls `holds` every 10 ms until it returns true.
#[track_caller]
pub fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    poll(what, holds, TIMEOUT, std::panic::Location::caller())
}

/// As [`eventually`], for a PostgreSQL server that recovers.
#[track_caller]
pub fn eventually_recovered(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    poll(what, holds, RECOVERY_TIMEOUT, std::panic::Location::caller())
}

async fn poll(what: &str, mut holds: impl AsyncFnMut() -> bool, timeout: Duration, caller: &std::panic::Location<'_>) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < timeout, "{caller}: timed out after {timeout:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
