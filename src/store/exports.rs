//! SQL of exports: the orders and invoices of a period, page by page (CRYPTO-09).
//!
//! In: the permit of the export, a period and a position. Out: counts for the row limit, and pages
//! in keyset pagination. Each page is a separate transaction, so a slow client holds no
//! connection. `api/exports` calls this.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Database, Position,
    keyset::clamp_time,
    orders::{LineRow, OrderRow, select_orders},
};
use crate::{
    authz::{Permit, actions::CreateExport},
    db::{DbError, parse_stored},
    domain::{Currency, InvoiceStatus, Order},
};

/// A half-open interval of time.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// Start, inclusive.
    pub from: DateTime<Utc>,
    /// End, exclusive.
    pub to: DateTime<Utc>,
}

/// An invoice without its lines, as an export holds it.
#[derive(Clone, Debug)]
pub struct ExportedInvoice {
    /// The id of the invoice.
    pub id: Uuid,
    /// The number of the invoice, unique in its tenant.
    pub number: i64,
    /// The id of the invoiced order.
    pub order: Uuid,
    /// The status of the invoice.
    pub status: InvoiceStatus,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The invoiced amount, in minor units.
    pub total: i64,
    /// The paid amount, in minor units.
    pub paid: i64,
    /// The refunded amount, in minor units.
    pub refunded: i64,
    /// The subject of the principal that issued it.
    pub issued_by: String,
    /// The time of issue.
    pub issued_at: DateTime<Utc>,
    /// The time of the last change.
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
    type Error = DbError;

    fn try_from(row: InvoiceRow) -> Result<Self, DbError> {
        Ok(Self {
            id: row.id,
            number: row.number,
            order: row.order_id,
            status: parse_stored(&row.status)?,
            currency: parse_stored(&row.total_currency)?,
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
    /// Counts the orders of a period, up to `limit`.
    pub async fn count_orders(
        &self,
        permit: &Permit<CreateExport>,
        period: Period,
        limit: i64,
    ) -> Result<i64, DbError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (
                   select from orders where tenant_id = $1 and created_at >= $2 and created_at < $3 limit $4) o"#,
            tenant,
            clamp_time(period.from),
            clamp_time(period.to),
            limit
        );
        Ok(count.fetch_one(tx.connection()).await?)
    }

    /// Counts the invoices of a period, up to `limit`.
    pub async fn count_invoices(
        &self,
        permit: &Permit<CreateExport>,
        period: Period,
        limit: i64,
    ) -> Result<i64, DbError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (
                   select from invoices where tenant_id = $1 and issued_at >= $2 and issued_at < $3 limit $4) i"#,
            tenant,
            clamp_time(period.from),
            clamp_time(period.to),
            limit
        );
        Ok(count.fetch_one(tx.connection()).await?)
    }

    /// Reads a page of at most `limit` orders after `position`, created at `from` or later, newest
    /// first.
    pub async fn orders_from(
        &self,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<Order>, DbError> {
        let tenant = permit.tenant().uuid();
        let mut tx = self.read(permit).await?;
        let rows = select_orders!(
            ["order_documents where tenant_id = $1 and created_at >= $2 and (created_at, id) < ($3, $4)
              order by created_at desc, id desc limit $5"],
            tenant,
            clamp_time(from),
            position.time(),
            position.id,
            limit
        );
        rows.fetch_all(tx.connection()).await?.into_iter().map(Order::try_from).collect()
    }

    /// Reads a page of at most `limit` invoices after `position`, issued at `from` or later, newest
    /// first.
    pub async fn invoices_from(
        &self,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<ExportedInvoice>, DbError> {
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
            clamp_time(from),
            position.time(),
            position.id,
            limit
        );
        rows.fetch_all(tx.connection()).await?.into_iter().map(ExportedInvoice::try_from).collect()
    }
}
