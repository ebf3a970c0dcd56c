use super::{Network, QuotaName};

/// What an operator ordered for everybody, for a while (LOG-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Another quota for all whose tenant has none of its own.
    Class {
        /// Which.
        name: QuotaName,
        /// Calls per minute.
        per_minute: u32,
    },
    /// A limit for each address of a network, instead of the usual one.
    Address {
        /// Which addresses.
        network: Network,
        /// Calls per minute; with 0 nobody there is answered.
        per_minute: u32,
    },
    /// Nobody changes anything.
    ReadOnly,
}
