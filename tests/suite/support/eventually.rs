use std::time::{Duration, Instant};

/// Bounds of seconds are stated for what this waits for. What it checks is that it happens at all, on a machine however
/// busy.
const BOUND: Duration = Duration::from_secs(20);

/// Asks again and again until it holds.
#[track_caller]
pub fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let asker = std::panic::Location::caller();
    asking(what, holds, asker)
}

async fn asking(what: &str, mut holds: impl AsyncFnMut() -> bool, asker: &std::panic::Location<'_>) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < BOUND, "{asker}: within {BOUND:?} not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
