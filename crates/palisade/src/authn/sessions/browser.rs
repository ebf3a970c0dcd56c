//! Sessions as the operations of browsers see them (AUTHN-14, AUTHN-17).
//!
//! In: the headers of a request and its source. Out: what the page or the browser gets. The guard and
//! `operations/sessions` call this.

use chrono::{DateTime, Utc};
use http::HeaderMap;

use super::{
    super::{Authenticator, AuthnError, SourceNetwork},
    Live, LoginAnswer, LoginRequest, Sessions, SignedIn,
    attempt::NO_LOGIN,
};
use crate::{model::TenantId, settings};

/// Deletes the cookie of a session.
const NO_SESSION: &str = "__Host-session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax";

/// A browser's own session, for its page.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) user: String,
    pub(crate) tenant: TenantId,
    pub(crate) roles: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) idle_expires_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) access_expires_at: DateTime<Utc>,
    pub(crate) csrf_token: String,
    /// Value of `Set-Cookie`.
    pub(crate) cookie: String,
}

impl Sessions {
    fn state(&self, Live { handle, session }: Live) -> SessionState {
        let principal = self.principal(&session);
        SessionState {
            csrf_token: handle.csrf_token(&self.key),
            cookie: self.cookie(&handle, session.expires_at),
            user: session.subject,
            tenant: handle.tenant,
            roles: principal.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            scopes: principal.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            created_at: session.created_at,
            idle_expires_at: (self.parts.clock.now() + self.settings.idle).min(session.expires_at),
            expires_at: session.expires_at,
            access_expires_at: session.access_expires_at,
        }
    }
}

/// The operations of browsers. Each rejection counts against its source.
impl Authenticator {
    /// Tenant and name of the bucket in which credential operations of a browser session count.
    pub(crate) fn session_bucket(&self, headers: &HeaderMap) -> Option<(TenantId, String)> {
        self.sessions.bucket(headers)
    }

    /// Whether a request may use its session cookie: it comes from a page of this service and, if it
    /// may change something, has the CSRF token of the session (AUTHN-14).
    pub(crate) fn check_browser_request(&self, is_safe: bool, headers: &HeaderMap) -> Result<(), &'static str> {
        self.sessions.check_request(is_safe, headers)
    }

    /// Whether people can sign in at any issuer.
    pub(crate) fn has_sessions(&self) -> bool {
        !self.sessions.clients.load().is_empty()
    }

    /// Takes changed secrets of clients into use (SECRET-04).
    pub(crate) fn reload_client_secrets(&self, settings: &settings::Sessions) {
        self.sessions.reload_secrets(settings);
    }

    /// Begins a sign-in; `None` if the path or a value of `acr` is not listed, or the issuer has no
    /// client.
    pub(crate) async fn begin_login(&self, request: &LoginRequest<'_>) -> Result<Option<SignedIn>, AuthnError> {
        self.sessions.begin_login(request).await
    }

    /// Finishes a sign-in.
    pub(crate) async fn finish_login(
        &self,
        answer: &LoginAnswer,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<SignedIn, AuthnError> {
        self.check_sign_in(source)?;
        let outcome = self.sessions.finish_login(answer, headers, source).await;
        self.count_failure(outcome, source)
    }

    /// Reads the session of a browser.
    pub(crate) async fn session_state(
        &self,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<SessionState, AuthnError> {
        let outcome = self.sessions.identify_cookie(headers, source).await;
        self.count_failure(outcome, source).map(|live| self.sessions.state(live))
    }

    /// Refreshes the session of a browser.
    pub(crate) async fn refresh_session(
        &self,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<SessionState, AuthnError> {
        let outcome = self.sessions.refresh(headers, source).await;
        self.count_failure(outcome, source).map(|live| self.sessions.state(live))
    }

    /// Ends the session of a browser. Returns the URL of the sign-out at the issuer.
    pub(crate) async fn logout(
        &self,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<Option<String>, AuthnError> {
        let outcome = self.sessions.logout(headers, source).await;
        self.count_failure(outcome, source)
    }

    /// Takes a logout token of an issuer.
    pub(crate) async fn backchannel_logout(&self, token: &str, source: SourceNetwork) -> Result<(), AuthnError> {
        self.check_sign_in(source)?;
        let outcome = self.sessions.backchannel_logout(token, source).await;
        self.count_failure(outcome, source)
    }

    /// Values of `Set-Cookie` that delete the cookies of a sign-in and of a session.
    pub(crate) const NO_COOKIES: [&'static str; 2] = [NO_LOGIN, NO_SESSION];

    fn check_sign_in(&self, source: SourceNetwork) -> Result<(), AuthnError> {
        let lockout = self.failure_limiter.check_sign_in_lockout(source);
        lockout.map_err(|seconds| AuthnError::LockedOut { seconds, rejected: None })
    }
}
