//! SQL of products, the tenant's catalogue.
//!
//! In: permits and parsed domain values. Out: products. The handlers of `api/products` call this;
//! `orders` reads products to price an order.

use serde::Deserialize;

use super::{Database, ReadTx, WriteTx};
use crate::{
    authz::{
        Permit,
        actions::{GetProduct, ListProducts, PutProduct},
    },
    db::{DbError, TracingExecutor, parse_stored},
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

impl ReadTx<ListProducts> {
    /// Reads a page of at most `limit` products with an SKU after `after`, in order of SKU.
    pub async fn products(&mut self, after: Option<&Sku>, limit: i64) -> Result<Vec<Product>, DbError> {
        let tenant = self.tenant().uuid();
        let rows = sqlx::query_as!(
            ProductRow,
            r#"select sku, name, price_amount, price_currency from products
               where tenant_id = $1 and sku > $2 order by sku limit $3"#,
            tenant,
            after.map_or("", Sku::as_str),
            limit
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(Product::try_from).collect()
    }
}

impl Database {
    /// Reads the product of this SKU, in one round trip.
    pub async fn product(&self, permit: &Permit<GetProduct>, sku: &Sku) -> Result<Option<Product>, DbError> {
        let row = sqlx::query_as!(
            ProductRow,
            r#"select sku as "sku!", name as "name!", price_amount as "price_amount!",
                      price_currency as "price_currency!"
               from read_product($1, $2)"#,
            permit.tenant().uuid(),
            sku.as_str()
        )
        .fetch_optional(TracingExecutor(&mut *self.reader.connection().await?))
        .await?;
        row.map(Product::try_from).transpose()
    }
}

impl WriteTx<PutProduct> {
    /// Adds the product, or replaces the one with its SKU. True if it was added.
    pub async fn put_product(&mut self, product: &Product) -> Result<bool, DbError> {
        let tenant = self.tenant().uuid();
        let currency = product.price.currency();
        let added = sqlx::query_scalar!(
            r#"insert into products (tenant_id, sku, name, price_amount, price_currency)
               values ($1, $2, $3, $4, $5)
               on conflict (tenant_id, sku) do update
               set name = excluded.name, price_amount = excluded.price_amount,
                   price_currency = excluded.price_currency
               -- A row version that replaced none has no deleter.
               returning (xmax = 0) as "added!""#,
            tenant,
            product.sku.as_str(),
            product.name.as_str(),
            product.price.amount(),
            currency.as_str()
        )
        .fetch_one(self.connection())
        .await?;
        Ok(added)
    }
}
