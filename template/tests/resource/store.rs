//! SQL of shelves.

use palisade::{
    authz::Permit,
    store::{Database, DbError, parse_stored},
};
use serde::Deserialize;

use crate::{access::actions::ListShelves, domain::Shelf};

#[derive(Debug, Deserialize)]
struct ShelfRow {
    name: String,
}

/// Reads the first 100 shelves, in order of name.
pub async fn first(database: &Database, permit: &Permit<ListShelves>) -> Result<Vec<Shelf>, DbError> {
    let statement = palisade::read_one!(
        permit,
        ShelfRow,
        "select name from shelves where tenant_id = t.tenant order by name limit 100"
    );
    let rows = database.read_page(permit, statement).await?;
    rows.into_iter().map(|row| Ok(Shelf { name: parse_stored(&row.name)? })).collect()
}
