//! Route matrix: one row per public operation, with its access rules, quota class and audit name.
//!
//! Controls: THREAT-01, THREAT-02.
//! The rows are declared with [`actions!`](crate::actions); there is no other source of access
//! rules. `http/guard.rs` enforces them; the OpenAPI document, the `routes` command and the tests
//! read them. The service does not start if it serves an operation without a row.

use std::fmt::Write as _;

use thiserror::Error;

use super::{actions::KERNEL, api_keys::API_KEYS, internal::INTERNAL, sessions::SESSIONS};
use crate::model::{Permission, Rights, Scope};

pub use super::row::{Callers, Columns, DataClass, Method, OnStoreDown, Outage, QuotaClass, ReadOnly, Row, StepUp};

/// Everything that a service declares about access.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The lists of rows that [`actions!`](crate::actions) makes.
    pub actions: &'static [&'static [&'static Row]],
    /// Scopes and roles, those that every service has included.
    pub rights: Rights,
}

/// The route matrix of a service: its rows, followed by those that every service has.
#[derive(Debug)]
pub struct Matrix {
    rows: Vec<&'static Row>,
    rights: Rights,
}

/// Why the declarations of a service contradict each other. Prevents startup.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatrixError {
    /// Two actions for an operation.
    #[error("{first} and {second} are both declared for operation {operation}: remove one")]
    TwoActions {
        /// The `operationId`.
        operation: &'static str,
        /// The type of one action.
        first: &'static str,
        /// The type of the other.
        second: &'static str,
    },
    /// Two operations for a route.
    #[error("operations {first} and {second} have the same method and path: change one")]
    TwoOperations {
        /// One `operationId`.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A scope that is not in the list of scopes, or a permission that no role has.
    #[error("operation {operation} needs {right}, which is in no list of scopes and in no role: declare it")]
    Undeclared {
        /// The `operationId`.
        operation: &'static str,
        /// Name of the scope or permission.
        right: &'static str,
    },
}

impl Matrix {
    /// Collects the declared rows and checks that no two of them contradict each other.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn new(access: &Access) -> Result<Self, MatrixError> {
        let Access { actions, rights } = *access;
        let mut rows: Vec<&'static Row> = Vec::new();
        for row in actions.iter().copied().chain([API_KEYS, SESSIONS, KERNEL]).flatten().copied() {
            let operation = row.operation;
            if let Some(other) = rows.iter().find(|other| other.operation == operation) {
                let (first, second) = (other.action_name(), row.action_name());
                return Err(MatrixError::TwoActions { operation, first, second });
            }
            let is_same = |other: &&&Row| other.method == row.method && is_same_path(other.path, row.path);
            if let Some(other) = rows.iter().find(is_same) {
                return Err(MatrixError::TwoOperations { first: other.operation, second: operation });
            }
            let scope = row.scope.filter(|scope| !rights.scopes.contains(scope)).map(Scope::as_str);
            let is_held = |permission: &Permission| rights.roles.0.iter().any(|(_, held)| held.contains(permission));
            let permission = row.permission.filter(|permission| !is_held(permission)).map(Permission::as_str);
            if let Some(right) = scope.or(permission) {
                return Err(MatrixError::Undeclared { operation, right });
            }
            rows.push(row);
        }
        Ok(Self { rows, rights })
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &'static Row> + use<'_> {
        self.rows.iter().copied()
    }

    /// The declared scopes and roles.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The scopes that an operation requires which API keys may call. An API key gets no others.
    #[must_use]
    pub fn key_scopes(&self) -> Vec<Scope> {
        let is_for_keys =
            |scope: &Scope| self.iter().any(|row| row.callers == Callers::Authenticated && row.scope == Some(*scope));
        self.rights.scopes.iter().copied().filter(is_for_keys).collect()
    }

    /// Finds the row of a method and a path template. Names of path parameters may differ.
    #[must_use]
    pub fn find(&self, method: &http::Method, template: &str) -> Option<&'static Row> {
        self.iter().find(|row| row.method.as_str() == method.as_str() && is_same_path(row.path, template))
    }

    /// The value of an `Allow` field for a path (RFC 9110 section 10.2.1). `GET` includes `HEAD`.
    #[must_use]
    pub fn allowed(&self, path: &str) -> String {
        let matches_path = |row: &&Row| {
            row.path.split('/').count() == path.split('/').count()
                && row.path.split('/').zip(path.split('/')).all(|(a, b)| a == b || is_parameter(a))
        };
        let methods = self.iter().filter(matches_path).map(|row| match row.method {
            Method::Get => "GET, HEAD",
            method => method.as_str(),
        });
        methods.collect::<Vec<_>>().join(", ")
    }

    /// The matrix as the Markdown tables of `SECURITY.md`.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut table = String::from(
            "| operation | callers | scope | permission | quota | data | audit event | dependency down | quota store down | read-only | step-up |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let code = |name: Option<&str>| name.map_or_else(|| "–".to_owned(), |name| format!("`{name}`"));
        for row in self.iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| `{} {}` | {} | {} | {} | {} | {} | `{}` | fails {} | {} | {} | {} |",
                row.method,
                row.path,
                match row.callers {
                    Callers::NoKeys => "authenticated, no API key",
                    Callers::Browser => "browser or issuer",
                    callers => callers.as_str(),
                },
                code(row.scope.map(Scope::as_str)),
                code(row.permission.map(Permission::as_str)),
                row.quota,
                row.data,
                row.audit,
                row.outage,
                match row.quota {
                    QuotaClass::Health => "–",
                    class => match class.on_store_down() {
                        OnStoreDown::Local => "counted locally",
                        OnStoreDown::Closed => "fails closed",
                    },
                },
                row.read_only,
                row.step_up.map_or_else(|| "–".to_owned(), |step_up| format!("sign-in within {} s", step_up.max_age())),
            );
        }
        table.push_str("\nOnly on the internal listener, for services with the right:\n\n");
        table.push_str("| operation | right | name in events |\n|---|---|---|\n");
        for row in INTERNAL {
            let _ =
                writeln!(table, "| `{} {}` | `{}` | `{}` |", row.method, row.path, row.right.as_str(), row.operation);
        }
        table
    }
}

/// Whether two path templates match the same paths. Names of parameters may differ.
fn is_same_path(left: &str, right: &str) -> bool {
    left.split('/').count() == right.split('/').count()
        && left.split('/').zip(right.split('/')).all(|(a, b)| a == b || (is_parameter(a) && is_parameter(b)))
}

/// Whether a path segment is a parameter: `{id}` in the OpenAPI document, `:id` in the router.
fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') || segment.starts_with(':')
}

#[cfg(test)]
impl Matrix {
    /// The matrix of a service without operations of its own, for unit tests.
    pub(crate) fn of_kernel() -> Self {
        Self::new(&tests::access(&[])).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authz::{
            Role, RoleTable,
            policy::{AUDIT_READ, READ_AUDIT},
        },
        model::Permission,
    };

    // By name, for builds with and without the features `api_keys` and `sessions`.
    const KEYS: (Scope, Permission) = (Scope::new("keys:manage"), Permission::new("manage_keys"));
    const SESSIONS: (Scope, Permission) = (Scope::new("sessions:manage"), Permission::new("manage_sessions"));
    const ROLES: RoleTable = RoleTable(&[(Role::new("admin"), &[KEYS.1, SESSIONS.1, READ_AUDIT])]);

    pub(super) const fn access(actions: &'static [&'static [&'static Row]]) -> Access {
        Access { actions, rights: Rights { scopes: &[KEYS.0, SESSIONS.0, AUDIT_READ], roles: ROLES } }
    }

    macro_rules! one_action {
        ($list:ident: $name:ident, $path:literal as $operation:literal, $scope:expr, $permission:expr) => {
            crate::actions! {
                static $list;
                Read $name = Get $path as $operation {
                    Authenticated, scope $scope, permission $permission, quota Read,
                    data Tenant, audit "read", outage Closed, read_only Served,
                }
            }
        };
    }

    one_action!(SAME_OPERATION: Me, "/v1/myself" as "getMe", None, None);
    one_action!(SAME_ROUTE: Rotation, "/v1/api-keys/{key}/rotation/{id}" as "one", None, None);
    one_action!(SAME_ROUTE_TWICE: Turn, "/v1/api-keys/{other}/rotation/{x}" as "two", None, None);
    one_action!(UNKNOWN_SCOPE: Parts, "/v1/parts" as "listParts", Some(Scope::new("parts:read")), None);
    one_action!(UNHELD: Tools, "/v1/tools" as "listTools", None, Some(Permission::new("read_tools")));

    static CONTRADICTIONS: [(&[&[&Row]], &str); 4] = [
        (&[SAME_OPERATION], "::GetMe are both declared for operation getMe: remove one"),
        (&[SAME_ROUTE, SAME_ROUTE_TWICE], "operations one and two have the same method and path: change one"),
        (&[UNKNOWN_SCOPE], "operation listParts needs parts:read, which is in no list of scopes"),
        (&[UNHELD], "operation listTools needs read_tools, which is in no list of scopes and in no role"),
    ];

    #[test]
    fn threat_01_contradicting_declarations_are_refused() {
        for (actions, expected) in CONTRADICTIONS {
            let error = Matrix::new(&access(actions)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
