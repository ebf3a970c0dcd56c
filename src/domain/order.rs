//! Orders: their state machine, and prices computed by the server (INPUT-09, INPUT-11).
//!
//! [`crate::api`] parses a [`NewOrder`] from the request, [`NewOrder::price`] computes the totals
//! from catalogue prices, and [`crate::store`] stores the [`Order`]. Every change of state is a
//! method of [`OrderStatus`], so no other transition exists.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{
    CustomerId, InvoiceStatus, Money, MoneyError, Note, OrderId, Product, Sku, TenantId, TenantObject,
    text_enum::text_enum,
};

/// Maximum number of lines per order.
pub const MAX_LINES: usize = 50;
/// Maximum number of units per line.
pub const MAX_QUANTITY: i32 = 100;

/// The number of units in a line: 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(i32);

impl Quantity {
    /// The number of units.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Quantity {
    type Error = NewOrderError;

    fn try_from(units: i32) -> Result<Self, NewOrderError> {
        if (1..=MAX_QUANTITY).contains(&units) { Ok(Self(units)) } else { Err(NewOrderError::Quantity) }
    }
}

text_enum! {
    /// Shipping speed of an order.
    ShippingSpeed {
        /// Slow and cheap.
        Standard = "standard",
        /// Fast.
        Express = "express",
    }
}

text_enum! {
    /// State of an order. Transitions: `placed → invoiced → paid → fulfilled`,
    /// `placed | invoiced → cancelled`, `paid → refunded`, and `invoiced → placed` when the invoice
    /// is voided.
    OrderStatus {
        /// Accepted, and not invoiced.
        Placed = "placed",
        /// An invoice was issued.
        Invoiced = "invoiced",
        /// The invoice is paid in full.
        Paid = "paid",
        /// Delivered. Final.
        Fulfilled = "fulfilled",
        /// Cancelled before payment. Final.
        Cancelled = "cancelled",
        /// Refunded in full before delivery. Final.
        Refunded = "refunded",
    }
}

/// The state of the order or invoice does not allow the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the state of the order or invoice does not allow this")]
pub struct TransitionError;

impl OrderStatus {
    /// The state after cancellation, which is allowed until payment.
    pub const fn cancel(self) -> Result<Self, TransitionError> {
        match self {
            Self::Placed | Self::Invoiced => Ok(Self::Cancelled),
            Self::Paid | Self::Fulfilled | Self::Cancelled | Self::Refunded => Err(TransitionError),
        }
    }

    /// The state after the issue of an invoice.
    pub const fn invoice(self) -> Result<Self, TransitionError> {
        self.transition(Self::Placed, Self::Invoiced)
    }

    /// The state after the invoice was voided. A corrected one may be issued.
    pub const fn void(self) -> Result<Self, TransitionError> {
        self.transition(Self::Invoiced, Self::Placed)
    }

    /// The state after payment in full.
    pub const fn pay(self) -> Result<Self, TransitionError> {
        self.transition(Self::Invoiced, Self::Paid)
    }

    /// The state after delivery.
    pub const fn fulfil(self) -> Result<Self, TransitionError> {
        self.transition(Self::Paid, Self::Fulfilled)
    }

    /// The state after a full refund.
    pub const fn refund(self) -> Result<Self, TransitionError> {
        self.transition(Self::Paid, Self::Refunded)
    }

    const fn transition(self, from: Self, to: Self) -> Result<Self, TransitionError> {
        // `==` on enumerations is not const.
        if self as u8 == from as u8 { Ok(to) } else { Err(TransitionError) }
    }
}

/// One line of an order. The price is the one at the time of placing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderLine {
    /// Stock keeping unit of the product.
    pub sku: Sku,
    /// Number of units.
    pub quantity: Quantity,
    /// Price of one unit.
    pub unit_price: Money,
}

/// A stored order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Identifier.
    pub id: OrderId,
    /// Tenant that owns it.
    pub tenant: TenantId,
    /// Customer that it is for.
    pub customer: Option<CustomerId>,
    /// State.
    pub status: OrderStatus,
    /// Shipping speed.
    pub shipping_speed: ShippingSpeed,
    /// Free text of the caller.
    pub note: Option<String>,
    /// Lines, in the sequence of the request.
    pub lines: Vec<OrderLine>,
    /// Sum of the lines.
    pub total: Money,
    /// Subject of the principal that placed it.
    pub created_by: String,
    /// Time of placing.
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
}

/// One line of a requested order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrderLine {
    /// Stock keeping unit of the product.
    pub sku: Sku,
    /// Number of units.
    pub quantity: Quantity,
}

/// A requested order. It has no prices: the server computes them from the catalogue (INPUT-09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    customer: Option<CustomerId>,
    lines: Vec<NewOrderLine>,
    shipping_speed: ShippingSpeed,
    note: Option<Note>,
}

/// Why a requested order is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NewOrderError {
    /// There is no line, or more than [`MAX_LINES`].
    #[error("an order has 1 to {MAX_LINES} lines")]
    LineCount,
    /// A quantity is below 1 or above [`MAX_QUANTITY`].
    #[error("a quantity is 1 to {MAX_QUANTITY}")]
    Quantity,
    /// The line at this index repeats the SKU of an earlier line.
    #[error("a SKU appears in more than one line")]
    DuplicateSku(usize),
    /// The line at this index has a SKU that the tenant's catalogue does not have.
    #[error("no such product")]
    UnknownSku(usize),
    /// The tenant has no such customer.
    #[error("no such customer")]
    UnknownCustomer,
    /// The total overflows, or mixes currencies.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl NewOrder {
    /// Checks the rules across fields: the number of lines, and that no SKU repeats.
    pub fn new(
        customer: Option<CustomerId>,
        lines: Vec<NewOrderLine>,
        shipping_speed: ShippingSpeed,
        note: Option<Note>,
    ) -> Result<Self, NewOrderError> {
        if lines.is_empty() || lines.len() > MAX_LINES {
            return Err(NewOrderError::LineCount);
        }
        let mut seen = BTreeSet::new();
        if let Some(index) = lines.iter().position(|line| !seen.insert(&line.sku)) {
            return Err(NewOrderError::DuplicateSku(index));
        }
        Ok(Self { customer, lines, shipping_speed, note })
    }

    /// The customer that the order is for.
    #[must_use]
    pub fn customer(&self) -> Option<CustomerId> {
        self.customer
    }

    /// The SKU of each line.
    pub fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.lines.iter().map(|line| &line.sku)
    }

    /// Prices the order from `catalogue`. This is the only place that computes totals of orders.
    pub fn price(
        self,
        catalogue: &[Product],
        tenant: TenantId,
        created_by: &str,
        now: DateTime<Utc>,
    ) -> Result<Order, NewOrderError> {
        let mut lines = Vec::with_capacity(self.lines.len());
        let mut total: Option<Money> = None;
        for (index, line) in self.lines.into_iter().enumerate() {
            let product = catalogue.iter().find(|p| p.sku == line.sku).ok_or(NewOrderError::UnknownSku(index))?;
            let amount = product.price.checked_mul(i64::from(line.quantity.get()))?;
            total = Some(match total {
                None => amount,
                Some(sum) => sum.checked_add(amount)?,
            });
            lines.push(OrderLine { sku: line.sku, quantity: line.quantity, unit_price: product.price });
        }
        Ok(Order {
            id: OrderId::generate(),
            tenant,
            customer: self.customer,
            status: OrderStatus::Placed,
            shipping_speed: self.shipping_speed,
            note: self.note.map(|note| note.as_str().to_owned()),
            lines,
            total: total.ok_or(NewOrderError::LineCount)?,
            created_by: created_by.to_owned(),
            created_at: now,
            updated_at: now,
        })
    }
}

impl Order {
    /// Marks the order as invoiced. Returns the state of the new invoice. If the total is zero,
    /// order and invoice are paid at once.
    pub fn invoice(&mut self, now: DateTime<Utc>) -> Result<InvoiceStatus, TransitionError> {
        let invoiced = self.status.invoice()?;
        let is_free = self.total.amount() == 0;
        self.status = if is_free { invoiced.pay()? } else { invoiced };
        self.updated_at = now;
        Ok(if is_free { InvoiceStatus::Paid } else { InvoiceStatus::Open })
    }
}

impl TenantObject for Order {
    type Id = OrderId;

    fn id(&self) -> OrderId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_11_only_listed_transitions_are_allowed() {
        use OrderStatus::{Cancelled, Fulfilled, Invoiced, Paid, Placed, Refunded};
        type Transition = fn(OrderStatus) -> Result<OrderStatus, TransitionError>;
        let transitions: [(Transition, &[(OrderStatus, OrderStatus)]); 6] = [
            (OrderStatus::cancel, &[(Placed, Cancelled), (Invoiced, Cancelled)]),
            (OrderStatus::invoice, &[(Placed, Invoiced)]),
            (OrderStatus::void, &[(Invoiced, Placed)]),
            (OrderStatus::pay, &[(Invoiced, Paid)]),
            (OrderStatus::fulfil, &[(Paid, Fulfilled)]),
            (OrderStatus::refund, &[(Paid, Refunded)]),
        ];
        for (transition, allowed) in transitions {
            for from in OrderStatus::ALL {
                let to = allowed.iter().find(|(state, _)| state == from).map(|(_, to)| *to);
                assert_eq!(transition(*from).ok(), to, "{from}");
            }
        }
    }

    #[test]
    fn duplicate_sku_is_rejected_regardless_of_case() {
        let line = |sku: &str| NewOrderLine { sku: sku.parse().unwrap(), quantity: Quantity(1) };
        let duplicate = NewOrder::new(None, vec![line("abc-1"), line("ABC-1")], ShippingSpeed::Standard, None);
        assert_eq!(duplicate, Err(NewOrderError::DuplicateSku(1)));
    }
}
