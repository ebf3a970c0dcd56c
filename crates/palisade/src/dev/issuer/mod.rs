//! The development issuer: an OpenID provider for one machine.
//!
//! It implements discovery, authorization code with PKCE, client credentials, refresh tokens with
//! rotation and reuse detection, revocation, sign-out with back-channel logout, and RFC 9068 access tokens signed with an ES256 key
//! that is generated at each start. It does not authenticate users: a page offers every demo user
//! without a password. State is in memory; a restart drops every grant. `dev` and the tests start
//! it.

mod authorize;
mod grants;
mod http;
mod logout;
mod signing;
mod token;

pub use signing::SigningKey;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use grants::Grants;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use url::{Host, Url};

use super::{
    DevError,
    people::{Person, TENANTS, people},
};
use crate::{
    authz::{Rights, Scope},
    crypto::{self, RandomError},
    model::{Clock, TenantId},
};

/// Lifetime of an access token, in seconds.
pub const ACCESS_TOKEN_SECONDS: i64 = 900;
/// The public client: users sign in with authorization code and PKCE.
pub const WEB_CLIENT: &str = "demo-web";
/// The confidential client: it gets tokens of its own by client credentials.
pub const SERVICE_CLIENT: &str = "demo-service";

/// A running issuer. Dropping it stops the server.
#[derive(Debug)]
pub struct DevIssuer {
    provider: Arc<Provider>,
    server: JoinHandle<()>,
}

/// State that the endpoints share.
#[derive(Debug)]
struct Provider {
    url: String,
    audience: String,
    key: SigningKey,
    clock: Clock,
    people: Vec<Person>,
    /// The scopes that clients can ask for.
    scopes: &'static [Scope],
    service_tenant: TenantId,
    service_secret: String,
    grants: Grants,
    key_requests: AtomicU64,
}

impl DevIssuer {
    /// Serves on `listener`. Tokens are for `audience`. The demo people can sign in, one for each tenant
    /// and role of `rights`; the service client acts in the first tenant.
    pub fn start(listener: TcpListener, audience: &str, rights: Rights, clock: Clock) -> Result<Self, DevError> {
        let address = listener.local_addr()?;
        let provider = Arc::new(Provider {
            url: format!("http://{address}"),
            audience: audience.to_owned(),
            key: SigningKey::generate()?,
            clock,
            people: people(rights.roles),
            scopes: rights.scopes,
            service_tenant: TENANTS[0].id,
            service_secret: random_text()?,
            grants: Grants::default(),
            key_requests: AtomicU64::new(0),
        });
        let server = http::spawn(listener, Arc::clone(&provider))?;
        Ok(Self { provider, server })
    }

    /// The issuer identifier, which is also the base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.provider.url
    }

    /// The people that can sign in.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.provider.people
    }

    /// The scopes that clients can ask for.
    #[must_use]
    pub fn scopes(&self) -> &'static [Scope] {
        self.provider.scopes
    }

    /// The signing key of all tokens.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.provider.key
    }

    /// Number of requests for `/jwks` so far.
    #[must_use]
    pub fn key_requests(&self) -> u64 {
        self.provider.key_requests.load(Ordering::Relaxed)
    }

    /// The secret of [`SERVICE_CLIENT`]. Each start generates another.
    #[must_use]
    pub fn service_secret(&self) -> &str {
        &self.provider.service_secret
    }

    /// The claims of an access token for `person` with these scopes, issued now.
    #[must_use]
    pub fn claims(&self, person: &Person, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        self.provider.access_claims(WEB_CLIENT, Some(person), &scopes.join(" "))
    }

    /// An access token for `person` with these scopes, as the token endpoint issues it.
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
    /// Claims of an access token (RFC 9068 section 2.2). Without `person`, the client is the
    /// subject.
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

    /// Claims of an ID token (OpenID Connect Core section 2), which tells the client the signed-in
    /// user.
    fn id_claims(&self, client: &str, person: &Person, nonce: Option<&str>, sid: &str) -> Value {
        let now = self.clock.timestamp();
        json!({
            "iss": self.url,
            "aud": client,
            "sub": person.subject,
            "name": person.subject,
            "iat": now,
            "exp": now + ACCESS_TOKEN_SECONDS,
            "nonce": nonce,
            "sid": sid,
        })
    }

    fn person(&self, subject: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.subject == subject)
    }
}

/// 32 random bytes in base64url.
fn random_text() -> Result<String, RandomError> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    Ok(URL_SAFE_NO_PAD.encode(crypto::random::<32>()?))
}

/// Whether `uri` is on this machine, with any port: for redirects of native clients (RFC 8252
/// section 7.3), and for the hosts that the issuer answers for.
fn is_loopback_url(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| {
        let is_loopback = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        is_loopback && url.scheme() == "http" && url.fragment().is_none()
    })
}
