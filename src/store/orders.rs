use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Answer, Database, Earlier, KeyedRequest, Position, ReadTx, Statements, StoreError, WriteTx,
    audit::Entry,
    position::{storable, stored},
    products::ProductRow,
    traced::Traced,
};
use crate::{
    authz::{
        Action as _, Narrow, ObjectPermit, Permit,
        actions::{CreateOrder, GetOrder, ListOrders},
    },
    domain::{
        Currency, CustomerId, Money, NewOrder, Order, OrderId, OrderLine, OrderStatus, Product, Quantity, TenantId,
    },
};

pub(super) struct OrderRow {
    pub(super) tenant_id: Uuid,
    pub(super) id: Uuid,
    pub(super) customer_id: Option<Uuid>,
    pub(super) status: String,
    pub(super) shipping_speed: String,
    pub(super) note: Option<String>,
    pub(super) total_amount: i64,
    pub(super) total_currency: String,
    pub(super) created_by: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) lines: Json<Vec<LineRow>>,
}

#[derive(Deserialize)]
pub(super) struct LineRow {
    sku: String,
    quantity: i32,
    unit_price_amount: i64,
}

/// `select` of whole orders, each with its lines, in one statement; `$from` says which.
macro_rules! select_orders {
    ([$($from:tt)+], $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            OrderRow,
            r#"select tenant_id as "tenant_id!", id as "id!", customer_id, status as "status!",
                      shipping_speed as "shipping_speed!", note, total_amount as "total_amount!",
                      total_currency as "total_currency!", created_by as "created_by!", created_at as "created_at!",
                      updated_at as "updated_at!", lines as "lines!: Json<Vec<LineRow>>"
               from "# + $($from)+,
            $($argument),+
        )
    };
}

pub(super) use select_orders;

impl TryFrom<OrderRow> for Order {
    type Error = StoreError;

    fn try_from(row: OrderRow) -> Result<Self, StoreError> {
        let currency: Currency = stored(&row.total_currency)?;
        let line = |line: LineRow| -> Result<OrderLine, StoreError> {
            Ok(OrderLine {
                sku: stored(&line.sku)?,
                quantity: Quantity::try_from(line.quantity).map_err(StoreError::broken)?,
                unit_price: Money::new(line.unit_price_amount, currency).map_err(StoreError::broken)?,
            })
        };
        Ok(Self {
            id: OrderId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            customer: row.customer_id.map(CustomerId::from_uuid),
            status: stored(&row.status)?,
            shipping_speed: stored(&row.shipping_speed)?,
            note: row.note,
            lines: row.lines.0.into_iter().map(line).collect::<Result<_, _>>()?,
            total: Money::new(row.total_amount, currency).map_err(StoreError::broken)?,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Which orders a list holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderFilter {
    /// Those in this state.
    pub status: Option<OrderStatus>,
    /// Those for this customer.
    pub customer: Option<CustomerId>,
    /// Those placed then or later.
    pub created_from: Option<DateTime<Utc>>,
}

impl ReadTx<ListOrders> {
    /// At most `limit` orders after `from`, newest first.
    pub async fn orders(&mut self, from: Position, filter: OrderFilter, limit: i64) -> Result<Vec<Order>, StoreError> {
        let tenant = self.tenant().uuid();
        let customer = filter.customer.map(CustomerId::uuid);
        // One statement per set of filters, so that each has a plan of its own, by its own index.
        macro_rules! page {
            ($more:tt $(, $argument:expr)*) => {
                select_orders!(
                    ["order_documents where tenant_id = $1 and created_at >= $2 and (created_at, id) < ($3, $4) "
                        + $more + " order by created_at desc, id desc limit $5"],
                    tenant,
                    storable(filter.created_from.unwrap_or_default()),
                    from.time(),
                    from.id,
                    limit
                    $(, $argument)*
                )
                .fetch_all(self.connection())
                .await?
            };
        }
        let rows = match (filter.status, customer) {
            (None, None) => page!(""),
            (Some(status), None) => page!("and status = $6", status.as_str()),
            (None, Some(customer)) => page!("and customer_id = $6", customer),
            (Some(status), Some(customer)) => {
                page!("and customer_id = $6 and status = $7", customer, status.as_str())
            }
        };
        rows.into_iter().map(Order::try_from).collect()
    }
}

/// What has to be known before an order can be priced and placed.
#[derive(Clone, Debug)]
pub struct OrderInputs {
    /// The catalogue's entries for what is ordered.
    pub catalogue: Vec<Product>,
    /// Whether the customer is one of the tenant's.
    pub customer_known: bool,
    /// What was answered to the same key before.
    pub earlier: Earlier,
}

impl Database {
    /// The order of this id, read in one message.
    pub async fn order(&self, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, StoreError> {
        let row = select_orders!(["read_order($1, $2)"], permit.tenant().uuid(), id.uuid())
            .fetch_optional(Traced(&mut *self.reader.connection().await?))
            .await?;
        row.map(Order::try_from).transpose()
    }
}

impl Statements<CreateOrder> {
    /// What placing `order` needs to know, read in one message.
    pub async fn order_inputs(
        &mut self,
        permit: &Permit<CreateOrder>,
        order: &NewOrder,
        request: Option<&KeyedRequest>,
        now: DateTime<Utc>,
    ) -> Result<OrderInputs, StoreError> {
        let skus: Vec<String> = order.skus().map(|sku| sku.as_str().to_owned()).collect();
        let row = sqlx::query!(
            r#"select catalogue as "catalogue!: Json<Vec<ProductRow>>", customer_known as "customer_known!",
                      fingerprint, body, location
               from read_order_inputs($1, $2, $3, $4, $5, $6, $7, $8)"#,
            permit.tenant().uuid(),
            &skus,
            order.customer().map(CustomerId::uuid),
            permit.principal().subject(),
            permit.principal().client(),
            CreateOrder::OPERATION,
            request.map(|request| request.key.as_str()),
            now
        )
        .fetch_one(self.connection())
        .await?;
        let earlier = match request {
            Some(request) => Earlier::of(request, row.fingerprint, row.body, row.location),
            None => Earlier::Nothing,
        };
        let catalogue = row.catalogue.0.into_iter().map(Product::try_from).collect::<Result<_, _>>()?;
        Ok(OrderInputs { catalogue, customer_known: row.customer_known, earlier })
    }

    /// Stores a priced order, and the answer if the request had a key. One message, so all or nothing.
    pub async fn place_order(
        &mut self,
        permit: &Permit<CreateOrder>,
        order: &Order,
        answer: Option<(&KeyedRequest, &Answer)>,
    ) -> Result<(), StoreError> {
        let skus: Vec<String> = order.lines.iter().map(|line| line.sku.as_str().to_owned()).collect();
        let quantities: Vec<i32> = order.lines.iter().map(|line| line.quantity.get()).collect();
        let prices: Vec<i64> = order.lines.iter().map(|line| line.unit_price.amount()).collect();
        let (currency, (request, answer)) = (order.total.currency(), answer.unzip());
        let entry = Entry::new(permit, permit.audit(), order.id);
        sqlx::query!(
            "with o as (
                 insert into orders (tenant_id, id, customer_id, status, shipping_speed, note, total_amount,
                                     total_currency, created_by, created_at, updated_at)
                 -- The row needs the tenant that entering gives, so its check comes after.
                 select enter_tenant($1::uuid), $2::uuid, $3::uuid, $4::text, $5::text, $6::text, $7::bigint,
                        $8::text, $9::text, $10::timestamptz, $10::timestamptz
                 returning tenant_id, id
             ), l as (
                 insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
                 select o.tenant_id, o.id, line.no, line.sku, line.quantity, line.price
                 from o, unnest($11::text[], $12::integer[], $13::bigint[]) with ordinality
                      as line (sku, quantity, price, no)
             ), i as (
                 insert into idempotency_keys (tenant_id, subject, client, operation, key, fingerprint, body, location,
                                               created_at, expires_at)
                 select o.tenant_id, $9::text, $14::text, $20::text, $15::text, $16::bytea, $17::text, $18::text,
                        $10::timestamptz, $19::timestamptz
                 from o where $15::text is not null
             )
             select note_audit_event(o.tenant_id, $21::uuid, $9::text, $14::text, $22::text, $23::text, $24::text)
             from o",
            permit.tenant().uuid(),
            order.id.uuid(),
            order.customer.map(CustomerId::uuid),
            order.status.as_str(),
            order.shipping_speed.as_str(),
            order.note,
            order.total.amount(),
            currency.as_str(),
            permit.principal().subject(),
            order.created_at,
            &skus,
            &quantities,
            &prices,
            permit.principal().client(),
            request.map(|request| request.key.as_str()),
            request.map(|request| request.fingerprint.as_slice()),
            answer.map(|answer| answer.body.as_str()),
            answer.and_then(|answer| answer.location.as_deref()),
            request.map(|request| request.expires_at),
            CreateOrder::OPERATION,
            entry.id,
            entry.action,
            entry.object,
            entry.trace_id
        )
        .execute(self.connection())
        .await?;
        entry.tell();
        Ok(())
    }
}

impl<A> WriteTx<A> {
    /// Locks the order's row, which stands for everything that hangs on the order: its invoices, their payments
    /// and refunds. Whoever changes any of them takes this lock first, and only then reads, in a statement
    /// of its own: so it sees what the one before it committed, and nobody waits in a circle.
    pub(super) async fn lock(&mut self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let tenant = self.tenant().uuid();
        sqlx::query!("select id from orders where tenant_id = $1 and id = $2 for no key update", tenant, id.uuid())
            .fetch_optional(self.connection())
            .await?;
        let row = select_orders!(["order_documents where tenant_id = $1 and id = $2"], tenant, id.uuid())
            .fetch_optional(self.connection())
            .await?;
        row.map(Order::try_from).transpose()
    }
}

impl<A> WriteTx<A> {
    /// For functions that have checked a permit: for the order, or for an invoice of it.
    pub(super) async fn write_status(
        &mut self,
        order: OrderId,
        status: OrderStatus,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant().uuid();
        let done = sqlx::query!(
            "update orders set status = $3, updated_at = $4 where tenant_id = $1 and id = $2",
            tenant,
            order.uuid(),
            status.as_str(),
            now
        )
        .execute(self.connection())
        .await?;
        StoreError::unless(done.rows_affected() == 1)
    }
}

impl<A: Narrow<Order>> WriteTx<A> {
    /// The order of this id, locked until the transaction ends: whoever comes second sees what the first did.
    pub async fn lock_order(&mut self, id: OrderId) -> Result<Option<Order>, StoreError> {
        self.lock(id).await
    }

    /// Stores an order's new state. Needs the permit narrowed to that order.
    pub async fn set_order_status(
        &mut self,
        permit: &ObjectPermit<'_, A, Order>,
        status: OrderStatus,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.write_status(permit.id(), status, now).await
    }
}
