//! Permits: typed proof that a caller may act in its tenant (AUTHZ-04).
//!
//! `http/guard.rs` turns the [`Grant`] of a request into a [`Permit`] and passes it to the handler.
//! The handler passes it to `store`, which also limits it to a locked object. Fields are private:
//! only [`Permit::from_grant`] makes a permit, from a grant, and code outside the crate cannot.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Action, Grant,
    matrix::{DataClass, Row},
};
use crate::{
    authn::{CallerKind, Principal},
    crypto::PersonalDataAccess,
    model::TenantId,
};

/// Proof that [`authorize`](super::authorize) allowed action `A` to a principal, in its tenant.
///
/// A handler receives it as its first argument. The functions of [`crate::store`] that serve
/// requests demand it, and confine their queries to its tenant.
pub struct Permit<A> {
    principal: Arc<Principal>,
    row: &'static Row,
    sees_personal: bool,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// Makes the permit, if the grant is for action `A`; `None` for a grant of another operation.
    pub(crate) fn from_grant(grant: &Grant) -> Option<Self> {
        grant.row.is_of::<A>().then(|| Self {
            principal: Arc::clone(&grant.principal),
            row: grant.row,
            sees_personal: grant.sees_personal,
            action: PhantomData,
        })
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
    pub fn personal_data_access(&self) -> Option<PersonalDataAccess> {
        let is_user = self.principal.kind() == CallerKind::User;
        (is_user && self.sees_personal && self.row.data == DataClass::Personal).then(PersonalDataAccess::grant)
    }

    /// The operation's name in security events and the audit trail.
    #[must_use]
    pub fn audit(&self) -> &'static str {
        self.row.audit
    }
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
        Grant { row: A::row(), principal: Arc::new(Principal::without_rights(tenant)), sees_personal: false }
    }

    /// An action that claims the row of another.
    enum Impostor {}

    impl Action for Impostor {
        type Kind = kind::Change;

        fn row() -> &'static Row {
            GetMe::row()
        }
    }

    #[test]
    fn authz_04_grant_makes_no_permit_for_another_action() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let grant = grant::<GetMe>(tenant);
        assert!(Permit::<GetMe>::from_grant(&grant).is_some());
        assert!(Permit::<ListAuditEvents>::from_grant(&grant).is_none());
        assert!(Permit::<Impostor>::from_grant(&grant).is_none(), "an action of the same name got a permit");
    }
}
