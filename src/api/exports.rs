//! The rows of exports: orders, selected by time of placing, and invoices, by time of issue.

use chrono::{DateTime, Utc};
use palisade::{
    authz::Permit,
    operations::{Cell, ExportRow, ExportRows},
    store::{Database, DbError, Period, Position},
};
use poem_openapi::Enum;

use crate::{
    access::actions::CreateExport,
    domain::{InvoiceSummary, Order},
    store::exports,
};

/// Header line of an export of orders. Amounts are in minor units.
const ORDER_COLUMNS: [&str; 10] = [
    "id",
    "customerId",
    "status",
    "shippingSpeed",
    "totalAmount",
    "currency",
    "lines",
    "note",
    "createdBy",
    "createdAt",
];

/// Header line of an export of invoices. Amounts are in minor units.
const INVOICE_COLUMNS: [&str; 11] = [
    "id",
    "number",
    "orderId",
    "status",
    "totalAmount",
    "paidAmount",
    "refundedAmount",
    "currency",
    "issuedBy",
    "issuedAt",
    "updatedAt",
];

/// Kind of export: `orders`, selected by time of placing, or `invoices`, selected by time of issue.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[oai(rename_all = "camelCase")]
pub(crate) enum ExportKind {
    Orders,
    Invoices,
}

impl ExportRows for ExportKind {
    type Action = CreateExport;

    const EXAMPLE: Self = Self::Orders;

    fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Invoices => "invoices",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Orders => &ORDER_COLUMNS,
            Self::Invoices => &INVOICE_COLUMNS,
        }
    }

    async fn count(
        self,
        database: &Database,
        permit: &Permit<CreateExport>,
        period: Period,
        limit: i64,
    ) -> Result<i64, DbError> {
        match self {
            Self::Orders => exports::count_orders(database, permit, period, limit).await,
            Self::Invoices => exports::count_invoices(database, permit, period, limit).await,
        }
    }

    async fn page(
        self,
        database: &Database,
        permit: &Permit<CreateExport>,
        from: DateTime<Utc>,
        position: Position,
        limit: i64,
    ) -> Result<Vec<ExportRow>, DbError> {
        Ok(match self {
            Self::Orders => {
                let orders = exports::orders(database, permit, from, position, limit).await?;
                orders.iter().map(order_row).collect()
            }
            Self::Invoices => {
                let invoices = exports::invoices(database, permit, from, position, limit).await?;
                invoices.iter().map(invoice_row).collect()
            }
        })
    }
}

fn order_row(order: &Order) -> ExportRow {
    let lines: Vec<_> =
        order.lines.iter().map(|line| format!("{} x {}", line.quantity.get(), line.sku.as_str())).collect();
    let cells = vec![
        Cell::value(&order.id.uuid()),
        order.customer.map_or_else(Cell::empty, |customer| Cell::value(&customer.uuid())),
        Cell::value(&order.status.as_str()),
        Cell::value(&order.shipping_speed.as_str()),
        Cell::value(&order.total.amount()),
        Cell::text(order.total.currency().as_str()),
        Cell::text(&lines.join("; ")),
        order.note.as_deref().map_or_else(Cell::empty, Cell::text),
        Cell::text(&order.created_by),
        Cell::time(order.created_at),
    ];
    ExportRow { position: Position { at: order.created_at, id: order.id.uuid() }, cells }
}

fn invoice_row(invoice: &InvoiceSummary) -> ExportRow {
    let cells = vec![
        Cell::value(&invoice.id.uuid()),
        Cell::value(&invoice.number),
        Cell::value(&invoice.order.uuid()),
        Cell::value(&invoice.status.as_str()),
        Cell::value(&invoice.total.amount()),
        Cell::value(&invoice.paid.amount()),
        Cell::value(&invoice.refunded.amount()),
        Cell::text(invoice.total.currency().as_str()),
        Cell::text(&invoice.issued_by),
        Cell::time(invoice.issued_at),
        Cell::time(invoice.updated_at),
    ];
    ExportRow { position: Position { at: invoice.issued_at, id: invoice.id.uuid() }, cells }
}
