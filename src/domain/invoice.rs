use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{
    InvoiceId, Money, MoneyError, Order, OrderId, OrderStatus, PaymentId, Quantity, Reason, Reference, RefundId, Sku,
    TenantId, TenantObject, TransitionError, text_enum::text_enum,
};

/// Most payments of one invoice.
pub const MAX_PAYMENTS: usize = 100;
/// Most refunds of one payment.
pub const MAX_REFUNDS: usize = 100;

text_enum! {
    /// Where an invoice is in its life: `open → paid → refunded`, `open → void`.
    InvoiceStatus {
        /// Issued, and something is still to be paid.
        Open = "open",
        /// Paid in full.
        Paid = "paid",
        /// Taken back before money was kept. Final; its number is not used again.
        Void = "void",
        /// Paid, and all of it given back. Final.
        Refunded = "refunded",
    }
}

/// One line of an invoice, frozen when it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// What was ordered.
    pub sku: Sku,
    /// The product's name when the invoice was issued.
    pub description: String,
    /// How many units.
    pub quantity: Quantity,
    /// Of one unit.
    pub unit_price: Money,
}

/// An invoice as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its identifier.
    pub id: InvoiceId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is for.
    pub order: OrderId,
    /// Counts up by one in each tenant, without gaps.
    pub number: i64,
    /// Where it is in its life.
    pub status: InvoiceStatus,
    /// What it asks money for.
    pub lines: Vec<InvoiceLine>,
    /// The sum of the lines.
    pub total: Money,
    /// All payments, whether given back or not.
    pub paid: Money,
    /// All refunds.
    pub refunded: Money,
    /// Each payment.
    pub payments: Vec<Payment>,
    /// The `sub` of who issued it.
    pub issued_by: String,
    /// When it was issued.
    pub issued_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Money that came in for an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its identifier.
    pub id: PaymentId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it was for.
    pub invoice: InvoiceId,
    /// How much came.
    pub amount: Money,
    /// How much of it was given back.
    pub refunded: Money,
    /// How it is found elsewhere.
    pub reference: Option<Reference>,
    /// Each refund of it.
    pub refunds: Vec<Refund>,
    /// The `sub` of who recorded it.
    pub created_by: String,
    /// When it was recorded.
    pub created_at: DateTime<Utc>,
}

/// Money given back of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Its identifier.
    pub id: RefundId,
    /// Of what.
    pub payment: PaymentId,
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: Option<Reason>,
    /// The `sub` of who gave it.
    pub created_by: String,
    /// When it was given.
    pub created_at: DateTime<Utc>,
}

/// Why money cannot be taken or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BillingError {
    /// The state of the invoice or its order does not allow it.
    #[error(transparent)]
    State(#[from] TransitionError),
    /// Nothing at all is no amount.
    #[error("the amount is zero")]
    Zero,
    /// The invoice has [`MAX_PAYMENTS`] payments, or the payment [`MAX_REFUNDS`] refunds.
    #[error("there are too many already")]
    TooMany,
    /// More than is still to be paid, or more than is left of the payment.
    #[error("the amount is too large")]
    TooMuch,
    /// The amount is of another currency, or no amount at all.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Invoice {
    /// What is kept of the payments: what came less what was given back.
    pub fn kept(&self) -> Result<Money, MoneyError> {
        self.paid.checked_sub(self.refunded)
    }

    /// What is still to be paid.
    pub fn outstanding(&self) -> Result<Money, MoneyError> {
        match self.status {
            InvoiceStatus::Open => self.total.checked_sub(self.kept()?),
            InvoiceStatus::Paid | InvoiceStatus::Void | InvoiceStatus::Refunded => Money::new(0, self.total.currency()),
        }
    }

    /// Whether it can be taken back: while it is open and no money is kept.
    #[must_use]
    pub fn can_be_voided(&self) -> bool {
        self.status == InvoiceStatus::Open && self.kept().is_ok_and(|kept| kept.amount() == 0)
    }

    /// Takes it back. Its order can be invoiced anew.
    pub fn void(&mut self, order: &mut Order, now: DateTime<Utc>) -> Result<(), TransitionError> {
        if !self.can_be_voided() {
            return Err(TransitionError);
        }
        (self.status, self.updated_at) = (InvoiceStatus::Void, now);
        (order.status, order.updated_at) = (order.status.void()?, now);
        Ok(())
    }

    /// Takes `amount`, at most what is outstanding. The last payment makes the order paid too.
    pub fn pay(
        &mut self,
        order: &mut Order,
        amount: Money,
        reference: Option<Reference>,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<Payment, BillingError> {
        if self.status != InvoiceStatus::Open {
            return Err(TransitionError.into());
        }
        if self.payments.len() >= MAX_PAYMENTS {
            return Err(BillingError::TooMany);
        }
        within(amount, self.outstanding()?)?;
        self.paid = self.paid.checked_add(amount)?;
        self.updated_at = now;
        if self.kept()? == self.total {
            self.status = InvoiceStatus::Paid;
            order.status = order.status.pay()?;
            order.updated_at = now;
        }
        let (id, refunded) = (PaymentId::generate(), Money::new(0, amount.currency())?);
        let (tenant, invoice, created_by) = (self.tenant, self.id, by.to_owned());
        Ok(Payment {
            id,
            tenant,
            invoice,
            amount,
            refunded,
            reference,
            refunds: Vec::new(),
            created_by,
            created_at: now,
        })
    }

    /// Gives `amount` of a payment back, at most what is left of it. Giving the last of a paid invoice back makes
    /// the invoice refunded, and the order too unless it was delivered already.
    pub fn refund(
        &mut self,
        order: &mut Order,
        payment: &mut Payment,
        amount: Money,
        reason: Option<Reason>,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<Refund, BillingError> {
        if payment.refunds.len() >= MAX_REFUNDS {
            return Err(BillingError::TooMany);
        }
        within(amount, payment.left()?)?;
        payment.refunded = payment.refunded.checked_add(amount)?;
        self.refunded = self.refunded.checked_add(amount)?;
        self.updated_at = now;
        if self.status == InvoiceStatus::Paid && self.kept()?.amount() == 0 {
            self.status = InvoiceStatus::Refunded;
            if order.status == OrderStatus::Paid {
                order.status = order.status.refund()?;
                order.updated_at = now;
            }
        }
        let created_by = by.to_owned();
        Ok(Refund { id: RefundId::generate(), payment: payment.id, amount, reason, created_by, created_at: now })
    }
}

impl Payment {
    /// What was not given back yet.
    pub fn left(&self) -> Result<Money, MoneyError> {
        self.amount.checked_sub(self.refunded)
    }
}

fn within(amount: Money, limit: Money) -> Result<(), BillingError> {
    if amount.currency() != limit.currency() {
        return Err(MoneyError::CurrencyMismatch.into());
    }
    match amount.amount() {
        0 => Err(BillingError::Zero),
        minor if minor > limit.amount() => Err(BillingError::TooMuch),
        _ => Ok(()),
    }
}

impl TenantObject for Invoice {
    type Id = InvoiceId;

    fn id(&self) -> InvoiceId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl TenantObject for Payment {
    type Id = PaymentId;

    fn id(&self) -> PaymentId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}
