//! SQL of payments and refunds.
//!
//! In: object permits, and domain values that the domain has computed. Each change is one statement
//! that stores the payment or refund and the new amounts and statuses of invoice and order. The
//! row of the order is locked first (`orders.rs` says why). The handlers of `api/invoices` call
//! this.

use super::WriteTx;
use crate::{
    authz::{
        ObjectPermit,
        actions::{CreatePayment, CreateRefund},
    },
    db::DbError,
    domain::{Invoice, Order, OrderId, Payment, PaymentId, Refund},
};

impl WriteTx<CreatePayment> {
    /// Stores a payment of the permit's invoice, and the new state of the invoice and its order.
    pub async fn record_payment(
        &mut self,
        permit: &ObjectPermit<'_, CreatePayment, Invoice>,
        payment: &Payment,
        invoice: &Invoice,
        order: &Order,
    ) -> Result<(), DbError> {
        let belong_together = payment.invoice == permit.id() && invoice.id == permit.id() && order.id == invoice.order;
        DbError::unless(belong_together)?;
        let result = sqlx::query!(
            "with p as (
                 insert into payments (tenant_id, id, invoice_id, amount, reference, created_by, created_at)
                 values ($1, $3, $2, $4, $5, $6, $7)
             ), o as (
                 update orders set status = $10, updated_at = $11
                 where tenant_id = $1 and id = $12
             )
             update invoices set status = $8, paid_amount = $9, updated_at = $7 where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            payment.id.uuid(),
            payment.amount.amount(),
            payment.reference.as_ref().map(crate::domain::Reference::as_str),
            payment.created_by,
            payment.created_at,
            invoice.status.as_str(),
            invoice.paid.amount(),
            order.status.as_str(),
            order.updated_at,
            order.id.uuid()
        )
        .execute(self.connection())
        .await?;
        DbError::unless(result.rows_affected() == 1)
    }
}

impl WriteTx<CreateRefund> {
    /// Reads the payment of this id, its invoice and its order, and locks the order until the
    /// transaction ends.
    pub async fn lock_payment(&mut self, id: PaymentId) -> Result<Option<(Order, Invoice, Payment)>, DbError> {
        let tenant = self.tenant().uuid();
        // The invoice of a payment and the order of an invoice never change, so this read needs no
        // lock.
        let ids = sqlx::query!(
            "select i.order_id, i.id as invoice_id
             from payments p join invoices i on i.tenant_id = p.tenant_id and i.id = p.invoice_id
             where p.tenant_id = $1 and p.id = $2",
            tenant,
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(ids) = ids else { return Ok(None) };
        let Some(order) = self.lock_order_row(OrderId::from_uuid(ids.order_id)).await? else { return Ok(None) };
        let Some(invoice) = self.read_invoice(ids.invoice_id).await? else { return Ok(None) };
        let payment = invoice.payments.iter().find(|payment| payment.id == id).cloned();
        Ok(payment.map(|payment| (order, invoice, payment)))
    }

    /// Stores a refund of the permit's payment, and the new state of the payment, its invoice and
    /// its order.
    pub async fn record_refund(
        &mut self,
        permit: &ObjectPermit<'_, CreateRefund, Payment>,
        refund: &Refund,
        payment: &Payment,
        invoice: &Invoice,
        order: &Order,
    ) -> Result<(), DbError> {
        let is_permitted = refund.payment == permit.id() && payment.id == permit.id();
        DbError::unless(is_permitted && payment.invoice == invoice.id && order.id == invoice.order)?;
        let result = sqlx::query!(
            "with r as (
                 insert into refunds (tenant_id, id, payment_id, amount, reason, created_by, created_at)
                 values ($1, $3, $2, $4, $5, $6, $7)
             ), i as (
                 update invoices set status = $9, refunded_amount = $10, updated_at = $7
                 where tenant_id = $1 and id = $13
             ), o as (
                 update orders set status = $11, updated_at = $12 where tenant_id = $1 and id = $14
             )
             update payments set refunded_amount = $8 where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            refund.id.uuid(),
            refund.amount.amount(),
            refund.reason.as_ref().map(crate::domain::Reason::as_str),
            refund.created_by,
            refund.created_at,
            payment.refunded.amount(),
            invoice.status.as_str(),
            invoice.refunded.amount(),
            order.status.as_str(),
            order.updated_at,
            invoice.id.uuid(),
            order.id.uuid()
        )
        .execute(self.connection())
        .await?;
        DbError::unless(result.rows_affected() == 1)
    }
}
