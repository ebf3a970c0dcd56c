mod schema;

use std::sync::Arc;

use poem::Result;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

use super::{
    Context, Tag,
    created::Created,
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
};
use crate::{
    authz::{
        Permit,
        actions::{CreateInvoice, CreatePayment, CreateRefund, GetInvoice, ListInvoices, VoidInvoice},
    },
    domain::{Invoice, InvoiceId, OrderId, PaymentId},
    problem::{Kind, Problem},
    store::Position,
};
use schema::{InvoicePage, InvoiceView, NewPayment, NewRefund, PaymentView, RefundView};

/// Invoices, and the money that comes in and goes out for them.
pub(super) struct Invoices(pub(super) Arc<Context>);

#[OpenApi(tag = "Tag::Billing")]
impl Invoices {
    /// Issue the invoice of an order
    ///
    /// Its lines are the order's, frozen now. An order that costs nothing is paid at once.
    #[oai(path = "/v1/orders/:id/invoice", method = "post", operation_id = "createInvoice")]
    async fn create(
        &self,
        permit: Permit<CreateInvoice>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<Text<form::IdempotencyKey>>>,
        id: Path<OrderId>,
    ) -> Result<Created<InvoiceView>> {
        let request = self.0.keyed::<CreateInvoice>(key.0, Some(id.0.uuid()), &[]);
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(request) = &request
            && let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, request).await?)?
        {
            return Ok(earlier);
        }
        let found = tx.lock_order(id.0).await?;
        let mut order = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&order)?;
        let status = order.invoice(self.0.clock.now())?;
        let invoice = tx.issue_invoice(&narrowed, &order, status, permit.principal().subject()).await?;
        let (id, location) = (invoice.id, format!("/v1/invoices/{}", invoice.id));
        let created = Created::new(InvoiceView::try_from(invoice)?, Some(location));
        if let Some(request) = &request {
            tx.store_answer(&permit, request, &created.answer()).await?;
        }
        tx.commit(&permit, id).await?;
        Ok(created)
    }

    /// List invoices
    ///
    /// Newest first.
    #[oai(path = "/v1/invoices", method = "get", operation_id = "listInvoices")]
    async fn list(
        &self,
        permit: Permit<ListInvoices>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<Text<form::Cursor>>>,
    ) -> Result<Json<InvoicePage>> {
        let paging = Paging::new(&self.0.mac_key, "invoices", permit.tenant(), limit.0);
        let from = paging.open(cursor.0.as_deref())?.unwrap_or_else(Position::start);
        let mut tx = self.0.database.read(&permit).await?;
        let mut invoices = tx.invoices(from, paging.read_ahead()).await?;
        let position = |invoice: &Invoice| Position { at: invoice.issued_at, id: invoice.id.uuid() };
        let next_cursor = paging.cut(&mut invoices, |invoice| position(invoice).to_string());
        let items = invoices.into_iter().map(InvoiceView::try_from).collect::<Result<_, _>>()?;
        Ok(Json(InvoicePage { items, next_cursor }))
    }

    /// Get one invoice
    ///
    /// With its payments and their refunds.
    #[oai(path = "/v1/invoices/:id", method = "get", operation_id = "getInvoice")]
    async fn get(&self, permit: Permit<GetInvoice>, id: Path<InvoiceId>) -> Result<Json<InvoiceView>> {
        let invoice = self.0.database.invoice(&permit, id.0).await?;
        Ok(Json(invoice.ok_or_else(|| Problem::new(Kind::NotFound))?.try_into()?))
    }

    /// Record a payment
    ///
    /// The one that leaves nothing outstanding makes the invoice and its order paid.
    #[oai(path = "/v1/invoices/:id/payments", method = "post", operation_id = "createPayment")]
    async fn pay(
        &self,
        permit: Permit<CreatePayment>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same. Required.
        #[oai(name = "Idempotency-Key")]
        key: Header<Text<form::IdempotencyKey>>,
        id: Path<InvoiceId>,
        body: StrictJson<NewPayment>,
    ) -> Result<Created<PaymentView>> {
        let request = self.0.keyed_by::<CreatePayment>(key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reference) = body.value.into_domain()?;
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, &request).await?)? {
            return Ok(earlier);
        }
        let found = tx.lock_invoice(id.0).await?;
        let (mut order, mut invoice) = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&invoice)?;
        let (subject, now) = (permit.principal().subject(), self.0.clock.now());
        let payment = invoice.pay(&mut order, amount, reference, subject, now).map_err(Problem::from)?;
        tx.record_payment(&narrowed, &payment, &invoice, &order).await?;
        let id = payment.id;
        let created = Created::new(PaymentView::from(payment), None);
        tx.store_answer(&permit, &request, &created.answer()).await?;
        tx.commit(&permit, id).await?;
        Ok(created)
    }

    /// Void an invoice
    ///
    /// Allowed while it is open and no money for it is kept. Its order can be invoiced anew, or cancelled.
    #[oai(path = "/v1/invoices/:id/void", method = "post", operation_id = "voidInvoice")]
    async fn void(&self, permit: Permit<VoidInvoice>, id: Path<InvoiceId>) -> Result<Json<InvoiceView>> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_invoice(id.0).await?;
        let (mut order, mut invoice) = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&invoice)?;
        let now = self.0.clock.now();
        invoice.void(&mut order, now)?;
        tx.set_void(&narrowed, now).await?;
        tx.set_status_of(&narrowed, &invoice, &order).await?;
        tx.commit(&permit, invoice.id).await?;
        Ok(Json(invoice.try_into()?))
    }

    /// Give money of a payment back
    ///
    /// Giving all of a paid invoice back makes it refunded, and its order too unless that was delivered.
    #[oai(path = "/v1/payments/:id/refunds", method = "post", operation_id = "createRefund")]
    async fn refund(
        &self,
        permit: Permit<CreateRefund>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same. Required.
        #[oai(name = "Idempotency-Key")]
        key: Header<Text<form::IdempotencyKey>>,
        id: Path<PaymentId>,
        body: StrictJson<NewRefund>,
    ) -> Result<Created<RefundView>> {
        let request = self.0.keyed_by::<CreateRefund>(key.0, Some(id.0.uuid()), &body.canonical);
        let (amount, reason) = body.value.into_domain()?;
        let mut tx = self.0.database.write(&permit).await?;
        if let Some(earlier) = Created::earlier(tx.earlier_answer(&permit, &request).await?)? {
            return Ok(earlier);
        }
        let found = tx.lock_payment(id.0).await?;
        let (mut order, mut invoice, mut payment) = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&payment)?;
        let (subject, now) = (permit.principal().subject(), self.0.clock.now());
        let refund = invoice.refund(&mut order, &mut payment, amount, reason, subject, now).map_err(Problem::from)?;
        tx.record_refund(&narrowed, &refund, &payment, &invoice, &order).await?;
        let id = refund.id;
        let created = Created::new(RefundView::from(refund), None);
        tx.store_answer(&permit, &request, &created.answer()).await?;
        tx.commit(&permit, id).await?;
        Ok(created)
    }
}
