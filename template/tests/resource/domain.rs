//! Shelves of a tenant's warehouse.

use palisade::model::Name;

/// A shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// Display name.
    pub name: Name,
}
