use std::{fmt, marker::PhantomData};

use super::{Indexed, RowKey, SealError};
use crate::{authz::MaySee, telemetry::event};

/// What can be stored sealed.
pub trait Sealable: Sized {
    /// The table it belongs to.
    const TABLE: &'static str;
    /// The column it belongs to.
    const COLUMN: &'static str;

    /// The plain text.
    fn plain(&self) -> &str;

    /// From the plain text that was sealed.
    fn from_sealed(text: String) -> Self;

    /// What everybody may see of it.
    fn masked(&self) -> String;
}

/// A field as it is stored: nobody can read it without the key of its row, nor show it without the right to (CRYPTO-02).
pub struct Sealed<T> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: Sealable> Sealed<T> {
    /// Seals a value for the row of `key`.
    pub fn new(value: &T, key: &RowKey) -> Result<Self, SealError> {
        Ok(Self::from_stored(key.seal(T::TABLE, T::COLUMN, value.plain().as_bytes())?))
    }

    /// What the column holds.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Self {
        Self { bytes, of: PhantomData }
    }

    /// For the column.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value, for who may see it.
    pub fn open(&self, key: &RowKey, _: &MaySee) -> Result<T, SealError> {
        self.opened(key)
    }

    /// What everybody may see of it; the rest is wiped.
    pub fn masked(&self, key: &RowKey) -> Result<String, SealError> {
        Ok(self.opened(key)?.masked())
    }

    /// An error unless the value is this one. By its index it was found, which is not bound to the row.
    pub(crate) fn check_is(&self, key: &RowKey, value: &T) -> Result<(), SealError>
    where
        T: Indexed,
    {
        if self.opened(key)?.normal() == value.normal() {
            return Ok(());
        }
        event::index_invalid(key, T::TABLE, T::COLUMN);
        Err(SealError)
    }

    /// The same value for another key of the row. Nobody sees it.
    pub(crate) fn resealed(&self, key: &RowKey, new: &RowKey) -> Result<Self, SealError> {
        Self::new(&self.opened(key)?, new)
    }

    pub(super) fn opened(&self, key: &RowKey) -> Result<T, SealError> {
        let opened = key.open(T::TABLE, T::COLUMN, &self.bytes).and_then(|plain| {
            // Of exactly its length, so that nothing is moved and left behind when it becomes a secret.
            std::str::from_utf8(&plain).map(|text| T::from_sealed(text.to_owned())).map_err(|_| SealError)
        });
        if opened.is_err() {
            event::sealed_data_invalid(key, T::TABLE, T::COLUMN);
        }
        opened
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}
