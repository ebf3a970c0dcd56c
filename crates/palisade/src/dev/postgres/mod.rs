//! A private PostgreSQL server: an unmodified server that this program starts and stops.
//!
//! `dev` keeps its data between runs; tests use disposable servers. Runs on Linux and macOS.

mod account;
mod binaries;
mod server;

pub use binaries::Binaries;
pub use server::{Data, Server};
