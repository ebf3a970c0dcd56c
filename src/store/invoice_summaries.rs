//! SQL of lists of invoices: summaries without lines, payments and refunds, so that a page is bounded.
//!
//! In: permits and positions. Out: summaries. `api/invoices` calls this, and `exports` reads the
//! same rows.

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    store::{Database, DbError, Position, parse_stored},
};
use uuid::Uuid;

use super::invoices::money;
use crate::{
    access::actions::ListInvoices,
    domain::{Currency, InvoiceId, InvoiceSummary, OrderId},
};

/// A row of `invoices`, as lists and exports read it.
pub(super) struct SummaryRow {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) order_id: Uuid,
    pub(super) status: String,
    pub(super) total_currency: String,
    pub(super) total_amount: i64,
    pub(super) paid_amount: i64,
    pub(super) refunded_amount: i64,
    pub(super) issued_by: String,
    pub(super) issued_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

impl TryFrom<SummaryRow> for InvoiceSummary {
    type Error = DbError;

    fn try_from(row: SummaryRow) -> Result<Self, DbError> {
        let currency: Currency = parse_stored(&row.total_currency)?;
        Ok(Self {
            id: InvoiceId::from_uuid(row.id),
            number: row.number,
            order: OrderId::from_uuid(row.order_id),
            status: parse_stored(&row.status)?,
            total: money(row.total_amount, currency)?,
            paid: money(row.paid_amount, currency)?,
            refunded: money(row.refunded_amount, currency)?,
            issued_by: row.issued_by,
            issued_at: row.issued_at,
            updated_at: row.updated_at,
        })
    }
}

/// Reads a page of at most `limit` invoices after `from`, newest first.
pub async fn page(
    database: &Database,
    permit: &Permit<ListInvoices>,
    from: Position,
    limit: i64,
) -> Result<Vec<InvoiceSummary>, DbError> {
    let statement = palisade::read_one!(
        permit,
        SummaryRow,
        "select id, number, order_id, status, total_currency, total_amount, paid_amount, refunded_amount, issued_by,
                issued_at, updated_at
         from invoices
         where tenant_id = t.tenant and (issued_at, id) < ($2, $3)
         order by issued_at desc, id desc limit $4",
        from.time(),
        from.id,
        limit
    );
    database.read_page(permit, statement).await?.into_iter().map(InvoiceSummary::try_from).collect()
}
