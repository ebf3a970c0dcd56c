//! An export under way: one page of rows in memory at a time, read when the caller has taken the one before.

use std::{io, sync::Arc};

use futures_util::{Stream, stream};

use super::{
    csv::{Cell, lines},
    schema::ExportKind,
};
use crate::{
    api::Context,
    authz::{Permit, actions::CreateExport},
    crypto::{Envelope, EnvelopeError, Recipient},
    domain::Order,
    store::{ExportedInvoice, Period, Position, StoreError},
    telemetry::{InRequest, event},
};

/// Rows of a page.
const PAGE: i64 = 1_000;

const ORDERS: [&str; 10] = [
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

const INVOICES: [&str; 11] = [
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

/// What becomes of the text.
pub(super) enum File {
    /// It goes out as it is.
    Plain,
    /// It is encrypted.
    Encrypted(Box<Envelope>),
}

impl File {
    pub(super) fn new(to: Option<&Recipient>) -> Result<Self, EnvelopeError> {
        Ok(match to {
            None => Self::Plain,
            Some(to) => Self::Encrypted(Box::new(Envelope::new(to)?)),
        })
    }

    fn add(&mut self, text: Vec<u8>) -> Result<Vec<u8>, EnvelopeError> {
        match self {
            Self::Plain => Ok(text),
            Self::Encrypted(envelope) => envelope.add(&text),
        }
    }

    fn finish(self) -> Result<Vec<u8>, EnvelopeError> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Encrypted(envelope) => envelope.finish(),
        }
    }
}

/// An export under way.
pub(super) struct Export {
    context: Arc<Context>,
    kind: ExportKind,
    period: Period,
    /// Where the next page begins; `None` after the last.
    next: Option<Position>,
    /// `None` when it is finished.
    file: Option<File>,
    told: Told,
}

/// Says how many rows went out, whatever ends the export.
struct Told {
    permit: Permit<CreateExport>,
    what: &'static str,
    rows: usize,
    complete: bool,
    /// Whose answer has long begun when this ends.
    request: Option<InRequest>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let (subject, tenant) = (self.permit.principal().subject(), self.permit.tenant().to_string());
        let tell = || event::export_ended(subject, &tenant, self.what, self.rows, self.complete);
        match &self.request {
            Some(request) => request.run(tell),
            None => tell(),
        }
    }
}

impl Export {
    pub(super) fn new(
        context: Arc<Context>,
        permit: Permit<CreateExport>,
        (kind, period): (ExportKind, Period),
        file: File,
    ) -> Self {
        let told = Told { permit, what: kind.as_str(), rows: 0, complete: false, request: InRequest::current() };
        Self { context, kind, period, next: Some(Position::before(period.to)), file: Some(file), told }
    }

    /// The file, in pieces. An error breaks the connection off, so that nobody takes a part for the whole.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut export| async move {
            match export.told.request.clone() {
                Some(request) => request.scope(export.next_piece()).await,
                None => export.next_piece().await,
            }
            .map(|piece| piece.map(|piece| (piece, export)))
        })
    }

    async fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.piece().await.inspect_err(|error| tracing::error!(%error, "an export broke off"))
    }

    /// The next piece that is not empty; `None` after the last.
    async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(position) = self.next {
            let text = self.page(position).await?;
            let Some(file) = &mut self.file else { break };
            let piece = file.add(text).map_err(io::Error::other)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        if let Some(file) = self.file.take() {
            let rest = file.finish().map_err(io::Error::other)?;
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
        self.told.complete = true;
        Ok(None)
    }

    /// The lines of a page, and where the next one begins.
    async fn page(&mut self, position: Position) -> io::Result<Vec<u8>> {
        if !self.context.authenticator.still_accepts(self.told.permit.principal()) {
            return Err(io::Error::other("the caller was revoked meanwhile"));
        }
        let (database, permit, from) = (&self.context.database, &self.told.permit, self.period.from);
        let first = self.told.rows == 0;
        let (rows, last, text) = match self.kind {
            ExportKind::Orders => {
                let page = database.orders_from(permit, from, position, PAGE).await.map_err(broken)?;
                let last = page.last().map(|order| Position { at: order.created_at, id: order.id.uuid() });
                (page.len(), last, lines(first.then_some(ORDERS), page.iter().map(order)))
            }
            ExportKind::Invoices => {
                let page = database.invoices_from(permit, from, position, PAGE).await.map_err(broken)?;
                let last = page.last().map(|invoice| Position { at: invoice.issued_at, id: invoice.id });
                (page.len(), last, lines(first.then_some(INVOICES), page.iter().map(invoice)))
            }
        };
        self.told.rows += rows;
        // They were counted before, and few are added to the past.
        if u32::try_from(self.told.rows).map_or(true, |rows| rows > self.context.max_export_rows) {
            return Err(io::Error::other("more rows than may be exported"));
        }
        self.next = last.filter(|_| i64::try_from(rows).is_ok_and(|rows| rows == PAGE));
        text.map_err(io::Error::other)
    }
}

fn broken(error: StoreError) -> io::Error {
    io::Error::other(error)
}

fn order(order: &Order) -> [Cell; 10] {
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

fn invoice(invoice: &ExportedInvoice) -> [Cell; 11] {
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
