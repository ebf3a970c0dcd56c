use super::{ReadTx, StoreError, WriteTx};
use crate::{
    authz::actions::{CreateOrder, GetProduct, ListProducts},
    domain::{Currency, Money, NewOrder, Product, Sku},
};

struct ProductRow {
    sku: String,
    name: String,
    price_amount: i64,
    price_currency: String,
}

impl TryFrom<ProductRow> for Product {
    type Error = StoreError;

    fn try_from(row: ProductRow) -> Result<Self, StoreError> {
        let currency: Currency = row.price_currency.parse().map_err(StoreError::broken)?;
        Ok(Self {
            sku: row.sku.parse().map_err(StoreError::broken)?,
            name: row.name,
            price: Money::new(row.price_amount, currency).map_err(StoreError::broken)?,
        })
    }
}

impl ReadTx<ListProducts> {
    /// At most `limit` products whose sku comes after `after`, by sku.
    pub async fn products(&mut self, after: Option<&Sku>, limit: i64) -> Result<Vec<Product>, StoreError> {
        let tenant = *self.tenant().as_uuid();
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

impl ReadTx<GetProduct> {
    /// The product of this sku.
    pub async fn product(&mut self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let tenant = *self.tenant().as_uuid();
        let row = sqlx::query_as!(
            ProductRow,
            "select sku, name, price_amount, price_currency from products where tenant_id = $1 and sku = $2",
            tenant,
            sku.as_str()
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Product::try_from).transpose()
    }
}

impl WriteTx<CreateOrder> {
    /// The catalogue's entries for what is being ordered.
    pub async fn products_of(&mut self, order: &NewOrder) -> Result<Vec<Product>, StoreError> {
        let tenant = *self.tenant().as_uuid();
        let skus: Vec<String> = order.skus().map(|sku| sku.as_str().to_owned()).collect();
        let rows = sqlx::query_as!(
            ProductRow,
            "select sku, name, price_amount, price_currency from products where tenant_id = $1 and sku = any($2)",
            tenant,
            &skus
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(Product::try_from).collect()
    }
}
