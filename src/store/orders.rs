//! SQL of orders: list, read, place, lock and change of status (INPUT-07, INPUT-11).
//!
//! In: permits and parsed domain values. Out: orders with their lines. Values of callers are
//! arguments of statements, never part of their text. A change of an order, or of its invoices,
//! payments and refunds, locks the row of the order first. `invoices`, `payments` and the handlers
//! of `api/orders` call this.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Database, KeyedRequest, Position, ReadTx, SingleStatement, StoredOutcome, StoredResponse, WriteTx,
    audit::AuditRecord, keyset::clamp_time, products::ProductRow,
};
use crate::{
    authz::{
        Action as _, ObjectPermit, ObjectRule, Permit,
        actions::{CreateOrder, GetOrder, ListOrders},
    },
    db::{DbError, TracingExecutor, parse_stored},
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

/// One `select` of orders with their lines. `$from` is the rest of the statement after `from`.
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
    type Error = DbError;

    fn try_from(row: OrderRow) -> Result<Self, DbError> {
        let currency: Currency = parse_stored(&row.total_currency)?;
        let line = |line: LineRow| -> Result<OrderLine, DbError> {
            Ok(OrderLine {
                sku: parse_stored(&line.sku)?,
                quantity: Quantity::try_from(line.quantity).map_err(DbError::broken)?,
                unit_price: Money::new(line.unit_price_amount, currency).map_err(DbError::broken)?,
            })
        };
        Ok(Self {
            id: OrderId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            customer: row.customer_id.map(CustomerId::from_uuid),
            status: parse_stored(&row.status)?,
            shipping_speed: parse_stored(&row.shipping_speed)?,
            note: row.note,
            lines: row.lines.0.into_iter().map(line).collect::<Result<_, _>>()?,
            total: Money::new(row.total_amount, currency).map_err(DbError::broken)?,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Filter for a list of orders. All conditions must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderFilter {
    /// Only orders with this status.
    pub status: Option<OrderStatus>,
    /// Only orders for this customer.
    pub customer: Option<CustomerId>,
    /// Only orders placed at this time or later.
    pub created_from: Option<DateTime<Utc>>,
}

impl ReadTx<ListOrders> {
    /// Reads a page of at most `limit` orders after `from`, newest first.
    pub async fn orders(&mut self, from: Position, filter: OrderFilter, limit: i64) -> Result<Vec<Order>, DbError> {
        let tenant = self.tenant().uuid();
        let customer = filter.customer.map(CustomerId::uuid);
        // One statement per combination of filters, so that each has its own plan and index.
        macro_rules! page {
            ($filter:tt $(, $argument:expr)*) => {
                select_orders!(
                    ["order_documents where tenant_id = $1 and created_at >= $2 and (created_at, id) < ($3, $4) "
                        + $filter + " order by created_at desc, id desc limit $5"],
                    tenant,
                    clamp_time(filter.created_from.unwrap_or_default()),
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

/// What the service needs to price and place an order.
#[derive(Clone, Debug)]
pub struct OrderInputs {
    /// The ordered products that are in the tenant's catalogue.
    pub catalogue: Vec<Product>,
    /// Whether the tenant has the customer of the order.
    pub customer_exists: bool,
    /// The outcome of an earlier request with the same idempotency key.
    pub stored_outcome: StoredOutcome,
}

impl Database {
    /// Reads the order of this id, in one round trip.
    pub async fn order(&self, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, DbError> {
        let row = select_orders!(["read_order($1, $2)"], permit.tenant().uuid(), id.uuid())
            .fetch_optional(TracingExecutor(&mut *self.reader.connection().await?))
            .await?;
        row.map(Order::try_from).transpose()
    }
}

impl SingleStatement<CreateOrder> {
    /// Reads what the service needs to price and place `order`, in one round trip.
    pub async fn order_inputs(
        &mut self,
        permit: &Permit<CreateOrder>,
        order: &NewOrder,
        request: Option<&KeyedRequest>,
        now: DateTime<Utc>,
    ) -> Result<OrderInputs, DbError> {
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
        let stored_outcome = match request {
            Some(request) => StoredOutcome::from_columns(request, row.fingerprint, row.body, row.location),
            None => StoredOutcome::None,
        };
        let catalogue = row.catalogue.0.into_iter().map(Product::try_from).collect::<Result<_, _>>()?;
        Ok(OrderInputs { catalogue, customer_exists: row.customer_known, stored_outcome })
    }

    /// Stores a priced order with its audit event, and the response if the request has an
    /// idempotency key. One statement, so all or nothing, in one round trip.
    pub async fn place_order(
        &mut self,
        permit: &Permit<CreateOrder>,
        order: &Order,
        keyed: Option<(&KeyedRequest, &StoredResponse)>,
    ) -> Result<(), DbError> {
        let skus: Vec<String> = order.lines.iter().map(|line| line.sku.as_str().to_owned()).collect();
        let quantities: Vec<i32> = order.lines.iter().map(|line| line.quantity.get()).collect();
        let prices: Vec<i64> = order.lines.iter().map(|line| line.unit_price.amount()).collect();
        let currency = order.total.currency();
        let (request, response) = keyed.unzip();
        let record = AuditRecord::new(permit, permit.audit(), order.id);
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
            response.map(|response| response.body.as_str()),
            response.and_then(|response| response.location.as_deref()),
            request.map(|request| request.expires_at),
            CreateOrder::OPERATION,
            record.id,
            record.action,
            record.object,
            record.trace_id
        )
        .execute(self.connection())
        .await?;
        record.log();
        Ok(())
    }
}

impl<A> WriteTx<A> {
    /// Locks the row of an order, then reads the order.
    ///
    /// The lock covers the invoices, payments and refunds of the order too. A change of any of them
    /// takes this lock first, so there is no deadlock. The read is a separate statement: its
    /// snapshot (read committed) holds what the previous owner of the lock committed.
    pub(super) async fn lock_order_row(&mut self, id: OrderId) -> Result<Option<Order>, DbError> {
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
    /// Stores the status of an order. The caller has checked a permit for the order, or for an
    /// invoice of it.
    pub(super) async fn write_status(
        &mut self,
        order: OrderId,
        status: OrderStatus,
        now: DateTime<Utc>,
    ) -> Result<(), DbError> {
        let tenant = self.tenant().uuid();
        let result = sqlx::query!(
            "update orders set status = $3, updated_at = $4 where tenant_id = $1 and id = $2",
            tenant,
            order.uuid(),
            status.as_str(),
            now
        )
        .execute(self.connection())
        .await?;
        DbError::unless(result.rows_affected() == 1)
    }
}

impl<A: ObjectRule<Order>> WriteTx<A> {
    /// Reads the order of this id and locks it until the transaction ends. A concurrent transaction
    /// waits, and then sees the changes of this one.
    pub async fn lock_order(&mut self, id: OrderId) -> Result<Option<Order>, DbError> {
        self.lock_order_row(id).await
    }

    /// Stores the new status of the order of the permit.
    pub async fn set_order_status(
        &mut self,
        permit: &ObjectPermit<'_, A, Order>,
        status: OrderStatus,
        now: DateTime<Utc>,
    ) -> Result<(), DbError> {
        self.write_status(permit.id(), status, now).await
    }
}
