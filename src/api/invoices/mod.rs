//! Operations on invoices, payments and refunds.
//!
//! Each change locks the order with its invoice (and payment) and commits with an audit event. The
//! domain decides on states and amounts (INPUT-09, INPUT-11). Payments and refunds require an
//! idempotency key (INPUT-10).

mod schema;

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{
        Context,
        idempotency::{Changed, Created},
        paging::Paging,
        strict_json::StrictJson,
        text::Text,
    },
    problem::{Kind, Problem},
    store::{Claim, Position},
};
use poem::Result;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use schema::{InvoicePage, InvoiceView, NewPayment, NewRefund, PaymentView, RefundView, SummaryView};

use super::Tag;
use crate::{
    access::actions::{CreateInvoice, CreatePayment, CreateRefund, GetInvoice, ListInvoices, VoidInvoice},
    api::formats,
    domain::{Invoice, InvoiceId, InvoiceStatus, Order, OrderId, OrderStatus, Payment, PaymentId},
    store::{invoice_summaries, invoices, orders, payments},
};

/// Operations on invoices, payments and refunds.
pub(crate) struct Invoices {
    pub(crate) context: Arc<Context>,
}

#[OpenApi(tag = "Tag::Billing")]
impl Invoices {
    /// Issue an invoice
    ///
    /// Issues the invoice of a `placed` order and freezes its lines and product names. An order
    /// with a total of zero becomes `paid` at once. Any other state of the order fails with 409
    /// (`conflict`).
    #[oai(path = "/v1/orders/:id/invoice", method = "post", operation_id = "createInvoice")]
    async fn create(
        &self,
        permit: &Permit<CreateInvoice>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Order id (UUID).
        id: Path<OrderId>,
    ) -> Result<Created<InvoiceView>> {
        let request = self.context.idempotent::<CreateInvoice>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        let order = tx.lock::<Order>(id.0).await?.ok_or_else(not_found)?;
        let order_permit = permit.for_object(&order)?;
        let (order_status, status) = order.states_when_invoiced();
        let now = self.context.clock.now();
        let invoice = invoices::issue(&tx, &order, status, permit.principal().subject(), now).await?;
        orders::set_status(&tx, &order_permit, &order.advance(order_status)?, now).await?;
        let invoice_id = invoice.id;
        let location = format!("/v1/invoices/{invoice_id}");
        let created = Created::new(&InvoiceView::try_from(invoice)?, Some(location));
        tx.commit(permit, invoice_id, created.stored()).await?;
        Ok(created)
    }

    /// List invoices
    ///
    /// Lists the invoices of the tenant, newest first, without their lines and payments, which
    /// `getInvoice` returns.
    #[oai(path = "/v1/invoices", method = "get", operation_id = "listInvoices")]
    async fn list(
        &self,
        permit: &Permit<ListInvoices>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(
            default = "palisade::http::paging::default_limit",
            validator(minimum(value = "1"), maximum(value = "100"))
        )]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<InvoicePage>> {
        let paging = Paging::new(&self.context.mac_key, "invoices", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut page = invoice_summaries::page(&self.context.database, permit, start, paging.read_ahead()).await?;
        let next_cursor =
            paging.cut(&mut page, |invoice| Position { at: invoice.issued_at, id: invoice.id.uuid() }.to_string());
        let items = page.into_iter().map(SummaryView::try_from).collect::<Result<_, _>>()?;
        Ok(Json(InvoicePage { items, next_cursor }))
    }

    /// Get an invoice
    ///
    /// Returns the invoice with its lines, its payments and their refunds.
    #[oai(path = "/v1/invoices/:id", method = "get", operation_id = "getInvoice")]
    async fn get(
        &self,
        permit: &Permit<GetInvoice>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
    ) -> Result<Json<InvoiceView>> {
        let invoice = invoices::get(&self.context.database, permit, id.0).await?;
        Ok(Json(invoice.ok_or_else(not_found)?.try_into()?))
    }

    /// Record a payment
    ///
    /// Records a payment received for an `open` invoice. The payment that settles the outstanding
    /// amount changes the invoice and its order to `paid`. Fails with 409 (`conflict`) if the
    /// invoice is not open. Fails with 422 for more than the outstanding amount
    /// (`exceeds_what_is_left`), another currency (`other_currency`), or a 101st payment that does
    /// not settle the invoice (`too_many`).
    #[oai(path = "/v1/invoices/:id/payments", method = "post", operation_id = "createPayment")]
    async fn pay(
        &self,
        permit: &Permit<CreatePayment>,
        /// Idempotency key (required), 1 to 255 visible ASCII characters. Retries with the same key
        /// return the first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Text<formats::IdempotencyKey>>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
        body: StrictJson<NewPayment>,
    ) -> Result<Created<PaymentView>> {
        let request = self.context.idempotent::<CreatePayment>(idempotency_key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reference) = body.value.into_domain()?;
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        let invoice = tx.lock::<Invoice>(id.0).await?.ok_or_else(not_found)?;
        let invoice_permit = permit.for_object(&invoice)?;
        let now = self.context.clock.now();
        let mut after = Invoice::clone(&invoice);
        let payment = after.pay(amount, reference, permit.principal().subject(), now).map_err(Problem::from)?;
        payments::record(&tx, &invoice_permit, &payment, &invoice, &after).await?;
        if after.status == InvoiceStatus::Paid {
            let order = tx.lock::<Order>(invoice.order).await?.ok_or_else(not_found)?;
            orders::set_status(&tx, &permit.for_object(&order)?, &order.advance(OrderStatus::Paid)?, now).await?;
        }
        let payment_id = payment.id;
        let created = Created::new(&PaymentView::from(payment), None);
        tx.commit(permit, payment_id, created.stored()).await?;
        Ok(created)
    }

    /// Void an invoice
    ///
    /// Voids an `open` invoice with no payment kept (payments minus refunds are zero). Its number
    /// is not used again. The order returns to `placed` and can be invoiced again or cancelled. Any
    /// other state fails with 409 (`conflict`).
    #[oai(path = "/v1/invoices/:id/void", method = "post", operation_id = "voidInvoice")]
    async fn void(
        &self,
        permit: &Permit<VoidInvoice>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
    ) -> Result<Changed<InvoiceView>> {
        let request = self.context.idempotent::<VoidInvoice>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Changed::replay(outcome)?),
        };
        let invoice = tx.lock::<Invoice>(id.0).await?.ok_or_else(not_found)?;
        let invoice_permit = permit.for_object(&invoice)?;
        let order = tx.lock::<Order>(invoice.order).await?.ok_or_else(not_found)?;
        let now = self.context.clock.now();
        let next = invoice.advance(InvoiceStatus::Void)?;
        invoices::set_status(&tx, &invoice_permit, &next, now).await?;
        orders::set_status(&tx, &permit.for_object(&order)?, &order.advance(OrderStatus::Placed)?, now).await?;
        let invoice = Invoice { status: next.to(), updated_at: now, ..invoice.into_inner() };
        let invoice_id = invoice.id;
        let changed = Changed::new(&InvoiceView::try_from(invoice)?, None);
        tx.commit(permit, invoice_id, changed.stored()).await?;
        Ok(changed)
    }

    /// Refund a payment
    ///
    /// Records a refund of all or part of a payment. Refunding everything that was paid for a
    /// `paid` invoice changes the invoice to `refunded`, and its order too unless it is
    /// `fulfilled`. Fails with 409 (`conflict`) if nothing of the payment is left. Fails with 422
    /// for more than is left (`exceeds_what_is_left`), another currency (`other_currency`), or a
    /// 101st refund that does not refund all that is left (`too_many`).
    #[oai(path = "/v1/payments/:id/refunds", method = "post", operation_id = "createRefund")]
    async fn refund(
        &self,
        permit: &Permit<CreateRefund>,
        /// Idempotency key (required), 1 to 255 visible ASCII characters. Retries with the same key
        /// return the first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Text<formats::IdempotencyKey>>,
        /// Payment id (UUID).
        id: Path<PaymentId>,
        body: StrictJson<NewRefund>,
    ) -> Result<Created<RefundView>> {
        let request = self.context.idempotent::<CreateRefund>(idempotency_key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reason) = body.value.into_domain()?;
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Created::replay(outcome)?),
        };
        let (payment, invoice) = tx.lock_with::<Payment, Invoice>(id.0).await?.ok_or_else(not_found)?;
        let payment_permit = permit.for_object(&payment)?;
        let now = self.context.clock.now();
        let (mut after, mut payment_after) = (Invoice::clone(&invoice), Payment::clone(&payment));
        let subject = permit.principal().subject();
        let refund = after.refund(&mut payment_after, amount, reason, subject, now).map_err(Problem::from)?;
        payments::record_refund(&tx, &payment_permit, &refund, &payment_after).await?;
        payments::store_refunded(&tx, &permit.for_object(&invoice)?, &invoice, &after).await?;
        if after.status == InvoiceStatus::Refunded {
            let order = tx.lock::<Order>(invoice.order).await?.ok_or_else(not_found)?;
            // A fulfilled order stays fulfilled.
            if order.status == OrderStatus::Paid {
                let next = order.advance(OrderStatus::Refunded)?;
                orders::set_status(&tx, &permit.for_object(&order)?, &next, now).await?;
            }
        }
        let refund_id = refund.id;
        let created = Created::new(&RefundView::from(refund), None);
        tx.commit(permit, refund_id, created.stored()).await?;
        Ok(created)
    }
}

fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}
