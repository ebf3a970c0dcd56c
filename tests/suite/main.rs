//! The security suite: one test program against real sockets, a real issuer and a real database.
//!
//! A test of a control is named `<control>_<subject>_<behaviour>`, such as
//! `authn_05_wrong_audience_is_rejected`; the table in SECURITY.md leads from each control to its
//! code and its tests, and `controls` checks it. Each test has its own database, except those on
//! `SERVICE.shared()`. Helpers are in `support`; slow tests are in `drills`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot continue fails")]
#![expect(unreachable_pub, reason = "a test program exports nothing")]
#![expect(clippy::indexing_slicing, reason = "indexing a JSON value returns null for a missing member")]

mod access;
mod audit;
mod authz;
mod benchmark;
mod billing;
mod books;
mod browser;
mod build_context;
mod catalog;
mod controls;
mod customers;
mod database;
mod deployment;
mod documented_providers;
mod documents;
mod drills;
mod exports;
mod idempotency;
mod input;
mod matrix;
mod orders;
mod production;
mod races;
mod round_trips;
mod sealed;
mod settings;
mod supply;
mod support;
mod tenants;
mod vault;
