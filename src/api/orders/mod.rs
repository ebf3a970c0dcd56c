mod schema;

use std::sync::Arc;

use poem::Result;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

use super::{
    Context, Tag,
    created::Created,
    paging::Paging,
    strict_json::StrictJson,
    text::{Text, form},
    values::Time,
};
use crate::{
    authz::{
        Permit,
        actions::{CancelOrder, CreateOrder, FulfilOrder, GetOrder, ListOrders},
    },
    domain::{CustomerId, NewOrderError, OrderId, OrderStatus},
    problem::{Kind, Problem},
    store::{OrderFilter, Position},
};
use schema::{NewOrder, OrderPage, OrderView};

pub(super) struct Orders(pub(super) Arc<Context>);

#[OpenApi(tag = "Tag::Orders")]
impl Orders {
    /// Place an order
    ///
    /// Prices are the catalogue's at this moment; the total is computed here.
    #[oai(path = "/v1/orders", method = "post", operation_id = "createOrder")]
    async fn create(
        &self,
        permit: Permit<CreateOrder>,
        /// Makes a repetition of the request safe: the work is done once, and the answer is the same.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<Text<form::IdempotencyKey>>>,
        body: StrictJson<NewOrder>,
    ) -> Result<Created<OrderView>> {
        let request = self.0.keyed::<CreateOrder>(key.0, None, &body.canonical);
        let new_order = body.value.into_domain()?;
        let now = self.0.clock.now();
        let mut statements = self.0.database.statements(&permit).await?;
        let inputs = statements.order_inputs(&permit, &new_order, request.as_ref(), now).await?;
        if let Some(earlier) = Created::earlier(inputs.earlier)? {
            return Ok(earlier);
        }
        if new_order.customer().is_some() && !inputs.customer_known {
            return Err(Problem::from(NewOrderError::UnknownCustomer).into());
        }
        let priced = new_order.price(&inputs.catalogue, permit.tenant(), permit.principal().subject(), now);
        let order = priced.map_err(Problem::from)?;
        let location = format!("/v1/orders/{}", order.id);
        let created = Created::new(OrderView::from(order.clone()), Some(location));
        let answer = created.answer();
        statements.place_order(&permit, &order, request.as_ref().map(|request| (request, &answer))).await?;
        Ok(created)
    }

    /// List orders
    ///
    /// Newest first, by any of state, customer and time of placing.
    #[oai(path = "/v1/orders", method = "get", operation_id = "listOrders")]
    #[expect(clippy::too_many_arguments, reason = "one per parameter of the query")]
    async fn list(
        &self,
        permit: Permit<ListOrders>,
        /// Only orders in this state.
        status: Query<Option<schema::OrderStatus>>,
        /// Only orders for this customer.
        #[oai(name = "customerId")]
        customer: Query<Option<CustomerId>>,
        /// Only orders placed at this time or later.
        #[oai(name = "createdFrom")]
        from: Query<Option<Time>>,
        /// Only orders placed before this time.
        #[oai(name = "createdTo")]
        to: Query<Option<Time>>,
        /// Most items on the page.
        #[oai(default = "super::paging::default_limit", validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<i64>,
        /// `nextCursor` of the page before.
        cursor: Query<Option<Text<form::Cursor>>>,
    ) -> Result<Json<OrderPage>> {
        let paging = Paging::new(&self.0.mac_key, "orders", permit.tenant(), limit.0);
        let end = to.0.map_or_else(Position::start, |to| Position::before(to.0));
        let start = paging.open(cursor.0.as_deref())?.map_or(end, |cursor: Position| cursor.later(end));
        let filter = OrderFilter {
            status: status.0.map(OrderStatus::from),
            customer: customer.0,
            created_from: from.0.map(|from| from.0),
        };
        let mut tx = self.0.database.read(&permit).await?;
        let mut orders = tx.orders(start, filter, paging.read_ahead()).await?;
        let position = |order: &crate::domain::Order| Position { at: order.created_at, id: order.id.uuid() };
        let next_cursor = paging.cut(&mut orders, |order| position(order).to_string());
        Ok(Json(OrderPage { items: orders.into_iter().map(OrderView::from).collect(), next_cursor }))
    }

    /// Get one order
    ///
    /// With its lines, at the prices of when it was placed.
    #[oai(path = "/v1/orders/:id", method = "get", operation_id = "getOrder")]
    async fn get(&self, permit: Permit<GetOrder>, id: Path<OrderId>) -> Result<Json<OrderView>> {
        let order = self.0.database.order(&permit, id.0).await?;
        Ok(Json(order.ok_or_else(|| Problem::new(Kind::NotFound))?.into()))
    }

    /// Cancel an order
    ///
    /// Allowed until money for it is kept; afterwards 409. An invoice that was issued is voided.
    #[oai(path = "/v1/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel(&self, permit: Permit<CancelOrder>, id: Path<OrderId>) -> Result<Json<OrderView>> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_order(id.0).await?;
        let mut order = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&order)?;
        let now = self.0.clock.now();
        let invoice = tx.invoice_of(&order).await?;
        if let Some(invoice) = &invoice {
            tx.set_void(&permit.narrow(invoice)?, now).await?;
        }
        order.status = order.status.cancel()?;
        order.updated_at = now;
        tx.set_order_status(&narrowed, order.status, now).await?;
        let voided: Vec<_> = invoice.iter().map(|invoice| ("invoice_voided", invoice.id.to_string())).collect();
        tx.commit_with(&permit, order.id, &voided).await?;
        Ok(Json(order.into()))
    }

    /// Say that an order was delivered
    ///
    /// Allowed once it is paid.
    #[oai(path = "/v1/orders/:id/fulfil", method = "post", operation_id = "fulfilOrder")]
    async fn fulfil(&self, permit: Permit<FulfilOrder>, id: Path<OrderId>) -> Result<Json<OrderView>> {
        let mut tx = self.0.database.write(&permit).await?;
        let found = tx.lock_order(id.0).await?;
        let mut order = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let narrowed = permit.narrow(&order)?;
        order.status = order.status.fulfil()?;
        order.updated_at = self.0.clock.now();
        tx.set_order_status(&narrowed, order.status, order.updated_at).await?;
        tx.commit(&permit, order.id).await?;
        Ok(Json(order.into()))
    }
}
