//! Names of rights: OAuth scopes, roles and permissions of a tenant, and rights of internal services.
//!
//! A service declares scopes and the [`RoleTable`], together its [`Rights`]. Settings and
//! authentication look names up in them, and `authz` decides by them.

use std::str::FromStr;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(&'static str);

        impl $name {
            /// Declares a name, as a constant.
            ///
            /// # Panics
            /// At compile time, if the name is no `scope-token` of RFC 6749 section 3.3, or longer
            /// than 64 bytes.
            #[must_use]
            pub const fn new(name: &'static str) -> Self {
                assert!(is_token(name), "a name has 1 to 64 visible ASCII characters, but no quote or backslash");
                Self(name)
            }

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                self.0
            }
        }
    )+};
}

names! {
    /// An OAuth 2.0 scope (RFC 6749 section 3.3): what a client may do for a principal.
    Scope
    /// A role inside a tenant, as a token's roles claim spells it.
    Role
    /// A right that a role can have. A scope limits what a *client* was delegated; a permission
    /// limits what its *user* may do. A call needs both. Permissions are finer than scopes.
    Permission
}

/// Whether a name is a `scope-token` (RFC 6749 section 3.3) of at most 64 bytes.
pub(crate) const fn is_token(name: &str) -> bool {
    let mut bytes = name.as_bytes();
    while let [first, rest @ ..] = bytes {
        if !first.is_ascii_graphic() || matches!(first, b'"' | b'\\') {
            return false;
        }
        bytes = rest;
    }
    !name.is_empty() && name.len() <= 64
}

impl Role {
    /// A program acting for itself (RFC 6749 section 4.4). Authentication assigns it; it is never
    /// read from a token's roles. The service declares its permissions like those of other roles.
    pub const SERVICE: Self = Self::new("service");
}

/// The permissions of each role. A role that is not in the table does not exist.
#[derive(Clone, Copy, Debug)]
pub struct RoleTable(pub &'static [(Role, &'static [Permission])]);

/// The scopes and roles that a service declares.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// All scopes, in the order of documents and responses.
    pub scopes: &'static [Scope],
    /// All roles and their permissions.
    pub roles: RoleTable,
}

impl Rights {
    /// The declared scopes with these names. Unknown names grant nothing, so they are skipped.
    pub fn find_scopes<N: AsRef<str>>(&self, names: &[N]) -> Vec<Scope> {
        let is_named = |scope: &Scope| names.iter().any(|name| name.as_ref() == scope.as_str());
        self.scopes.iter().copied().filter(is_named).collect()
    }

    /// The declared roles with these names, without [`Role::SERVICE`]. Unknown names grant nothing,
    /// so they are skipped.
    pub fn find_roles<N: AsRef<str>>(&self, names: &[N]) -> Vec<Role> {
        let is_named = |role: &Role| names.iter().any(|name| name.as_ref() == role.as_str());
        let roles = self.roles.0.iter().map(|(role, _)| *role);
        roles.filter(|role| *role != Role::SERVICE && is_named(role)).collect()
    }

    /// Whether one of the roles has the permission.
    #[must_use]
    pub fn allow(&self, roles: &[Role], permission: Permission) -> bool {
        self.roles.0.iter().any(|(role, held)| roles.contains(role) && held.contains(&permission))
    }
}

/// A right of an internal service: an operation of the internal listener beyond the public API
/// (AUTHN-18). Each right is granted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRight {
    /// `incidents`: POST `/incidents`, as powerful as the operator's login at the command line.
    Incidents,
    /// `metrics`: GET `/metrics`.
    Metrics,
    /// `tenants`: POST `/tenants`, with which a service also exports and deletes tenants.
    Tenants,
}

impl ServiceRight {
    /// The right as the settings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incidents => "incidents",
            Self::Metrics => "metrics",
            Self::Tenants => "tenants",
        }
    }
}

impl FromStr for ServiceRight {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "incidents" => Ok(Self::Incidents),
            "metrics" => Ok(Self::Metrics),
            "tenants" => Ok(Self::Tenants),
            _ => Err("expected `metrics`, `incidents` or `tenants`"),
        }
    }
}
