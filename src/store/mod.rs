//! The SQL of this service: one file for each resource.
//!
//! Statements are checked against the schema when they are compiled, and run by the kernel only, in
//! a transaction or a single message that is confined to the tenant of a permit.

pub mod customers;
pub mod exports;
pub mod invoice_summaries;
pub mod invoices;
pub mod orders;
pub mod payments;
pub mod products;

/// The migrations of this service's tables, in the schema `public`.
pub static MIGRATIONS: palisade::store::Migrator = palisade::store::migrate!();

/// The reviewed rights of each login on these tables.
pub const RIGHTS: &str = include_str!("../../deploy/rights.txt");
