//! Sealed fields: personal data encrypted with the key of its row (CRYPTO-02, CRYPTO-07).
//!
//! [`crate::store`] binds [`Sealed`] values to columns. A handler cannot read, print or serialise
//! one: plain text needs the row key and a [`PersonalDataAccess`], which only a permit grants, and
//! everything else gets the masked text. A field that does not decrypt is a security event.

use std::{fmt, marker::PhantomData};

use super::{Indexed, RowKey, SealError};
use crate::telemetry::event;

/// The right to see personal data in plain text. [`Sealed::open`] requires it, and only
/// [`Permit::personal_data_access`](crate::authz::Permit::personal_data_access) grants it.
#[derive(Debug)]
pub struct PersonalDataAccess(());

impl PersonalDataAccess {
    /// Grants the right. For `authz` only, which decides by caller kind, role and operation.
    pub(crate) fn grant() -> Self {
        Self(())
    }
}

/// A type of personal data that is stored sealed.
pub trait Sealable: Sized {
    /// The table that stores it.
    const TABLE: &'static str;
    /// The column that stores it.
    const COLUMN: &'static str;

    /// The plain text.
    fn plain(&self) -> &str;

    /// Restores the value from decrypted text, without validation.
    fn from_sealed(text: String) -> Self;

    /// The masked text, for callers without the right to plain text.
    fn masked(&self) -> String;
}

/// The ciphertext of a field. Reading it needs the row key, showing it a [`PersonalDataAccess`].
pub struct Sealed<T> {
    bytes: Vec<u8>,
    field_type: PhantomData<fn() -> T>,
}

impl<T: Sealable> Sealed<T> {
    /// Encrypts a value for the row of `key`.
    pub fn new(value: &T, key: &RowKey) -> Result<Self, SealError> {
        Ok(Self::from_stored(key.seal(T::TABLE, T::COLUMN, value.plain().as_bytes())?))
    }

    /// Wraps the bytes of the column.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self { bytes, field_type: PhantomData }
    }

    /// The bytes for the column.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decrypts the value, for a caller with the right to see it.
    pub fn open(&self, key: &RowKey, _: &PersonalDataAccess) -> Result<T, SealError> {
        self.decrypt(key)
    }

    /// Decrypts the value and returns its masked text. The plain text is wiped from memory.
    pub fn masked(&self, key: &RowKey) -> Result<String, SealError> {
        Ok(self.decrypt(key)?.masked())
    }

    /// Checks that the sealed value equals `value`. A blind index that found the row is no proof:
    /// it is not bound to the row, so it could have been copied from another one.
    pub(crate) fn check_equals(&self, key: &RowKey, value: &T) -> Result<(), SealError>
    where
        T: Indexed,
    {
        if self.decrypt(key)?.normalized() == value.normalized() {
            return Ok(());
        }
        event::index_invalid(key, T::TABLE, T::COLUMN);
        Err(SealError)
    }

    /// Re-encrypts the value with a new key of the same row. The plain text does not leave this
    /// function.
    pub(crate) fn reseal(&self, key: &RowKey, new: &RowKey) -> Result<Self, SealError> {
        Self::new(&self.decrypt(key)?, new)
    }

    pub(super) fn decrypt(&self, key: &RowKey) -> Result<T, SealError> {
        let value = key.open(T::TABLE, T::COLUMN, &self.bytes).and_then(|plain| {
            // `to_owned` allocates the exact length, so becoming a secret reallocates nothing and
            // leaves no copy behind.
            std::str::from_utf8(&plain).map(|text| T::from_sealed(text.to_owned())).map_err(|_| SealError)
        });
        if value.is_err() {
            event::sealed_data_invalid(key, T::TABLE, T::COLUMN);
        }
        value
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}
