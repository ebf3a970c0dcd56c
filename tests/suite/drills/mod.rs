//! Slow tests: canary secrets, alert rules, runbooks, the image, and query plans of large tables.
//! `cargo test -- --skip drills::` skips them.

mod alerts;
mod canaries;
mod image;
mod plans;
mod runbooks;
