use std::{fmt, marker::PhantomData, sync::Arc};

use super::{Action, Change, Grant};
use crate::{
    authn::Principal,
    domain::{Order, OrderId, TenantId},
};

/// The right to perform action `A` in one tenant, as decided by [`authorize`](super::authorize).
///
/// Only this module can make one. A handler gets it as its first argument, and the functions of
/// [`crate::store`] ask for it; there is no way to the database without one.
pub struct Permit<A> {
    principal: Arc<Principal>,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// The permit a grant gives, if the grant is for this very action.
    pub(crate) fn from_grant(grant: &Grant) -> Option<Self> {
        (grant.row.operation == A::OPERATION)
            .then(|| Self { principal: Arc::clone(&grant.principal), action: PhantomData })
    }

    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// In which tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant()
    }
}

/// The object is not one this caller may act on. Answered exactly as a missing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an object of this caller")]
pub struct NotThisCaller;

impl<A: Change> Permit<A> {
    /// The second check, after the fetch (control AUTHZ-04): narrows the permit to one loaded order.
    ///
    /// Functions that change an order ask for the narrowed permit, so the check cannot be skipped.
    pub fn for_order(&self, order: &Order) -> Result<OrderPermit<'_, A>, NotThisCaller> {
        if order.tenant != self.tenant() {
            return Err(NotThisCaller);
        }
        Ok(OrderPermit { permit: self, order: order.id })
    }
}

/// A permit that holds for one order only.
pub struct OrderPermit<'p, A> {
    permit: &'p Permit<A>,
    order: OrderId,
}

impl<A: Action> OrderPermit<'_, A> {
    /// The order it holds for.
    #[must_use]
    pub fn order(&self) -> OrderId {
        self.order
    }

    /// In which tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.permit.tenant()
    }
}

impl<A: Action> fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("action", &A::OPERATION).field("tenant", &self.tenant()).finish()
    }
}

impl<A: Action> fmt::Debug for OrderPermit<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderPermit").field("permit", &self.permit).field("order", &self.order).finish()
    }
}
