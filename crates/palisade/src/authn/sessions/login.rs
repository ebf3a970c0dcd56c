//! Sign-in of a person: authorization code with PKCE, state and nonce (AUTHN-14).
//!
//! [`super::browser`] begins a sign-in here, and passes the issuer's answer. Out: a redirect, and a
//! stored session. A sign-in ([`Attempt`]) is used once.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta};
use http::HeaderMap;
use zeroize::Zeroizing;

use super::{
    super::{AuthnError, RejectReason, SourceNetwork, issuers::TrustedIssuer, principal::Principal},
    SeenClient, Sessions,
    attempt::{Attempt, LOGIN_SECONDS, NO_LOGIN},
    handle::{Handle, equal_texts},
    id_token::{IdToken, verify_id_token},
    token_endpoint::{self, TokenError, Tokens},
};
use crate::{
    crypto::{random, sha256},
    db::sessions::StoredSession,
    settings::SameSite,
    telemetry::event,
};

/// The parameters with which the issuer sends the browser back (RFC 6749 section 4.1.2, RFC 9207).
#[derive(Debug, Default)]
pub(crate) struct LoginAnswer {
    pub(crate) code: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) iss: Option<String>,
    pub(crate) is_error: bool,
}

/// What a page asks for when it sends a person to sign in.
#[derive(Debug, Default)]
pub(crate) struct LoginRequest<'r> {
    /// A path of those that the operator lists.
    pub(crate) return_to: Option<&'r str>,
    /// The name of a further issuer.
    pub(crate) issuer: Option<&'r str>,
    /// Longest time since the person authenticated, in seconds.
    pub(crate) max_age: Option<u32>,
    /// Values of `acr`, separated by spaces, of those that the operator calls strong.
    pub(crate) acr_values: Option<&'r str>,
}

/// Where a browser goes next, and the values of `Set-Cookie`.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) location: String,
    pub(crate) cookies: Vec<String>,
}

impl Sessions {
    /// Begins a sign-in. `Ok(None)`: the path is not listed, people cannot sign in at this issuer, or a
    /// value of `acr` is not one of the settings.
    pub(super) async fn begin_login(&self, request: &LoginRequest<'_>) -> Result<Option<SignedIn>, AuthnError> {
        let paths = &self.settings.return_paths;
        let return_to = request.return_to.or_else(|| paths.first().map(String::as_str));
        let return_to = return_to.filter(|path| paths.iter().any(|listed| listed == path));
        let (Some(return_to), Some((client, trusted))) = (return_to, self.client_of(request.issuer)) else {
            return Ok(None);
        };
        let known = &trusted.verifier.issuer.acr_values;
        if request.acr_values.is_some_and(|values| !values.split(' ').all(|it| known.iter().any(|known| known == it))) {
            return Ok(None);
        }
        let endpoints = trusted.jwks.endpoints().await.ok_or(AuthnError::Unavailable("issuer"))?;
        let url = endpoints.authorization_endpoint.as_deref().and_then(|url| self.web_url(url));
        let mut url = url.ok_or(AuthnError::Unavailable("issuer"))?;
        let attempt = Attempt {
            secret: Zeroizing::new(random().map_err(|_| AuthnError::Unavailable("random"))?),
            expires_at: self.parts.clock.timestamp() + LOGIN_SECONDS,
            issuer: request.issuer.map(str::to_owned),
            return_to: return_to.to_owned(),
            max_age: request.max_age,
            acr_values: request.acr_values.unwrap_or_default().to_owned(),
        };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(attempt.verifier(&self.key).as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client.id.as_deref().unwrap_or_default())
            .append_pair("redirect_uri", &self.redirect_uri())
            .append_pair("scope", client.scopes.as_deref().unwrap_or(&self.default_scopes))
            .append_pair("state", &attempt.state(&self.key))
            .append_pair("nonce", &attempt.nonce(&self.key))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(max_age) = attempt.max_age {
            url.query_pairs_mut().append_pair("max_age", &max_age.to_string());
        }
        if !attempt.acr_values.is_empty() {
            url.query_pairs_mut().append_pair("acr_values", &attempt.acr_values);
        }
        Ok(Some(SignedIn { location: url.into(), cookies: vec![attempt.cookie(&self.key)] }))
    }

    fn redirect_uri(&self) -> String {
        format!("{}/auth/callback", self.base)
    }

    /// Takes the answer of the issuer, and opens a session with a new handle. A session that this
    /// browser had before ends.
    pub(super) async fn finish_login(
        &self,
        answer: &LoginAnswer,
        headers: &HeaderMap,
        source: SourceNetwork,
    ) -> Result<SignedIn, AuthnError> {
        let refused = |part| AuthnError::from(RejectReason::SignIn(part));
        let now = self.parts.clock.timestamp();
        let attempt = Attempt::from_headers(headers, &self.key, now).ok_or(refused("cookie"))?;
        let state = answer.state.as_deref().ok_or(refused("state"))?;
        if !equal_texts(state, &attempt.state(&self.key)) {
            return Err(refused("state"));
        }
        let (client, issuer) = self.client_of(attempt.issuer.as_deref()).ok_or(refused("issuer"))?;
        let until = DateTime::from_timestamp(attempt.expires_at, 0).unwrap_or(DateTime::UNIX_EPOCH);
        let digest = sha256(attempt.text().as_bytes());
        if !self.parts.store.use_once(&digest, until).await.map_err(super::unavailable)? {
            return Err(refused("replay"));
        }
        self.check_issuer_parameter(answer.iss.as_deref(), issuer).await?;
        if answer.is_error {
            return Err(refused("denied"));
        }
        let code = answer.code.as_deref().ok_or(refused("code"))?;
        let verifier = attempt.verifier(&self.key);
        let redirect_uri = self.redirect_uri();
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", &verifier),
        ];
        let tokens = token_endpoint::request(issuer, &client, &grant).await.map_err(|error| match error {
            TokenError::InvalidGrant => refused("code"),
            TokenError::Unavailable => AuthnError::Unavailable("issuer"),
        })?;
        let id_token = tokens.id_token.as_deref().ok_or(refused("id_token"))?;
        let client_id = client.id.as_deref().unwrap_or_default();
        let expected = (client_id, &*attempt.nonce(&self.key), &*tokens.access_token);
        let id_token = verify_id_token(issuer, id_token, expected, now).await?;
        attempt.check(&id_token.sign_in, issuer.verifier.leeway, now)?;
        let (principal, access_expires_at) = self.accept_access_token(issuer, &tokens.access_token).await?;
        if principal.subject != id_token.subject {
            return Err(refused("subject"));
        }
        let cookie = self.open(&principal, access_expires_at, id_token, &tokens, (issuer, headers, source)).await?;
        self.end_previous(headers).await;
        Ok(SignedIn { location: attempt.return_to, cookies: vec![cookie, NO_LOGIN.to_owned()] })
    }

    /// Checks `iss` (RFC 9207): a code of one issuer must not reach the token endpoint of another.
    async fn check_issuer_parameter(&self, iss: Option<&str>, issuer: &TrustedIssuer) -> Result<(), AuthnError> {
        let endpoints = issuer.jwks.endpoints().await.ok_or(AuthnError::Unavailable("issuer"))?;
        let is_required = endpoints.authorization_response_iss_parameter_supported || self.clients.load().len() > 1;
        match iss {
            Some(iss) if iss == issuer.verifier.issuer.url => Ok(()),
            None if !is_required => Ok(()),
            _ => Err(RejectReason::SignIn("iss").into()),
        }
    }

    /// Stores a new session. Returns its cookie.
    async fn open(
        &self,
        principal: &Principal,
        access_expires_at: i64,
        id_token: IdToken,
        tokens: &Tokens,
        (issuer, headers, source): (&TrustedIssuer, &HeaderMap, SourceNetwork),
    ) -> Result<String, AuthnError> {
        let unavailable = |_| AuthnError::Unavailable("random");
        let handle = Handle::generate(principal.tenant).map_err(unavailable)?;
        let now = self.parts.clock.now();
        let access_expires_at = DateTime::from_timestamp(access_expires_at, 0).unwrap_or(now);
        // Without a refresh token, the session cannot outlive its access token.
        let lifetime_end = now + self.settings.lifetime;
        let expires_at =
            if tokens.refresh_token.is_some() { lifetime_end } else { lifetime_end.min(access_expires_at) };
        let seal = |token: &String| handle.token_key(&self.key)?.seal(token);
        let refresh_token = tokens.refresh_token.as_ref().map(seal).transpose();
        let SeenClient { network, user_agent } = super::seen_client(headers, source);
        let (auth_time, acr) = principal.sign_in.of_session(Some(&id_token.sign_in));
        let (logout_hint, issuer_session) = id_token.issuer_session.unzip();
        let session = StoredSession {
            tenant_id: principal.tenant.uuid(),
            id: handle.session.uuid(),
            issuer: issuer.name.clone().unwrap_or_default(),
            issuer_session: issuer_session.or_else(|| principal.issuer_session.clone()),
            logout_hint,
            subject: principal.subject.clone(),
            client: principal.client.clone(),
            roles: principal.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            scopes: principal.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            token_id: principal.token_id.clone(),
            access_expires_at,
            auth_time: auth_time.and_then(|time| DateTime::from_timestamp(time, 0)),
            acr,
            handle_hash: handle.hash().to_vec(),
            generation: 0,
            rotated_at: now,
            refresh_token: refresh_token.map_err(|_| AuthnError::Unavailable("sealing"))?,
            claimed_until: None,
            network,
            user_agent,
            created_at: now,
            last_used_at: now,
            idle_expires_at: (now + self.settings.idle).min(expires_at),
            expires_at,
            ended_at: None,
        };
        self.parts.store.open_session(&session).await.map_err(super::unavailable)?;
        event::session_created(&session.subject, &session.tenant_id.to_string(), &session.id.to_string(), source.0);
        Ok(self.cookie(&handle, expires_at))
    }

    /// Ends the session that this browser had before the sign-in.
    async fn end_previous(&self, headers: &HeaderMap) {
        let previous = super::presented(headers).filter_map(|text| Handle::parse(text, &self.key));
        for handle in previous.collect::<Vec<_>>() {
            self.end(handle.tenant, handle.session, "new_sign_in").await;
        }
    }

    /// The `Set-Cookie` value of a session.
    pub(super) fn cookie(&self, handle: &Handle, expires_at: DateTime<chrono::Utc>) -> String {
        // Rounded up: the database decides when the session ends.
        let seconds = (expires_at - self.parts.clock.now() + TimeDelta::milliseconds(999)).num_seconds().max(0);
        let same_site = match self.settings.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let value = handle.text(&self.key);
        format!("__Host-session={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite={same_site}")
    }
}
