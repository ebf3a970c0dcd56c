//! Products of a tenant's catalogue, and their stock keeping units.

use palisade::model::{Code, Name};

use super::Money;

/// A stock keeping unit (SKU). Names a product, not a person.
pub type Sku = Code<3, 64>;

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
