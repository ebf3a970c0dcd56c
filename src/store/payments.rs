use super::{StoreError, WriteTx};
use crate::{
    authz::{
        ObjectPermit,
        actions::{CreatePayment, CreateRefund},
    },
    domain::{Invoice, Order, OrderId, Payment, PaymentId, Refund},
};

impl WriteTx<CreatePayment> {
    /// Stores a payment, and what it makes of its invoice and order. Needs the permit narrowed to the invoice.
    pub async fn record_payment(
        &mut self,
        permit: &ObjectPermit<'_, CreatePayment, Invoice>,
        payment: &Payment,
        invoice: &Invoice,
        order: &Order,
    ) -> Result<(), StoreError> {
        let belongs = payment.invoice == permit.id() && invoice.id == permit.id() && order.id == invoice.order;
        StoreError::unless(belongs)?;
        let done = sqlx::query!(
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
        StoreError::unless(done.rows_affected() == 1)
    }
}

impl WriteTx<CreateRefund> {
    /// The payment of this id with its invoice and order, which is locked until the transaction ends.
    pub async fn lock_payment(&mut self, id: PaymentId) -> Result<Option<(Order, Invoice, Payment)>, StoreError> {
        let tenant = self.tenant().uuid();
        // A payment never changes its invoice, nor an invoice its order, so this needs no lock yet.
        let found = sqlx::query!(
            "select i.order_id, i.id as invoice_id
             from payments p join invoices i on i.tenant_id = p.tenant_id and i.id = p.invoice_id
             where p.tenant_id = $1 and p.id = $2",
            tenant,
            id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(found) = found else { return Ok(None) };
        let Some(order) = self.lock(OrderId::from_uuid(found.order_id)).await? else { return Ok(None) };
        let Some(invoice) = self.read_invoice(found.invoice_id).await? else { return Ok(None) };
        let payment = invoice.payments.iter().find(|payment| payment.id == id).cloned();
        Ok(payment.map(|payment| (order, invoice, payment)))
    }

    /// Stores a refund, and what it makes of payment, invoice and order. Needs the permit narrowed to the payment.
    pub async fn record_refund(
        &mut self,
        permit: &ObjectPermit<'_, CreateRefund, Payment>,
        refund: &Refund,
        payment: &Payment,
        invoice: &Invoice,
        order: &Order,
    ) -> Result<(), StoreError> {
        let of_payment = refund.payment == permit.id() && payment.id == permit.id();
        StoreError::unless(of_payment && payment.invoice == invoice.id && order.id == invoice.order)?;
        let done = sqlx::query!(
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
        StoreError::unless(done.rows_affected() == 1)
    }
}
