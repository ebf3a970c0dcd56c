//! The development issuer: an OpenID provider for one machine.
//!
//! Real where it counts: discovery, an ES256 key it makes at each start, authorization code
//! with PKCE, client credentials, refresh with rotation and reuse detection, revocation, and
//! access tokens in the form of RFC 9068. Not real where a person would log in: a page lets
//! anybody pick any demo person. Its state is in memory; a restart forgets every grant.

mod authorize;
mod grants;
mod http;
mod signing;
mod token;

pub use signing::SigningKey;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};

use super::demo::Person;
use crate::{
    authz::matrix::Scope,
    crypto::{self, RandomError},
    domain::{Clock, TenantId},
};
use grants::Grants;

/// How long an access token is valid, in seconds.
pub const ACCESS_TOKEN_SECONDS: i64 = 900;
/// The public client that people sign in with.
pub const WEB_CLIENT: &str = "demo-web";
/// The confidential client that acts for itself.
pub const SERVICE_CLIENT: &str = "demo-service";

/// Why the issuer does not start.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// No key could be made.
    #[error("cannot make a signing key")]
    Key,
    /// Nothing could be made at random.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The listener is not usable.
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
}

/// A running issuer. Stops when dropped.
#[derive(Debug)]
pub struct DevIssuer {
    provider: Arc<Provider>,
    server: JoinHandle<()>,
}

/// What the endpoints work with.
#[derive(Debug)]
struct Provider {
    url: String,
    audience: String,
    key: SigningKey,
    clock: Clock,
    people: Vec<Person>,
    service_tenant: TenantId,
    service_secret: String,
    grants: Grants,
    key_requests: AtomicU64,
}

impl DevIssuer {
    /// Serves on `listener`, for an API of this audience, with these people to sign in as.
    pub fn start(
        listener: TcpListener,
        audience: &str,
        people: Vec<Person>,
        service_tenant: TenantId,
        clock: Clock,
    ) -> Result<Self, IssuerError> {
        let address = listener.local_addr()?;
        let provider = Arc::new(Provider {
            url: format!("http://{address}"),
            audience: audience.to_owned(),
            key: SigningKey::generate()?,
            clock,
            people,
            service_tenant,
            service_secret: random_text()?,
            grants: Grants::default(),
            key_requests: AtomicU64::new(0),
        });
        let server = http::spawn(listener, Arc::clone(&provider))?;
        Ok(Self { provider, server })
    }

    /// The issuer identifier, which is also its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.provider.url
    }

    /// The key it signs with.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.provider.key
    }

    /// How often its keys were asked for.
    #[must_use]
    pub fn key_requests(&self) -> u64 {
        self.provider.key_requests.load(Ordering::Relaxed)
    }

    /// The secret of [`SERVICE_CLIENT`], new at each start.
    #[must_use]
    pub fn service_secret(&self) -> &str {
        &self.provider.service_secret
    }

    /// The claims of a fresh access token for `person` with these scopes.
    #[must_use]
    pub fn claims(&self, person: &Person, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        self.provider.access_claims(WEB_CLIENT, Some(person), &scopes.join(" "))
    }

    /// An access token for `person` with these scopes, the same as the token endpoint issues.
    #[must_use]
    pub fn access_token(&self, person: &Person, scopes: &[Scope]) -> String {
        self.provider.key.access_token(&self.claims(person, scopes))
    }
}

impl Drop for DevIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Provider {
    /// Claims of an access token (RFC 9068 section 2.2), for a person or for the client itself.
    fn access_claims(&self, client: &str, person: Option<&Person>, scope: &str) -> Value {
        let now = self.clock.timestamp();
        let mut claims = json!({
            "iss": self.url,
            "aud": self.audience,
            "sub": person.map_or(client, |person| person.subject.as_str()),
            "client_id": client,
            "iat": now,
            "exp": now + ACCESS_TOKEN_SECONDS,
            "jti": uuid::Uuid::now_v7().to_string(),
            "scope": scope,
            "tenant_id": person.map_or(self.service_tenant, |person| person.tenant).to_string(),
        });
        if let (Some(person), Some(claims)) = (person, claims.as_object_mut()) {
            claims.insert("roles".to_owned(), json!([person.role.as_str()]));
        }
        claims
    }

    /// Claims of an ID token (OpenID Connect Core section 2), which says to the client who signed in.
    fn id_claims(&self, client: &str, person: &Person, nonce: Option<&str>) -> Value {
        let now = self.clock.timestamp();
        json!({
            "iss": self.url,
            "aud": client,
            "sub": person.subject,
            "name": person.name,
            "iat": now,
            "exp": now + ACCESS_TOKEN_SECONDS,
            "nonce": nonce,
        })
    }

    fn person(&self, subject: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.subject == subject)
    }
}

/// 32 random bytes as text that fits in a URL.
fn random_text() -> Result<String, RandomError> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    Ok(URL_SAFE_NO_PAD.encode(crypto::random::<32>()?))
}

/// The redirects a native client on this machine may ask for: loopback, any port (RFC 8252 section 7.3).
fn is_loopback_redirect(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|url| {
        let host = url.host_str().unwrap_or_default();
        url.scheme() == "http"
            && (host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
            && url.fragment().is_none()
    })
}
