//! Slow tests: floods, outages, abuse, and secrets that change under load. `cargo test -- --skip
//! drills::` skips them.

mod abuse;
mod floods;
mod outages;
mod reload;
