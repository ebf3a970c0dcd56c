use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::Result;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use uuid::Uuid;

use super::{Context, MoneyView, Tag, paging::Paging, strict_json::StrictJson};
use crate::{
    authz::{
        Permit,
        actions::{CancelOrder, CreateOrder, GetOrder, ListOrders},
    },
    domain::{self, NewOrderError, Note, Order, OrderId, OrderLine, Quantity, Sku},
    problem::{Kind, Problem},
    telemetry::event,
};

pub(super) struct Orders(pub(super) Arc<Context>);

/// How fast an order travels.
#[derive(Clone, Copy, Debug, Enum)]
#[oai(rename_all = "camelCase")]
enum ShippingSpeed {
    Standard,
    Express,
}

/// One line of an order to place.
#[derive(Debug, Object)]
struct NewOrderLine {
    /// What to order; lower case is taken for upper case. Each sku stands in one line only.
    #[oai(validator(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9-]+$"))]
    sku: String,
    /// How many units.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
}

/// An order to place. Prices are the catalogue's at this moment; none can be sent.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
struct NewOrder {
    /// What to order.
    #[oai(validator(min_items = 1, max_items = 50))]
    lines: Vec<NewOrderLine>,
    /// How it travels.
    shipping_speed: ShippingSpeed,
    /// Anything to remember about it; no control characters but line breaks.
    #[oai(validator(min_length = 1, max_length = 500))]
    note: Option<String>,
}

impl poem_openapi::types::Example for NewOrder {
    fn example() -> Self {
        let line = NewOrderLine { sku: "PAPER-A4".to_owned(), quantity: 5 };
        Self { lines: vec![line], shipping_speed: ShippingSpeed::Standard, note: Some("leave at the door".to_owned()) }
    }
}

/// One line of an order, at the price of the time it was placed.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "OrderLine")]
struct OrderLineView {
    /// What was ordered.
    #[oai(validator(max_length = 64))]
    sku: String,
    /// How many units.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    quantity: i32,
    /// Of one unit.
    unit_price: MoneyView,
}

/// An order.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", rename = "Order")]
struct OrderView {
    /// Its identifier, a `UUIDv7`.
    id: Uuid,
    /// `placed`, `invoiced`, `paid`, `fulfilled`, `cancelled` or `refunded`.
    #[oai(validator(max_length = 16))]
    status: String,
    /// How it travels.
    #[oai(validator(max_length = 16))]
    shipping_speed: String,
    /// What was written on it; absent if nothing was.
    #[oai(skip_serializing_if_is_none, validator(max_length = 500))]
    note: Option<String>,
    /// What was ordered.
    #[oai(validator(max_items = 50))]
    lines: Vec<OrderLineView>,
    /// The sum of the lines.
    total: MoneyView,
    /// The `sub` of who placed it.
    #[oai(validator(max_length = 255))]
    created_by: String,
    /// When it was placed.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// One page of orders, newest first.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct OrderPage {
    /// The orders of the page.
    #[oai(validator(max_items = 100))]
    items: Vec<OrderView>,
    /// What to send as `cursor` for the next page; null on the last.
    #[oai(nullable, validator(max_length = 512))]
    next_cursor: Option<String>,
}

#[derive(ApiResponse)]
enum Placed {
    /// The order was placed.
    #[oai(status = 201)]
    Created(
        Json<OrderView>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
    ),
}

impl From<OrderLine> for OrderLineView {
    fn from(line: OrderLine) -> Self {
        Self { sku: line.sku.to_string(), quantity: line.quantity.get(), unit_price: line.unit_price.into() }
    }
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        Self {
            id: *order.id.as_uuid(),
            status: order.status.to_string(),
            shipping_speed: order.shipping_speed.to_string(),
            note: order.note,
            lines: order.lines.into_iter().map(OrderLineView::from).collect(),
            total: order.total.into(),
            created_by: order.created_by,
            created_at: order.created_at,
            updated_at: order.updated_at,
        }
    }
}

#[OpenApi(tag = "Tag::Orders")]
impl Orders {
    /// Place an order
    #[oai(path = "/v1/orders", method = "post", operation_id = "createOrder")]
    async fn create(&self, permit: Permit<CreateOrder>, body: StrictJson<NewOrder>) -> Result<Placed> {
        let new_order = body.0.into_domain()?;
        let (tenant, subject, now) = (permit.tenant(), permit.principal().subject(), self.0.clock.now());
        let mut tx = self.0.database.write(&permit).await?;
        let catalogue = tx.products_of(&new_order).await?;
        let order = new_order.price(&catalogue, tenant, subject, now).map_err(Problem::from)?;
        tx.insert_order(&order).await?;
        tx.commit().await?;
        event::data_changed(subject, &tenant.to_string(), "order_created", &order.id.to_string());
        let location = format!("/v1/orders/{}", order.id);
        Ok(Placed::Created(Json(order.into()), location))
    }

    /// List orders
    #[oai(path = "/v1/orders", method = "get", operation_id = "listOrders")]
    async fn list(
        &self,
        permit: Permit<ListOrders>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        #[oai(validator(min_length = 1, max_length = 512, pattern = "^[A-Za-z0-9_-]+$"))]
        cursor: Query<Option<String>>,
    ) -> Result<Json<OrderPage>> {
        let paging = Paging::new(&self.0.cursor_key, "orders", permit.tenant(), limit.0);
        let before: Option<OrderId> = paging.open(cursor.0.as_deref())?;
        let mut tx = self.0.database.read(&permit).await?;
        let mut orders = tx.orders(before, paging.read_ahead()).await?;
        tx.finish().await?;
        let next_cursor = paging.cut(&mut orders, |order| order.id.to_string());
        Ok(Json(OrderPage { items: orders.into_iter().map(OrderView::from).collect(), next_cursor }))
    }

    /// Get one order
    #[oai(path = "/v1/orders/:id", method = "get", operation_id = "getOrder")]
    async fn get(&self, permit: Permit<GetOrder>, id: Path<Uuid>) -> Result<Json<OrderView>> {
        let mut tx = self.0.database.read(&permit).await?;
        let order = tx.order(OrderId::from_uuid(id.0)).await?;
        tx.finish().await?;
        Ok(Json(order.ok_or_else(|| Problem::new(Kind::NotFound))?.into()))
    }

    /// Cancel an order
    ///
    /// Allowed until it is paid; afterwards 409.
    #[oai(path = "/v1/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel(&self, permit: Permit<CancelOrder>, id: Path<Uuid>) -> Result<Json<OrderView>> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_order(OrderId::from_uuid(id.0)).await?;
        let mut order = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.for_order(&order).map_err(|_| Problem::new(Kind::NotFound))?;
        order.status = order.status.cancel().map_err(|_| Problem::new(Kind::Conflict))?;
        order.updated_at = self.0.clock.now();
        tx.set_status(&narrowed, order.status, order.updated_at).await?;
        tx.commit().await?;
        let subject = permit.principal().subject();
        event::data_changed(subject, &permit.tenant().to_string(), "order_cancelled", &order.id.to_string());
        Ok(Json(order.into()))
    }
}

impl NewOrder {
    /// What the schema allows, as the domain's own types.
    fn into_domain(self) -> Result<domain::NewOrder, Problem> {
        let invalid = |pointer: String, code| Problem::new(Kind::InvalidInput).at(pointer, code);
        let mut lines = Vec::with_capacity(self.lines.len());
        for (index, line) in self.lines.into_iter().enumerate() {
            let sku: Sku = line.sku.parse().map_err(|_| invalid(format!("/lines/{index}/sku"), "format"))?;
            let quantity = Quantity::try_from(line.quantity)
                .map_err(|_| invalid(format!("/lines/{index}/quantity"), "out_of_range"))?;
            lines.push(domain::NewOrderLine { sku, quantity });
        }
        let shipping_speed = match self.shipping_speed {
            ShippingSpeed::Standard => domain::ShippingSpeed::Standard,
            ShippingSpeed::Express => domain::ShippingSpeed::Express,
        };
        let note = self.note.map(|note| note.parse::<Note>()).transpose();
        let note = note.map_err(|_| invalid("/note".to_owned(), "format"))?;
        Ok(domain::NewOrder::new(lines, shipping_speed, note)?)
    }
}

impl From<NewOrderError> for Problem {
    fn from(error: NewOrderError) -> Self {
        match error {
            NewOrderError::LineCount | NewOrderError::Quantity => {
                Self::new(Kind::InvalidInput).at("/lines", "out_of_range")
            }
            NewOrderError::DuplicateSku(index) => {
                Self::new(Kind::InvalidInput).at(format!("/lines/{index}/sku"), "duplicate")
            }
            NewOrderError::UnknownSku(index) => {
                Self::new(Kind::Unprocessable).at(format!("/lines/{index}/sku"), "unknown_product")
            }
            NewOrderError::Money(_) => Self::new(Kind::Unprocessable).at("/lines", "total"),
        }
    }
}
