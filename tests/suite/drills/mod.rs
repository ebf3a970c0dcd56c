//! Slow tests: canary secrets, alert rules, runbooks, and query plans of large tables. `cargo test
//! -- --skip drills::` skips them.

mod alerts;
mod canaries;
mod plans;
mod runbooks;
