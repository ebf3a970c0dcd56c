//! Invoices, payments and refunds: their state machine and their arithmetic (INPUT-09, INPUT-11).
//!
//! Pure rules. An operation in [`crate::api`] locks the row of the order, calls [`Invoice::pay`] or
//! [`Invoice::refund`], and stores the result in the same transaction. So payments never exceed the total, and refunds never exceed their payment.

use chrono::{DateTime, Utc};
use palisade::{
    model::{State, TenantId},
    text_enum,
};
use thiserror::Error;

use super::{InvoiceId, Money, MoneyError, OrderId, PaymentId, Quantity, Reason, Reference, RefundId, Sku};

/// Maximum number of payments per invoice. One more may settle it.
pub const MAX_PAYMENTS: usize = 100;
/// Maximum number of refunds per payment. One more may refund the rest.
pub const MAX_REFUNDS: usize = 100;

text_enum! {
    /// State of an invoice. Transitions: `open → paid → refunded` and `open → void`.
    InvoiceStatus {
        /// Issued, and not paid in full.
        Open = "open",
        /// Paid in full.
        Paid = "paid",
        /// Withdrawn before any net payment. Final; its number is not reused.
        Void = "void",
        /// Paid in full and refunded in full. Final.
        Refunded = "refunded",
    }
}

impl State for InvoiceStatus {
    fn may_become(self, to: Self) -> bool {
        match self {
            Self::Open => matches!(to, Self::Paid | Self::Void),
            Self::Paid => to == Self::Refunded,
            Self::Void | Self::Refunded => false,
        }
    }
}

/// One line of an invoice. It does not change after the issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// Stock keeping unit of the product.
    pub sku: Sku,
    /// Name of the product at the time of issue.
    pub description: String,
    /// Number of units.
    pub quantity: Quantity,
    /// Price of one unit.
    pub unit_price: Money,
}

/// A stored invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Identifier.
    pub id: InvoiceId,
    /// Tenant that owns it.
    pub tenant: TenantId,
    /// Order that it bills.
    pub order: OrderId,
    /// Sequence number in the tenant, without gaps.
    pub number: i64,
    /// State.
    pub status: InvoiceStatus,
    /// Billed lines.
    pub lines: Vec<InvoiceLine>,
    /// Sum of the lines.
    pub total: Money,
    /// Sum of all payments, including refunded ones.
    pub paid: Money,
    /// Sum of all refunds.
    pub refunded: Money,
    /// Payments.
    pub payments: Vec<Payment>,
    /// Subject of the principal that issued it.
    pub issued_by: String,
    /// Time of issue.
    pub issued_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// An invoice without its lines and payments, as lists and exports hold it.
#[derive(Clone, Debug)]
pub struct InvoiceSummary {
    /// Identifier.
    pub id: InvoiceId,
    /// Order that it bills.
    pub order: OrderId,
    /// Sequence number in the tenant, without gaps.
    pub number: i64,
    /// State.
    pub status: InvoiceStatus,
    /// Sum of the lines.
    pub total: Money,
    /// Sum of all payments, including refunded ones.
    pub paid: Money,
    /// Sum of all refunds.
    pub refunded: Money,
    /// Subject of the principal that issued it.
    pub issued_by: String,
    /// Time of issue.
    pub issued_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// A payment for an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Identifier.
    pub id: PaymentId,
    /// Tenant that owns it.
    pub tenant: TenantId,
    /// Invoice that it pays.
    pub invoice: InvoiceId,
    /// Amount received.
    pub amount: Money,
    /// Sum of its refunds.
    pub refunded: Money,
    /// Reference in another system, such as the bank statement.
    pub reference: Option<Reference>,
    /// Refunds.
    pub refunds: Vec<Refund>,
    /// Subject of the principal that recorded it.
    pub created_by: String,
    /// Time of recording.
    pub created_at: DateTime<Utc>,
}

/// A refund of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Identifier.
    pub id: RefundId,
    /// Payment that it refunds.
    pub payment: PaymentId,
    /// Amount paid back.
    pub amount: Money,
    /// Reason.
    pub reason: Option<Reason>,
    /// Subject of the principal that made it.
    pub created_by: String,
    /// Time of recording.
    pub created_at: DateTime<Utc>,
}

/// Why a payment or refund is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BillingError {
    /// The invoice is not open.
    #[error("the invoice is not open")]
    State,
    /// The amount is zero.
    #[error("the amount is zero")]
    Zero,
    /// The invoice has [`MAX_PAYMENTS`] payments, or the payment [`MAX_REFUNDS`] refunds, and the
    /// amount is not all that is left.
    #[error("the maximum number of payments or refunds is reached")]
    TooMany,
    /// The amount exceeds what is outstanding, or what is refundable of the payment.
    #[error("the amount exceeds what is outstanding or refundable")]
    TooMuch,
    /// The amount has another currency, or is out of range.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Invoice {
    /// Payments minus refunds.
    pub fn net_paid(&self) -> Result<Money, MoneyError> {
        self.paid.checked_sub(self.refunded)
    }

    /// The amount that is still to be paid.
    pub fn outstanding(&self) -> Result<Money, MoneyError> {
        outstanding(self.status, self.total, self.net_paid()?)
    }

    /// Whether it can be voided: it is open, and its net payment is zero.
    #[must_use]
    pub fn can_be_voided(&self) -> bool {
        self.status == InvoiceStatus::Open && self.net_paid().is_ok_and(|net| net.amount() == 0)
    }

    /// Records a payment of at most the outstanding amount. Full payment makes the invoice paid.
    pub fn pay(
        &mut self,
        amount: Money,
        reference: Option<Reference>,
        subject: &str,
        now: DateTime<Utc>,
    ) -> Result<Payment, BillingError> {
        if self.status != InvoiceStatus::Open {
            return Err(BillingError::State);
        }
        check_amount(amount, self.outstanding()?, self.payments.len() < MAX_PAYMENTS)?;
        self.paid = self.paid.checked_add(amount)?;
        self.updated_at = now;
        if self.net_paid()? == self.total {
            self.status = InvoiceStatus::Paid;
        }
        Ok(Payment {
            id: PaymentId::generate(),
            tenant: self.tenant,
            invoice: self.id,
            amount,
            refunded: Money::new(0, amount.currency())?,
            reference,
            refunds: Vec::new(),
            created_by: subject.to_owned(),
            created_at: now,
        })
    }

    /// Records a refund of at most the refundable amount of a payment. A full refund of a paid
    /// invoice makes the invoice refunded.
    pub fn refund(
        &mut self,
        payment: &mut Payment,
        amount: Money,
        reason: Option<Reason>,
        subject: &str,
        now: DateTime<Utc>,
    ) -> Result<Refund, BillingError> {
        check_amount(amount, payment.refundable()?, payment.refunds.len() < MAX_REFUNDS)?;
        payment.refunded = payment.refunded.checked_add(amount)?;
        self.refunded = self.refunded.checked_add(amount)?;
        self.updated_at = now;
        if self.status == InvoiceStatus::Paid && self.net_paid()?.amount() == 0 {
            self.status = InvoiceStatus::Refunded;
        }
        Ok(Refund {
            id: RefundId::generate(),
            payment: payment.id,
            amount,
            reason,
            created_by: subject.to_owned(),
            created_at: now,
        })
    }
}

impl InvoiceSummary {
    /// The amount that is still to be paid.
    pub fn outstanding(&self) -> Result<Money, MoneyError> {
        outstanding(self.status, self.total, self.paid.checked_sub(self.refunded)?)
    }
}

fn outstanding(status: InvoiceStatus, total: Money, net_paid: Money) -> Result<Money, MoneyError> {
    match status {
        InvoiceStatus::Open => total.checked_sub(net_paid),
        InvoiceStatus::Paid | InvoiceStatus::Void | InvoiceStatus::Refunded => Money::new(0, total.currency()),
    }
}

impl Payment {
    /// The amount that is not refunded yet.
    pub fn refundable(&self) -> Result<Money, MoneyError> {
        self.amount.checked_sub(self.refunded)
    }
}

/// Checks that an amount is above zero and at most what is `left`. Without room for another partial
/// amount it must be all that is left, so that no invoice gets stuck at its limit.
fn check_amount(amount: Money, left: Money, has_room: bool) -> Result<(), BillingError> {
    if amount.currency() != left.currency() {
        return Err(MoneyError::CurrencyMismatch.into());
    }
    match amount.amount() {
        0 => Err(BillingError::Zero),
        minor if minor > left.amount() => Err(BillingError::TooMuch),
        minor if minor < left.amount() && !has_room => Err(BillingError::TooMany),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_11_only_listed_transitions_of_invoices_are_allowed() {
        use InvoiceStatus::{Open, Paid, Refunded, Void};
        let allowed = [(Open, Paid), (Open, Void), (Paid, Refunded)];
        for from in InvoiceStatus::ALL {
            for to in InvoiceStatus::ALL {
                assert_eq!(from.may_become(*to), allowed.contains(&(*from, *to)), "{from} to {to}");
            }
        }
    }
}
