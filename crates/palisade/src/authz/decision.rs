//! Access decision for one operation: principal + matrix row → [`Grant`].
//!
//! Controls: AUTHN-13, AUTHZ-01, AUTHZ-02.
//! `http/guard.rs` calls [`authorize`] for every authenticated request, after authentication and
//! quota, and before it reads the handler's arguments.

use std::{
    any::Any,
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use super::{
    matrix::{Callers, Row},
    policy::{Rights, SEE_PERSONAL, Scope},
};
use crate::authn::{CallerKind, Principal, SignInFault};

/// The decision that a principal may call an operation. Only [`authorize`] makes it.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) row: &'static Row,
    pub(super) principal: Arc<Principal>,
    /// Whether a role of the principal allows [`SEE_PERSONAL`].
    pub(super) sees_personal: bool,
    /// The permit that the handler borrows, by the type of its action.
    pub(super) permit: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Each transaction of the request has a clone until it has ended.
    pub(super) transactions: OpenTransactions,
}

impl Grant {
    pub(super) fn new(
        row: &'static Row,
        principal: Arc<Principal>,
        sees_personal: bool,
        transactions: OpenTransactions,
    ) -> Self {
        Self { row, principal, sees_personal, permit: OnceLock::new(), transactions }
    }
}

/// Nothing is sent. The receiver knows that all transactions have ended when it has no sender left.
pub(crate) type OpenTransactions = mpsc::Sender<Infallible>;

/// Why a principal may not call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The credential lacks this scope (AUTHZ-01).
    MissingScope(Scope),
    /// The operation is closed to API keys (AUTHN-13).
    ApiKey,
    /// An actor calls an operation with a step-up (AUTHN-13).
    Actor,
    /// The sign-in is too old or too weak for the operation (AUTHN-13).
    SignIn(SignInFault),
    /// None of the principal's roles allows the operation's permission (AUTHZ-02).
    MissingPermission,
}

/// Decides whether a principal may call the operation of `row`, by the declared `rights`.
///
/// The scope *and* the permission are required, so neither widens the other (AUTHZ-02). The sign-in
/// comes last: a caller without the rights need not sign in again. `now` is in seconds since the
/// epoch.
///
/// # Errors
/// [`Denied`] names the first check that failed.
pub(crate) fn authorize(
    rights: &Rights,
    row: &'static Row,
    principal: Arc<Principal>,
    transactions: OpenTransactions,
    now: i64,
) -> Result<Grant, Denied> {
    if row.callers == Callers::NoKeys && principal.kind() == CallerKind::ApiKey {
        return Err(Denied::ApiKey);
    }
    if let Some(scope) = row.scope
        && !principal.has_scope(scope)
    {
        return Err(Denied::MissingScope(scope));
    }
    if let Some(permission) = row.permission
        && !rights.allow(principal.roles(), permission)
    {
        return Err(Denied::MissingPermission);
    }
    if let Some(step_up) = row.step_up {
        if principal.actor().is_some() {
            return Err(Denied::Actor);
        }
        if let Some(fault) = principal.sign_in_fault(step_up.max_age(), now) {
            return Err(Denied::SignIn(fault));
        }
    }
    let sees_personal = rights.allow(principal.roles(), SEE_PERSONAL);
    Ok(Grant::new(row, principal, sees_personal, transactions))
}
