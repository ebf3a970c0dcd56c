use std::sync::Arc;

use poem::Result;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::Example,
};

use super::{
    Context, Tag,
    faults::Faults,
    money::{MoneyView, Price},
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
};
use crate::{
    authz::{
        Permit,
        actions::{GetProduct, ListProducts, PutProduct},
    },
    domain::{Money, Product, Sku},
    problem::{Kind, Problem},
};

pub(super) struct Products(pub(super) Arc<Context>);

/// An entry of the tenant's catalogue.
#[derive(Debug, Object)]
#[oai(rename = "Product")]
struct ProductView {
    /// Stock keeping unit, upper case.
    sku: Text<form::Sku>,
    /// For display.
    name: Text<form::Name>,
    /// Of one unit, now.
    price: MoneyView,
}

/// One page of the catalogue, by sku.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "ProductPage")]
struct ProductPage {
    /// The products of the page.
    #[oai(validator(max_items = 100))]
    items: Vec<ProductView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    next_cursor: Option<Text<form::Cursor>>,
}

/// What a product is to be.
#[derive(Debug, Object)]
#[oai(rename = "ProductData", example)]
struct ProductData {
    /// For display.
    name: Text<form::Name>,
    /// Of one unit. Orders that were placed keep theirs.
    price: Price,
}

#[derive(ApiResponse)]
enum Put {
    /// The product was changed.
    #[oai(status = 200)]
    Changed(Json<ProductView>),
    /// The product was added.
    #[oai(status = 201)]
    Added(Json<ProductView>),
}

impl From<Product> for ProductView {
    fn from(product: Product) -> Self {
        let (name, price) = (product.name.as_str().into(), product.price.into());
        Self { sku: product.sku.as_str().into(), name, price }
    }
}

impl Example for ProductData {
    fn example() -> Self {
        Self { name: "Stapler, red".into(), price: Price { amount: 1499, currency: "EUR".into() } }
    }
}

impl ProductData {
    fn into_domain(self, sku: &str) -> Result<Product, Problem> {
        let mut faults = Faults::default();
        let sku = faults.parse("sku", sku);
        let name = faults.parse("/name", &self.name);
        let price = faults.note("/price", "invalid", Money::try_from(&self.price));
        let whole = || Some(Product { sku: sku?, name: name?, price: price? });
        let whole = whole();
        faults.finish(whole)
    }
}

#[OpenApi(tag = "Tag::Catalog")]
impl Products {
    /// List products
    ///
    /// By the number they are kept under.
    #[oai(path = "/v1/products", method = "get", operation_id = "listProducts")]
    async fn list(
        &self,
        permit: Permit<ListProducts>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<Text<form::Cursor>>>,
    ) -> Result<Json<ProductPage>> {
        let paging = Paging::new(&self.0.mac_key, "products", permit.tenant(), limit.0);
        let after: Option<Sku> = paging.open(cursor.0.as_deref())?;
        let mut tx = self.0.database.read(&permit).await?;
        let mut products = tx.products(after.as_ref(), paging.read_ahead()).await?;
        let next_cursor = paging.cut(&mut products, |product| product.sku.to_string());
        Ok(Json(ProductPage { items: products.into_iter().map(ProductView::from).collect(), next_cursor }))
    }

    /// Get one product
    ///
    /// By the number it is kept under, in upper or lower case.
    #[oai(path = "/v1/products/:sku", method = "get", operation_id = "getProduct")]
    async fn get(
        &self,
        permit: Permit<GetProduct>,
        /// Stock keeping unit; lower case is taken for upper case.
        sku: Path<Text<form::AnySku>>,
    ) -> Result<Json<ProductView>> {
        let sku: Sku = sku.0.parse().map_err(|_| Problem::new(Kind::InvalidInput).at("sku", "format"))?;
        let product = self.0.database.product(&permit, &sku).await?;
        Ok(Json(product.ok_or_else(|| Problem::new(Kind::NotFound))?.into()))
    }

    /// Add a product, or change one
    ///
    /// Orders that were placed keep the price they were placed at.
    #[oai(path = "/v1/products/:sku", method = "put", operation_id = "putProduct")]
    async fn put(
        &self,
        permit: Permit<PutProduct>,
        /// Stock keeping unit; lower case is taken for upper case.
        sku: Path<Text<form::AnySku>>,
        body: StrictJson<ProductData>,
    ) -> Result<Put> {
        let product = body.value.into_domain(&sku.0)?;
        let mut tx = self.0.database.write(&permit).await?;
        let added = tx.put_product(&product).await?;
        tx.commit(&permit, &product.sku).await?;
        let view = Json(product.into());
        Ok(if added { Put::Added(view) } else { Put::Changed(view) })
    }
}
