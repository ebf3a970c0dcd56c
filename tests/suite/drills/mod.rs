//! Slow tests: floods, outages, secrets that change under load, canary secrets, alert rules,
//! runbooks, query plans of large tables, and misuse that must not compile. `cargo test -- --skip
//! drills::` skips them.

mod abuse;
mod alerts;
mod canaries;
mod floods;
mod misuse;
mod outages;
mod plans;
mod reload;
mod runbooks;
