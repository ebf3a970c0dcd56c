//! SQL of orders: list, read, place, lock and change of status (INPUT-07, INPUT-11).
//!
//! In: permits and parsed domain values. Out: orders with their lines. Values of callers are
//! arguments of statements, never part of their text. A change of an order, or of its invoices,
//! payments and refunds, locks the row of the order first. `exports` and the handlers of
//! `api/orders` and `api/invoices` call this.

use chrono::{DateTime, Utc};
use palisade::{
    authz::{Change, Permit},
    model::TenantId,
    store::{
        CreateRecord, Database, DbError, Json, KeyLookup, KeyedRequest, Loader, Lockable, Next, ObjectPermit, Position,
        SingleStatement, StoredColumns, StoredOutcome, StoredResponse, WriteTx, clamp_time, parse_stored,
    },
};
use uuid::Uuid;

use super::products::ProductRow;
use crate::{
    access::actions::{CreateOrder, GetOrder, ListOrders},
    domain::{Currency, CustomerId, Money, NewOrder, Order, OrderId, OrderLine, OrderStatus, Product, Quantity},
};

/// A line of an order with the columns of the order: a page of plain rows costs the database half of
/// one with JSON.
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
    /// `None`, as the rest of the line, in an order without lines.
    pub(super) sku: Option<String>,
    pub(super) quantity: Option<i32>,
    pub(super) unit_price_amount: Option<i64>,
}

/// One statement `$kind!` that reads orders with their lines, in the order of `$orders`, which
/// selects rows of `orders`. The lines are looked up order by order: a join of both tables would sort
/// all rows of the tenant.
macro_rules! orders {
    ($kind:ident, $source:expr, $tenant:literal, [$($orders:tt)+], $lock:literal, $($argument:expr),+ $(,)?) => {
        palisade::$kind!(
            $source,
            OrderRow,
            r#"select o.tenant_id, o.id, o.customer_id, o.status, o.shipping_speed, o.note, o.total_amount,
                      o.total_currency, o.created_by, o.created_at, o.updated_at, l.sku as "sku?",
                      l.quantity as "quantity?", l.unit_price_amount as "unit_price_amount?"
               from ("# + $($orders)+ + ") o
               left join lateral (
                   select sku, quantity, unit_price_amount from order_lines
                   where tenant_id = " + $tenant + " and order_id = o.id order by line_no offset 0) l on true" + $lock,
            $($argument),+
        )
    };
}

pub(super) use orders;

/// The orders of these rows. Rows of an order follow each other.
pub(super) fn collect(rows: Vec<OrderRow>) -> Result<Vec<Order>, DbError> {
    let mut orders: Vec<Order> = Vec::new();
    for row in rows {
        let line = row.line()?;
        match orders.last_mut().filter(|order| order.id.uuid() == row.id) {
            Some(order) => order.lines.extend(line),
            None => orders.push(Order { lines: line.into_iter().collect(), ..row.try_into()? }),
        }
    }
    Ok(orders)
}

impl OrderRow {
    fn line(&self) -> Result<Option<OrderLine>, DbError> {
        let (Some(sku), Some(quantity), Some(unit_price)) = (&self.sku, self.quantity, self.unit_price_amount) else {
            return Ok(None);
        };
        let currency = parse_stored(&self.total_currency)?;
        Ok(Some(OrderLine {
            sku: parse_stored(sku)?,
            quantity: Quantity::try_from(quantity).map_err(DbError::broken)?,
            unit_price: Money::new(unit_price, currency).map_err(DbError::broken)?,
        }))
    }
}

/// Without its lines.
impl TryFrom<OrderRow> for Order {
    type Error = DbError;

    fn try_from(row: OrderRow) -> Result<Self, DbError> {
        let currency: Currency = parse_stored(&row.total_currency)?;
        Ok(Self {
            id: OrderId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant_id),
            customer: row.customer_id.map(CustomerId::from_uuid),
            status: parse_stored(&row.status)?,
            shipping_speed: parse_stored(&row.shipping_speed)?,
            note: row.note,
            lines: Vec::new(),
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

/// Reads a page of at most `limit` orders after `from`, newest first.
pub async fn page(
    database: &Database,
    permit: &Permit<ListOrders>,
    from: Position,
    filter: OrderFilter,
    limit: i64,
) -> Result<Vec<Order>, DbError> {
    // One statement per combination of filters, so that each has its own plan and index.
    macro_rules! page {
        ($filter:tt $(, $argument:expr)*) => {{
            let statement = orders!(
                read_one,
                permit,
                "t.tenant",
                ["select * from orders
                  where tenant_id = t.tenant and created_at >= $2 and (created_at, id) < ($3, $4) " + $filter
                    + " order by created_at desc, id desc limit $5"],
                "",
                clamp_time(filter.created_from.unwrap_or_default()),
                from.time(),
                from.id,
                limit
                $(, $argument)*
            );
            database.read_page(permit, statement).await?
        }};
    }
    let rows = match (filter.status, filter.customer.map(CustomerId::uuid)) {
        (None, None) => page!(""),
        (Some(status), None) => page!("and status = $6", status.as_str()),
        (None, Some(customer)) => page!("and customer_id = $6", customer),
        (Some(status), Some(customer)) => page!("and customer_id = $6 and status = $7", customer, status.as_str()),
    };
    collect(rows)
}

/// Reads the order of this id.
pub async fn get(database: &Database, permit: &Permit<GetOrder>, id: OrderId) -> Result<Option<Order>, DbError> {
    let statement = orders!(
        read_one,
        permit,
        "t.tenant",
        ["select * from orders where tenant_id = t.tenant and id = $2"],
        "",
        id.uuid()
    );
    Ok(collect(database.read_page(permit, statement).await?)?.pop())
}

/// What the service needs to price and place an order.
#[derive(Clone, Debug)]
pub struct OrderInputs {
    /// The ordered products that are in the tenant's catalogue.
    pub catalogue: Vec<Product>,
    /// Whether the tenant has the customer of the order.
    pub customer_exists: bool,
    /// What an earlier request with the same idempotency key left.
    pub stored: Option<StoredOutcome>,
}

struct InputsRow {
    catalogue: Json<Vec<ProductRow>>,
    customer_exists: bool,
    stored: Option<Json<StoredColumns>>,
}

/// Reads what the service needs to price and place `order`, in one message.
pub async fn inputs(
    statements: &mut SingleStatement<CreateOrder>,
    permit: &Permit<CreateOrder>,
    order: &NewOrder,
    request: Option<&KeyedRequest>,
) -> Result<OrderInputs, DbError> {
    let skus: Vec<String> = order.skus().map(|sku| sku.as_str().to_owned()).collect();
    let lookup = KeyLookup::new(permit, request);
    let statement = palisade::read_inputs!(
        permit,
        &lookup,
        InputsRow,
        r#"select (select coalesce(jsonb_agg(jsonb_build_object(
                              'sku', p.sku, 'name', p.name, 'price_amount', p.price_amount,
                              'price_currency', p.price_currency)), '[]')
                   from products p where p.tenant_id = t.tenant and p.sku = any ($7)
                  ) as "catalogue!: Json<Vec<ProductRow>>",
                  exists (select from customers c
                          where c.tenant_id = t.tenant and c.id = $8 and c.erased_at is null) as "customer_exists!""#,
        &skus,
        order.customer().map(CustomerId::uuid)
    );
    let row = statements.read_inputs(permit, statement).await?;
    Ok(OrderInputs {
        catalogue: row.catalogue.0.into_iter().map(Product::try_from).collect::<Result<_, _>>()?,
        customer_exists: row.customer_exists,
        stored: lookup.outcome(row.stored.map(|stored| stored.0)),
    })
}

/// Stores a priced order with its audit event, and the response if the request has an idempotency
/// key. One message, so all or nothing.
pub async fn place(
    statements: SingleStatement<CreateOrder>,
    permit: &Permit<CreateOrder>,
    order: &Order,
    keyed: Option<(&KeyedRequest, &StoredResponse)>,
) -> Result<(), DbError> {
    let skus: Vec<String> = order.lines.iter().map(|line| line.sku.as_str().to_owned()).collect();
    let quantities: Vec<i32> = order.lines.iter().map(|line| line.quantity.get()).collect();
    let prices: Vec<i64> = order.lines.iter().map(|line| line.unit_price.amount()).collect();
    let currency = order.total.currency();
    let record = CreateRecord::new(permit, order.id, keyed);
    let statement = palisade::create!(
        permit,
        &record,
        "o as (
             insert into orders (tenant_id, id, customer_id, status, shipping_speed, note, total_amount,
                                 total_currency, created_by, created_at, updated_at)
             select t.tenant, $3::uuid, $4::uuid, $5::text, $6::text, $7::text, $8::bigint, $9::text, $10::text,
                    $11::timestamptz, $11::timestamptz
             from t
             returning tenant_id, id
         ), l as (
             insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
             select o.tenant_id, o.id, line.no, line.sku, line.quantity, line.price
             from o, unnest($12::text[], $13::integer[], $14::bigint[]) with ordinality
                  as line (sku, quantity, price, no)
         )",
        order.id.uuid(),
        order.customer.map(CustomerId::uuid),
        order.status.as_str(),
        order.shipping_speed.as_str(),
        order.note,
        order.total.amount(),
        currency.as_str(),
        order.created_by,
        order.created_at,
        &skus,
        &quantities,
        &prices
    );
    statements.create(permit, &record, statement).await
}

impl Lockable for Order {
    type Id = OrderId;
    type State = OrderStatus;

    fn id(&self) -> OrderId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> OrderStatus {
        self.status
    }

    /// The lock covers the invoices, payments and refunds of the order too. A change of any of them
    /// takes this lock first, so there is no deadlock.
    ///
    /// One statement locks the row and reads the order. After a wait it returns the columns that the
    /// other transaction committed (read committed); the lines of an order never change.
    async fn load(tx: &Loader<'_>, id: OrderId) -> Result<Option<Self>, DbError> {
        let read = orders!(
            select,
            tx,
            "$1",
            ["select * from orders where tenant_id = $1 and id = $2"],
            " for no key update of o",
            id.uuid()
        );
        Ok(collect(tx.fetch_all(read).await?)?.pop())
    }
}

/// Stores the new status of the order of the permit.
pub async fn set_status<A: Change, K>(
    tx: &WriteTx<'_, A, K>,
    permit: &ObjectPermit<'_, A, Order>,
    next: &Next<Order>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let statement = palisade::transition!(
        permit,
        next,
        "update orders set status = $3, updated_at = $5 where tenant_id = $1 and id = $2 and status = $4",
        now
    );
    tx.transition(permit, statement).await
}
