//! Two demo tenants with people, products and orders.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::{Uuid, uuid};

use super::database::DatabaseError;
use crate::{
    authz::{matrix::Scope, policy::Role},
    domain::TenantId,
};

/// A demo tenant.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    /// Short name, used in file names and e-mail-like subjects.
    pub name: &'static str,
    /// Its identifier.
    pub id: TenantId,
}

/// Somebody to sign in as.
#[derive(Clone, Debug)]
pub struct Person {
    /// The `sub` of their tokens.
    pub subject: String,
    /// For display.
    pub name: String,
    /// Whose people they are.
    pub tenant: TenantId,
    /// Its short name.
    pub tenant_name: String,
    /// What they may do there.
    pub role: Role,
}

/// The tenants. Their identifiers are fixed, so that bookmarks and scripts survive a restart.
pub const TENANTS: [Tenant; 2] = [
    Tenant { name: "acme", id: TenantId::from_uuid(uuid!("0190a000-0000-7000-8000-00000000ac3e")) },
    Tenant { name: "globex", id: TenantId::from_uuid(uuid!("0190a000-0000-7000-8000-000000061063")) },
];

/// An order of the first tenant that always exists: the printed commands use it.
pub const FIRST_ORDER: Uuid = uuid!("0190a001-0000-7000-8000-000000000001");

/// What each demo client asks for.
pub const ALL_SCOPES: [Scope; 3] = Scope::ALL;

/// One person per tenant and role.
#[must_use]
pub fn people() -> Vec<Person> {
    let person = |tenant: &Tenant, role: Role| Person {
        subject: format!("{}@{}.example", role.as_str(), tenant.name),
        name: format!("{} {}", capitalised(tenant.name), capitalised(role.as_str())),
        tenant: tenant.id,
        tenant_name: tenant.name.to_owned(),
        role,
    };
    TENANTS.iter().flat_map(|tenant| Role::ALL.map(|role| person(tenant, role))).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Adds the products and orders that are not there yet. Runs as the owner, which row-level security
/// holds too: hence one transaction per tenant.
pub async fn seed(owner: &mut PgConnection) -> Result<(), DatabaseError> {
    for (index, tenant) in TENANTS.iter().enumerate() {
        let begin = AssertSqlSafe(format!("begin; set local app.tenant_id = '{}'", tenant.id));
        let mut tx = owner.begin_with(begin).await?;
        sqlx::raw_sql(PRODUCTS).execute(&mut *tx).await?;
        sqlx::query(ORDERS).bind(i64::try_from(index).unwrap_or(0)).execute(&mut *tx).await?;
        sqlx::raw_sql(LINES).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(())
}

const PRODUCTS: &str = "
    insert into products (tenant_id, sku, name, price_amount, price_currency)
    select current_tenant(), sku, name, price, 'EUR'
    from (values ('PAPER-A4', 'Paper A4, 500 sheets', 549), ('PEN-BLUE', 'Ballpoint pen, blue', 129),
                 ('DESK-160', 'Standing desk, 160 cm', 48900), ('CHAIR-PRO', 'Office chair', 32900),
                 ('LAMP-LED', 'Desk lamp, LED', 5990)) as product (sku, name, price)
    on conflict do nothing";

// Six orders; the ids of the first tenant begin 0190a001, of the second 0190a002.
const ORDERS: &str = "
    insert into orders (tenant_id, id, status, shipping_speed, note, total_amount, total_currency,
                        created_by, created_at, updated_at)
    select current_tenant(), format('0190a00%s-0000-7000-8000-00000000000%s', $1 + 1, n)::uuid,
           case when n = 6 then 'cancelled' else 'placed' end,
           case when n % 2 = 0 then 'express' else 'standard' end, null, n * 549 + 129, 'EUR',
           'demo', now() - (7 - n) * interval '1 hour', now() - (7 - n) * interval '1 hour'
    from generate_series(1, 6) n
    on conflict do nothing";

const LINES: &str = "
    insert into order_lines (tenant_id, order_id, line_no, sku, quantity, unit_price_amount)
    select o.tenant_id, o.id, line.no, line.sku,
           case line.no when 1 then (o.total_amount - 129) / 549 else 1 end, line.price
    from orders o, (values (1, 'PAPER-A4', 549), (2, 'PEN-BLUE', 129)) as line (no, sku, price)
    where o.created_by = 'demo'
    on conflict do nothing";
