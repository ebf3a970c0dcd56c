//! Orders as callers send and see them.

use chrono::{DateTime, Utc};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    api::{
        api_enum,
        faults::Faults,
        money::MoneyView,
        text::{Text, form},
    },
    domain::{self, CustomerId, NewOrderError, Note, Order, OrderLine, Quantity},
    problem::{Kind, Problem},
};

api_enum! {
    /// How fast an order travels.
    ShippingSpeed = domain::ShippingSpeed { Standard, Express }
}
api_enum! {
    /// Where an order is in its life.
    OrderStatus = domain::OrderStatus { Placed, Invoiced, Paid, Fulfilled, Cancelled, Refunded }
}

/// One line of an order to place.
#[derive(Debug, Object)]
pub(super) struct NewOrderLine {
    /// What to order; lower case is taken for upper case. Each sku stands in one line only.
    sku: Text<form::AnySku>,
    /// How many units.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
}

/// An order to place. Prices are the catalogue's at this moment; none can be sent.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewOrder {
    /// Who it is for.
    #[oai(skip_serializing_if_is_none)]
    customer_id: Option<Uuid>,
    /// What to order.
    #[oai(validator(min_items = 1, max_items = 50))]
    lines: Vec<NewOrderLine>,
    /// How it travels.
    shipping_speed: ShippingSpeed,
    /// Anything to remember about it; no control characters but line breaks.
    note: Option<Text<form::Note>>,
}

impl Example for NewOrder {
    fn example() -> Self {
        let line = NewOrderLine { sku: "PAPER-A4".into(), quantity: 5 };
        Self {
            customer_id: None,
            lines: vec![line],
            shipping_speed: ShippingSpeed::Standard,
            note: Some("leave at the door".into()),
        }
    }
}

impl NewOrder {
    pub(super) fn into_domain(self) -> Result<domain::NewOrder, Problem> {
        let mut faults = Faults::default();
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, line) in self.lines.iter().enumerate() {
            let sku = faults.parse(format!("/lines/{index}/sku"), &line.sku);
            let quantity = Quantity::try_from(line.quantity);
            let quantity = faults.note(format!("/lines/{index}/quantity"), "out_of_range", quantity);
            if let (Some(sku), Some(quantity)) = (sku, quantity) {
                lines.push(domain::NewOrderLine { sku, quantity });
            }
        }
        let note: Option<Note> = faults.parse_optional("/note", self.note.as_deref());
        let customer = self.customer_id.map(CustomerId::from_uuid);
        let note = faults.finish(Some(note))?;
        Ok(domain::NewOrder::new(customer, lines, self.shipping_speed.into(), note)?)
    }
}

impl From<NewOrderError> for Problem {
    fn from(error: NewOrderError) -> Self {
        match error {
            NewOrderError::LineCount | NewOrderError::Quantity => {
                Self::new(Kind::InvalidInput).at("/lines", "out_of_range")
            }
            NewOrderError::DuplicateSku(index) => {
                Self::new(Kind::Unprocessable).at(format!("/lines/{index}/sku"), "duplicate")
            }
            NewOrderError::UnknownSku(index) => {
                Self::new(Kind::Unprocessable).at(format!("/lines/{index}/sku"), "unknown_product")
            }
            NewOrderError::UnknownCustomer => Self::new(Kind::Unprocessable).at("/customerId", "unknown_customer"),
            NewOrderError::Money(_) => Self::new(Kind::Unprocessable).at("/lines", "total"),
        }
    }
}

/// One line of an order, at the price of the time it was placed.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "OrderLine")]
struct OrderLineView {
    /// What was ordered.
    sku: Text<form::Sku>,
    /// How many units.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
    /// Of one unit.
    unit_price: MoneyView,
}

/// An order.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Order")]
pub(super) struct OrderView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// Who it is for; absent if nobody was named.
    #[oai(skip_serializing_if_is_none)]
    customer_id: Option<Uuid>,
    /// Where it is in its life.
    status: OrderStatus,
    /// How it travels.
    shipping_speed: ShippingSpeed,
    /// What was written on it; absent if nothing was.
    #[oai(skip_serializing_if_is_none)]
    note: Option<Text<form::Note>>,
    /// What was ordered.
    #[oai(validator(max_items = 50))]
    lines: Vec<OrderLineView>,
    /// The sum of the lines.
    total: MoneyView,
    /// The `sub` of who placed it.
    created_by: Text<form::Subject>,
    /// When it was placed.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// One page of orders, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct OrderPage {
    /// The orders of the page.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<OrderView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<form::Cursor>>,
}

impl From<OrderLine> for OrderLineView {
    fn from(line: OrderLine) -> Self {
        Self { sku: line.sku.as_str().into(), quantity: line.quantity.get(), unit_price: line.unit_price.into() }
    }
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        Self {
            id: order.id.uuid(),
            customer_id: order.customer.map(CustomerId::uuid),
            status: order.status.into(),
            shipping_speed: order.shipping_speed.into(),
            note: order.note.map(Text::from),
            lines: order.lines.into_iter().map(OrderLineView::from).collect(),
            total: order.total.into(),
            created_by: order.created_by.into(),
            created_at: order.created_at,
            updated_at: order.updated_at,
        }
    }
}
