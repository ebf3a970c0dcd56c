//! The kernel's own suite: one test program against real sockets, a real issuer and a real
//! database, on the sample service.
//!
//! A test of a control is named `<control>_<subject>_<behaviour>`. Each test has its own database,
//! except those on `SERVICE.shared()`. Helpers are in `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot continue fails")]
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(clippy::indexing_slicing, reason = "indexing a JSON value returns null for a missing member")]

mod controls;
mod notes;
mod support;
