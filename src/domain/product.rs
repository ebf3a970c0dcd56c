//! Products of a tenant's catalogue, and their stock keeping units.

use std::{fmt, str::FromStr};

use palisade::model::{AuditObject, Name};
use thiserror::Error;

use super::Money;

/// A stock keeping unit (SKU): 3 to 64 characters of `[A-Z0-9-]`. Parsing converts to upper case,
/// so `abc-1` and `ABC-1` are the same product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// The text is not a stock keeping unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a SKU has 3 to 64 letters, digits and hyphens")]
pub struct SkuError;

impl Sku {
    /// The upper-case text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a product, not a person.
impl AuditObject for Sku {}

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

/// A product in a tenant's catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Stock keeping unit, unique in the tenant.
    pub sku: Sku,
    /// Display name.
    pub name: Name,
    /// Current price of one unit. Orders copy it, so a change does not affect existing orders.
    pub price: Money,
}
