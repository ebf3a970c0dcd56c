use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{
    CustomerId, InvoiceStatus, Money, MoneyError, Note, OrderId, Product, Sku, TenantId, TenantObject,
    text_enum::text_enum,
};

/// Most lines in one order.
pub const MAX_LINES: usize = 50;
/// Most units in one line.
pub const MAX_QUANTITY: i32 = 100;

/// Units in a line: 1 to [`MAX_QUANTITY`].
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
    /// How fast an order travels.
    ShippingSpeed {
        /// The slow, cheap way.
        Standard = "standard",
        /// The fast way.
        Express = "express",
    }
}

text_enum! {
    /// Where an order is in its life: `placed → invoiced → paid → fulfilled`;
    /// `placed | invoiced → cancelled`; `paid → refunded`. Voiding the invoice leads back from `invoiced` to `placed`.
    OrderStatus {
        /// Accepted, not yet invoiced.
        Placed = "placed",
        /// An invoice was issued for it.
        Invoiced = "invoiced",
        /// Its invoice is paid in full.
        Paid = "paid",
        /// Delivered. Final.
        Fulfilled = "fulfilled",
        /// Given up before payment. Final.
        Cancelled = "cancelled",
        /// Paid back in full. Final.
        Refunded = "refunded",
    }
}

/// The order's state does not allow the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the order's state does not allow this")]
pub struct TransitionError;

impl OrderStatus {
    /// The state after cancelling, allowed until payment.
    pub const fn cancel(self) -> Result<Self, TransitionError> {
        match self {
            Self::Placed | Self::Invoiced => Ok(Self::Cancelled),
            Self::Paid | Self::Fulfilled | Self::Cancelled | Self::Refunded => Err(TransitionError),
        }
    }

    /// The state after an invoice was issued.
    pub const fn invoice(self) -> Result<Self, TransitionError> {
        self.step(Self::Placed, Self::Invoiced)
    }

    /// The state after its invoice was taken back: a corrected one may be issued.
    pub const fn void(self) -> Result<Self, TransitionError> {
        self.step(Self::Invoiced, Self::Placed)
    }

    /// The state after payment in full.
    pub const fn pay(self) -> Result<Self, TransitionError> {
        self.step(Self::Invoiced, Self::Paid)
    }

    /// The state after delivery.
    pub const fn fulfil(self) -> Result<Self, TransitionError> {
        self.step(Self::Paid, Self::Fulfilled)
    }

    /// The state after all money was given back.
    pub const fn refund(self) -> Result<Self, TransitionError> {
        self.step(Self::Paid, Self::Refunded)
    }

    const fn step(self, from: Self, to: Self) -> Result<Self, TransitionError> {
        // `==` is not const for enumerations.
        if self as u8 == from as u8 { Ok(to) } else { Err(TransitionError) }
    }
}

/// One line of an order, at the price of the time it was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderLine {
    /// What was ordered.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
    /// Of one unit.
    pub unit_price: Money,
}

/// An order as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its identifier.
    pub id: OrderId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Who it is for.
    pub customer: Option<CustomerId>,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// How it travels.
    pub shipping_speed: ShippingSpeed,
    /// What the caller wrote on it.
    pub note: Option<String>,
    /// What was ordered, in the caller's order.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines.
    pub total: Money,
    /// The `sub` of who placed it.
    pub created_by: String,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// One line a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrderLine {
    /// What to order.
    pub sku: Sku,
    /// How many units.
    pub quantity: Quantity,
}

/// An order a caller asks for. Carries no price: prices are the server's (INPUT-09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    customer: Option<CustomerId>,
    lines: Vec<NewOrderLine>,
    shipping_speed: ShippingSpeed,
    note: Option<Note>,
}

/// Why an order cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NewOrderError {
    /// No line, or more than [`MAX_LINES`].
    #[error("an order has 1 to {MAX_LINES} lines")]
    LineCount,
    /// Below 1 or above [`MAX_QUANTITY`].
    #[error("a quantity is 1 to {MAX_QUANTITY}")]
    Quantity,
    /// The line at this index names a sku an earlier one named.
    #[error("each sku may stand in one line only")]
    DuplicateSku(usize),
    /// The line at this index names a sku the tenant's catalogue does not have.
    #[error("no such product")]
    UnknownSku(usize),
    /// The customer is none of the tenant's.
    #[error("no such customer")]
    UnknownCustomer,
    /// The sum cannot be computed.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl NewOrder {
    /// Checks what no single field can know: the number of lines, and each sku once.
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

    /// Who it is for.
    #[must_use]
    pub fn customer(&self) -> Option<CustomerId> {
        self.customer
    }

    /// The skus, one per line.
    pub fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.lines.iter().map(|line| &line.sku)
    }

    /// The order, priced from `catalogue`: totals are computed here and nowhere else.
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
    /// Moves on to the state after its invoice was issued, and says that invoice's: where there is nothing to
    /// pay, both are paid at once.
    pub fn invoice(&mut self, now: DateTime<Utc>) -> Result<InvoiceStatus, TransitionError> {
        let invoiced = self.status.invoice()?;
        let (status, invoice) = if self.total.amount() == 0 {
            (invoiced.pay()?, InvoiceStatus::Paid)
        } else {
            (invoiced, InvoiceStatus::Open)
        };
        (self.status, self.updated_at) = (status, now);
        Ok(invoice)
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
    fn input_11_each_step_has_its_states_and_no_other() {
        use OrderStatus::{Cancelled, Fulfilled, Invoiced, Paid, Placed, Refunded};
        type Step = fn(OrderStatus) -> Result<OrderStatus, TransitionError>;
        let steps: [(Step, &[(OrderStatus, OrderStatus)]); 6] = [
            (OrderStatus::cancel, &[(Placed, Cancelled), (Invoiced, Cancelled)]),
            (OrderStatus::invoice, &[(Placed, Invoiced)]),
            (OrderStatus::void, &[(Invoiced, Placed)]),
            (OrderStatus::pay, &[(Invoiced, Paid)]),
            (OrderStatus::fulfil, &[(Paid, Fulfilled)]),
            (OrderStatus::refund, &[(Paid, Refunded)]),
        ];
        for (step, allowed) in steps {
            for from in OrderStatus::ALL {
                let to = allowed.iter().find(|(state, _)| state == from).map(|(_, to)| *to);
                assert_eq!(step(*from).ok(), to, "{from}");
            }
        }
    }

    #[test]
    fn a_sku_stands_in_one_line_only_whatever_its_case() {
        let line = |sku: &str| NewOrderLine { sku: sku.parse().unwrap(), quantity: Quantity(1) };
        let twice = NewOrder::new(None, vec![line("abc-1"), line("ABC-1")], ShippingSpeed::Standard, None);
        assert_eq!(twice, Err(NewOrderError::DuplicateSku(1)));
    }
}
