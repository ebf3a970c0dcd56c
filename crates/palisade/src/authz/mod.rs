//! Authorization: decides what an authenticated caller may do (THREAT-01, AUTHZ-01 to AUTHZ-05).
//!
//! Four values carry the authority. Each can be made only from the one before it:
//!
//! 1. [`Principal`](crate::authn::Principal): an authenticated caller. Only `authn` makes one.
//! 2. [`Grant`]: this principal may call this operation. [`authorize`] compares the operation's
//!    row in the [`matrix`] with the principal's scopes and its roles' permissions ([`RoleTable`]).
//! 3. [`Permit<A>`](Permit): a grant with its operation in the type, `A` ([`actions`]). It is a
//!    handler's first argument, and the query functions of [`crate::store`] demand it.
//! 4. `ObjectPermit` of [`crate::store`]: a permit for one locked object. [`Permit::for_object`]
//!    checks the object's tenant and state ([`ObjectRule`]). Every change of an object demands it.
//!
//! `http/guard.rs` calls [`authorize`] before it reads a handler's arguments, and makes the permit.
//! A service declares its operations with [`actions!`](crate::actions), its scopes and roles in
//! [`Access`], and its object rules with [`object_rules!`](crate::object_rules).
//!
//! Fields are private, and no constructor is visible outside the crate, so code that skips a check
//! does not compile (`tests/sample/tests/misuse`).

pub mod actions;
#[cfg_attr(not(feature = "api_keys"), path = "without_api_keys.rs")]
pub mod api_keys;
mod decision;
pub mod internal;
pub mod matrix;
mod object_rules;
mod permit;
pub mod policy;
mod row;
#[cfg_attr(not(feature = "sessions"), path = "without_sessions.rs")]
pub mod sessions;

pub use actions::{Action, Change, kind};
pub(crate) use decision::{Denied, Grant, OpenTransactions, authorize};
pub use matrix::{Access, Matrix, MatrixError};
pub use object_rules::ObjectRule;
pub use permit::Permit;
pub(crate) use permit::RequestGrant;
#[cfg(feature = "internals")]
pub use permit::kept;
pub use policy::{Permission, Rights, Role, RoleTable, Scope};
pub use row::{Callers, Columns, DataClass, Method, OnStoreDown, Outage, QuotaClass, ReadOnly, Row, StepUp};
