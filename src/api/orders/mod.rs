//! Operations on orders: place, list, get, cancel, fulfil.
//!
//! The domain computes prices and totals (INPUT-09) and decides which changes of state are allowed
//! (INPUT-11). Placing an order takes two messages to the database: one reads, one writes.

mod schema;

use std::sync::Arc;

use palisade::{
    authz::Permit,
    http::{
        Context,
        idempotency::{Changed, Created},
        paging::Paging,
        strict_json::StrictJson,
        text::Text,
        values::Time,
    },
    problem::{Kind, Problem},
    store::{Claim, Position},
    telemetry::{ServiceCounter, event},
};
use poem::Result;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use schema::{NewOrder, OrderPage, OrderView};

use super::Tag;
use crate::{
    access::actions::{CancelOrder, CreateOrder, FulfilOrder, GetOrder, ListOrders, VoidInvoice},
    api::{OrderLimits, formats},
    domain::{CustomerId, InvoiceStatus, NewOrderError, Order, OrderId, OrderStatus},
    store::{
        invoices,
        orders::{self, OrderFilter},
    },
};

pub(crate) struct Orders {
    pub(crate) context: Arc<Context>,
    pub(crate) limits: OrderLimits,
}

static PLACED: ServiceCounter =
    ServiceCounter::new("orders.placed", "Orders that were placed, by shipping speed.", "shipping_speed");

impl Orders {
    /// Refuses an order above the limit of the settings.
    fn check_total(&self, permit: &Permit<CreateOrder>, order: &Order) -> Result<(), Problem> {
        if order.total.amount() <= self.limits.max_total {
            return Ok(());
        }
        let tenant = permit.tenant().to_string();
        event::refused_by_service("order_limit_exceeded", permit.principal().subject(), &tenant, "max_total");
        Err(Problem::new(Kind::Unprocessable).at("/lines", "too_large"))
    }
}

#[OpenApi(tag = "Tag::Orders")]
impl Orders {
    /// Place an order
    ///
    /// Places an order at the current prices of the catalogue; the service computes the total. All
    /// prices must be in one currency. Fails with 422 for an unknown product (`unknown_product`),
    /// an unknown customer (`unknown_customer`), a repeated SKU (`duplicate`), prices without a
    /// common total (`total`), or a total above the limit of the service (`too_large`).
    #[oai(path = "/v1/orders", method = "post", operation_id = "createOrder")]
    async fn create(
        &self,
        permit: &Permit<CreateOrder>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        body: StrictJson<NewOrder>,
    ) -> Result<Created<OrderView>> {
        let request = self.context.idempotent::<CreateOrder>(idempotency_key.0, None, &body.canonical);
        let new_order = body.value.into_domain()?;
        let now = self.context.clock.now();
        let mut statements = self.context.database.statements(permit).await?;
        let inputs = orders::inputs(&mut statements, permit, &new_order, request.as_ref()).await?;
        if let Some(outcome) = inputs.stored {
            return Ok(Created::replay(outcome)?);
        }
        if new_order.customer().is_some() && !inputs.customer_exists {
            return Err(Problem::from(NewOrderError::UnknownCustomer).into());
        }
        let order = new_order
            .price(&inputs.catalogue, permit.tenant(), permit.principal().subject(), now)
            .map_err(Problem::from)?;
        self.check_total(permit, &order)?;
        let location = format!("/v1/orders/{}", order.id);
        let created = Created::new(&OrderView::from(order.clone()), Some(location));
        let keyed = request.as_ref().map(|request| (request, created.stored()));
        orders::place(statements, permit, &order, keyed).await?;
        PLACED.increment(order.shipping_speed.as_str());
        Ok(created)
    }

    /// List orders
    ///
    /// Lists the orders of the tenant, newest first. Filters by state, customer and time of placing
    /// can be combined.
    #[oai(path = "/v1/orders", method = "get", operation_id = "listOrders")]
    #[expect(clippy::too_many_arguments, reason = "one per parameter of the query")]
    async fn list(
        &self,
        permit: &Permit<ListOrders>,
        /// Only orders in this state.
        status: Query<Option<schema::OrderStatus>>,
        /// Only orders for this customer (UUID).
        #[oai(name = "customerId")]
        customer: Query<Option<CustomerId>>,
        /// Only orders placed at or after this time (RFC 3339).
        #[oai(name = "createdFrom")]
        from: Query<Option<Time>>,
        /// Only orders placed before this time (RFC 3339).
        #[oai(name = "createdTo")]
        to: Query<Option<Time>>,
        /// Maximum number of items on the page: 1 to 100, default 20.
        #[oai(
            default = "palisade::http::paging::default_limit",
            validator(minimum(value = "1"), maximum(value = "100"))
        )]
        limit: Query<i64>,
        /// `nextCursor` of the previous page. Omit it for the first page.
        cursor: Query<Option<Text<formats::Cursor>>>,
    ) -> Result<Json<OrderPage>> {
        let paging = Paging::new(&self.context.mac_key, "orders", permit.tenant(), limit.0);
        let newest = to.0.map_or_else(Position::start, |to| Position::before(to.0));
        let start = paging.open(cursor.0.as_deref())?.map_or(newest, |cursor: Position| cursor.later(newest));
        let filter = OrderFilter {
            status: status.0.map(OrderStatus::from),
            customer: customer.0,
            created_from: from.0.map(|from| from.0),
        };
        let database = &self.context.database;
        let mut page = orders::page(database, permit, start, filter, paging.read_ahead()).await?;
        let next_cursor =
            paging.cut(&mut page, |order| Position { at: order.created_at, id: order.id.uuid() }.to_string());
        Ok(Json(OrderPage { items: page.into_iter().map(OrderView::from).collect(), next_cursor }))
    }

    /// Get an order
    ///
    /// Returns the order with its lines, at the prices of the time it was placed.
    #[oai(path = "/v1/orders/:id", method = "get", operation_id = "getOrder")]
    async fn get(
        &self,
        permit: &Permit<GetOrder>,
        /// Order id (UUID).
        id: Path<OrderId>,
    ) -> Result<Json<OrderView>> {
        let order = orders::get(&self.context.database, permit, id.0).await?;
        Ok(Json(order.ok_or_else(|| Problem::new(Kind::NotFound))?.into()))
    }

    /// Cancel an order
    ///
    /// Cancels an order that is `placed`, or `invoiced` with no payment kept (payments minus
    /// refunds are zero). Also voids its invoice. Any other state fails with 409 (`conflict`).
    #[oai(path = "/v1/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel(
        &self,
        permit: &Permit<CancelOrder>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Order id (UUID).
        id: Path<OrderId>,
    ) -> Result<Changed<OrderView>> {
        let request = self.context.idempotent::<CancelOrder>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Changed::replay(outcome)?),
        };
        let order = tx.lock::<Order>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let order_permit = permit.for_object(&order)?;
        let now = self.context.clock.now();
        if let Some(invoice) = invoices::lock_active(&tx, &order).await? {
            let invoice_permit = permit.for_object(&invoice)?;
            invoices::set_status(&tx, &invoice_permit, &invoice.advance(InvoiceStatus::Void)?, now).await?;
            tx.also_record::<VoidInvoice, _>(&invoice_permit)?;
        }
        let next = order.advance(OrderStatus::Cancelled)?;
        orders::set_status(&tx, &order_permit, &next, now).await?;
        let order = Order { status: next.to(), updated_at: now, ..order.into_inner() };
        let order_id = order.id;
        let changed = Changed::new(&OrderView::from(order), None);
        tx.commit(permit, order_id, changed.stored()).await?;
        Ok(changed)
    }

    /// Fulfil an order
    ///
    /// Marks a `paid` order as delivered. Any other state fails with 409 (`conflict`).
    #[oai(path = "/v1/orders/:id/fulfil", method = "post", operation_id = "fulfilOrder")]
    async fn fulfil(
        &self,
        permit: &Permit<FulfilOrder>,
        /// Idempotency key, 1 to 255 visible ASCII characters. Retries with the same key return the
        /// first response (valid for 24 hours by default).
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<Text<formats::IdempotencyKey>>>,
        /// Order id (UUID).
        id: Path<OrderId>,
    ) -> Result<Changed<OrderView>> {
        let request = self.context.idempotent::<FulfilOrder>(idempotency_key.0, Some(id.0.uuid()), &[]);
        let tx = match self.context.database.write_once(permit, request).await? {
            Claim::New(tx) => tx,
            Claim::Used(outcome) => return Ok(Changed::replay(outcome)?),
        };
        let order = tx.lock::<Order>(id.0).await?.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let order_permit = permit.for_object(&order)?;
        let next = order.advance(OrderStatus::Fulfilled)?;
        let now = self.context.clock.now();
        orders::set_status(&tx, &order_permit, &next, now).await?;
        let order = Order { status: next.to(), updated_at: now, ..order.into_inner() };
        let order_id = order.id;
        let changed = Changed::new(&OrderView::from(order), None);
        tx.commit(permit, order_id, changed.stored()).await?;
        Ok(changed)
    }
}
