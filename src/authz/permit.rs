use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Action, Change, Grant, Narrow,
    matrix::{DataClass, Row},
    policy::Permission,
};
use crate::{
    authn::{CallerKind, Principal},
    domain::{TenantId, TenantObject},
};

/// The right to perform action `A` in one tenant, as decided by [`authorize`](super::authorize).
///
/// Only this module can make one. A handler gets it as its first argument, and the functions of
/// [`crate::store`] ask for it; there is no way to the database without one.
pub struct Permit<A> {
    principal: Arc<Principal>,
    row: &'static Row,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// The permit a grant gives, if the grant is for this very action.
    pub(crate) fn from_grant(grant: &Grant) -> Option<Self> {
        (grant.row.operation == A::OPERATION).then(|| Self {
            principal: Arc::clone(&grant.principal),
            row: grant.row,
            action: PhantomData,
        })
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

    /// The right to see fields about a person, if the caller has it and the operation is for such data. Programs have it
    /// in nobody's name: what leaves in plain text, a person answers for.
    #[must_use]
    pub fn may_see(&self) -> Option<MaySee> {
        let person = self.principal.kind() == CallerKind::User;
        let role = self.principal.roles().iter().any(|role| role.allows(Permission::SeePersonal));
        (person && role && self.row.data == DataClass::Personal).then_some(MaySee(()))
    }

    /// What the operation is called in security events and the audit trail.
    #[must_use]
    pub fn audit(&self) -> &'static str {
        self.row.audit
    }
}

/// The right to see fields about a person in plain text. Sealed fields ask for it
/// ([`Sealed::open`](crate::crypto::Sealed::open)), and only a permit gives it.
#[derive(Debug)]
pub struct MaySee(());

/// Why a permit does not hold for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not one this caller may act on. Answered exactly as a missing one.
    #[error("not an object of this caller")]
    NotThisCaller,
    /// Its state does not allow the action.
    #[error("the object's state does not allow this")]
    State,
}

impl<A: Change> Permit<A> {
    /// The second check, after the fetch (control AUTHZ-04): narrows the permit to one loaded object, if it is
    /// the tenant's and in a state that allows the action.
    ///
    /// Functions that change an object ask for the narrowed permit, so the check cannot be skipped.
    pub fn narrow<R: TenantObject>(&self, object: &R) -> Result<ObjectPermit<'_, A, R>, Refusal>
    where
        A: Narrow<R>,
    {
        if object.tenant() != self.tenant() {
            return Err(Refusal::NotThisCaller);
        }
        if !A::state_allows(object) {
            return Err(Refusal::State);
        }
        Ok(ObjectPermit { permit: self, id: object.id() })
    }
}

/// A permit that holds for one object only.
pub struct ObjectPermit<'p, A, R: TenantObject> {
    permit: &'p Permit<A>,
    id: R::Id,
}

impl<A: Action, R: TenantObject> ObjectPermit<'_, A, R> {
    /// The object it holds for.
    #[must_use]
    pub fn id(&self) -> R::Id {
        self.id
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

impl<A: Action, R: TenantObject> fmt::Debug for ObjectPermit<'_, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPermit").field("permit", &self.permit).field("id", &self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authz::{
            actions::{RevokeApiKey, VoidInvoice},
            matrix::MATRIX,
        },
        domain::{ApiKey, ApiKeyId},
    };

    fn permit<A: Action>(tenant: TenantId) -> Permit<A> {
        let row = MATRIX.iter().find(|row| row.operation == A::OPERATION).unwrap();
        let grant = Grant { row, principal: Arc::new(Principal::nobody_of(tenant)) };
        assert!(Permit::<VoidInvoice>::from_grant(&grant).is_none(), "a grant gave the permit of another action");
        Permit::from_grant(&grant).unwrap()
    }

    #[test]
    fn authz_04_a_permit_does_not_narrow_to_another_tenants_object() {
        let tenant = |n: u128| TenantId::from_uuid(uuid::Uuid::from_u128(n));
        let now = chrono::DateTime::UNIX_EPOCH;
        let key = ApiKey {
            id: ApiKeyId::generate(),
            tenant: tenant(1),
            name: "A key".parse().unwrap(),
            scopes: Vec::new(),
            created_by: "somebody".to_owned(),
            replaces: None,
            authorized_at: now,
            created_at: now,
            expires_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        let (ours, theirs) = (permit::<RevokeApiKey>(tenant(1)), permit::<RevokeApiKey>(tenant(2)));
        assert_eq!(ours.narrow(&key).unwrap().id(), key.id);
        assert_eq!(theirs.narrow(&key).unwrap_err(), Refusal::NotThisCaller);
    }
}
