//! SQL of invoices: list, read, issue, lock and void.
//!
//! In: permits and domain values. Out: invoices with their lines, payments and refunds. A change of
//! an invoice locks the row of its order first (`orders.rs` says why). `payments` and the handlers
//! of `api/invoices` and `api/orders` call this.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Database, Position, ReadTx, WriteTx};
use crate::{
    authz::{
        ObjectPermit, ObjectRule, Permit,
        actions::{CreateInvoice, GetInvoice, ListInvoices, VoidInvoice},
    },
    db::{DbError, TracingExecutor, parse_stored},
    domain::{
        Currency, Invoice, InvoiceId, InvoiceLine, InvoiceStatus, Money, Order, OrderId, Payment, PaymentId, Quantity,
        Refund, RefundId, TenantId,
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

/// One `select` of invoices with their lines and payments. `$from` is the rest of the statement
/// after `from`.
macro_rules! select_invoices {
    ($from:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            InvoiceRow,
            r#"select tenant_id as "tenant_id!", id as "id!", order_id as "order_id!", number as "number!",
                      status as "status!", total_amount as "total_amount!", total_currency as "total_currency!",
                      paid_amount as "paid_amount!", refunded_amount as "refunded_amount!",
                      issued_by as "issued_by!", issued_at as "issued_at!", updated_at as "updated_at!",
                      lines as "lines!: Json<Vec<LineRow>>", payments as "payments!: Json<Vec<PaymentRow>>"
               from "# + $from,
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

fn money(amount: i64, currency: Currency) -> Result<Money, DbError> {
    Money::new(amount, currency).map_err(DbError::broken)
}

impl ReadTx<ListInvoices> {
    /// Reads a page of at most `limit` invoices after `from`, newest first.
    pub async fn invoices(&mut self, from: Position, limit: i64) -> Result<Vec<Invoice>, DbError> {
        let tenant = self.tenant().uuid();
        let rows = select_invoices!(
            "invoice_documents where tenant_id = $1 and (issued_at, id) < ($2, $3)
             order by issued_at desc, id desc limit $4",
            tenant,
            from.time(),
            from.id,
            limit
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(Invoice::try_from).collect()
    }
}

impl Database {
    /// Reads the invoice of this id, in one round trip.
    pub async fn invoice(&self, permit: &Permit<GetInvoice>, id: InvoiceId) -> Result<Option<Invoice>, DbError> {
        let row = select_invoices!("read_invoice($1, $2)", permit.tenant().uuid(), id.uuid())
            .fetch_optional(TracingExecutor(&mut *self.reader.connection().await?))
            .await?;
        row.map(Invoice::try_from).transpose()
    }
}

impl<A> WriteTx<A> {
    /// Reads an invoice. The caller has locked its order.
    pub(super) async fn read_invoice(&mut self, id: Uuid) -> Result<Option<Invoice>, DbError> {
        let tenant = self.tenant().uuid();
        let row = select_invoices!("invoice_documents where tenant_id = $1 and id = $2", tenant, id)
            .fetch_optional(self.connection())
            .await?;
        row.map(Invoice::try_from).transpose()
    }
}

impl<A: ObjectRule<Invoice>> WriteTx<A> {
    /// Reads the invoice of this id and its order, and locks the order until the transaction ends.
    pub async fn lock_invoice(&mut self, id: InvoiceId) -> Result<Option<(Order, Invoice)>, DbError> {
        let tenant = self.tenant().uuid();
        // The order of an invoice never changes, so this read needs no lock.
        let order_id =
            sqlx::query_scalar!("select order_id from invoices where tenant_id = $1 and id = $2", tenant, id.uuid())
                .fetch_optional(self.connection())
                .await?;
        let Some(order_id) = order_id else { return Ok(None) };
        let Some(order) = self.lock_order_row(OrderId::from_uuid(order_id)).await? else { return Ok(None) };
        Ok(self.read_invoice(id.uuid()).await?.map(|invoice| (order, invoice)))
    }

    /// Voids the invoice of the permit.
    pub async fn set_void(&mut self, permit: &ObjectPermit<'_, A, Invoice>, now: DateTime<Utc>) -> Result<(), DbError> {
        let result = sqlx::query!(
            "update invoices set status = $3, updated_at = $4 where tenant_id = $1 and id = $2",
            permit.tenant().uuid(),
            permit.id().uuid(),
            InvoiceStatus::Void.as_str(),
            now
        )
        .execute(self.connection())
        .await?;
        DbError::unless(result.rows_affected() == 1)
    }
}

impl<A: ObjectRule<Invoice> + ObjectRule<Order>> WriteTx<A> {
    /// Reads the invoice of a locked order that is not void, if there is one.
    pub async fn active_invoice(&mut self, order: &Order) -> Result<Option<Invoice>, DbError> {
        let tenant = self.tenant().uuid();
        let row = select_invoices!(
            "invoice_documents where tenant_id = $1 and order_id = $2 and status <> 'void'",
            tenant,
            order.id.uuid()
        )
        .fetch_optional(self.connection())
        .await?;
        row.map(Invoice::try_from).transpose()
    }
}

impl WriteTx<VoidInvoice> {
    /// Stores the new status of the order of a voided invoice.
    pub async fn set_invoiced_order_status(
        &mut self,
        permit: &ObjectPermit<'_, VoidInvoice, Invoice>,
        invoice: &Invoice,
        order: &Order,
    ) -> Result<(), DbError> {
        DbError::unless(invoice.id == permit.id() && order.id == invoice.order)?;
        self.write_status(order.id, order.status, order.updated_at).await
    }
}

impl WriteTx<CreateInvoice> {
    /// Issues the invoice of the permit's order, with the tenant's next number and the order's
    /// current lines. Stores the new status of the order.
    pub async fn issue_invoice(
        &mut self,
        permit: &ObjectPermit<'_, CreateInvoice, Order>,
        order: &Order,
        status: InvoiceStatus,
        issued_by: &str,
    ) -> Result<Invoice, DbError> {
        DbError::unless(order.id == permit.id())?;
        let id = InvoiceId::generate();
        let currency = order.total.currency();
        sqlx::query!(
            "with n as (
                 -- Locks the tenant's counter until the transaction ends: a rollback gives the number back.
                 insert into invoice_numbers as n (tenant_id, last_number) values ($1, 1)
                 on conflict (tenant_id) do update set last_number = n.last_number + 1
                 returning last_number
             ), i as (
                 insert into invoices (tenant_id, id, order_id, number, status, total_amount, total_currency,
                                       issued_by, issued_at, updated_at)
                 select $1, $2, $3, n.last_number, $4, $5, $6, $7, $8, $8 from n
             ), l as (
                 insert into invoice_lines (tenant_id, invoice_id, line_no, sku, description, quantity,
                                            unit_price_amount)
                 select l.tenant_id, $2, l.line_no, l.sku, p.name, l.quantity, l.unit_price_amount
                 from order_lines l join products p on p.tenant_id = l.tenant_id and p.sku = l.sku
                 where l.tenant_id = $1 and l.order_id = $3
             )
             update orders set status = $9, updated_at = $8 where tenant_id = $1 and id = $3",
            permit.tenant().uuid(),
            id.uuid(),
            permit.id().uuid(),
            status.as_str(),
            order.total.amount(),
            currency.as_str(),
            issued_by,
            order.updated_at,
            order.status.as_str()
        )
        .execute(self.connection())
        .await?;
        // Read back, so that the response shows what is stored.
        self.read_invoice(id.uuid()).await?.ok_or(DbError::Inconsistent)
    }
}
