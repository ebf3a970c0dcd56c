//! Browser sessions: a cookie instead of tokens (AUTHN-14, AUTHN-15, AUTHN-16).
//!
//! [`login`] signs a person in at the issuer and stores a session with the verified claims of the
//! access token. [`super::Authenticator`] passes the value of the cookie ([`handle`]) and gets a
//! principal; each request reads the session from the database, so a sign-out holds at once on every
//! replica. [`refresh`] renews tokens and cookie, [`logout`] ends sessions, and [`browser`] has what
//! the operations of browsers call. Without the feature `sessions`, `without_sessions.rs` stands in
//! for this module.

mod attempt;
mod browser;
mod clients;
mod handle;
mod id_token;
mod login;
mod logout;
mod refresh;
mod token_endpoint;

use std::sync::Arc;

use arc_swap::ArcSwap;
use clients::{Clients, issuer_name, shared_clients};
use handle::{Handle, SESSION_COOKIE, cookies, equal_texts};
use http::{HeaderMap, header};
use quick_cache::sync::Cache;
use refresh::Rotation;
use url::Url;

use super::{
    AuthnError, CallerKind, Principal, RejectReason, SourceNetwork,
    api_keys::ApiKeys,
    issuers::{Issuers, TrustedIssuer},
    revocation::Revocations,
    sign_in::SignIn,
    tenants::Tenants,
};
use crate::{
    crypto::{MacKey, sha256},
    db::{
        Credentials, DbError,
        sessions::{SeenClient, StoredSession},
    },
    model::{ClientNetwork, Clock, Rights, SessionId, TenantId},
    settings::{self, Profile, Settings},
    telemetry::{causes, event, repeats::coalesced},
};
pub(crate) use browser::SessionState;
pub(crate) use login::{LoginAnswer, LoginRequest, SignedIn};

/// Whether this build has browser sessions.
pub(crate) const ENABLED: bool = true;

/// The header with the CSRF token.
const CSRF_HEADER: &str = "x-csrf-token";
/// Sessions of which this replica remembers the caller, for the rate limit.
const MAX_RECENT: usize = 10_000;

/// The value of a session cookie. Nothing of it is verified.
pub(super) type Presented<'h> = &'h str;

/// The session cookies of a request. More than one is an error.
pub(super) fn presented(headers: &HeaderMap) -> impl Iterator<Item = Presented<'_>> {
    cookies(headers, SESSION_COOKIE)
}

/// The parts of the authenticator that sessions use.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) issuers: Arc<Issuers>,
    pub(super) api_keys: Arc<ApiKeys>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) tenants: Arc<Tenants>,
    pub(super) store: Credentials,
    pub(super) rights: Rights,
    pub(super) clock: Clock,
}

/// Signs people in, and authenticates their sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    parts: Parts,
    settings: settings::Sessions,
    /// The client at each issuer. Its secret can change.
    clients: ArcSwap<Clients>,
    /// Makes handles, CSRF tokens and the values of sign-ins. A change ends all sessions.
    key: MacKey,
    /// The public URL, without a slash at the end.
    base: String,
    /// The origin of the public URL (RFC 6454), as browsers write it.
    origin: String,
    is_production: bool,
    default_scopes: String,
    /// Tenant, subject and end of recent sessions, by the SHA-256 of the cookie.
    recent: Cache<[u8; 32], (TenantId, String, i64)>,
}

/// A session that has not ended, and its newest handle.
struct Live {
    handle: Handle,
    session: StoredSession,
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unavailable(error: DbError) -> AuthnError {
    coalesced!(warn, "could not read or write a browser session", %error, cause = causes(&error));
    AuthnError::Unavailable("store")
}

/// Network and user agent of a request. A user agent is text of the caller: only visible ASCII of it
/// is kept.
fn seen_client(headers: &HeaderMap, source: SourceNetwork) -> SeenClient {
    let user_agent = headers.get(header::USER_AGENT).map_or(&[][..], |value| value.as_bytes());
    let visible =
        user_agent.iter().filter(|byte| (b' '..=b'~').contains(*byte)).take(200).map(|byte| char::from(*byte));
    SeenClient { network: ClientNetwork::narrowest(source.0).to_string(), user_agent: visible.collect() }
}

impl Sessions {
    pub(super) fn new(settings: &Settings, public_url: &str, parts: Parts) -> Arc<Self> {
        let scopes = parts.rights.scopes.iter().map(|scope| scope.as_str());
        let default_scopes = ["openid", "offline_access"].into_iter().chain(scopes).collect::<Vec<_>>().join(" ");
        Arc::new(Self {
            parts,
            settings: settings.sessions.clone(),
            clients: ArcSwap::from_pointee(shared_clients(&settings.sessions)),
            key: settings.secrets.mac_key.clone(),
            base: public_url.trim_end_matches('/').to_owned(),
            origin: Url::parse(public_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default(),
            is_production: settings.profile == Profile::Production,
            default_scopes,
            recent: Cache::new(MAX_RECENT),
        })
    }

    /// Tenant and name of the bucket of a request with the cookie of a session, whatever its state.
    pub(super) fn bucket(&self, headers: &HeaderMap) -> Option<(TenantId, String)> {
        let handle = Handle::parse(presented(headers).next()?, &self.key)?;
        Some((handle.tenant, format!("session:{}", handle.session)))
    }

    /// Checks that a request comes from a page of this origin and, unless it is safe, has the CSRF
    /// token. The error is the reason, for events.
    ///
    /// A browser writes `Sec-Fetch-Site` (W3C Fetch Metadata) and `Origin`, and no page can change
    /// them. `none` is an address that the person typed.
    pub(super) fn check_request(&self, is_safe: bool, headers: &HeaderMap) -> Result<(), &'static str> {
        let mut sites = headers.get_all("sec-fetch-site").iter();
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let states_origin = headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
        if !sites.all(|site| site == "same-origin" || is_safe && site == "none") {
            return Err("site");
        }
        if !origins.all(|origin| *origin == *self.origin) {
            return Err("origin");
        }
        if is_safe {
            return Ok(());
        }
        if !states_origin {
            return Err("no_origin");
        }
        // Authentication rejects a cookie that cannot be parsed.
        let Some(handle) = presented(headers).next().and_then(|text| Handle::parse(text, &self.key)) else {
            return Ok(());
        };
        let token = headers.get(CSRF_HEADER).and_then(|token| token.to_str().ok()).unwrap_or_default();
        if equal_texts(token, &handle.csrf_token(&self.key)) { Ok(()) } else { Err("csrf_token") }
    }

    /// Tenant and subject of a session that this replica accepted recently.
    pub(super) fn lookup_recent(&self, presented: Presented<'_>) -> Option<(TenantId, String)> {
        let (tenant, subject, until) = self.recent.get(&sha256(presented.as_bytes()))?;
        (self.parts.clock.timestamp() < until).then_some((tenant, subject))
    }

    /// Authenticates a call of an operation. Renews an access token that has ended.
    pub(super) async fn authenticate(
        self: &Arc<Self>,
        presented: Presented<'_>,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<Arc<Principal>, AuthnError> {
        let mut live = self.identify(presented, headers, source).await?;
        self.parts.tenants.check(live.handle.tenant)?;
        if live.session.access_expires_at <= self.parts.clock.now() {
            live = self.renew(live, Rotation::Keep).await?;
        }
        let principal = Arc::new(self.principal(&live.session));
        let until = live.session.access_expires_at.min(live.session.idle_expires_at).timestamp();
        self.recent.insert(sha256(presented.as_bytes()), (principal.tenant, principal.subject.clone(), until));
        Ok(principal)
    }

    /// Finds the session of the cookie, and records the request as its newest one.
    async fn identify(
        &self,
        presented: Presented<'_>,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<Live, AuthnError> {
        let handle = Handle::parse(presented, &self.key).ok_or(RejectReason::SessionUnknown)?;
        let now = self.parts.clock.now();
        let seen = seen_client(headers, source);
        let used = self.parts.store.use_session(handle.tenant, handle.session, now, now + self.settings.idle, &seen);
        let session = used.await.map_err(unavailable)?.ok_or(RejectReason::SessionEnded)?;
        let principal = self.principal(&session);
        principal.name_in_log();
        if session.ended_at.is_some() || now >= session.expires_at.min(session.idle_expires_at) {
            return Err(RejectReason::SessionEnded.into());
        }
        // The operator removed the issuer, or its client. Tokens of such an issuer are refused too.
        if self.client_of(issuer_name(&session)).is_none() {
            return Err(RejectReason::SessionEnded.into());
        }
        let live = self.check_handle(handle, session, source).await?;
        if let Err(error) = self.parts.revocations.check(&principal) {
            if matches!(error, AuthnError::Rejected { .. }) {
                self.end(live.handle.tenant, live.handle.session, "revoked").await;
            }
            return Err(error);
        }
        let changed = [
            (live.session.network != seen.network).then_some("network"),
            (live.session.user_agent != seen.user_agent).then_some("user_agent"),
        ];
        for changed in changed.into_iter().flatten() {
            let id = live.session.id.to_string();
            event::session_client_changed(&principal.subject, &principal.tenant.to_string(), &id, changed, source.0);
        }
        Ok(live)
    }

    /// Compares the handle with the newest one. A replaced handle stands for the session for a
    /// moment; later it ends the session, since either it or its successor was stolen (RFC 9700
    /// section 4.14.2).
    async fn check_handle(
        &self,
        handle: Handle,
        session: StoredSession,
        source: SourceNetwork,
    ) -> Result<Live, AuthnError> {
        let newest = u32::try_from(session.generation).unwrap_or_default();
        if handle.generation == newest && handle.hash().as_slice() == session.handle_hash {
            return Ok(Live { handle, session });
        }
        if handle.generation >= newest {
            return Err(RejectReason::SessionUnknown.into());
        }
        if handle.generation + 1 == newest && self.is_recent(&session) {
            return self.follow(&handle, session);
        }
        let tenant = handle.tenant.to_string();
        event::session_reused(&session.subject, &tenant, &session.id.to_string(), source.0);
        self.end(handle.tenant, handle.session, "reused").await;
        Err(RejectReason::Revoked.into())
    }

    /// The principal of a session. It counts as issued at the sign-in, so that a revocation of earlier
    /// sign-ins holds whenever the access token was renewed.
    fn principal(&self, session: &StoredSession) -> Principal {
        Principal {
            kind: CallerKind::User,
            subject: session.subject.clone(),
            client: session.client.clone(),
            tenant: TenantId::from_uuid(session.tenant_id),
            roles: self.parts.rights.find_roles(&session.roles),
            scopes: self.parts.rights.find_scopes(&session.scopes),
            creator: None,
            token_id: session.token_id.clone(),
            session: Some(SessionId::from_uuid(session.id)),
            issuer_session: session.issuer_session.clone(),
            binding: None,
            sign_in: self.sign_in(session),
            issued_at: session.created_at.timestamp(),
        }
    }

    fn sign_in(&self, session: &StoredSession) -> SignIn {
        let issuer = self.parts.issuers.by_name(issuer_name(session)).map(|issuer| &issuer.verifier.issuer);
        SignIn::restore((session.auth_time.map(|time| time.timestamp()), session.acr.clone()), issuer)
    }

    /// Verifies an access token from the token endpoint, by the rules of bearer tokens, and records the
    /// roles of its subject. Returns its principal and `exp`.
    async fn accept_access_token(
        &self,
        issuer: &TrustedIssuer,
        token: &str,
    ) -> Result<(Arc<Principal>, i64), AuthnError> {
        let (header, claims) = self.parts.issuers.parse(token)?;
        if !issuer.verifier.is_issuer_of(&claims) {
            return Err(RejectReason::Issuer.into());
        }
        let keys = issuer.keys_for(&header).await?;
        let validated = issuer.verifier.verify(token, &header, &claims, &keys)?;
        let principal = validated.principal;
        if principal.kind != CallerKind::User {
            return Err(RejectReason::CallerKind.into());
        }
        if principal.binding.is_some() {
            return Err(RejectReason::Binding.into());
        }
        // A session is a person's own: it would lose the actor.
        if principal.sign_in.actor().is_some() {
            return Err(RejectReason::Actor.into());
        }
        self.parts.issuers.admit(issuer, &principal, &self.parts.revocations, &self.parts.api_keys).await?;
        Ok((principal, validated.valid_until.saturating_sub(issuer.verifier.leeway)))
    }

    /// Finds the session of this browser.
    async fn identify_cookie(&self, headers: &HeaderMap, source: SourceNetwork) -> Result<Live, AuthnError> {
        let mut values = presented(headers);
        match (values.next(), values.next()) {
            (Some(value), None) => self.identify(value, headers, source).await,
            (None, _) => Err(AuthnError::Missing),
            (Some(_), Some(_)) => Err(RejectReason::TwoCredentials.into()),
        }
    }

    async fn refresh(self: &Arc<Self>, headers: &HeaderMap, source: SourceNetwork) -> Result<Live, AuthnError> {
        let live = self.identify_cookie(headers, source).await?;
        self.parts.tenants.check(live.handle.tenant)?;
        if self.is_recent(&live.session) { Ok(live) } else { self.renew(live, Rotation::Replace).await }
    }
}
