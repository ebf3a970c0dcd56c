//! Schemas of orders, the conversions from and to the domain, and the problems of an invalid order.
//!
//! A request carries no prices and no total (INPUT-09): the domain computes both from the
//! catalogue.

use chrono::{DateTime, Utc};
use palisade::{
    http::{field_errors::FieldErrors, text::Text},
    problem::{Kind, Problem},
};
use poem_openapi::{Object, types::Example};
use uuid::Uuid;

use crate::{
    api::{formats, money::MoneyView},
    domain::{self, CustomerId, NewOrderError, Note, Order, OrderLine, Quantity},
};

palisade::api_enum! {
    /// Shipping speed of an order.
    ShippingSpeed = domain::ShippingSpeed { Standard, Express }
}
palisade::api_enum! {
    /// State of an order: `placed` → `invoiced` → `paid` → `fulfilled`; `placed` or `invoiced` →
    /// `cancelled`; `paid` → `refunded`. Voiding the invoice leads from `invoiced` back to
    /// `placed`.
    OrderStatus = domain::OrderStatus { Placed, Invoiced, Paid, Fulfilled, Cancelled, Refunded }
}

/// Line of an order to place.
#[derive(Debug, Object)]
pub(super) struct NewOrderLine {
    /// Stock keeping unit of the product, case-insensitive. Each SKU may occur in one line only.
    sku: Text<formats::AnySku>,
    /// Number of units, 1 to 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
}

/// Order to place. It has no prices: the service takes them from the catalogue.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub(super) struct NewOrder {
    /// Id of the customer (UUID). Omit it for an order without a customer.
    #[oai(skip_serializing_if_is_none)]
    customer_id: Option<Uuid>,
    /// Lines of the order, 1 to 50.
    #[oai(validator(min_items = 1, max_items = 50))]
    lines: Vec<NewOrderLine>,
    /// Shipping speed.
    shipping_speed: ShippingSpeed,
    /// Free text, 1 to 500 characters, without control characters other than line breaks.
    note: Option<Text<formats::Note>>,
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
        let mut errors = FieldErrors::default();
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, line) in self.lines.iter().enumerate() {
            let sku = errors.parse(format!("/lines/{index}/sku"), &line.sku);
            let quantity = Quantity::try_from(line.quantity);
            let quantity = errors.note(format!("/lines/{index}/quantity"), "out_of_range", quantity);
            if let (Some(sku), Some(quantity)) = (sku, quantity) {
                lines.push(domain::NewOrderLine { sku, quantity });
            }
        }
        let note: Option<Note> = errors.parse_optional("/note", self.note.as_deref());
        let customer = self.customer_id.map(CustomerId::from_uuid);
        let note = errors.finish(Some(note))?;
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

/// Line of an order, at the price of the time of the order.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "OrderLine")]
struct OrderLineView {
    /// Stock keeping unit of the product.
    sku: Text<formats::Sku>,
    /// Number of units, 1 to 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
    /// Price of one unit when the order was placed.
    unit_price: MoneyView,
}

/// An order.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Order")]
pub(super) struct OrderView {
    /// Order id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Id of the customer (UUID); absent for an order without a customer.
    #[oai(skip_serializing_if_is_none)]
    customer_id: Option<Uuid>,
    /// State of the order.
    status: OrderStatus,
    /// Shipping speed.
    shipping_speed: ShippingSpeed,
    /// Free text from the caller; absent if there is none.
    #[oai(skip_serializing_if_is_none)]
    note: Option<Text<formats::Note>>,
    /// Lines of the order, at most 50, in the sequence of the request.
    #[oai(validator(max_items = 50))]
    lines: Vec<OrderLineView>,
    /// Sum over all lines of quantity times unit price.
    total: MoneyView,
    /// Subject of the caller that placed the order.
    created_by: Text<formats::Subject>,
    /// Time of placing the order (RFC 3339, UTC).
    created_at: DateTime<Utc>,
    /// Time of the last change (RFC 3339, UTC).
    updated_at: DateTime<Utc>,
}

/// One page of orders, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct OrderPage {
    /// Orders of the page, at most 100.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<OrderView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<formats::Cursor>>,
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
