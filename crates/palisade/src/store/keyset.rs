//! Positions for keyset pagination of lists in descending order of time.
//!
//! In: the time and the id of the last row of a page. Out: the position after which the next page
//! begins, as values for SQL and as the text inside a cursor. All paginated queries of
//! [`crate::store`] use it, except that of products.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A half-open interval of time.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// Start, inclusive.
    pub from: DateTime<Utc>,
    /// End, exclusive.
    pub to: DateTime<Utc>,
}

/// A position in a list that is sorted by time and id, both descending. The rows after it are
/// older, or equally old with a smaller id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Upper bound for the times of the rows after this position.
    pub at: DateTime<Utc>,
    /// Exclusive upper bound for the ids of the rows at exactly that time.
    pub id: Uuid,
}

/// The text cannot be parsed as a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a list")]
pub struct PositionError;

impl Position {
    /// Before the first row of any list.
    #[must_use]
    pub fn start() -> Self {
        Self { at: DateTime::<Utc>::MAX_UTC, id: Uuid::max() }
    }

    /// Before the rows that are older than `at`.
    #[must_use]
    pub fn before(at: DateTime<Utc>) -> Self {
        Self { at, id: Uuid::nil() }
    }

    /// The position that comes later in the list, of the two.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if (other.at, other.id) < (self.at, self.id) { other } else { self }
    }

    /// The time, clamped for the database.
    #[must_use]
    pub fn time(self) -> DateTime<Utc> {
        clamp_time(self.at)
    }
}

/// The nearest time from 1970 to the end of the year 9999. No row is older or newer, and PostgreSQL
/// rejects some of the times that a client can write.
#[must_use]
pub fn clamp_time(at: DateTime<Utc>) -> DateTime<Utc> {
    let year_10000 = DateTime::from_timestamp(253_402_300_800, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
    at.clamp(DateTime::UNIX_EPOCH, year_10000)
}

/// Microseconds since 1970, a dot, and the id in hexadecimal.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.timestamp_micros(), self.id.simple())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(s: &str) -> Result<Self, PositionError> {
        let (micros, id) = s.split_once('.').ok_or(PositionError)?;
        let micros = micros.parse().map_err(|_| PositionError)?;
        let at = DateTime::from_timestamp_micros(micros).ok_or(PositionError)?;
        Ok(Self { at, id: id.parse().map_err(|_| PositionError)? })
    }
}
