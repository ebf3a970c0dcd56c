//! Operations on shelves.

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{Context, text::Text},
};
use poem::Result;
use poem_openapi::{Object, OpenApi, payload::Json};

use super::Tag;
use crate::{access::actions::ListShelves, api::formats, store::shelves};

pub(crate) struct Shelves {
    pub(crate) context: Arc<Context>,
}

/// A shelf of the tenant's warehouse.
#[derive(Debug, Object)]
#[oai(rename = "Shelf")]
struct ShelfView {
    /// Display name, 1 to 200 characters.
    name: Text<formats::Name>,
}

/// The first shelves, sorted by name.
#[derive(Debug, Object)]
struct ShelfList {
    /// At most 100 shelves.
    #[oai(validator(max_items = 100))]
    items: Vec<ShelfView>,
}

#[OpenApi(tag = "Tag::Catalog")]
impl Shelves {
    /// List shelves
    ///
    /// Lists the first 100 shelves of the tenant, sorted by name.
    #[oai(path = "/v1/shelves", method = "get", operation_id = "listShelves")]
    async fn list(&self, permit: &Permit<ListShelves>) -> Result<Json<ShelfList>> {
        let shelves = shelves::first(&self.context.database, permit).await?;
        let items = shelves.into_iter().map(|shelf| ShelfView { name: shelf.name.as_str().into() }).collect();
        Ok(Json(ShelfList { items }))
    }
}
