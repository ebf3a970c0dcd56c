//! Access to the operations of browser sessions: scope, permission, actions and object rules
//! (AUTHN-14, AUTHN-16).
//!
//! The [`Matrix`](super::Matrix) has these rows beside those of [`actions`](super::actions). A
//! service declares [`SESSIONS_MANAGE`] among its scopes and gives [`MANAGE_SESSIONS`] to a role.
//! Without the feature `sessions`, `without_sessions.rs` stands in for this module.

use super::policy::{Permission, Scope};
use crate::model::Session;

/// `sessions:manage`: list and end the browser sessions of the tenant's members.
pub const SESSIONS_MANAGE: Scope = Scope::new("sessions:manage");
/// List and end the browser sessions of the tenant's members.
pub const MANAGE_SESSIONS: Permission = Permission::new("manage_sessions");
crate::actions! {
    /// The rows of the operations of browser sessions.
    pub static SESSIONS;

    /// Redirect to the issuer.
    Read BeginLogin = Get "/auth/login" as "beginLogin" {
        Browser, scope None, permission None, quota Credential,
        data Public, audit "login_begun", outage Closed, read_only Served,
    }
    /// Take the answer of the issuer, and open a session.
    Read FinishLogin = Get "/auth/callback" as "finishLogin" {
        Browser, scope None, permission None, quota Credential,
        data Public, audit "session_opened", outage Closed, read_only Served,
    }
    /// Read the browser's own session.
    Read GetSession = Get "/auth/session" as "getSession" {
        Browser, scope None, permission None, quota Health,
        data Own, audit "session_read", outage Closed, read_only Served,
    }
    /// Refresh the browser's own session.
    Read RefreshSession = Post "/auth/refresh" as "refreshSession" {
        Browser, scope None, permission None, quota Credential,
        data Own, audit "session_refreshed", outage Closed, read_only Served,
    }
    /// End the browser's own session.
    Read Logout = Post "/auth/logout" as "logout" {
        Browser, scope None, permission None, quota Credential,
        data Own, audit "session_ended", outage Closed, read_only Served,
    }
    /// Take a logout token of the issuer.
    /// An issuer may sign out many people at once, so only failures are limited.
    Read BackchannelLogout = Post "/auth/backchannel-logout" as "backchannelLogout" {
        Browser, scope None, permission None, quota Health,
        data Public, audit "issuer_logout", outage Closed, read_only Served,
    }
    /// List the caller's own browser sessions.
    Read ListMySessions = Get "/v1/me/sessions" as "listMySessions" {
        NoKeys, scope None, permission None, quota Read,
        data Own, audit "own_sessions_listed", outage Closed, read_only Served,
    }
    /// End one of the caller's own browser sessions. Read-only mode serves it: it contains an incident.
    Change EndMySession = Delete "/v1/me/sessions/{id}" as "endMySession" {
        NoKeys, scope None, permission None, quota Sensitive,
        data Own, audit "own_session_ended", outage Closed, read_only Served,
    }
    /// List browser sessions of the tenant.
    Read ListSessions = Get "/v1/sessions" as "listSessions" {
        NoKeys, scope Some(SESSIONS_MANAGE), permission Some(MANAGE_SESSIONS), quota Sensitive,
        data Tenant, audit "sessions_listed", outage Closed, read_only Served,
    }
    /// End a browser session of the tenant. Read-only mode serves it: it contains an incident.
    Change EndSession = Delete "/v1/sessions/{id}" as "endSession" {
        NoKeys, scope Some(SESSIONS_MANAGE), permission Some(MANAGE_SESSIONS), quota Sensitive,
        data Tenant, audit "session_ended_by_admin", outage Closed, read_only Served,
    }
}

crate::object_rules! {
    EndMySession on Session if |_session| true;
    EndSession on Session if |_session| true;
}
