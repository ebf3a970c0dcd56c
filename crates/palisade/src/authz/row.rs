//! Rows of the route matrix: the access rules of one operation, checked for contradictions
//! (THREAT-01), and the handling of each quota class during an outage (RATE-08).
//!
//! [`actions!`](crate::actions) writes the [`Columns`] of a row; [`Row::new`] checks them in a
//! constant, so a contradiction does not compile. The [`Matrix`](super::Matrix) collects the rows.

use std::{any::TypeId, fmt, ops::Deref};

use super::{Action, actions::sealed::ActionKind};
use crate::{
    model::{Permission, Scope, is_token},
    text_enum,
};

text_enum! {
    /// An HTTP method of an operation.
    Method {
        /// `DELETE`
        Delete = "DELETE",
        /// `GET`
        Get = "GET",
        /// `PATCH`
        Patch = "PATCH",
        /// `POST`
        Post = "POST",
        /// `PUT`
        Put = "PUT",
    }
}

text_enum! {
    /// The kinds of caller that may call an operation.
    Callers {
        /// Every client, without a credential.
        Public = "public",
        /// Users, services and API keys.
        Authenticated = "authenticated",
        /// Users and services, but no API key, whatever its scopes (AUTHN-13).
        NoKeys = "noApiKeys",
        /// Browsers and issuers, by a cookie or a signed token that the operation itself checks.
        Browser = "browser",
    }
}

text_enum! {
    /// The quota class of an operation.
    QuotaClass {
        /// Probes and documentation: no quota.
        Health = "health",
        /// Reads.
        Read = "read",
        /// Ordinary changes.
        Write = "write",
        /// Exports of a tenant's data.
        Export = "export",
        /// Calls that move money, erase data or manage API keys.
        Sensitive = "sensitive",
        /// Sign-ins, refreshes and sign-outs of browsers, counted before the credential is checked.
        Credential = "credential",
    }
}

/// Handling of calls while the shared quota store is down (RATE-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreDown {
    /// Each replica counts its own calls, so a caller has at most the quota per replica.
    Local,
    /// Rejects the call with 503.
    Closed,
}

impl QuotaClass {
    /// Handling of this class while the shared quota store is down.
    #[must_use]
    pub const fn on_store_down(self) -> OnStoreDown {
        match self {
            // Without sign-ins, an outage of the quota store would be one of the service.
            Self::Health | Self::Read | Self::Write | Self::Credential => OnStoreDown::Local,
            Self::Export | Self::Sensitive => OnStoreDown::Closed,
        }
    }
}

text_enum! {
    /// The class of data in an operation's response.
    DataClass {
        /// No data of a tenant or a person.
        Public = "public",
        /// Data about the caller itself.
        Own = "own",
        /// A tenant's business data.
        Tenant = "tenant",
        /// Personal data.
        Personal = "personal",
    }
}

text_enum! {
    /// Behaviour of an operation while a dependency is down.
    Outage {
        /// Served: the operation depends on nothing.
        Open = "open",
        /// Rejected with 503.
        Closed = "closed",
    }
}

text_enum! {
    /// Behaviour of an operation while an operator has turned read-only mode on (LOG-08).
    ReadOnly {
        /// Served: it changes no business data, or it contains an incident (revoking an API key).
        Served = "served",
        /// Rejected with 503.
        Refused = "refused",
    }
}

/// The sign-in that an operation demands of a person (RFC 9470): its age, and its strength if the
/// issuer's settings name one. No actor and no API key may call such an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepUp {
    max_age: u32,
}

impl StepUp {
    /// A sign-in within the last 15 minutes.
    pub const RECENT: Self = Self::within(900);

    /// A sign-in within the last `seconds`.
    #[must_use]
    pub const fn within(seconds: u32) -> Self {
        Self { max_age: seconds }
    }

    /// The largest age of the sign-in, in seconds.
    #[must_use]
    pub const fn max_age(self) -> u32 {
        self.max_age
    }
}

/// The columns of a row: all rules that apply to an operation before its handler runs.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// HTTP method.
    pub method: Method,
    /// Path template in OpenAPI notation.
    pub path: &'static str,
    /// The `operationId` in the OpenAPI document.
    pub operation: &'static str,
    /// Kinds of caller that may call it.
    pub callers: Callers,
    /// The scope that the caller's credential must have, if any.
    pub scope: Option<Scope>,
    /// The permission that a role of the caller must allow, if any.
    pub permission: Option<Permission>,
    /// The quota that a call counts against.
    pub quota: QuotaClass,
    /// Class of the data in its response.
    pub data: DataClass,
    /// The operation's name in security events and the audit trail.
    pub audit: &'static str,
    /// Behaviour while a dependency is down.
    pub outage: Outage,
    /// Behaviour in read-only mode.
    pub read_only: ReadOnly,
    /// The sign-in that it demands of a person, if any.
    pub step_up: Option<StepUp>,
}

/// The row of one action. Only [`Row::new`] makes one; its [`Columns`] can be read, not changed.
pub struct Row {
    columns: Columns,
    /// The action that the row was declared with. A permit is compared with it, by type.
    action: TypeId,
    action_name: fn() -> &'static str,
}

impl Row {
    /// Makes the row of action `A`.
    ///
    /// # Panics
    /// At compile time, if the columns contradict each other or the kind of the action.
    #[must_use]
    pub const fn new<A: Action>(columns: Columns) -> Self {
        let Columns { method, callers, quota, .. } = columns;
        assert!(is_token(columns.operation) && is_token(columns.audit), "a name has 1 to 64 visible ASCII characters");
        let is_public = matches!(callers, Callers::Public);
        if <A::Kind as ActionKind>::WRITES {
            assert!(!matches!(method, Method::Get), "a change cannot be a GET");
            assert!(
                matches!(quota, QuotaClass::Write | QuotaClass::Sensitive),
                "a change needs quota Write or Sensitive"
            );
            assert!(!is_public && !matches!(callers, Callers::Browser), "a change needs an authenticated caller");
        } else {
            assert!(!matches!(quota, QuotaClass::Write), "a read needs another quota than Write");
            assert!(matches!(columns.read_only, ReadOnly::Served), "a read is served in read-only mode");
        }
        let is_of_browser = matches!(callers, Callers::Browser);
        assert!(
            (is_public || is_of_browser) == matches!(quota, QuotaClass::Health | QuotaClass::Credential)
                && (is_public == matches!(quota, QuotaClass::Health) || is_of_browser),
            "public operations have quota Health, those of browsers Health or Credential, and no others have either"
        );
        assert!(
            columns.step_up.is_none() || matches!(callers, Callers::NoKeys),
            "an operation with a step-up is closed to API keys: they cannot sign in again"
        );
        if is_public || is_of_browser {
            assert!(columns.scope.is_none() && columns.permission.is_none(), "a public operation has no access rule");
            assert!(
                matches!(columns.data, DataClass::Public) || is_of_browser && matches!(columns.data, DataClass::Own),
                "a public operation returns public data"
            );
        }
        Self { columns, action: TypeId::of::<A>(), action_name: std::any::type_name::<A> }
    }

    /// Whether the row was declared with action `A`.
    ///
    /// Compares types and not names: an action that is declared twice, or by hand, gets no permit.
    #[must_use]
    pub fn is_of<A: Action>(&self) -> bool {
        self.action == TypeId::of::<A>()
    }

    /// The type of the action, for messages.
    #[must_use]
    pub fn action_name(&self) -> &'static str {
        (self.action_name)()
    }
}

impl Deref for Row {
    type Target = Columns;

    fn deref(&self) -> &Columns {
        &self.columns
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("action", &self.action_name())
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
