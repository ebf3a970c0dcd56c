//! Lists of sealed rows: a row that does not open hides no other (CRYPTO-03).
//!
//! In: rows with the result of opening each. Out: the items of a page, and the ids of the rows that
//! do not open. Services build their pages with it.

use uuid::Uuid;

use super::{DbError, Position};
use crate::crypto::MasterKeyError;

/// A row of a list.
#[derive(Debug)]
pub struct Listed<T> {
    position: Position,
    /// `None` if the row does not open. An event has reported it.
    opened: Option<T>,
}

impl<T> Listed<T> {
    /// The row at `position`, whether it opens or not.
    ///
    /// # Errors
    /// The row does not open for a reason that does not concern this row alone, such as an outage.
    pub fn new(position: Position, opened: Result<T, DbError>) -> Result<Self, DbError> {
        Ok(Self { position, opened: readable(opened)? })
    }

    /// Its place in the list.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The row, unless it does not open.
    #[must_use]
    pub fn opened(&self) -> Option<&T> {
        self.opened.as_ref()
    }

    /// Renders a page. Returns its items, and the ids of the rows that do not open.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn render<V>(page: &[Self], item: impl Fn(&T) -> Result<V, DbError>) -> Result<(Vec<V>, Vec<Uuid>), DbError> {
        let (mut items, mut unreadable) = (Vec::with_capacity(page.len()), Vec::new());
        for row in page {
            match row.opened().map(&item).map(readable).transpose()?.flatten() {
                Some(item) => items.push(item),
                None => unreadable.push(row.position.id),
            }
        }
        Ok((items, unreadable))
    }
}

/// `None` if the row, its key or the data key of its key is damaged. A data key whose master key is
/// missing is an error: another replica may have that key.
fn readable<T>(result: Result<T, DbError>) -> Result<Option<T>, DbError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            DbError::Sealed(_) | DbError::MasterKey(MasterKeyError::CannotUnwrap(_) | MasterKeyError::Refused { .. }),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}
