//! Operations on the tenant's product catalogue and their schemas.
//!
//! Reads accept a SKU in any case; the catalogue stores it in upper case. An order copies the price
//! of its products, so a change here never reaches an order that was placed.

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{Context, field_errors::FieldErrors, paging::Paging, strict_json::StrictJson, text::Text},
    problem::{Kind, Problem},
};
use poem::Result;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::Example,
};

use super::{
    Tag,
    money::{MoneyView, Price},
};
use crate::{
    access::actions::{GetProduct, ListProducts, PutProduct},
    api::formats,
    domain::{Money, Product, Sku},
    store::products,
};

pub(crate) struct Products {
    pub(crate) context: Arc<Context>,
}

/// A product of the tenant's catalogue.
#[derive(Debug, Object)]
#[oai(rename = "Product")]
struct ProductView {
    /// Stock keeping unit, unique in the tenant: 3 to 64 upper-case letters, digits and hyphens.
    sku: Text<formats::Sku>,
    /// Display name, 1 to 200 characters.
    name: Text<formats::Name>,
    /// Current price of one unit.
    price: MoneyView,
}

/// One page of products, sorted by SKU.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "ProductPage")]
struct ProductPage {
    /// Products of the page, at most 100.
    #[oai(validator(max_items = 100))]
    items: Vec<ProductView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    next_cursor: Option<Text<formats::Cursor>>,
}

/// Name and price of a product.
#[derive(Debug, Object)]
#[oai(rename = "ProductData", example)]
struct ProductData {
    /// Display name, 1 to 200 characters.
    name: Text<formats::Name>,
    /// Price of one unit, for orders placed from now on.
    price: Price,
}

#[derive(ApiResponse)]
enum Put {
    /// The product existed; its name and price were replaced.
    #[oai(status = 200)]
    Replaced(Json<ProductView>),
    /// The product was created.
    #[oai(status = 201)]
    Created(Json<ProductView>),
}

impl From<Product> for ProductView {
    fn from(product: Product) -> Self {
        Self { sku: product.sku.as_str().into(), name: product.name.as_str().into(), price: product.price.into() }
    }
}

impl Example for ProductData {
    fn example() -> Self {
        Self { name: "Stapler, red".into(), price: Price { amount: 1499, currency: "EUR".into() } }
    }
}

impl ProductData {
    fn into_domain(self, sku: &str) -> Result<Product, Problem> {
        let mut errors = FieldErrors::default();
        let sku = errors.parse("sku", sku);
        let name = errors.parse("/name", &self.name);
        let price = errors.note("/price", "invalid", Money::try_from(&self.price));
        let product = match (sku, name, price) {
            (Some(sku), Some(name), Some(price)) => Some(Product { sku, name, price }),
            _ => None,
        };
        errors.finish(product)
    }
}

#[OpenApi(tag = "Tag::Catalog")]
impl Products {
    /// List products
    ///
    /// Lists the products of the tenant's catalogue, sorted by SKU.
    #[oai(path = "/v1/products", method = "get", operation_id = "listProducts")]
    async fn list(
        &self,
        permit: &Permit<ListProducts>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(
            default = "palisade::http::paging::default_limit",
            validator(minimum(value = "1"), maximum(value = "100"))
        )]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<ProductPage>> {
        let paging = Paging::new(&self.context.mac_key, "products", permit.tenant(), limit.0);
        let after: Option<Sku> = paging.open(cursor.0.as_deref())?;
        let mut products = products::page(&self.context.database, permit, after.as_ref(), paging.read_ahead()).await?;
        let next_cursor = paging.cut(&mut products, |product| product.sku.to_string());
        Ok(Json(ProductPage { items: products.into_iter().map(ProductView::from).collect(), next_cursor }))
    }

    /// Get a product
    ///
    /// Returns the product with this SKU at its current price.
    #[oai(path = "/v1/products/:sku", method = "get", operation_id = "getProduct")]
    async fn get(
        &self,
        permit: &Permit<GetProduct>,
        /// Stock keeping unit, case-insensitive: 3 to 64 letters, digits and hyphens.
        sku: Path<Text<formats::AnySku>>,
    ) -> Result<Json<ProductView>> {
        let sku: Sku = sku.0.parse().map_err(|_| Problem::new(Kind::InvalidInput).at("sku", "format"))?;
        let product = products::get(&self.context.database, permit, &sku).await?;
        Ok(Json(product.ok_or_else(|| Problem::new(Kind::NotFound))?.into()))
    }

    /// Create or replace a product
    ///
    /// Creates the product (201) or replaces its name and price (200). Idempotent (RFC 9110 section
    /// 9.2.2). Orders that are already placed keep their prices.
    #[oai(path = "/v1/products/:sku", method = "put", operation_id = "putProduct")]
    async fn put(
        &self,
        permit: &Permit<PutProduct>,
        /// Stock keeping unit, case-insensitive: 3 to 64 letters, digits and hyphens.
        sku: Path<Text<formats::AnySku>>,
        body: StrictJson<ProductData>,
    ) -> Result<Put> {
        let product = body.value.into_domain(&sku.0)?;
        let tx = self.context.database.write(permit).await?;
        let is_new = products::put(&tx, &product).await?;
        tx.commit(permit, &product.sku).await?;
        let view = Json(product.into());
        Ok(if is_new { Put::Created(view) } else { Put::Replaced(view) })
    }
}
