//! The kernel's own suite: one test program against real sockets, a real issuer and a real
//! database, on the sample service.
//!
//! A test of a control is named `<control>_<subject>_<behaviour>`. Each test has its own database,
//! except those on `SERVICE.shared()`. Helpers are in `support`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot continue fails")]
#![expect(unreachable_pub, reason = "a test program exports nothing")]
#![expect(clippy::indexing_slicing, reason = "indexing a JSON value returns null for a missing member")]

mod audit;
mod authn;
mod backup;
mod catalog;
mod cli;
mod controls;
mod cors;
mod database;
mod destroyed_tenants;
mod drills;
mod edge;
mod edge_networks;
mod every_operation;
mod exports;
mod framing;
mod hostile;
mod idempotency;
mod index_keys;
mod input;
mod internal;
mod interop;
mod issuer;
mod master_keys;
mod migrations;
mod notes;
mod planted_faults;
mod pooler;
mod probes;
mod quota;
mod races;
mod restored_erasures;
mod retention;
mod retired_keys;
mod rolling_upgrades;
mod rotation;
mod round_trips;
mod sealed;
mod sealed_tables;
mod secrets;
mod sessions;
mod settings;
mod shared_quota;
mod source_check;
mod sources;
mod start;
mod store_misuse;
mod support;
mod telemetry;
mod tenants;
mod tls;
mod vault;
