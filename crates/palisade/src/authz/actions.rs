//! Actions: one type per operation, declared together with its row of the route matrix (AUTHZ-04).
//!
//! The action is the type parameter of [`Permit`](super::Permit), so the compiler rejects a permit
//! for one operation where another is demanded. [`actions!`](crate::actions) declares actions. Here
//! are those of the operations that every service has.

use super::{
    Row,
    policy::{AUDIT_READ, READ_AUDIT},
};

pub(super) mod sealed {
    /// A kind of action. Only [`kind`](super::kind) has implementations.
    pub trait ActionKind {
        /// Whether the action may write.
        const WRITES: bool;
    }

    /// The kind of actions that may write.
    #[diagnostic::on_unimplemented(message = "this action is declared as a read, so its permit cannot write")]
    pub trait MayWrite {}
    impl MayWrite for super::kind::Change {}
}

/// The kinds of action.
pub mod kind {
    /// Reads only.
    #[derive(Debug)]
    pub enum Read {}

    /// May write. A write transaction requires a permit for such an action.
    #[derive(Debug)]
    pub enum Change {}

    impl super::sealed::ActionKind for Read {
        const WRITES: bool = false;
    }

    impl super::sealed::ActionKind for Change {
        const WRITES: bool = true;
    }
}

/// An operation as a type. [`actions!`](crate::actions) implements it.
///
/// An implementation by hand is harmless: a [`Row`] names the type that it was made for, and an
/// action whose row is not in the [`Matrix`](super::Matrix) gets no permit.
pub trait Action: Sized + Send + Sync + 'static {
    /// [`kind::Read`] or [`kind::Change`].
    type Kind: sealed::ActionKind;

    /// The action's row of the route matrix.
    ///
    /// A constant, so that its texts are in the code: an audit event has its name.
    const ROW: &'static Row;
}

/// An action that may write. It follows from [`Action::Kind`] and cannot be implemented.
pub trait Change: Action {}
impl<A: Action> Change for A where A::Kind: sealed::MayWrite {}

/// Declares actions together with their rows of the route matrix, and the list of the rows. A row
/// without `step_up` demands no recent sign-in.
#[macro_export]
macro_rules! actions {
    (@step_up) => {
        ::core::option::Option::None
    };
    (@step_up $step_up:expr) => {
        ::core::option::Option::Some($step_up)
    };
    (
        $(#[$list_doc:meta])* $vis:vis static $list:ident;
        $(
            $(#[$doc:meta])*
            $kind:ident $name:ident = $method:ident $path:literal as $operation:literal {
                $callers:ident, scope $scope:expr, permission $permission:expr, quota $quota:ident,
                data $data:ident, audit $audit:literal, outage $outage:ident, read_only $read_only:ident
                $(, step_up $step_up:expr)? $(,)?
            }
        )+
    ) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            $vis enum $name {}

            impl $crate::authz::Action for $name {
                type Kind = $crate::authz::kind::$kind;

                const ROW: &'static $crate::authz::Row = {
                    static ROW: $crate::authz::Row = $crate::authz::Row::new::<$name>($crate::authz::Columns {
                        method: $crate::authz::Method::$method,
                        path: $path,
                        operation: $operation,
                        callers: $crate::authz::Callers::$callers,
                        scope: $scope,
                        permission: $permission,
                        quota: $crate::authz::QuotaClass::$quota,
                        data: $crate::authz::DataClass::$data,
                        audit: $audit,
                        outage: $crate::authz::Outage::$outage,
                        read_only: $crate::authz::ReadOnly::$read_only,
                        step_up: $crate::actions!(@step_up $($step_up)?),
                    });
                    &ROW
                };
            }
        )+
        $(#[$list_doc])*
        $vis static $list: &[&$crate::authz::Row] = &[$(<$name as $crate::authz::Action>::ROW),+];
    };
}

crate::actions! {
    /// The rows of the operations that every service has.
    pub static KERNEL;

    /// Read the caller's own identity.
    Read GetMe = Get "/v1/me" as "getMe" {
        Authenticated, scope None, permission None, quota Read,
        data Own, audit "account_read", outage Closed, read_only Served,
    }
    /// Read the audit trail.
    Read ListAuditEvents = Get "/v1/audit-events" as "listAuditEvents" {
        Authenticated, scope Some(AUDIT_READ), permission Some(READ_AUDIT), quota Read,
        data Tenant, audit "audit_events_listed", outage Closed, read_only Served,
    }
    /// Probe whether the process runs.
    Read GetLiveness = Get "/health/live" as "getLiveness" {
        Public, scope None, permission None, quota Health,
        data Public, audit "liveness_read", outage Open, read_only Served,
    }
    /// Probe whether the replica can serve.
    Read GetReadiness = Get "/health/ready" as "getReadiness" {
        Public, scope None, permission None, quota Health,
        data Public, audit "readiness_read", outage Closed, read_only Served,
    }
    /// Read which issuers and scopes the API has.
    Read GetProtectedResource = Get "/.well-known/oauth-protected-resource" as "getProtectedResource" {
        Public, scope None, permission None, quota Health,
        data Public, audit "protected_resource_read", outage Open, read_only Served,
    }
    /// Read the OpenAPI document.
    Read GetOpenApi = Get "/openapi.json" as "getOpenApi" {
        Public, scope None, permission None, quota Health,
        data Public, audit "document_read", outage Open, read_only Served,
    }
    /// Read the documentation page.
    Read GetDocs = Get "/docs" as "getDocs" {
        Public, scope None, permission None, quota Health,
        data Public, audit "docs_read", outage Open, read_only Served,
    }
}
