//! The security suite: one program, real parts.
//!
//! Every test talks to the service over a socket, with tokens of a real issuer and a database
//! of its own. A control's test carries its id (`authn_05_…`); SECURITY.md leads from each
//! control to its code and its tests. `support` is the vocabulary.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![expect(unreachable_pub, reason = "one program has no outside")]
#![expect(clippy::indexing_slicing, reason = "JSON values answer a missing member with null")]

mod access;
mod audit;
mod authn;
mod authz;
mod backup;
mod billing;
mod catalog;
mod cli;
mod customers;
mod database;
mod destroyed_tenants;
mod documents;
mod drills;
mod edge;
mod exports;
mod hostile;
mod idempotency;
mod index_keys;
mod input;
mod internal;
mod interop;
mod issuer;
mod master_keys;
mod matrix;
mod messages;
mod migrations;
mod orders;
mod quota;
mod races;
mod retired_keys;
mod rotation;
mod sealed;
mod secrets;
mod settings;
mod shared_quota;
mod sources;
mod start;
mod support;
mod telemetry;
mod tls;
mod vault;
