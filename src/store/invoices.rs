//! SQL of invoices: read, issue, lock and void. `invoice_summaries` lists them.
//!
//! In: permits and domain values. Out: invoices with their lines, payments and refunds. A change of
//! an invoice locks the row of its order first (`orders.rs` says why). `payments` and the handlers
//! of `api/invoices` and `api/orders` call this.

use chrono::{DateTime, Utc};
use palisade::{
    authz::{Change, Permit},
    model::{Stateless, TenantId},
    store::{Database, DbError, Json, Loader, Lockable, Locked, Next, ObjectPermit, PartOf, WriteTx, parse_stored},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    access::actions::{CancelOrder, CreateInvoice, GetInvoice},
    domain::{
        Currency, Invoice, InvoiceId, InvoiceLine, InvoiceStatus, Money, Order, OrderId, Payment, PaymentId, Quantity,
        Refund, RefundId,
    },
};

struct InvoiceRow {
    tenant_id: Uuid,
    id: Uuid,
    order_id: Uuid,
    number: i64,
    status: String,
    total_amount: i64,
    total_currency: String,
    paid_amount: i64,
    refunded_amount: i64,
    issued_by: String,
    issued_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    lines: Json<Vec<LineRow>>,
    payments: Json<Vec<PaymentRow>>,
}

#[derive(Deserialize)]
struct LineRow {
    sku: String,
    description: String,
    quantity: i32,
    unit_price_amount: i64,
}

#[derive(Deserialize)]
struct PaymentRow {
    id: Uuid,
    amount: i64,
    refunded_amount: i64,
    reference: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
    refunds: Vec<RefundRow>,
}

#[derive(Deserialize)]
struct RefundRow {
    id: Uuid,
    amount: i64,
    reason: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
}

/// One statement `$kind!` that reads invoices with their lines and payments. `$from` is its text
/// after `from`.
macro_rules! invoices {
    ($kind:ident, $source:expr, [$($from:tt)+], $($argument:expr),+ $(,)?) => {
        palisade::$kind!(
            $source,
            InvoiceRow,
            r#"select tenant_id as "tenant_id!", id as "id!", order_id as "order_id!", number as "number!",
                      status as "status!", total_amount as "total_amount!", total_currency as "total_currency!",
                      paid_amount as "paid_amount!", refunded_amount as "refunded_amount!",
                      issued_by as "issued_by!", issued_at as "issued_at!", updated_at as "updated_at!",
                      lines as "lines!: Json<Vec<LineRow>>", payments as "payments!: Json<Vec<PaymentRow>>"
               from "# + $($from)+,
            $($argument),+
        )
    };
}

impl TryFrom<InvoiceRow> for Invoice {
    type Error = DbError;

    fn try_from(row: InvoiceRow) -> Result<Self, DbError> {
        let currency: Currency = parse_stored(&row.total_currency)?;
        let id = InvoiceId::from_uuid(row.id);
        let tenant = TenantId::from_uuid(row.tenant_id);
        let lines = row.lines.0.into_iter().map(|line| line.into_domain(currency));
        let payments = row.payments.0.into_iter().map(|payment| payment.into_domain(tenant, id, currency));
        Ok(Self {
            id,
            tenant,
            order: OrderId::from_uuid(row.order_id),
            number: row.number,
            status: parse_stored(&row.status)?,
            lines: lines.collect::<Result<_, _>>()?,
            total: money(row.total_amount, currency)?,
            paid: money(row.paid_amount, currency)?,
            refunded: money(row.refunded_amount, currency)?,
            payments: payments.collect::<Result<_, _>>()?,
            issued_by: row.issued_by,
            issued_at: row.issued_at,
            updated_at: row.updated_at,
        })
    }
}

impl LineRow {
    fn into_domain(self, currency: Currency) -> Result<InvoiceLine, DbError> {
        Ok(InvoiceLine {
            sku: parse_stored(&self.sku)?,
            description: self.description,
            quantity: Quantity::try_from(self.quantity).map_err(DbError::broken)?,
            unit_price: money(self.unit_price_amount, currency)?,
        })
    }
}

impl PaymentRow {
    fn into_domain(self, tenant: TenantId, invoice: InvoiceId, currency: Currency) -> Result<Payment, DbError> {
        let id = PaymentId::from_uuid(self.id);
        let refunds = self.refunds.into_iter().map(|refund| {
            Ok(Refund {
                id: RefundId::from_uuid(refund.id),
                payment: id,
                amount: money(refund.amount, currency)?,
                reason: refund.reason.as_deref().map(parse_stored).transpose()?,
                created_by: refund.created_by,
                created_at: refund.created_at,
            })
        });
        Ok(Payment {
            id,
            tenant,
            invoice,
            amount: money(self.amount, currency)?,
            refunded: money(self.refunded_amount, currency)?,
            reference: self.reference.as_deref().map(parse_stored).transpose()?,
            refunds: refunds.collect::<Result<_, DbError>>()?,
            created_by: self.created_by,
            created_at: self.created_at,
        })
    }
}

pub(super) fn money(amount: i64, currency: Currency) -> Result<Money, DbError> {
    Money::new(amount, currency).map_err(DbError::broken)
}

/// Reads the invoice of this id.
pub async fn get(database: &Database, permit: &Permit<GetInvoice>, id: InvoiceId) -> Result<Option<Invoice>, DbError> {
    let statement =
        invoices!(read_one, permit, ["invoice_documents where tenant_id = t.tenant and id = $2"], id.uuid());
    database.read_one(permit, statement).await?.map(Invoice::try_from).transpose()
}

struct IdRow {
    id: Uuid,
}

/// Locks the rows of an invoice and of its order, which never changes, and reads the invoice. `$found`
/// is the condition that finds the invoice `i`.
///
/// The snapshot of the statement is older than its lock (read committed), so it compares what it read
/// with the locked row. If another transaction changed that row, it returns nothing and keeps the
/// lock; the second attempt sees the change. A payment or a refund changes an amount of the invoice,
/// so equal amounts mean that the payments are those of the locked row.
macro_rules! lock_invoice {
    ($tx:expr, $found:literal, $id:expr) => {{
        let mut row = None;
        for _ in 0..2 {
            let read = invoices!(
                select,
                $tx,
                ["invoice_documents,
                  (select i.id as locked_id, i.status as locked_status, i.paid_amount as locked_paid,
                          i.refunded_amount as locked_refunded
                   from orders o join invoices i on i.tenant_id = o.tenant_id and i.order_id = o.id "
                    + $found
                    + ") locked
                  where tenant_id = $1 and id = locked_id and status = locked_status and paid_amount = locked_paid
                    and refunded_amount = locked_refunded
                  for no key update of locked"],
                $id.uuid()
            );
            row = $tx.fetch_optional(read).await?;
            if row.is_some() {
                break;
            }
        }
        row.map(Invoice::try_from).transpose()
    }};
}

impl Lockable for Invoice {
    type Id = InvoiceId;
    type State = InvoiceStatus;

    fn id(&self) -> InvoiceId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> InvoiceStatus {
        self.status
    }

    async fn load(tx: &Loader<'_>, id: InvoiceId) -> Result<Option<Self>, DbError> {
        lock_invoice!(tx, "where i.tenant_id = $1 and i.id = $2", id)
    }
}

impl Lockable for Payment {
    type Id = PaymentId;
    type State = Stateless;

    fn id(&self) -> PaymentId {
        self.id
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn state(&self) -> Stateless {
        Stateless
    }

    async fn load(tx: &Loader<'_>, id: PaymentId) -> Result<Option<Self>, DbError> {
        Ok(Self::load_with(tx, id).await?.map(|(payment, _)| payment))
    }
}

impl PartOf<Invoice> for Payment {
    fn whole(&self) -> InvoiceId {
        self.invoice
    }

    async fn load_with(tx: &Loader<'_>, id: PaymentId) -> Result<Option<(Self, Invoice)>, DbError> {
        let invoice = lock_invoice!(
            tx,
            "join payments p on p.tenant_id = i.tenant_id and p.invoice_id = i.id where p.tenant_id = $1 and p.id = $2",
            id
        )?;
        Ok(invoice.and_then(|invoice| {
            let payment = invoice.payments.iter().find(|payment| payment.id == id)?.clone();
            Some((payment, invoice))
        }))
    }
}

/// Locks the invoice of a locked order that is not void, if there is one.
pub async fn lock_active<'tx, K>(
    tx: &'tx WriteTx<'_, CancelOrder, K>,
    order: &Locked<'_, Order>,
) -> Result<Option<Locked<'tx, Invoice>>, DbError> {
    let statement = palisade::select!(
        tx,
        IdRow,
        "select id from invoices where tenant_id = $1 and order_id = $2 and status <> 'void'",
        order.id.uuid()
    );
    match tx.fetch_optional(statement).await? {
        Some(row) => tx.lock(InvoiceId::from_uuid(row.id)).await,
        None => Ok(None),
    }
}

/// Stores the new status of the invoice of the permit.
pub async fn set_status<A: Change, K>(
    tx: &WriteTx<'_, A, K>,
    permit: &ObjectPermit<'_, A, Invoice>,
    next: &Next<Invoice>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let statement = palisade::transition!(
        permit,
        next,
        "update invoices set status = $3, updated_at = $5 where tenant_id = $1 and id = $2 and status = $4",
        now
    );
    tx.transition(permit, statement).await
}

/// Issues the invoice of a locked order, with the tenant's next number and the order's lines.
pub async fn issue<K>(
    tx: &WriteTx<'_, CreateInvoice, K>,
    order: &Locked<'_, Order>,
    status: InvoiceStatus,
    issued_by: &str,
    now: DateTime<Utc>,
) -> Result<Invoice, DbError> {
    let id = InvoiceId::generate();
    let currency = order.total.currency();
    // The first part locks the tenant's counter until the transaction ends: a rollback gives the
    // number back.
    let statement = palisade::insert!(
        tx,
        "with n as (
             insert into invoice_numbers as n (tenant_id, last_number) values ($1, 1)
             on conflict (tenant_id) do update set last_number = n.last_number + 1
             returning last_number
         ), i as (
             insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency,
                                   issued_by, issued_at, updated_at)
             select $1, $2, $3, n.last_number, $4, $5, $6, $7, $8, $8 from n
         )
         insert into invoice_lines (tenant_id, invoice_id, line_no, sku, description, quantity, unit_price_amount)
         select l.tenant_id, $2, l.line_no, l.sku, p.name, l.quantity, l.unit_price_amount
         from order_lines l join products p on p.tenant_id = l.tenant_id and p.sku = l.sku
         where l.tenant_id = $1 and l.order_id = $3",
        id.uuid(),
        order.id.uuid(),
        status.as_str(),
        order.total.amount(),
        currency.as_str(),
        issued_by,
        now
    );
    tx.insert(statement).await?;
    // Read back, so that the response shows what is stored.
    let read = invoices!(select, tx, ["invoice_documents where tenant_id = $1 and id = $2"], id.uuid());
    tx.fetch_optional(read).await?.map(Invoice::try_from).transpose()?.ok_or(DbError::Inconsistent)
}
