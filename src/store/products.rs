//! SQL of products, the tenant's catalogue.
//!
//! In: permits and parsed domain values. Out: products. The handlers of `api/products` call this;
//! `orders` reads products to price an order.

use palisade::{
    authz::Permit,
    store::{Database, DbError, WriteTx, parse_stored},
};
use serde::Deserialize;

use crate::{
    access::actions::{GetProduct, ListProducts, PutProduct},
    domain::{Currency, Money, Product, Sku},
};

#[derive(Debug, Deserialize)]
pub(super) struct ProductRow {
    sku: String,
    name: String,
    price_amount: i64,
    price_currency: String,
}

impl TryFrom<ProductRow> for Product {
    type Error = DbError;

    fn try_from(row: ProductRow) -> Result<Self, DbError> {
        let currency: Currency = parse_stored(&row.price_currency)?;
        let price = Money::new(row.price_amount, currency).map_err(DbError::broken)?;
        Ok(Self { sku: parse_stored(&row.sku)?, name: parse_stored(&row.name)?, price })
    }
}

/// Reads a page of at most `limit` products with an SKU after `after`, in order of SKU.
pub async fn page(
    database: &Database,
    permit: &Permit<ListProducts>,
    after: Option<&Sku>,
    limit: i64,
) -> Result<Vec<Product>, DbError> {
    let statement = palisade::read_one!(
        permit,
        ProductRow,
        "select sku, name, price_amount, price_currency from products
         where tenant_id = t.tenant and sku > $2 order by sku limit $3",
        after.map_or("", Sku::as_str),
        limit
    );
    database.read_page(permit, statement).await?.into_iter().map(Product::try_from).collect()
}

/// Reads the product of this SKU.
pub async fn get(database: &Database, permit: &Permit<GetProduct>, sku: &Sku) -> Result<Option<Product>, DbError> {
    let statement = palisade::read_one!(
        permit,
        ProductRow,
        "select sku, name, price_amount, price_currency from products where tenant_id = t.tenant and sku = $2",
        sku.as_str()
    );
    database.read_one(permit, statement).await?.map(Product::try_from).transpose()
}

struct PutRow {
    is_new: bool,
}

/// Adds the product, or replaces the one with its SKU. True if it was added.
pub async fn put(tx: &WriteTx<'_, PutProduct>, product: &Product) -> Result<bool, DbError> {
    let currency = product.price.currency();
    // A row version that replaced none has no deleter (`xmax`).
    let statement = palisade::insert_returning!(
        tx,
        PutRow,
        r#"insert into products (tenant_id, sku, name, price_amount, price_currency)
           values ($1, $2, $3, $4, $5)
           on conflict (tenant_id, sku) do update
           set name = excluded.name, price_amount = excluded.price_amount, price_currency = excluded.price_currency
           returning (xmax = 0) as "is_new!""#,
        product.sku.as_str(),
        product.name.as_str(),
        product.price.amount(),
        currency.as_str()
    );
    Ok(tx.insert_returning(statement).await?.is_new)
}
