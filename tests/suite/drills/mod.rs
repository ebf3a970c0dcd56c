//! Slow tests: canary secrets, alert rules, runbooks, query plans of large tables, and replicas that
//! end. `cargo test -- --skip drills::` skips them.

mod alerts;
mod canaries;
mod plans;
mod replicas;
mod runbooks;
