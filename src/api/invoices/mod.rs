//! Operations on invoices, payments and refunds.
//!
//! Each change locks the order with its invoice (and payment) and commits with an audit event. The
//! domain decides on states and amounts (INPUT-09, INPUT-11). Payments and refunds require an
//! idempotency key (INPUT-10).

mod schema;

use std::sync::Arc;

use poem::Result;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

use super::Tag;
use crate::{
    authz::{
        Permit,
        actions::{CreateInvoice, CreatePayment, CreateRefund, GetInvoice, ListInvoices, VoidInvoice},
    },
    domain::{InvoiceId, OrderId, PaymentId},
    http::{
        Context,
        idempotency::Created,
        paging::Paging,
        strict_json::StrictJson,
        text::{Text, formats},
    },
    problem::{Kind, Problem},
    store::Position,
};
use schema::{InvoicePage, InvoiceView, NewPayment, NewRefund, PaymentView, RefundView};

/// Operations on invoices, payments and refunds.
pub(super) struct Invoices {
    pub(super) context: Arc<Context>,
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
        permit: Permit<CreateInvoice>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Order id (UUID).
        id: Path<OrderId>,
    ) -> Result<Created<InvoiceView>> {
        let request = self.context.idempotent::<CreateInvoice>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let mut tx = self.context.database.write(&permit).await?;
        if let Some(request) = &request
            && let Some(response) = Created::replay(tx.claim_key(&permit, request).await?)?
        {
            return Ok(response);
        }
        let mut order = tx.lock_order(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let order_permit = permit.for_object(&order)?;
        let status = order.invoice(self.context.clock.now())?;
        let invoice = tx.issue_invoice(&order_permit, &order, status, permit.principal().subject()).await?;
        let invoice_id = invoice.id;
        let location = format!("/v1/invoices/{invoice_id}");
        let created = Created::new(InvoiceView::try_from(invoice)?, Some(location));
        if let Some(request) = &request {
            tx.store_response(&permit, request, &created.to_stored()).await?;
        }
        tx.commit(&permit, invoice_id).await?;
        Ok(created)
    }

    /// List invoices
    ///
    /// Lists the invoices of the tenant, newest first, each with its payments and refunds.
    #[oai(path = "/v1/invoices", method = "get", operation_id = "listInvoices")]
    async fn list(
        &self,
        permit: Permit<ListInvoices>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(default = "crate::http::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<InvoicePage>> {
        let paging = Paging::new(&self.context.mac_key, "invoices", permit.tenant(), limit.0);
        let start = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut tx = self.context.database.read(&permit).await?;
        let mut invoices = tx.invoices(start, paging.read_ahead()).await?;
        let next_cursor =
            paging.cut(&mut invoices, |invoice| Position { at: invoice.issued_at, id: invoice.id.uuid() }.to_string());
        let items = invoices.into_iter().map(InvoiceView::try_from).collect::<Result<_, _>>()?;
        Ok(Json(InvoicePage { items, next_cursor }))
    }

    /// Get an invoice
    ///
    /// Returns the invoice with its payments and their refunds.
    #[oai(path = "/v1/invoices/:id", method = "get", operation_id = "getInvoice")]
    async fn get(
        &self,
        permit: Permit<GetInvoice>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
    ) -> Result<Json<InvoiceView>> {
        let invoice = self.context.database.invoice(&permit, id.0).await?;
        Ok(Json(invoice.ok_or_else(|| Problem::new(Kind::NotFound))?.try_into()?))
    }

    /// Record a payment
    ///
    /// Records a payment received for an `open` invoice. The payment that settles the outstanding
    /// amount changes the invoice and its order to `paid`. Fails with 409 (`conflict`) if the
    /// invoice is not open. Fails with 422 for more than the outstanding amount
    /// (`exceeds_what_is_left`), another currency (`other_currency`), or the 101st payment
    /// (`too_many`).
    #[oai(path = "/v1/invoices/:id/payments", method = "post", operation_id = "createPayment")]
    async fn pay(
        &self,
        permit: Permit<CreatePayment>,
        /// Idempotency key (required), 1 to 255 visible ASCII characters. Retries with the same key
        /// return the first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Text<formats::IdempotencyKey>>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
        body: StrictJson<NewPayment>,
    ) -> Result<Created<PaymentView>> {
        let request =
            self.context.keyed_request::<CreatePayment>(idempotency_key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reference) = body.value.into_domain()?;
        let mut tx = self.context.database.write(&permit).await?;
        if let Some(response) = Created::replay(tx.claim_key(&permit, &request).await?)? {
            return Ok(response);
        }
        let locked = tx.lock_invoice(id.0).await?;
        let (mut order, mut invoice) = locked.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let invoice_permit = permit.for_object(&invoice)?;
        let subject = permit.principal().subject();
        let now = self.context.clock.now();
        let payment = invoice.pay(&mut order, amount, reference, subject, now).map_err(Problem::from)?;
        tx.record_payment(&invoice_permit, &payment, &invoice, &order).await?;
        let payment_id = payment.id;
        let created = Created::new(PaymentView::from(payment), None);
        tx.store_response(&permit, &request, &created.to_stored()).await?;
        tx.commit(&permit, payment_id).await?;
        Ok(created)
    }

    /// Void an invoice
    ///
    /// Voids an `open` invoice with no payment kept (payments minus refunds are zero). Its number
    /// is not used again. The order returns to `placed` and can be invoiced again or cancelled. Any
    /// other state fails with 409 (`conflict`), so a second call fails too.
    #[oai(path = "/v1/invoices/:id/void", method = "post", operation_id = "voidInvoice")]
    async fn void(
        &self,
        permit: Permit<VoidInvoice>,
        /// Invoice id (UUID).
        id: Path<InvoiceId>,
    ) -> Result<Json<InvoiceView>> {
        let mut tx = self.context.database.write(&permit).await?;
        let locked = tx.lock_invoice(id.0).await?;
        let (mut order, mut invoice) = locked.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let invoice_permit = permit.for_object(&invoice)?;
        let now = self.context.clock.now();
        invoice.void(&mut order, now)?;
        tx.set_void(&invoice_permit, now).await?;
        tx.set_invoiced_order_status(&invoice_permit, &invoice, &order).await?;
        tx.commit(&permit, invoice.id).await?;
        Ok(Json(invoice.try_into()?))
    }

    /// Refund a payment
    ///
    /// Records a refund of all or part of a payment. Refunding everything that was paid for a
    /// `paid` invoice changes the invoice to `refunded`, and its order too unless it is
    /// `fulfilled`. Fails with 409 (`conflict`) if nothing of the payment is left. Fails with 422
    /// for more than is left (`exceeds_what_is_left`), another currency (`other_currency`), or the
    /// 101st refund (`too_many`).
    #[oai(path = "/v1/payments/:id/refunds", method = "post", operation_id = "createRefund")]
    async fn refund(
        &self,
        permit: Permit<CreateRefund>,
        /// Idempotency key (required), 1 to 255 visible ASCII characters. Retries with the same key
        /// return the first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Text<formats::IdempotencyKey>>,
        /// Payment id (UUID).
        id: Path<PaymentId>,
        body: StrictJson<NewRefund>,
    ) -> Result<Created<RefundView>> {
        let request = self.context.keyed_request::<CreateRefund>(idempotency_key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reason) = body.value.into_domain()?;
        let mut tx = self.context.database.write(&permit).await?;
        if let Some(response) = Created::replay(tx.claim_key(&permit, &request).await?)? {
            return Ok(response);
        }
        let locked = tx.lock_payment(id.0).await?;
        let (mut order, mut invoice, mut payment) = locked.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let payment_permit = permit.for_object(&payment)?;
        let subject = permit.principal().subject();
        let now = self.context.clock.now();
        let refund = invoice.refund(&mut order, &mut payment, amount, reason, subject, now).map_err(Problem::from)?;
        tx.record_refund(&payment_permit, &refund, &payment, &invoice, &order).await?;
        let refund_id = refund.id;
        let created = Created::new(RefundView::from(refund), None);
        tx.store_response(&permit, &request, &created.to_stored()).await?;
        tx.commit(&permit, refund_id).await?;
        Ok(created)
    }
}
