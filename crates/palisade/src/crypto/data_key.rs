//! The lower two of the three key layers: a data key per tenant wraps a key per row (CRYPTO-03).
//!
//! [`super::MasterKeys`] unwraps data keys. Each wrapped row key and each sealed field is bound by
//! associated data to tenant, table, column, row and data key version. [`crate::store`] creates and
//! unwraps row keys; only [`super::Sealed`] seals and opens fields with them.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    SealError, random,
    sealing::{AeadContext, SealingKey},
};
use crate::telemetry::event;

/// An unwrapped data key of a tenant. It encrypts row keys only.
#[derive(Debug)]
pub struct DataKey {
    tenant: Uuid,
    version: i32,
    key: SealingKey,
}

/// The key of one row. Once it is destroyed, the sealed fields of the row are lost (CRYPTO-08).
#[derive(Debug)]
pub struct RowKey {
    tenant: Uuid,
    row: Uuid,
    version: i32,
    key: SealingKey,
    wrapped: Vec<u8>,
}

impl DataKey {
    /// Creates a data key from unwrapped key material.
    pub(super) fn new(tenant: Uuid, version: i32, bytes: &[u8; 32]) -> Result<Self, SealError> {
        Ok(Self { tenant, version, key: SealingKey::new(bytes)? })
    }

    /// The version of the data key, unique in its tenant.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Generates a row key and wraps it.
    pub fn new_row_key(&self, table: &'static str, row: Uuid) -> Result<RowKey, SealError> {
        let bytes = Zeroizing::new(random::<32>().map_err(|_| SealError)?);
        let wrapped = self.key.seal(&self.context(table, row), bytes.as_slice())?;
        self.row_key(row, &bytes, wrapped)
    }

    /// Unwraps a stored row key. Reports a failure as an event.
    ///
    /// # Errors
    /// The key belongs to another tenant, row, table or data key.
    pub fn unwrap_row_key(&self, table: &'static str, row: Uuid, wrapped: Vec<u8>) -> Result<RowKey, SealError> {
        let bytes = self.key.open(&self.context(table, row), &wrapped);
        let key =
            bytes.and_then(|bytes| self.row_key(row, bytes.as_slice().try_into().map_err(|_| SealError)?, wrapped));
        key.inspect_err(|_| {
            event::sealed_key_invalid(&self.tenant.to_string(), table, &row.to_string(), self.version);
        })
    }

    fn row_key(&self, row: Uuid, bytes: &[u8; 32], wrapped: Vec<u8>) -> Result<RowKey, SealError> {
        Ok(RowKey { tenant: self.tenant, row, version: self.version, key: SealingKey::new(bytes)?, wrapped })
    }

    fn context(&self, table: &'static str, row: Uuid) -> AeadContext {
        AeadContext { tenant: self.tenant, table, column: "key", row, version: self.version }
    }
}

impl RowKey {
    /// The version of the data key that wraps it.
    #[must_use]
    pub fn data_key_version(&self) -> i32 {
        self.version
    }

    /// The id of the row.
    #[must_use]
    pub fn row(&self) -> Uuid {
        self.row
    }

    /// Tenant, row and data key version, for events.
    pub(super) fn identity(&self) -> event::SealedRow {
        (self.tenant, self.row, self.version)
    }

    /// The wrapped key, for the column.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    pub(super) fn seal(&self, table: &'static str, column: &'static str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.key.seal(&self.context(table, column), plain)
    }

    pub(super) fn open(
        &self,
        table: &'static str,
        column: &'static str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.key.open(&self.context(table, column), sealed)
    }

    fn context(&self, table: &'static str, column: &'static str) -> AeadContext {
        AeadContext { tenant: self.tenant, table, column, row: self.row, version: self.version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_key(tenant: u128, version: i32, byte: u8) -> DataKey {
        DataKey::new(Uuid::from_u128(tenant), version, &[byte; 32]).unwrap()
    }

    #[test]
    fn crypto_03_row_key_opens_for_its_own_row_only() {
        let row = Uuid::from_u128(9);
        let fresh = data_key(1, 1, 7).new_row_key("customers", row).unwrap();
        let wrapped = fresh.wrapped().to_vec();
        let same = data_key(1, 1, 7).unwrap_row_key("customers", row, wrapped.clone()).unwrap();
        let sealed = fresh.seal("customers", "email", b"text").unwrap();
        assert_eq!(same.open("customers", "email", &sealed).unwrap().as_slice(), b"text");
        for (key, table, row) in [
            (data_key(2, 1, 7), "customers", row),
            (data_key(1, 2, 7), "customers", row),
            (data_key(1, 1, 8), "customers", row),
            (data_key(1, 1, 7), "orders", row),
            (data_key(1, 1, 7), "customers", Uuid::from_u128(8)),
        ] {
            assert!(key.unwrap_row_key(table, row, wrapped.clone()).is_err(), "{key:?} {table} {row}");
        }
        // A second key for the same row does not open what the first one sealed.
        let other = data_key(1, 1, 7).new_row_key("customers", row).unwrap();
        assert!(other.open("customers", "email", &sealed).is_err());
    }
}
