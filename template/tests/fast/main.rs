//! Tests of new and updated projects that build none. `built.rs` builds some and runs their suites.

mod ci;
mod scaffold;
mod support;
mod update;
