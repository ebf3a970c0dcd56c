//! Orders: their state machine, and prices computed by the server (INPUT-09, INPUT-11).
//!
//! [`crate::api`] parses a [`NewOrder`] from the request, [`NewOrder::price`] computes the totals
//! from catalogue prices, and [`crate::store`] stores the [`Order`]. The one table of transitions is
//! [`State::may_become`] of [`OrderStatus`].

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use palisade::{
    model::{State, TenantId},
    text_enum,
};
use thiserror::Error;

use super::{CustomerId, InvoiceStatus, Money, MoneyError, Note, OrderId, Product, Sku};

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
    /// State of an order. Transitions: `placed → invoiced → paid → fulfilled`, `placed → paid` if
    /// the total is zero, `placed | invoiced → cancelled`, `paid → refunded`, and `invoiced → placed`
    /// when the invoice is voided.
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

impl State for OrderStatus {
    fn may_become(self, to: Self) -> bool {
        use OrderStatus::{Cancelled, Fulfilled, Invoiced, Paid, Placed, Refunded};
        match self {
            // Paid at once: an order with a total of zero.
            Placed => matches!(to, Invoiced | Paid | Cancelled),
            Invoiced => matches!(to, Placed | Paid | Cancelled),
            Paid => matches!(to, Fulfilled | Refunded),
            Fulfilled | Cancelled | Refunded => false,
        }
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
    /// The states of the order and of its new invoice. If the total is zero, both are paid at once.
    #[must_use]
    pub fn states_when_invoiced(&self) -> (OrderStatus, InvoiceStatus) {
        match self.total.amount() {
            0 => (OrderStatus::Paid, InvoiceStatus::Paid),
            _ => (OrderStatus::Invoiced, InvoiceStatus::Open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_11_only_listed_transitions_are_allowed() {
        use OrderStatus::{Cancelled, Fulfilled, Invoiced, Paid, Placed, Refunded};
        let allowed = [
            (Placed, Invoiced),
            (Placed, Paid),
            (Placed, Cancelled),
            (Invoiced, Placed),
            (Invoiced, Paid),
            (Invoiced, Cancelled),
            (Paid, Fulfilled),
            (Paid, Refunded),
        ];
        for from in OrderStatus::ALL {
            for to in OrderStatus::ALL {
                assert_eq!(from.may_become(*to), allowed.contains(&(*from, *to)), "{from} to {to}");
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
