use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{ReadTx, StoreError, WriteTx};
use crate::{
    authz::{
        OrderPermit,
        actions::{CancelOrder, CreateOrder, GetOrder, ListOrders},
    },
    domain::{Currency, Money, Order, OrderId, OrderLine, OrderStatus, Quantity, TenantId},
};

struct OrderRow {
    tenant_id: Uuid,
    id: Uuid,
    status: String,
    shipping_speed: String,
    note: Option<String>,
    total_amount: i64,
    total_currency: String,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    lines: Json<Vec<LineRow>>,
}

#[derive(Deserialize)]
struct LineRow {
    sku: String,
    quantity: i32,
    unit_price_amount: i64,
}

/// `select` of whole orders, each with its lines, in one statement; `$tail` says which.
macro_rules! select_orders {
    ($tail:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            OrderRow,
            r#"select o.tenant_id, o.id, o.status, o.shipping_speed, o.note, o.total_amount, o.total_currency,
                      o.created_by, o.created_at, o.updated_at,
                      (select coalesce(jsonb_agg(jsonb_build_object('sku', l.sku, 'quantity', l.quantity,
                                  'unit_price_amount', l.unit_price_amount) order by l.line_no), '[]')
                       from order_lines l where l.tenant_id = o.tenant_id and l.order_id = o.id
                      ) as "lines!: Json<Vec<LineRow>>"
               from orders o "# + $tail,
            $($argument),+
        )
    };
}

impl TryFrom<OrderRow> for Order {
    type Error = StoreError;

    fn try_from(row: OrderRow) -> Result<Self, StoreError> {
        let currency: Currency = row.total_currency.parse().map_err(StoreError::broken)?;
        let line = |line: LineRow| -> Result<OrderLine, StoreError> {
            Ok(OrderLine {
                sku: line.sku.parse().map_err(StoreError::broken)?,
                quantity: Quantity::try_from(line.quantity).map_err(StoreError::broken)?,
                unit_price: Money::new(line.unit_price_amount, currency).map_err(StoreError::broken)?,
            })
        };
        Ok(Self {
            id: OrderId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            status: row.status.parse().map_err(StoreError::broken)?,
            shipping_speed: row.shipping_speed.parse().map_err(StoreError::broken)?,
            note: row.note,
            lines: row.lines.0.into_iter().map(line).collect::<Result<_, _>>()?,
            total: Money::new(row.total_amount, currency).map_err(StoreError::broken)?,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl ReadTx<ListOrders> {
    /// At most `limit` orders older than `before`, newest first.
    pub async fn orders(&mut self, before: Option<OrderId>, limit: i64) -> Result<Vec<Order>, StoreError> {
        let tenant = *self.tenant().as_uuid();
        let before = before.map_or_else(Uuid::max, |id| *id.as_uuid());
        let rows =
            select_orders!("where o.tenant_id = $1 and o.id < $2 order by o.id desc limit $3", tenant, before, limit)
                .fetch_all(self.connection())
                .await?;
        rows.into_iter().map(Order::try_from).collect()
    }
}

impl ReadTx<GetOrder> {
    /// The order of this id.
    pub async fn order(&mut self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let tenant = *self.tenant().as_uuid();
        let row = select_orders!("where o.tenant_id = $1 and o.id = $2", tenant, id.as_uuid())
            .fetch_optional(self.connection())
            .await?;
        row.map(Order::try_from).transpose()
    }
}

impl WriteTx<CreateOrder> {
    /// Stores a priced order.
    pub async fn insert_order(&mut self, order: &Order) -> Result<(), StoreError> {
        let tenant = *self.tenant().as_uuid();
        let skus: Vec<String> = order.lines.iter().map(|line| line.sku.as_str().to_owned()).collect();
        let quantities: Vec<i32> = order.lines.iter().map(|line| line.quantity.get()).collect();
        let currency = order.total.currency();
        let prices: Vec<i64> = order.lines.iter().map(|line| line.unit_price.amount()).collect();
        // One statement, so one round trip for the order and all its lines.
        sqlx::query!(
            r#"with placed as (
                   insert into orders (tenant_id, id, status, shipping_speed, note, total_amount, total_currency,
                                       created_by, created_at, updated_at)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
               )
               insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
               select $1, $2, line_no, sku, quantity, unit_price_amount
               from unnest($10::text[], $11::int[], $12::bigint[])
                    with ordinality as line (sku, quantity, unit_price_amount, line_no)"#,
            tenant,
            order.id.as_uuid(),
            order.status.as_str(),
            order.shipping_speed.as_str(),
            order.note.as_deref(),
            order.total.amount(),
            currency.as_str(),
            order.created_by,
            order.created_at,
            &skus,
            &quantities,
            &prices
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl WriteTx<CancelOrder> {
    /// The order of this id, locked until the transaction ends: whoever comes second sees what the first did.
    pub async fn lock_order(&mut self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let tenant = *self.tenant().as_uuid();
        let row = select_orders!("where o.tenant_id = $1 and o.id = $2 for update of o", tenant, id.as_uuid())
            .fetch_optional(self.connection())
            .await?;
        row.map(Order::try_from).transpose()
    }

    /// Stores an order's new state. Needs the permit narrowed to that order.
    pub async fn set_status(
        &mut self,
        permit: &OrderPermit<'_, CancelOrder>,
        status: OrderStatus,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (tenant, order) = (permit.tenant(), permit.order());
        sqlx::query!(
            "update orders set status = $3, updated_at = $4 where tenant_id = $1 and id = $2",
            tenant.as_uuid(),
            order.as_uuid(),
            status.as_str(),
            now
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
