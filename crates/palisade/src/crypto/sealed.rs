//! Sealed fields: personal data encrypted with the key of its row (CRYPTO-02, CRYPTO-07).
//!
//! [`crate::store`] binds [`Sealed`] values to columns. A handler cannot read, print or serialise
//! one: plain text needs the row key and a [`PersonalDataAccess`], which only a permit grants, and
//! everything else gets the masked text. A field that does not decrypt is a security event.

use std::{fmt, marker::PhantomData};

use super::{BlindIndex, Indexed, PersonalDataAccess, RowKey, SealError, blind_index::normalize};
use crate::{
    model::{PersonalData, masked},
    telemetry::event,
};

/// A type of personal data that is stored sealed.
pub trait Sealable: PersonalData {
    /// The table that stores it.
    const TABLE: &'static str;
    /// The column that stores it.
    const COLUMN: &'static str;
}

/// The ciphertext of a field. Reading it needs the row key, showing it a [`PersonalDataAccess`].
pub struct Sealed<T> {
    bytes: Vec<u8>,
    field_type: PhantomData<fn() -> T>,
}

impl<T: Sealable> Sealed<T> {
    /// Encrypts a value for the row of `key`.
    pub fn new(value: &T, key: &RowKey) -> Result<Self, SealError> {
        Ok(Self::from_stored(key.seal(T::TABLE, T::COLUMN, value.__text().as_bytes())?))
    }

    /// Wraps the bytes of the column. They are checked when they are opened.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self { bytes, field_type: PhantomData }
    }

    /// The bytes for the column.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decrypts the value, for a caller with the right to see it.
    pub fn open(&self, key: &RowKey, _: &PersonalDataAccess) -> Result<T, SealError> {
        // `to_owned` allocates the exact length, so becoming a secret reallocates nothing and leaves no
        // copy behind.
        self.read(key, |plain| T::__from_stored(plain.to_owned()))
    }

    /// Decrypts the value and returns its masked text. The plain text is wiped from memory.
    pub fn masked(&self, key: &RowKey) -> Result<String, SealError> {
        self.read(key, masked)
    }

    /// Checks that the sealed value equals `value`. A blind index that found the row is no proof:
    /// it is not bound to the row, so it could have been copied from another one.
    ///
    /// # Errors
    /// The values differ, which is reported as an event, or the field does not open.
    pub fn check_equals(&self, key: &RowKey, value: &T) -> Result<(), SealError>
    where
        T: Indexed,
    {
        let searched = normalize(value.__text(), T::IGNORED);
        if self.read(key, |plain| normalize(plain, T::IGNORED) == searched)? {
            return Ok(());
        }
        event::index_invalid(key.identity(), T::TABLE, T::COLUMN);
        Err(SealError)
    }

    /// Decrypts the value for code of the kernel, then wipes the plain text.
    pub(super) fn read<R>(&self, key: &RowKey, for_plain: impl FnOnce(&str) -> R) -> Result<R, SealError> {
        read(key, (T::TABLE, T::COLUMN), &self.bytes, for_plain)
    }
}

/// Re-encrypts the bytes of a column with a new key of the same row, and computes the blind index
/// of its text. The plain text does not leave this function.
pub(crate) fn reseal(
    (table, column): (&'static str, &'static str),
    sealed: &[u8],
    (old, new): (&RowKey, &RowKey),
    index: impl FnOnce(&str) -> Option<BlindIndex>,
) -> Result<(Vec<u8>, Option<BlindIndex>), SealError> {
    let both = |plain: &str| Ok((new.seal(table, column, plain.as_bytes())?, index(plain)));
    read(old, (table, column), sealed, both)?
}

/// The plain text of a column, for the export of a tenant. `None`: it does not open, which an event
/// reports.
#[cfg(feature = "exports")]
pub(crate) fn open_column(place: (&'static str, &'static str), sealed: &[u8], key: &RowKey) -> Option<String> {
    read(key, place, sealed, str::to_owned).ok()
}

/// Decrypts a column for `read`, then wipes the plain text. Reports a failure as an event.
fn read<R>(
    key: &RowKey,
    (table, column): (&'static str, &'static str),
    sealed: &[u8],
    read: impl FnOnce(&str) -> R,
) -> Result<R, SealError> {
    let plain = key.open(table, column, sealed);
    let result = plain.and_then(|plain| std::str::from_utf8(&plain).map(read).map_err(|_| SealError));
    if result.is_err() {
        event::sealed_data_invalid(key.identity(), table, column);
    }
    result
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}
