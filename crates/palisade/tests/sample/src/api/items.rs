//! The operation on items: its path has a parameter that the log may show.

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{Context, text::Text},
    problem::{Kind, Problem},
};
use poem::Result;
use poem_openapi::{Object, OpenApi, param::Path, payload::Json};

use super::Tag;
use crate::{access::actions::GetItem, formats, store};

pub(crate) struct Items {
    pub(crate) context: Arc<Context>,
}

/// An item of the tenant's notes.
#[derive(Object)]
#[oai(rename = "ItemCount")]
struct ItemView {
    /// Code of the item.
    code: Text<formats::Code>,
    /// Number of notes that list it.
    #[oai(validator(minimum(value = "1"), maximum(value = "9007199254740991")))]
    notes: i64,
}

#[OpenApi(tag = "Tag::Notes")]
impl Items {
    /// Count the notes that list an item
    ///
    /// Returns the number of notes that list the code, or 404 if none does.
    #[oai(path = "/v1/items/:code", method = "get", operation_id = "getItem")]
    async fn get(
        &self,
        permit: &Permit<GetItem>,
        /// Code of the item.
        code: Path<Text<formats::Code>>,
    ) -> Result<Json<ItemView>> {
        let notes = store::count_with_item(&self.context.database, permit, &code.0).await?;
        if notes == 0 {
            return Err(Problem::new(Kind::NotFound).into());
        }
        Ok(Json(ItemView { code: code.0, notes }))
    }
}
