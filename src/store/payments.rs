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

/// Stores a payment of the permit's invoice, and the invoice as it is `after` the payment, in one
/// message.
pub async fn record<K>(
    tx: &WriteTx<'_, CreatePayment, K>,
    permit: &ObjectPermit<'_, CreatePayment, Invoice>,
    payment: &Payment,
    invoice: &Locked<'_, Invoice>,
    after: &Invoice,
) -> Result<(), DbError> {
    macro_rules! record {
        ($kind:ident, [$($source:expr),+], $values:literal, $change:literal) => {
            palisade::$kind!(
                $($source),+,
                "with p as (
                     insert into payments (tenant_id, invoice_id, id, amount, reference, created_by, created_at)
                     values ($1, $2, " + $values + ")
                 )
                 update invoices set " + $change,
                payment.id.uuid(),
                payment.amount.amount(),
                payment.reference.as_ref().map(Reference::as_str),
                payment.created_by,
                payment.created_at,
                after.paid.amount(),
                after.updated_at
            )
        };
    }
    if after.status == invoice.status {
        let statement = record!(
            update,
            [permit],
            "$3, $4, $5, $6, $7",
            "paid_amount = $8, updated_at = $9 where tenant_id = $1 and id = $2"
        );
        return tx.change(permit, statement).await;
    }
    let next = invoice.advance(after.status)?;
    let statement = record!(
        transition,
        [permit, &next],
        "$5, $6, $7, $8, $9",
        "status = $3, paid_amount = $10, updated_at = $11 where tenant_id = $1 and id = $2 and status = $4"
    );
    tx.transition(permit, statement).await
}

/// Stores a refund of the permit's payment, and the payment's new amount.
pub async fn record_refund<K>(
    tx: &WriteTx<'_, CreateRefund, K>,
    permit: &ObjectPermit<'_, CreateRefund, Payment>,
    refund: &Refund,
    after: &Payment,
) -> Result<(), DbError> {
    let statement = palisade::update!(
        permit,
        "with r as (
             insert into refunds (tenant_id, id, payment_id, amount, reason, created_by, created_at)
             values ($1, $3, $2, $4, $5, $6, $7)
         )
         update payments set refunded_amount = $8 where tenant_id = $1 and id = $2",
        refund.id.uuid(),
        refund.amount.amount(),
        refund.reason.as_ref().map(Reason::as_str),
        refund.created_by,
        refund.created_at,
        after.refunded.amount()
    );
    tx.change(permit, statement).await
}

/// Stores the refunded amount and the status of the permit's invoice as they are `after` a refund.
pub async fn store_refunded<K>(
    tx: &WriteTx<'_, CreateRefund, K>,
    permit: &ObjectPermit<'_, CreateRefund, Invoice>,
    invoice: &Locked<'_, Invoice>,
    after: &Invoice,
) -> Result<(), DbError> {
    if after.status == invoice.status {
        let statement = palisade::update!(
            permit,
            "update invoices set refunded_amount = $3, updated_at = $4 where tenant_id = $1 and id = $2",
            after.refunded.amount(),
            after.updated_at
        );
        return tx.change(permit, statement).await;
    }
    let next = invoice.advance(after.status)?;
    let statement = palisade::transition!(
        permit,
        &next,
        "update invoices set status = $3, refunded_amount = $5, updated_at = $6
         where tenant_id = $1 and id = $2 and status = $4",
        after.refunded.amount(),
        after.updated_at
    );
    tx.transition(permit, statement).await
}
