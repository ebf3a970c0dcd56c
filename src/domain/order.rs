use std::{collections::BTreeSet, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{Money, MoneyError, Note, OrderId, Product, Sku, TenantId};

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

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// The text used on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownValue;

            fn from_str(s: &str) -> Result<Self, UnknownValue> {
                match s { $($text => Ok(Self::$variant),)+ _ => Err(UnknownValue) }
            }
        }
    };
}

/// The text is none of the values of its enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown value")]
pub struct UnknownValue;

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
    /// `placed | invoiced → cancelled`; `paid → refunded`.
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
    /// The sum cannot be computed.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl NewOrder {
    /// Checks what no single field can know: the number of lines, and each sku once.
    pub fn new(
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
        Ok(Self { lines, shipping_speed, note })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_can_be_cancelled_only_before_payment() {
        use OrderStatus::{Cancelled, Fulfilled, Invoiced, Paid, Placed, Refunded};
        assert_eq!(Placed.cancel(), Ok(Cancelled));
        assert_eq!(Invoiced.cancel(), Ok(Cancelled));
        for state in [Paid, Fulfilled, Cancelled, Refunded] {
            assert_eq!(state.cancel(), Err(TransitionError), "{state}");
        }
    }

    #[test]
    fn a_sku_stands_in_one_line_only_whatever_its_case() {
        let line = |sku: &str| NewOrderLine { sku: sku.parse().unwrap(), quantity: Quantity(1) };
        let twice = NewOrder::new(vec![line("abc-1"), line("ABC-1")], ShippingSpeed::Standard, None);
        assert_eq!(twice, Err(NewOrderError::DuplicateSku(1)));
    }
}
