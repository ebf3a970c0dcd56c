//! The books of a period, page by page. No connection is held while a caller reads slowly.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Database, Position, StoreError,
    orders::{LineRow, OrderRow, select_orders},
    position::{storable, stored},
};
use crate::{
    authz::{Permit, actions::CreateExport},
    domain::{Currency, InvoiceStatus, Order},
};

/// From a time, to before another.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// The first moment that counts.
    pub from: DateTime<Utc>,
    /// The first one that does not count any more.
    pub to: DateTime<Utc>,
}

/// An invoice without its lines.
#[derive(Clone, Debug)]
pub struct ExportedInvoice {
    /// Its identifier.
    pub id: Uuid,
    /// Its number.
    pub number: i64,
    /// Of which order.
    pub order: Uuid,
    /// Where it is in its life.
    pub status: InvoiceStatus,
    /// In which currency the amounts are.
    pub currency: Currency,
    /// What it is about, in minor units.
    pub total: i64,
    /// What came in, in minor units.
    pub paid: i64,
    /// What went back, in minor units.
    pub refunded: i64,
    /// Who issued it.
    pub issued_by: String,
    /// When.
    pub issued_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

struct InvoiceRow {
    id: Uuid,
    number: i64,
    order_id: Uuid,
    status: String,
    total_currency: String,
    total_amount: i64,
    paid_amount: i64,
    refunded_amount: i64,
    issued_by: String,
    issued_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<InvoiceRow> for ExportedInvoice {
    type Error = StoreError;

    fn try_from(row: InvoiceRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            number: row.number,
            order: row.order_id,
            status: stored(&row.status)?,
            currency: stored(&row.total_currency)?,
            total: row.total_amount,
            paid: row.paid_amount,
            refunded: row.refunded_amount,
            issued_by: row.issued_by,
            issued_at: row.issued_at,
            updated_at: row.updated_at,
        })
    }
}

impl Database {
    /// How many orders of a period there are, counted up to `most`.
    pub async fn count_orders(
        &self,
        permit: &Permit<CreateExport>,
        period: Period,
        most: i64,
    ) -> Result<i64, StoreError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (
                   select from orders where tenant_id = $1 and created_at >= $2 and created_at < $3 limit $4) o"#,
            tenant,
            storable(period.from),
            storable(period.to),
            most
        );
        Ok(count.fetch_one(tx.connection()).await?)
    }

    /// How many invoices of a period there are, counted up to `most`.
    pub async fn count_invoices(
        &self,
        permit: &Permit<CreateExport>,
        period: Period,
        most: i64,
    ) -> Result<i64, StoreError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (
                   select from invoices where tenant_id = $1 and issued_at >= $2 and issued_at < $3 limit $4) i"#,
            tenant,
            storable(period.from),
            storable(period.to),
            most
        );
        Ok(count.fetch_one(tx.connection()).await?)
    }

    /// At most `limit` orders after `position` that are not older than `from`, newest first.
    pub async fn orders_from(
        &self,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<Order>, StoreError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let rows = select_orders!(
            ["order_documents where tenant_id = $1 and created_at >= $2 and (created_at, id) < ($3, $4)
              order by created_at desc, id desc limit $5"],
            tenant,
            storable(from),
            position.time(),
            position.id,
            limit
        );
        rows.fetch_all(tx.connection()).await?.into_iter().map(Order::try_from).collect()
    }

    /// At most `limit` invoices after `position` that are not older than `from`, newest first.
    pub async fn invoices_from(
        &self,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<ExportedInvoice>, StoreError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let rows = sqlx::query_as!(
            InvoiceRow,
            "select id, number, order_id, status, total_currency, total_amount, paid_amount, refunded_amount, issued_by,
                    issued_at, updated_at
             from invoices
             where tenant_id = $1 and issued_at >= $2 and (issued_at, id) < ($3, $4)
             order by issued_at desc, id desc limit $5",
            tenant,
            storable(from),
            position.time(),
            position.id,
            limit
        );
        rows.fetch_all(tx.connection()).await?.into_iter().map(ExportedInvoice::try_from).collect()
    }
}
