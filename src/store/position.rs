use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::StoreError;

/// A place in a list that goes from new to old: what comes after it is older, or as old with a smaller identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// A time.
    pub at: DateTime<Utc>,
    /// Tells rows of the same time apart.
    pub id: Uuid,
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position in a list")]
pub struct PositionError;

impl Position {
    /// Before everything there is.
    #[must_use]
    pub fn start() -> Self {
        Self { at: DateTime::<Utc>::MAX_UTC, id: Uuid::max() }
    }

    /// After everything there is.
    #[must_use]
    pub fn end() -> Self {
        Self::before(DateTime::UNIX_EPOCH)
    }

    /// Before everything that is older than `at`.
    #[must_use]
    pub fn before(at: DateTime<Utc>) -> Self {
        Self { at, id: Uuid::nil() }
    }

    /// The one that comes later in the list.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if (other.at, other.id) < (self.at, self.id) { other } else { self }
    }

    /// The time as the database takes it.
    pub(super) fn time(self) -> DateTime<Utc> {
        storable(self.at)
    }
}

/// The nearest time between 1970 and the year 9999. No row is older or newer; and the database
/// knows neither the first nor the last of the years that a caller can write.
pub(super) fn storable(at: DateTime<Utc>) -> DateTime<Utc> {
    let year_10000 = DateTime::from_timestamp(253_402_300_800, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
    at.clamp(DateTime::UNIX_EPOCH, year_10000)
}

/// Microseconds since the epoch, a dot, the identifier.
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

/// A text that was valid when it was stored.
pub(super) fn stored<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::broken)
}
