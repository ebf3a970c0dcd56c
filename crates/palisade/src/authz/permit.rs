//! Permits: typed proof that a caller may act in its tenant (AUTHZ-04).
//!
//! `http/guard.rs` puts the [`RequestGrant`] into the request; the handler borrows its [`Permit`] from
//! there. So a handler cannot keep a permit for a later request. The handler passes it to `store`,
//! which also limits it to a locked object. Fields are private: only [`Grant::permit`] makes a
//! permit, and code outside the crate cannot.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Action, Grant, OpenTransactions,
    matrix::{DataClass, Row},
};
use crate::{
    authn::{CallerKind, Principal},
    crypto::PersonalDataAccess,
    model::TenantId,
};

/// Proof that [`authorize`](super::authorize) allowed action `A` to a principal, in its tenant.
///
/// A handler receives a reference as its first argument. The request owns the permit and ends with
/// it, so the compiler refuses to store it or to move it to a task. The functions of
/// [`crate::store`] that serve requests demand it, and confine their queries to its tenant.
pub struct Permit<A> {
    principal: Arc<Principal>,
    row: &'static Row,
    personal: Option<PersonalDataAccess>,
    /// `None` for a stream, which nothing waits for.
    transactions: Option<OpenTransactions>,
    action: PhantomData<fn() -> A>,
}

impl Grant {
    /// The permit of the request, if the grant is for action `A`; `None` for another operation.
    pub(crate) fn permit<A: Action>(&self) -> Option<&Permit<A>> {
        if !self.row.is_of::<A>() {
            return None;
        }
        let is_user = self.principal.kind() == CallerKind::User;
        let sees_personal = is_user && self.sees_personal && self.row.data == DataClass::Personal;
        let permit = self.permit.get_or_init(|| {
            Box::new(Permit::<A> {
                principal: Arc::clone(&self.principal),
                row: self.row,
                personal: sees_personal.then(PersonalDataAccess::grant),
                transactions: Some(self.transactions.clone()),
                action: PhantomData,
            })
        });
        permit.downcast_ref()
    }
}

/// The grant of a request, in its extensions. A clone of them has no grant: a copy could outlive the
/// request, and with it the permit.
pub(crate) struct RequestGrant(Option<Grant>);

impl RequestGrant {
    pub(crate) fn new(grant: Grant) -> Self {
        Self(Some(grant))
    }

    /// As [`Grant::permit`].
    pub(crate) fn permit<A: Action>(&self) -> Option<&Permit<A>> {
        self.0.as_ref()?.permit()
    }
}

impl Clone for RequestGrant {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl<A: Action> Permit<A> {
    /// A permit without personal data, for a stream of the kernel that outlives the handler.
    pub(crate) fn for_stream(&self) -> Self {
        Self {
            principal: Arc::clone(&self.principal),
            row: self.row,
            personal: None,
            transactions: None,
            action: PhantomData,
        }
    }

    /// What a transaction keeps until it has ended: the response waits for that.
    pub(crate) fn transactions(&self) -> Option<OpenTransactions> {
        self.transactions.clone()
    }

    /// The authenticated caller that holds the permit.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The tenant that the permit is confined to.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant()
    }

    /// The right to see personal data in plain text, if the caller has it.
    ///
    /// It takes a role that allows [`SEE_PERSONAL`](super::policy::SEE_PERSONAL) and an operation of
    /// [`DataClass::Personal`]. Services and API keys never have it, whatever their roles: an
    /// identified user must be accountable for each plain-text disclosure.
    #[must_use]
    pub fn personal_data_access(&self) -> Option<&PersonalDataAccess> {
        self.personal.as_ref()
    }

    /// The operation's name in security events and the audit trail.
    #[must_use]
    pub fn audit(&self) -> &'static str {
        self.row.audit
    }
}

/// A permit that outlives its request: for tests of what the store refuses in any case.
#[cfg(feature = "internals")]
#[must_use]
pub fn kept<A: Action>(permit: &Permit<A>) -> Permit<A> {
    permit.for_stream()
}

impl<A: Action> fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("operation", &self.row.operation)
            .field("tenant", &self.tenant())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{
        actions::{GetMe, ListAuditEvents},
        kind,
    };

    fn grant<A: Action>(tenant: TenantId) -> Grant {
        let (transactions, _) = tokio::sync::mpsc::channel(1);
        Grant::new(A::ROW, Arc::new(Principal::without_rights(tenant)), false, transactions)
    }

    /// An action that claims the row of another.
    enum Impostor {}

    impl Action for Impostor {
        type Kind = kind::Change;

        const ROW: &'static Row = GetMe::ROW;
    }

    #[test]
    fn authz_04_copied_extensions_of_a_request_have_no_permit() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let mut extensions = http::Extensions::new();
        extensions.insert(RequestGrant::new(grant::<GetMe>(tenant)));
        let copy = extensions.clone();
        assert!(extensions.get::<RequestGrant>().and_then(RequestGrant::permit::<GetMe>).is_some());
        assert!(copy.get::<RequestGrant>().and_then(RequestGrant::permit::<GetMe>).is_none());
    }

    #[test]
    fn authz_04_grant_makes_no_permit_for_another_action() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let grant = grant::<GetMe>(tenant);
        assert!(grant.permit::<GetMe>().is_some());
        assert!(grant.permit::<ListAuditEvents>().is_none());
        assert!(grant.permit::<Impostor>().is_none(), "an action of the same name got a permit");
    }
}
