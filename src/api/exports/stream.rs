//! The stream behind an export: reads, encodes and encrypts one page of rows at a time (CRYPTO-09).
//!
//! The next page is read when the caller has taken the previous one. So memory stays bounded, and
//! no connection is held while the caller reads slowly. When the stream ends or is dropped, the
//! number of rows sent is logged.

use std::{io, sync::Arc};

use futures_util::{Stream, stream};

use super::{
    csv::{Cell, encode},
    schema::ExportKind,
};
use crate::{
    authz::{Permit, actions::CreateExport},
    crypto::{AgeEncryptor, AgeError, Recipient},
    domain::Order,
    http::Context,
    store::{ExportedInvoice, Period, Position},
    telemetry::{RequestTelemetry, event},
};

/// Rows per page.
const PAGE_ROWS: i64 = 1_000;

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

/// Turns CSV text into the bytes of the file.
pub(super) enum FileEncoder {
    Plain,
    Encrypted(Box<AgeEncryptor>),
}

impl FileEncoder {
    pub(super) fn new(recipient: Option<&Recipient>) -> Result<Self, AgeError> {
        Ok(match recipient {
            None => Self::Plain,
            Some(recipient) => Self::Encrypted(Box::new(AgeEncryptor::new(recipient)?)),
        })
    }

    fn encode(&mut self, text: Vec<u8>) -> Result<Vec<u8>, AgeError> {
        match self {
            Self::Plain => Ok(text),
            Self::Encrypted(encryptor) => encryptor.add(&text),
        }
    }

    fn finish(self) -> Result<Vec<u8>, AgeError> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Encrypted(encryptor) => encryptor.finish(),
        }
    }
}

/// An export in progress.
pub(super) struct Export {
    context: Arc<Context>,
    kind: ExportKind,
    period: Period,
    /// Start of the next page; `None` after the last.
    next: Option<Position>,
    /// `None` when the file is finished.
    encoder: Option<FileEncoder>,
    audit: ExportAudit,
}

/// Logs the number of rows sent when it is dropped, however the export ends.
struct ExportAudit {
    permit: Permit<CreateExport>,
    kind: &'static str,
    rows: usize,
    complete: bool,
    /// The request of the export. Its response began before the stream ends, so the context is kept
    /// for the log lines.
    request: Option<RequestTelemetry>,
}

impl Drop for ExportAudit {
    fn drop(&mut self) {
        let subject = self.permit.principal().subject();
        let tenant = self.permit.tenant().to_string();
        let log_end = || event::data_exported(subject, &tenant, self.kind, self.rows, self.complete);
        match &self.request {
            Some(request) => request.run(log_end),
            None => log_end(),
        }
    }
}

/// One page of rows as CSV text.
struct Page {
    rows: usize,
    /// Position of the last row; `None` for an empty page.
    last: Option<Position>,
    text: csv::Result<Vec<u8>>,
}

impl Export {
    pub(super) fn new(
        context: Arc<Context>,
        permit: Permit<CreateExport>,
        kind: ExportKind,
        period: Period,
        encoder: FileEncoder,
    ) -> Self {
        let audit =
            ExportAudit { permit, kind: kind.as_str(), rows: 0, complete: false, request: RequestTelemetry::current() };
        Self { context, kind, period, next: Some(Position::before(period.to)), encoder: Some(encoder), audit }
    }

    /// The chunks of the file. An error closes the connection, so that no caller takes a part for
    /// the whole file.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut export| async move {
            match export.audit.request.clone() {
                Some(request) => request.scope(export.next_chunk()).await,
                None => export.next_chunk().await,
            }
            .map(|chunk| chunk.map(|chunk| (chunk, export)))
        })
    }

    async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.encode_chunk().await.inspect_err(|error| tracing::error!(%error, "export aborted"))
    }

    /// The next chunk that is not empty; `None` after the last.
    async fn encode_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(position) = self.next {
            let text = self.read_page(position).await?;
            let Some(encoder) = &mut self.encoder else { break };
            let chunk = encoder.encode(text).map_err(io::Error::other)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if let Some(encoder) = self.encoder.take() {
            let rest = encoder.finish().map_err(io::Error::other)?;
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
        self.audit.complete = true;
        Ok(None)
    }

    /// Reads the page at `position` and sets the start of the next one.
    async fn read_page(&mut self, position: Position) -> io::Result<Vec<u8>> {
        let permit = &self.audit.permit;
        if !self.context.authenticator.still_accepts(permit.principal()) {
            return Err(io::Error::other("the caller was revoked during the export"));
        }
        let database = &self.context.database;
        let from = self.period.from;
        let is_first = self.audit.rows == 0;
        let page = match self.kind {
            ExportKind::Orders => {
                let orders = database.orders_from(permit, from, position, PAGE_ROWS).await.map_err(io::Error::other)?;
                Page {
                    rows: orders.len(),
                    last: orders.last().map(|order| Position { at: order.created_at, id: order.id.uuid() }),
                    text: encode(is_first.then_some(ORDER_COLUMNS), orders.iter().map(order_row)),
                }
            }
            ExportKind::Invoices => {
                let invoices =
                    database.invoices_from(permit, from, position, PAGE_ROWS).await.map_err(io::Error::other)?;
                Page {
                    rows: invoices.len(),
                    last: invoices.last().map(|invoice| Position { at: invoice.issued_at, id: invoice.id }),
                    text: encode(is_first.then_some(INVOICE_COLUMNS), invoices.iter().map(invoice_row)),
                }
            }
        };
        self.audit.rows += page.rows;
        // The rows were counted at the start; rows added since count against the limit too.
        if u32::try_from(self.audit.rows).map_or(true, |rows| rows > self.context.max_export_rows) {
            return Err(io::Error::other("the row limit was exceeded during the export"));
        }
        self.next = page.last.filter(|_| i64::try_from(page.rows).is_ok_and(|rows| rows == PAGE_ROWS));
        page.text.map_err(io::Error::other)
    }
}

fn order_row(order: &Order) -> [Cell; 10] {
    let lines: Vec<_> =
        order.lines.iter().map(|line| format!("{} x {}", line.quantity.get(), line.sku.as_str())).collect();
    [
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
    ]
}

fn invoice_row(invoice: &ExportedInvoice) -> [Cell; 11] {
    [
        Cell::value(&invoice.id),
        Cell::value(&invoice.number),
        Cell::value(&invoice.order),
        Cell::value(&invoice.status.as_str()),
        Cell::value(&invoice.total),
        Cell::value(&invoice.paid),
        Cell::value(&invoice.refunded),
        Cell::text(invoice.currency.as_str()),
        Cell::text(&invoice.issued_by),
        Cell::time(invoice.issued_at),
        Cell::time(invoice.updated_at),
    ]
}
