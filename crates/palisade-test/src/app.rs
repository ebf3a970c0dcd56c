//! [`TestApp`]: a service in this process, on its own socket, database and issuer.
//!
//! Tests make [`Actor`]s from it by role, tenant or credential, and talk to it over HTTP. A
//! [`TestService`] starts it. Also here: the settings that every test starts from, demo tenants, and
//! keysets.

use std::{collections::BTreeMap, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade::{
    authz::{Rights, Role, Scope},
    dev::{
        database::Urls,
        issuer::{DevIssuer, SERVICE_CLIENT},
        people::{TENANTS, Tenant},
    },
    http::ServedRoute,
    model::Clock,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Actor, Credential, Forge, TestService, api_keys, events, eventually, service::Server};

/// The demo tenants. Each has products and its own orders.
pub const ACME: Tenant = TENANTS[0];
/// The second demo tenant.
pub const GLOBEX: Tenant = TENANTS[1];

/// Settings without rate limits per address and without the failure limiter: all tests share one
/// address and cause many failures.
pub const UNTHROTTLED: [(&str, &str); 4] = [
    ("APP_THROTTLE__ADDRESS_PER_SECOND", "100000"),
    ("APP_THROTTLE__ADDRESS_BURST", "100000"),
    ("APP_FAILURE_LIMIT__FREE_FAILURES", "1000000"),
    ("APP_FAILURE_LIMIT__MAX_FAILURES", "1000000"),
];

/// The audience of access tokens.
pub const AUDIENCE: &str = "api://under-test";

/// A running service with its own socket, database and issuer.
#[derive(Debug)]
pub struct TestApp {
    /// The service that runs.
    pub service: &'static TestService,
    /// The address of the public listener.
    pub address: SocketAddr,
    /// The address of the internal listener, if the settings enable it.
    pub internal: Option<SocketAddr>,
    /// The clock of service and issuer.
    pub clock: Clock,
    /// The issuer that the service trusts.
    pub issuer: DevIssuer,
    /// Connection URLs of its database.
    pub database: Urls,
    /// The secret with which it hashes API keys, in Base64.
    pub pepper: String,
    /// Every route that the router serves.
    pub served: Vec<ServedRoute>,
    /// The scopes and roles that the service declares.
    pub rights: Rights,
}

impl TestApp {
    /// Starts without waiting for readiness.
    pub async fn start_without_waiting(
        service: &'static TestService,
        database: Urls,
        variables: &[(&str, &str)],
    ) -> Self {
        events::record();
        let clock = Clock::system();
        let rights = service.rights();
        let issuer = issuer_of(rights, clock.clone()).await;
        let mut all = Self::variables(&database, issuer.url());
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        let pepper = all.get("APP_SECRETS__PEPPER").cloned().unwrap_or_default();
        let settings = service.read_settings(all).unwrap();
        // Displays the error as the service does: its message says what to repair.
        let server = service.start_server(settings, clock.clone()).await.unwrap_or_else(|error| panic!("{error}"));
        let Server { address, internal, served, run } = server;
        tokio::spawn(run);
        Self { service, address, internal, clock, issuer, database, pepper, served, rights }
    }

    /// The environment of a service for this database and issuer. Quotas are so high that only
    /// tests of quotas, which lower them, reach any.
    pub fn variables(database: &Urls, issuer: &str) -> BTreeMap<String, String> {
        let mut variables = database.variables();
        let random_key = || STANDARD.encode(palisade::crypto::random::<32>().unwrap());
        let mac_key = random_key();
        let pepper = random_key();
        let settings = [
            ("APP_PROFILE", "development"),
            // Key rotation waits for one refresh interval.
            ("APP_KEYS__REFRESH_MS", "500"),
            // Opening a connection costs PostgreSQL more than the queries of most tests.
            ("APP_DATABASE__MAX_CONNECTIONS", "2"),
            ("APP_HTTP__LISTEN", "127.0.0.1:0"),
            ("APP_OIDC__ISSUER", issuer),
            ("APP_OIDC__AUDIENCE", AUDIENCE),
            ("APP_OIDC__CREATE_TENANTS", "true"),
            ("APP_OIDC__SERVICE_CLIENTS", SERVICE_CLIENT),
            ("APP_QUOTA__READ_PER_MINUTE", "1000000"),
            ("APP_QUOTA__WRITE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__SENSITIVE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__EXPORT_PER_MINUTE", "1000000"),
            ("APP_QUOTA__TENANT_PER_MINUTE", "1000000"),
            ("APP_SECRETS__MAC_KEY", &mac_key),
        ];
        // Hashing runs at low priority, so each job waits for every other test.
        let of_api_keys = [("APP_SECRETS__PEPPER", &*pepper), ("APP_API_KEYS__CONCURRENT_HASHES", "8")];
        let of_api_keys = of_api_keys.into_iter().filter(|_| api_keys::are_enabled());
        variables
            .extend(settings.into_iter().chain(of_api_keys).map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables
    }

    /// Waits for readiness: the service loads the issuer's keys after it has started.
    pub async fn wait_until_ready(&self) {
        eventually("ready", async || self.anonymous().get("/health/ready").await.status == 200).await;
    }

    /// A caller without a credential.
    pub fn anonymous(&self) -> Actor {
        Actor::new(self.address, None)
    }

    /// A caller with this access token.
    pub fn bearer(&self, token: impl Into<String>) -> Actor {
        Actor::new(self.address, Some(token.into()))
    }

    /// A caller with this API key.
    pub fn api_key(&self, text: &str) -> Actor {
        Actor::with_credential(self.address, Some(Credential::ApiKey(text.to_owned())))
    }

    /// Asserts that the service responds to a liveness probe.
    pub async fn still_serves(&self) {
        self.anonymous().get("/health/live").await.ok(200);
    }

    /// A person of Acme with this role and every scope.
    pub fn user(&self, role: Role) -> Actor {
        self.user_of(&ACME, role, self.rights.scopes)
    }

    /// A person of any tenant, with any role and scopes.
    pub fn user_of(&self, tenant: &Tenant, role: Role, scopes: &[Scope]) -> Actor {
        self.bearer(self.issuer.access_token(&self.service.person(tenant, role), scopes))
    }

    /// A person of Acme who may manage API keys.
    pub fn admin(&self) -> Actor {
        self.user(self.service.admin_role())
    }

    /// Creates an API key with these scopes as an administrator of Acme and returns the response
    /// body.
    pub async fn new_api_key(&self, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let key = json!({ "name": "for a test", "scopes": scopes, "validForDays": 30 });
        let admin = self.admin();
        admin.send_until_served(admin.request(http::Method::POST, "/v1/api-keys").json(&key)).await.ok(201)
    }

    /// A caller with an API key that has every scope of API keys; `None` without the feature.
    pub async fn api_key_with_all_scopes(&self) -> Option<Actor> {
        if !api_keys::are_enabled() {
            return None;
        }
        let created = self.new_api_key(&self.service.matrix().key_scopes()).await;
        Some(self.api_key(api_keys::key_text(&created)))
    }

    /// A builder of tokens that the issuer would not issue.
    pub fn forge(&self) -> Forge<'_> {
        Forge::new(self.service, &self.issuer)
    }
}

/// A keyset entry, `version:key`, with a random key.
pub fn keyset(version: u16) -> String {
    format!("{version}:{}", STANDARD.encode(palisade::crypto::random::<32>().unwrap()))
}

/// A development issuer that knows these scopes and roles.
pub async fn issuer_of(rights: Rights, clock: Clock) -> DevIssuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    DevIssuer::start(listener, AUDIENCE, rights, clock).unwrap()
}
