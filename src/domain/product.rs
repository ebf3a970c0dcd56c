use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{Money, Name};

/// A stock keeping unit: 3 to 64 of `[A-Z0-9-]`. Parsing upper-cases first, so
/// `abc-1` and `ABC-1` are one product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// The text is not a stock keeping unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a sku is 3 to 64 letters, digits and hyphens")]
pub struct SkuError;

impl Sku {
    /// The upper-case text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sku {
    type Err = SkuError;

    fn from_str(s: &str) -> Result<Self, SkuError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if (3..=64).contains(&s.len()) && s.bytes().all(allowed) {
            Ok(Self(s.to_ascii_uppercase()))
        } else {
            Err(SkuError)
        }
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of a tenant's catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Unique inside the tenant.
    pub sku: Sku,
    /// For display.
    pub name: Name,
    /// Of one unit, now. Orders copy it, so a later change does not reach them.
    pub price: Money,
}
