//! SQL of exports: the orders and invoices of a period, page by page (CRYPTO-09).
//!
//! In: the permit of the export, a period and a position. Out: counts for the row limit, and pages
//! in keyset pagination. Each page is one message, so a slow client holds no connection. `api/exports` calls this.

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    store::{Database, DbError, Period, Position, clamp_time},
};

use super::{
    invoice_summaries::SummaryRow,
    orders::{OrderRow, collect, orders},
};
use crate::{
    access::actions::CreateExport,
    domain::{InvoiceSummary, Order},
};

struct CountRow {
    count: i64,
}

/// Counts the orders of a period, up to `limit`.
pub async fn count_orders(
    database: &Database,
    permit: &Permit<CreateExport>,
    period: Period,
    limit: i64,
) -> Result<i64, DbError> {
    let statement = palisade::read_one!(
        permit,
        CountRow,
        r#"select count(*) as "count!" from (
               select from orders where tenant_id = t.tenant and created_at >= $2 and created_at < $3 limit $4) o"#,
        clamp_time(period.from),
        clamp_time(period.to),
        limit
    );
    Ok(database.read_one(permit, statement).await?.map_or(0, |row| row.count))
}

/// Counts the invoices of a period, up to `limit`.
pub async fn count_invoices(
    database: &Database,
    permit: &Permit<CreateExport>,
    period: Period,
    limit: i64,
) -> Result<i64, DbError> {
    let statement = palisade::read_one!(
        permit,
        CountRow,
        r#"select count(*) as "count!" from (
               select from invoices where tenant_id = t.tenant and issued_at >= $2 and issued_at < $3 limit $4) i"#,
        clamp_time(period.from),
        clamp_time(period.to),
        limit
    );
    Ok(database.read_one(permit, statement).await?.map_or(0, |row| row.count))
}

/// Reads a page of at most `limit` orders after `position`, created at `from` or later, newest
/// first.
pub async fn orders(
    database: &Database,
    permit: &Permit<CreateExport>,
    from: DateTime<Utc>,
    position: Position,
    limit: i64,
) -> Result<Vec<Order>, DbError> {
    let statement = orders!(
        read_one,
        permit,
        "t.tenant",
        ["select * from orders where tenant_id = t.tenant and created_at >= $2 and (created_at, id) < ($3, $4)
          order by created_at desc, id desc limit $5"],
        "",
        clamp_time(from),
        position.time(),
        position.id,
        limit
    );
    collect(database.read_page(permit, statement).await?)
}

/// Reads a page of at most `limit` invoices after `position`, issued at `from` or later, newest
/// first.
pub async fn invoices(
    database: &Database,
    permit: &Permit<CreateExport>,
    from: DateTime<Utc>,
    position: Position,
    limit: i64,
) -> Result<Vec<InvoiceSummary>, DbError> {
    let statement = palisade::read_one!(
        permit,
        SummaryRow,
        "select id, number, order_id, status, total_currency, total_amount, paid_amount, refunded_amount, issued_by,
                issued_at, updated_at
         from invoices
         where tenant_id = t.tenant and issued_at >= $2 and (issued_at, id) < ($3, $4)
         order by issued_at desc, id desc limit $5",
        clamp_time(from),
        position.time(),
        position.id,
        limit
    );
    database.read_page(permit, statement).await?.into_iter().map(InvoiceSummary::try_from).collect()
}
