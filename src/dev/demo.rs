//! Demo tenants and the people that can sign in to them.
//!
//! [`seed`] adds customers ([`demo_customers`](super::demo_customers)) and products, orders and
//! invoices (`demo.sql`) to a database. `dev` runs it at each start; tests use the same tenants.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::{Uuid, uuid};

use super::{
    database::{DatabaseError, Urls},
    demo_customers,
};
use crate::{authz::policy::Role, domain::TenantId};

/// A demo tenant.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    /// Short name, used in file names and in subjects such as `viewer@acme.example`.
    pub name: &'static str,
    /// Tenant id.
    pub id: TenantId,
}

/// A demo user of the development issuer.
#[derive(Clone, Debug)]
pub struct Person {
    /// The `sub` claim of the user's tokens.
    pub subject: String,
    /// Display name.
    pub name: String,
    /// The user's tenant.
    pub tenant: TenantId,
    /// Short name of the tenant.
    pub tenant_name: String,
    /// Role within the tenant.
    pub role: Role,
}

/// The demo tenants. Their ids are fixed, so that bookmarks and scripts survive a restart.
pub const TENANTS: [Tenant; 2] = [
    Tenant { name: "acme", id: TenantId::from_uuid(uuid!("0190a000-0000-7000-8000-00000000ac3e")) },
    Tenant { name: "globex", id: TenantId::from_uuid(uuid!("0190a000-0000-7000-8000-000000061063")) },
];

/// An order of the first tenant. The printed commands use it, so it always exists.
pub const FIRST_ORDER: Uuid = uuid!("0190a001-0000-7000-8000-000000000001");

/// A customer of the first tenant; always exists.
pub const FIRST_CUSTOMER: Uuid = uuid!("0190a011-0000-7000-8000-000000000001");

/// An invoice of the first tenant with an outstanding amount; always exists.
pub const OPEN_INVOICE: Uuid = uuid!("0190a021-0000-7000-8000-000000000002");

/// A payment of the first tenant; always exists.
pub const FIRST_PAYMENT: Uuid = uuid!("0190a031-0000-7000-8000-000000000001");

/// One user per tenant and role.
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

/// Adds the demo data that does not exist yet.
///
/// Runs as `app_owner`. Row-level security applies to the owner too, hence one transaction per
/// tenant.
pub async fn seed(owner: &mut PgConnection, urls: &Urls) -> Result<(), DatabaseError> {
    for (tenant, number) in TENANTS.iter().zip(1..) {
        let begin = format!("begin; set local app.tenant_id = '{}'; set local demo.tenant = '{number}'", tenant.id);
        let mut tx = owner.begin_with(AssertSqlSafe(begin)).await?;
        demo_customers::seed(&mut tx, urls, tenant.id, number).await?;
        sqlx::raw_sql(include_str!("demo.sql")).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(())
}
