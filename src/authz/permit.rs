//! Permits: typed proof that a caller may act, in its tenant or on one loaded object (AUTHZ-04).
//!
//! `http/guard.rs` turns the [`Grant`] of a request into a [`Permit`] and passes it to the handler.
//! The handler passes it to `store`, or first limits it to a loaded object. Fields are private:
//! only [`Permit::from_grant`] makes a permit, from a grant, and code outside the crate cannot.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    Action, Change, Grant, ObjectRule,
    matrix::{DataClass, Row},
    policy::Permission,
};
use crate::{
    authn::{CallerKind, Principal},
    crypto::PersonalDataAccess,
    domain::{TenantId, TenantObject},
};

/// Proof that [`authorize`](super::authorize) allowed action `A` to a principal, in its tenant.
///
/// A handler receives it as its first argument. The functions of [`crate::store`] that serve
/// requests demand it, and confine their queries to its tenant.
pub struct Permit<A> {
    principal: Arc<Principal>,
    row: &'static Row,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// Makes the permit, if the grant is for action `A`; `None` for a grant of another operation.
    pub(crate) fn from_grant(grant: &Grant) -> Option<Self> {
        (grant.row.operation == A::OPERATION).then(|| Self {
            principal: Arc::clone(&grant.principal),
            row: grant.row,
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
    /// It takes a role that allows [`Permission::SeePersonal`] and an operation of
    /// [`DataClass::Personal`]. Services and API keys never have it, whatever their roles: an
    /// identified user must be accountable for each plain-text disclosure.
    #[must_use]
    pub fn personal_data_access(&self) -> Option<PersonalDataAccess> {
        let is_user = self.principal.kind() == CallerKind::User;
        let has_permission = self.principal.roles().iter().any(|role| role.allows(Permission::SeePersonal));
        (is_user && has_permission && self.row.data == DataClass::Personal).then(PersonalDataAccess::grant)
    }

    /// The operation's name in security events and the audit trail.
    #[must_use]
    pub fn audit(&self) -> &'static str {
        self.row.audit
    }
}

/// Why a permit does not hold for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectDenied {
    /// The object belongs to another tenant. The answer is the same as for a missing object.
    #[error("the object belongs to another tenant")]
    WrongTenant,
    /// The object's state does not allow the action.
    #[error("the object's state does not allow this")]
    State,
}

impl<A: Change> Permit<A> {
    /// Limits the permit to one loaded object: the second check, after the fetch (AUTHZ-04).
    ///
    /// Functions that change a loaded object demand an [`ObjectPermit`], so a handler cannot skip
    /// this check.
    ///
    /// # Errors
    /// [`ObjectDenied`] if the object is another tenant's, or its state does not allow the action.
    pub fn for_object<R: TenantObject>(&self, object: &R) -> Result<ObjectPermit<'_, A, R>, ObjectDenied>
    where
        A: ObjectRule<R>,
    {
        if object.tenant() != self.tenant() {
            return Err(ObjectDenied::WrongTenant);
        }
        if !A::state_allows(object) {
            return Err(ObjectDenied::State);
        }
        Ok(ObjectPermit { permit: self, id: object.id() })
    }
}

/// A permit for one object only. [`Permit::for_object`] makes it.
pub struct ObjectPermit<'p, A, R: TenantObject> {
    permit: &'p Permit<A>,
    id: R::Id,
}

impl<A: Action, R: TenantObject> ObjectPermit<'_, A, R> {
    /// The id of the object that the permit is for.
    #[must_use]
    pub fn id(&self) -> R::Id {
        self.id
    }

    /// The tenant of the permit and of the object.
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
        let grant = Grant { row, principal: Arc::new(Principal::without_rights(tenant)) };
        assert!(Permit::<VoidInvoice>::from_grant(&grant).is_none(), "a grant made a permit for another action");
        Permit::from_grant(&grant).unwrap()
    }

    #[test]
    fn authz_04_permit_is_denied_for_another_tenants_object() {
        let tenant = |n: u128| TenantId::from_uuid(uuid::Uuid::from_u128(n));
        let now = chrono::DateTime::UNIX_EPOCH;
        let key = ApiKey {
            id: ApiKeyId::generate(),
            tenant: tenant(1),
            name: "A key".parse().unwrap(),
            scopes: Vec::new(),
            created_by: "a-user".to_owned(),
            replaces: None,
            authorized_at: now,
            created_at: now,
            expires_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        let same_tenant = permit::<RevokeApiKey>(tenant(1));
        let other_tenant = permit::<RevokeApiKey>(tenant(2));
        assert_eq!(same_tenant.for_object(&key).unwrap().id(), key.id);
        assert_eq!(other_tenant.for_object(&key).unwrap_err(), ObjectDenied::WrongTenant);
    }
}
