//! Slow tests: canary secrets, alert rules, runbooks, query plans of large tables, and misuse that
//! must not compile. `cargo test -- --skip drills::` skips them.

mod alerts;
mod canaries;
mod misuse;
mod plans;
mod runbooks;
