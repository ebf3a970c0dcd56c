//! Schemas of invoices, payments and refunds, the conversions from and to the domain, and the
//! problems of billing errors.
//!
//! Every amount is bounded and integer (INPUT-09). The domain checks amounts against what is
//! outstanding or left of a payment.

use chrono::{DateTime, Utc};
use palisade::{
    http::{field_errors::FieldErrors, text::Text},
    problem::{Kind, Problem},
};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    api::{
        formats,
        money::{MoneyView, PositiveMoney},
    },
    domain::{
        self, BillingError, Invoice, InvoiceLine, InvoiceSummary, Money, MoneyError, Payment, Reason, Reference, Refund,
    },
};

palisade::api_enum! {
    /// State of an invoice: `open` → `paid` → `refunded`, or `open` → `void`.
    InvoiceStatus = domain::InvoiceStatus { Open, Paid, Void, Refunded }
}

/// Payment to record.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewPayment {
    /// Amount received: at most the outstanding amount, in the currency of the invoice.
    amount: PositiveMoney,
    /// Reference of the payment in another system, such as a bank statement: 1 to 100 characters.
    reference: Option<Text<formats::Reference>>,
}

/// Refund to record.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct NewRefund {
    /// Amount to refund: at most the part of the payment that is not yet refunded, in its currency.
    amount: PositiveMoney,
    /// Reason for the refund, 1 to 200 characters.
    reason: Option<Text<formats::Reason>>,
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
        parse_amount_and_text(&self.amount, "/reference", self.reference.as_deref())
    }
}

impl NewRefund {
    pub(super) fn into_domain(self) -> Result<(Money, Option<Reason>), Problem> {
        parse_amount_and_text(&self.amount, "/reason", self.reason.as_deref())
    }
}

fn parse_amount_and_text<T: std::str::FromStr>(
    amount: &PositiveMoney,
    text_pointer: &str,
    text: Option<&str>,
) -> Result<(Money, Option<T>), Problem> {
    let mut errors = FieldErrors::default();
    let amount = errors.note("/amount", "invalid", Money::try_from(amount));
    let text = errors.parse_optional(text_pointer, text);
    errors.finish(amount.map(|amount| (amount, text)))
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::State => Self::new(Kind::Conflict),
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

/// Line of an invoice, frozen when the invoice was issued.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "InvoiceLine")]
struct InvoiceLineView {
    /// Stock keeping unit of the product.
    sku: Text<formats::Sku>,
    /// Name of the product when the invoice was issued.
    description: Text<formats::Name>,
    /// Number of units, 1 to 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
    /// Price of one unit when the order was placed.
    unit_price: MoneyView,
}

/// A refund of all or part of a payment.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Refund")]
pub(super) struct RefundView {
    /// Refund id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Id of the refunded payment (UUID).
    payment_id: Uuid,
    /// Amount refunded.
    amount: MoneyView,
    /// Reason for the refund; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<Text<formats::Reason>>,
    /// Subject of the caller that recorded the refund.
    created_by: Text<formats::Subject>,
    /// Time of recording (RFC 3339, UTC).
    created_at: DateTime<Utc>,
}

/// A payment that was received for an invoice.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Payment")]
pub(super) struct PaymentView {
    /// Payment id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Id of the invoice (UUID).
    invoice_id: Uuid,
    /// Amount received.
    amount: MoneyView,
    /// Sum of the refunds of this payment.
    refunded: MoneyView,
    /// Reference of the payment in another system; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    reference: Option<Text<formats::Reference>>,
    /// Refunds of this payment, at most 101, oldest first. The 101st refunded the rest.
    #[oai(validator(max_items = 101))]
    refunds: Vec<RefundView>,
    /// Subject of the caller that recorded the payment.
    created_by: Text<formats::Subject>,
    /// Time of recording (RFC 3339, UTC).
    created_at: DateTime<Utc>,
}

/// An invoice without its lines and payments.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "InvoiceSummary")]
pub(super) struct SummaryView {
    /// Invoice id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Invoice number: consecutive in the tenant, from 1, without gaps.
    #[oai(validator(minimum(value = "1"), maximum(value = "9007199254740991")))]
    number: i64,
    /// Id of the invoiced order (UUID).
    order_id: Uuid,
    /// State of the invoice.
    status: InvoiceStatus,
    /// Sum over all lines of quantity times unit price.
    total: MoneyView,
    /// Sum of all payments; refunds are not subtracted.
    paid: MoneyView,
    /// Sum of all refunds.
    refunded: MoneyView,
    /// Amount still to be paid: `total` minus `paid` plus `refunded` while `open`, else zero.
    outstanding: MoneyView,
    /// Subject of the caller that issued the invoice.
    issued_by: Text<formats::Subject>,
    /// Time of issue (RFC 3339, UTC).
    issued_at: DateTime<Utc>,
    /// Time of the last change (RFC 3339, UTC).
    updated_at: DateTime<Utc>,
}

/// An invoice.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Invoice")]
pub(super) struct InvoiceView {
    #[oai(flatten)]
    summary: SummaryView,
    /// Lines of the invoice, at most 50, as in the order.
    #[oai(validator(max_items = 50))]
    lines: Vec<InvoiceLineView>,
    /// Payments, at most 101, oldest first. The 101st settled the invoice.
    #[oai(validator(max_items = 101))]
    payments: Vec<PaymentView>,
}

/// One page of invoices, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct InvoicePage {
    /// Invoices of the page, at most 100.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<SummaryView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<formats::Cursor>>,
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

impl TryFrom<InvoiceSummary> for SummaryView {
    type Error = Problem;

    fn try_from(invoice: InvoiceSummary) -> Result<Self, Problem> {
        // Constraints in the database keep the sums consistent, so this cannot fail.
        let outstanding = invoice.outstanding().map_err(|_| Problem::new(Kind::Internal))?;
        Ok(Self {
            id: invoice.id.uuid(),
            number: invoice.number,
            order_id: invoice.order.uuid(),
            status: invoice.status.into(),
            total: invoice.total.into(),
            paid: invoice.paid.into(),
            refunded: invoice.refunded.into(),
            outstanding: outstanding.into(),
            issued_by: invoice.issued_by.into(),
            issued_at: invoice.issued_at,
            updated_at: invoice.updated_at,
        })
    }
}

impl TryFrom<Invoice> for InvoiceView {
    type Error = Problem;

    fn try_from(invoice: Invoice) -> Result<Self, Problem> {
        let summary = InvoiceSummary {
            id: invoice.id,
            order: invoice.order,
            number: invoice.number,
            status: invoice.status,
            total: invoice.total,
            paid: invoice.paid,
            refunded: invoice.refunded,
            issued_by: invoice.issued_by,
            issued_at: invoice.issued_at,
            updated_at: invoice.updated_at,
        };
        Ok(Self {
            summary: summary.try_into()?,
            lines: invoice.lines.into_iter().map(InvoiceLineView::from).collect(),
            payments: invoice.payments.into_iter().map(PaymentView::from).collect(),
        })
    }
}
