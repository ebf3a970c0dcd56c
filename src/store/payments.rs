//! SQL of payments and refunds.
//!
//! In: object permits, and domain values that the domain has computed. The row of the order is
//! locked (`orders.rs` says why), so the stored amounts are those that the domain has seen. The
//! handlers of `api/invoices` call this.

use palisade::store::{DbError, Locked, ObjectPermit, WriteTx};

use crate::{
    access::actions::{CreatePayment, CreateRefund},
    domain::{Invoice, Payment, Reason, Reference, Refund},
};

/// Stores a payment of the permit's invoice, and the invoice as it is `after` the payment.
pub async fn record<K>(
    tx: &WriteTx<CreatePayment, K>,
    permit: &ObjectPermit<'_, CreatePayment, Invoice>,
    payment: &Payment,
    invoice: &Locked<'_, Invoice>,
    after: &Invoice,
) -> Result<(), DbError> {
    macro_rules! statement {
        ($status:tt $(, $argument:expr)*) => {
            palisade::update!(
                tx,
                "with p as (
                     insert into payments (tenant_id, id, invoice_id, amount, reference, created_by, created_at)
                     values ($1, $3, $2, $4, $5, $6, $7)
                 )
                 update invoices set paid_amount = $8, updated_at = $7" + $status,
                permit.id().uuid(),
                payment.id.uuid(),
                payment.amount.amount(),
                payment.reference.as_ref().map(Reference::as_str),
                payment.created_by,
                payment.created_at,
                after.paid.amount()
                $(, $argument)*
            )
        };
    }
    if after.status == invoice.status {
        return tx.change(permit, statement!(" where tenant_id = $1 and id = $2")).await;
    }
    let next = invoice.advance(after.status)?;
    let statement = statement!(
        ", status = $9 where tenant_id = $1 and id = $2 and status = $10",
        next.to().as_str(),
        next.from().as_str()
    );
    tx.transition(permit, &next, statement).await
}

/// Stores a refund of the permit's payment, and the payment's new amount.
pub async fn record_refund<K>(
    tx: &WriteTx<CreateRefund, K>,
    permit: &ObjectPermit<'_, CreateRefund, Payment>,
    refund: &Refund,
    after: &Payment,
) -> Result<(), DbError> {
    let statement = palisade::update!(
        tx,
        "with r as (
             insert into refunds (tenant_id, id, payment_id, amount, reason, created_by, created_at)
             values ($1, $3, $2, $4, $5, $6, $7)
         )
         update payments set refunded_amount = $8 where tenant_id = $1 and id = $2",
        permit.id().uuid(),
        refund.id.uuid(),
        refund.amount.amount(),
        refund.reason.as_ref().map(Reason::as_str),
        refund.created_by,
        refund.created_at,
        after.refunded.amount()
    );
    tx.change(permit, statement).await
}

/// Stores the permit's invoice as it is `after` a refund of one of its payments.
pub async fn record_refunded<K>(
    tx: &WriteTx<CreateRefund, K>,
    permit: &ObjectPermit<'_, CreateRefund, Invoice>,
    invoice: &Locked<'_, Invoice>,
    after: &Invoice,
) -> Result<(), DbError> {
    macro_rules! statement {
        ($status:tt $(, $argument:expr)*) => {
            palisade::update!(
                tx,
                "update invoices set refunded_amount = $3, updated_at = $4" + $status,
                permit.id().uuid(),
                after.refunded.amount(),
                after.updated_at
                $(, $argument)*
            )
        };
    }
    if after.status == invoice.status {
        return tx.change(permit, statement!(" where tenant_id = $1 and id = $2")).await;
    }
    let next = invoice.advance(after.status)?;
    let statement = statement!(
        ", status = $5 where tenant_id = $1 and id = $2 and status = $6",
        next.to().as_str(),
        next.from().as_str()
    );
    tx.transition(permit, &next, statement).await
}
