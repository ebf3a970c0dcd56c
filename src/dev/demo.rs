//! Two demo tenants with people; [`demo_customers`](super::demo_customers) gives them customers, `demo.sql` the rest.

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

/// A customer of the first tenant, for the same reason.
pub const FIRST_CUSTOMER: Uuid = uuid!("0190a011-0000-7000-8000-000000000001");

/// An invoice of the first tenant of which something is outstanding, for the same reason.
pub const OPEN_INVOICE: Uuid = uuid!("0190a021-0000-7000-8000-000000000002");

/// A payment of the first tenant, for the same reason.
pub const FIRST_PAYMENT: Uuid = uuid!("0190a031-0000-7000-8000-000000000001");

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

/// Adds what is not there yet. Runs as the owner, which row-level security holds too: hence one
/// transaction per tenant.
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
