//! Slow tests: floods, outages, abuse, secrets that change under load, and misuse that must not
//! compile. `cargo test -- --skip drills::` skips them.

mod abuse;
mod floods;
mod misuse;
mod outages;
mod reload;
