//! Invoices, payments and refunds as callers send and see them.

use chrono::{DateTime, Utc};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    api::{
        api_enum,
        faults::Faults,
        money::{MoneyView, PositiveMoney},
        text::{Text, form},
    },
    domain::{self, BillingError, Invoice, InvoiceLine, Money, MoneyError, Payment, Reason, Reference, Refund},
    problem::{Kind, Problem},
};

api_enum! {
    /// Where an invoice is in its life.
    InvoiceStatus = domain::InvoiceStatus { Open, Paid, Void, Refunded }
}

/// Money that came in.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewPayment {
    /// How much: at most what is outstanding, in the invoice's currency.
    amount: PositiveMoney,
    /// How the payment is found elsewhere, such as on a bank statement.
    reference: Option<Text<form::Reference>>,
}

/// Money to give back.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewRefund {
    /// How much: at most what is left of the payment, in its currency.
    amount: PositiveMoney,
    /// Why.
    reason: Option<Text<form::Reason>>,
}

impl Example for NewPayment {
    fn example() -> Self {
        let amount = PositiveMoney { amount: 100, currency: "EUR".into() };
        Self { amount, reference: Some("bank transfer 2026-0042".into()) }
    }
}

impl Example for NewRefund {
    fn example() -> Self {
        let amount = PositiveMoney { amount: 100, currency: "EUR".into() };
        Self { amount, reason: Some("arrived damaged".into()) }
    }
}

impl NewPayment {
    pub(super) fn into_domain(self) -> Result<(Money, Option<Reference>), Problem> {
        parts(&self.amount, "/reference", self.reference.as_deref())
    }
}

impl NewRefund {
    pub(super) fn into_domain(self) -> Result<(Money, Option<Reason>), Problem> {
        parts(&self.amount, "/reason", self.reason.as_deref())
    }
}

fn parts<T: std::str::FromStr>(
    amount: &PositiveMoney,
    at: &str,
    text: Option<&str>,
) -> Result<(Money, Option<T>), Problem> {
    let mut faults = Faults::default();
    let amount = faults.note("/amount", "invalid", Money::try_from(amount));
    let text = faults.parse_optional(at, text);
    faults.finish(amount.map(|amount| (amount, text)))
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::State(_) => Self::new(Kind::Conflict),
            BillingError::Zero => Self::new(Kind::InvalidInput).at("/amount/amount", "too_small"),
            BillingError::TooMany => Self::new(Kind::Unprocessable).at("", "too_many"),
            BillingError::TooMuch => Self::new(Kind::Unprocessable).at("/amount/amount", "exceeds_what_is_left"),
            BillingError::Money(MoneyError::CurrencyMismatch) => {
                Self::new(Kind::Unprocessable).at("/amount/currency", "other_currency")
            }
            BillingError::Money(_) => Self::new(Kind::Unprocessable).at("/amount/amount", "total"),
        }
    }
}

/// One line of an invoice, frozen when it was issued.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "InvoiceLine")]
struct InvoiceLineView {
    /// What was ordered.
    sku: Text<form::Sku>,
    /// The product's name when the invoice was issued.
    description: Text<form::Name>,
    /// How many units.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
    /// Of one unit.
    unit_price: MoneyView,
}

/// A refund.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Refund")]
pub(super) struct RefundView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// What was given back of.
    payment_id: Uuid,
    /// How much was given back.
    amount: MoneyView,
    /// Why; absent if nobody said.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<Text<form::Reason>>,
    /// The `sub` of who gave it.
    created_by: Text<form::Subject>,
    /// When it was given.
    created_at: DateTime<Utc>,
}

/// A payment.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Payment")]
pub(super) struct PaymentView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// What it was for.
    invoice_id: Uuid,
    /// How much came.
    amount: MoneyView,
    /// How much of it was given back.
    refunded: MoneyView,
    /// How it is found elsewhere; absent if nobody said.
    #[oai(skip_serializing_if_is_none)]
    reference: Option<Text<form::Reference>>,
    /// Each refund, oldest first.
    #[oai(validator(max_items = 100))]
    refunds: Vec<RefundView>,
    /// The `sub` of who recorded it.
    created_by: Text<form::Subject>,
    /// When it was recorded.
    created_at: DateTime<Utc>,
}

/// An invoice.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Invoice")]
pub(super) struct InvoiceView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// Counts up by one, without gaps.
    #[oai(validator(minimum(value = "1"), maximum(value = "9007199254740991")))]
    number: i64,
    /// What it is for.
    order_id: Uuid,
    /// Where it is in its life.
    status: InvoiceStatus,
    /// What it asks money for.
    #[oai(validator(max_items = 50))]
    lines: Vec<InvoiceLineView>,
    /// The sum of the lines.
    total: MoneyView,
    /// All payments, whether given back or not.
    paid: MoneyView,
    /// All refunds.
    refunded: MoneyView,
    /// What is still to be paid.
    outstanding: MoneyView,
    /// Each payment, oldest first.
    #[oai(validator(max_items = 100))]
    payments: Vec<PaymentView>,
    /// The `sub` of who issued it.
    issued_by: Text<form::Subject>,
    /// When it was issued.
    issued_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// One page of invoices, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct InvoicePage {
    /// The invoices of the page.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<InvoiceView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<form::Cursor>>,
}

impl From<InvoiceLine> for InvoiceLineView {
    fn from(line: InvoiceLine) -> Self {
        Self {
            sku: line.sku.as_str().into(),
            description: line.description.into(),
            quantity: line.quantity.get(),
            unit_price: line.unit_price.into(),
        }
    }
}

impl From<Refund> for RefundView {
    fn from(refund: Refund) -> Self {
        Self {
            id: refund.id.uuid(),
            payment_id: refund.payment.uuid(),
            amount: refund.amount.into(),
            reason: refund.reason.map(|reason| reason.as_str().into()),
            created_by: refund.created_by.into(),
            created_at: refund.created_at,
        }
    }
}

impl From<Payment> for PaymentView {
    fn from(payment: Payment) -> Self {
        Self {
            id: payment.id.uuid(),
            invoice_id: payment.invoice.uuid(),
            amount: payment.amount.into(),
            refunded: payment.refunded.into(),
            reference: payment.reference.map(|reference| reference.as_str().into()),
            refunds: payment.refunds.into_iter().map(RefundView::from).collect(),
            created_by: payment.created_by.into(),
            created_at: payment.created_at,
        }
    }
}

impl TryFrom<Invoice> for InvoiceView {
    type Error = Problem;

    fn try_from(invoice: Invoice) -> Result<Self, Problem> {
        // The database holds the sums to each other, so this cannot fail.
        let outstanding = invoice.outstanding().map_err(|_| Problem::new(Kind::Internal))?;
        Ok(Self {
            id: invoice.id.uuid(),
            number: invoice.number,
            order_id: invoice.order.uuid(),
            status: invoice.status.into(),
            lines: invoice.lines.into_iter().map(InvoiceLineView::from).collect(),
            total: invoice.total.into(),
            paid: invoice.paid.into(),
            refunded: invoice.refunded.into(),
            outstanding: outstanding.into(),
            payments: invoice.payments.into_iter().map(PaymentView::from).collect(),
            issued_by: invoice.issued_by.into(),
            issued_at: invoice.issued_at,
            updated_at: invoice.updated_at,
        })
    }
}
