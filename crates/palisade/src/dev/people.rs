//! Demo tenants and the people that can sign in to them.

use uuid::uuid;

use crate::{
    authz::{Role, RoleTable},
    model::TenantId,
};

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

/// One user per tenant and role that a token can give.
#[must_use]
pub fn people(roles: RoleTable) -> Vec<Person> {
    let roles: Vec<Role> = roles.0.iter().map(|(role, _)| *role).filter(|role| *role != Role::SERVICE).collect();
    let person = |tenant: &Tenant, role: Role| Person {
        subject: format!("{}@{}.example", role.as_str(), tenant.name),
        tenant: tenant.id,
        tenant_name: tenant.name.to_owned(),
        role,
    };
    TENANTS.iter().flat_map(|tenant| roles.iter().map(|role| person(tenant, *role)).collect::<Vec<_>>()).collect()
}
