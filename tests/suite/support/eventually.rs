//! [`eventually`]: polls a condition until it holds, and fails the test after a minute.

use std::time::{Duration, Instant};

/// The service promises seconds for most of what tests wait for. This bound is longer because it
/// must hold on a machine with any load: a test checks that the condition becomes true at all.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Polls `holds` every 10 ms until it returns true.
#[track_caller]
pub fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    poll(what, holds, std::panic::Location::caller())
}

async fn poll(what: &str, mut holds: impl AsyncFnMut() -> bool, caller: &std::panic::Location<'_>) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < TIMEOUT, "{caller}: timed out after {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
