//! Slow tests: canary secrets, alert rules, runbooks, the image, query plans of large tables, and
//! replicas that end. `cargo test -- --skip drills::` skips them.

mod alerts;
mod canaries;
mod image;
mod plans;
mod replicas;
mod runbooks;
