use serde::Deserialize;

use super::{Database, ReadTx, StoreError, WriteTx, position::stored, traced::Traced};
use crate::{
    authz::{
        Permit,
        actions::{GetProduct, ListProducts, PutProduct},
    },
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
    type Error = StoreError;

    fn try_from(row: ProductRow) -> Result<Self, StoreError> {
        let currency: Currency = stored(&row.price_currency)?;
        let price = Money::new(row.price_amount, currency).map_err(StoreError::broken)?;
        Ok(Self { sku: stored(&row.sku)?, name: stored(&row.name)?, price })
    }
}

impl ReadTx<ListProducts> {
    /// At most `limit` products whose sku comes after `after`, by sku.
    pub async fn products(&mut self, after: Option<&Sku>, limit: i64) -> Result<Vec<Product>, StoreError> {
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
    /// The product of this sku, read in one message.
    pub async fn product(&self, permit: &Permit<GetProduct>, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query_as!(
            ProductRow,
            r#"select sku as "sku!", name as "name!", price_amount as "price_amount!",
                      price_currency as "price_currency!"
               from read_product($1, $2)"#,
            permit.tenant().uuid(),
            sku.as_str()
        )
        .fetch_optional(Traced(&mut *self.reader.connection().await?))
        .await?;
        row.map(Product::try_from).transpose()
    }
}

impl WriteTx<PutProduct> {
    /// Adds the product, or changes the one of this sku. True if it was added.
    pub async fn put_product(&mut self, product: &Product) -> Result<bool, StoreError> {
        let (tenant, currency) = (self.tenant().uuid(), product.price.currency());
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
