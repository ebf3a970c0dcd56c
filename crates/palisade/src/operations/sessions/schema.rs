//! Schemas of browser sessions, and their formats.

use chrono::{DateTime, Utc};
use poem_openapi::Object;
use uuid::Uuid;

use crate::{
    authn::SessionState,
    http::{
        text::{Text, formats},
        values::{RoleName, ScopeName},
    },
    model::{Session, SessionId},
};

crate::formats! {
    /// A local path, to which a sign-in returns.
    pub(super) LocalPath, 1..=200, "^/[A-Za-z0-9._~/-]*$";
    /// The name of a further issuer in the settings.
    pub(super) IssuerName, 1..=32, "^[a-z0-9_-]+$";
    /// Values of `acr`, separated by single spaces.
    pub(super) AcrValues, 1..=255, "^[!-~]+( [!-~]+)*$";
    /// A parameter of the issuer's answer: visible ASCII.
    pub(super) IssuerText, 1..=2048, "^[ -~]+$";
    /// A CSRF token.
    pub(super) CsrfToken, 43..=43, "^[A-Za-z0-9_-]+$";
    /// A URL of the issuer, or a local path.
    pub(super) Target, 1..=4096, "^[!-~]+$";
    /// A user agent as the browser sent it; other characters than visible ASCII are left out.
    pub(super) UserAgent, 0..=200, "^[ -~]*$";
    /// A logout token in compact form.
    pub(super) LogoutTokenText, 5..=8192, "^[A-Za-z0-9._-]+$";
    /// An IP address, or the /64 of an IPv6 address.
    pub(super) NetworkText, 2..=64, "^[0-9a-f.:/]+$";
}

/// The browser's own session.
#[derive(Object)]
#[oai(rename_all = "camelCase", rename = "BrowserSession")]
pub(super) struct BrowserSession {
    /// Subject of the person, as `GET /v1/me` returns it.
    user: Text<formats::Subject>,
    /// Tenant of the person (UUID). All calls are confined to it.
    tenant_id: Uuid,
    /// Roles of the person in the tenant, at most 16.
    #[oai(validator(max_items = 16))]
    roles: Vec<RoleName>,
    /// Scopes of this API that the session has, at most 64.
    #[oai(validator(max_items = 64))]
    scopes: Vec<ScopeName>,
    /// Time of the sign-in (RFC 3339, UTC).
    created_at: DateTime<Utc>,
    /// Time at which the session ends without a further request (RFC 3339, UTC).
    idle_expires_at: DateTime<Utc>,
    /// Time at which the session ends in any case (RFC 3339, UTC).
    expires_at: DateTime<Utc>,
    /// Time at which the access token of the session ends (RFC 3339, UTC). The service then renews it;
    /// `POST /auth/refresh` does so earlier.
    access_expires_at: DateTime<Utc>,
    /// Value of the header `X-CSRF-Token`, which other methods than GET need. Valid as long as the
    /// session.
    csrf_token: Text<CsrfToken>,
}

impl From<&SessionState> for BrowserSession {
    fn from(state: &SessionState) -> Self {
        Self {
            user: state.user.as_str().into(),
            tenant_id: state.tenant.uuid(),
            roles: state.roles.iter().cloned().map(RoleName).collect(),
            scopes: state.scopes.iter().cloned().map(ScopeName).collect(),
            created_at: state.created_at,
            idle_expires_at: state.idle_expires_at,
            expires_at: state.expires_at,
            access_expires_at: state.access_expires_at,
            csrf_token: state.csrf_token.as_str().into(),
        }
    }
}

/// The result of a sign-out.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct SignedOut {
    /// URL that ends the session at the issuer too; `null` if the issuer has none.
    #[oai(nullable)]
    pub(super) end_session_url: Option<Text<Target>>,
}

/// A browser session in a list.
#[derive(Object)]
#[oai(rename_all = "camelCase", rename = "Session")]
pub(super) struct SessionView {
    /// Session id (UUIDv7, RFC 9562).
    id: Uuid,
    /// Subject of the person.
    user: Text<formats::Subject>,
    /// Time of the sign-in (RFC 3339, UTC).
    created_at: DateTime<Utc>,
    /// Time of the last request (RFC 3339, UTC), recorded every 30 seconds.
    last_used_at: DateTime<Utc>,
    /// Time at which the session ends in any case (RFC 3339, UTC).
    expires_at: DateTime<Utc>,
    /// User agent of the last request.
    user_agent: Text<UserAgent>,
    /// Network of the last request: an IPv4 address, or the /64 of an IPv6 address.
    network: Text<NetworkText>,
    /// Whether this request came with the cookie of this session.
    current: bool,
}

/// One page of browser sessions, newest first.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct SessionPage {
    /// Live sessions of the page, at most 100.
    #[oai(validator(max_items = 100))]
    pub(super) items: Vec<SessionView>,
    /// Cursor of the next page, to send as `cursor`; `null` on the last page.
    #[oai(nullable)]
    pub(super) next_cursor: Option<Text<formats::Cursor>>,
}

impl SessionView {
    pub(super) fn new(session: Session, current: Option<SessionId>) -> Self {
        Self {
            id: session.id.uuid(),
            user: session.subject.into(),
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            user_agent: session.user_agent.into(),
            network: session.network.into(),
            current: current == Some(session.id),
        }
    }
}

/// A sign-out at the issuer (OpenID Connect Back-Channel Logout 1.0).
#[derive(Object)]
pub(super) struct LogoutForm {
    /// Logout token: a JSON Web Token that the issuer signed.
    logout_token: Text<LogoutTokenText>,
}
