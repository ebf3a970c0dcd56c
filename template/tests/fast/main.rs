//! Tests of new and updated projects that build none. `built.rs` builds some and runs their suites.

mod scaffold;
mod support;
mod update;
