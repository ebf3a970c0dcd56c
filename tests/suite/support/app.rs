//! [`TestApp`]: a service in this process, on its own socket, database and issuer.
//!
//! Tests make [`Actor`]s from it by role, tenant or credential, and talk to it over HTTP. It starts
//! any [`App`]; `orders_app` starts that of this repository. Also here: the settings that every test
//! starts from, demo tenants and people, and keysets.

use std::{collections::BTreeMap, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade::{
    app::{self, App},
    authz::{Rights, Role, RoleTable, Scope},
    dev::{
        database::Urls,
        issuer::{DevIssuer, SERVICE_CLIENT},
        people::{Person, TENANTS, Tenant, people},
    },
    http::ServedRoute,
    model::Clock,
    settings::ServiceSettings,
};
use tokio::net::TcpListener;

use super::{Actor, Credential, events, eventually, postgres};

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

pub const AUDIENCE: &str = "api://under-test";

/// A running service with its own socket, database and issuer.
pub struct TestApp {
    pub address: SocketAddr,
    /// The address of the internal listener, if the settings enable it.
    pub internal: Option<SocketAddr>,
    pub clock: Clock,
    pub issuer: DevIssuer,
    pub database: Urls,
    pub pepper: String,
    pub served: Vec<ServedRoute>,
    /// The scopes and roles that the service declares.
    pub rights: Rights,
}

impl TestApp {
    /// Starts on a database of its own, with these variables changed; an empty value removes the
    /// variable.
    pub async fn start_app<S: ServiceSettings>(app: &App<S>, variables: &[(&str, &str)]) -> Self {
        Self::start_app_on(app, postgres::test_database().await, variables).await
    }

    /// Starts on an existing database. With a foreign issuer it does not wait for readiness.
    pub async fn start_app_on<S: ServiceSettings>(app: &App<S>, database: Urls, variables: &[(&str, &str)]) -> Self {
        let started = Self::start_without_waiting(app, database, variables).await;
        if variables.iter().all(|(name, _)| *name != "APP_OIDC__ISSUER") {
            started.wait_until_ready().await;
        }
        started
    }

    /// Starts without waiting for readiness.
    pub async fn start_without_waiting<S: ServiceSettings>(
        app: &App<S>,
        database: Urls,
        variables: &[(&str, &str)],
    ) -> Self {
        events::record();
        let clock = Clock::system();
        let rights = app.rights();
        let issuer = issuer_of(rights, clock.clone()).await;
        let mut all = Self::variables(&database, issuer.url());
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        let pepper = all["APP_SECRETS__PEPPER"].clone();
        let settings = app.read_settings(all).unwrap();
        // Displays the error as the service does: its message says what to repair.
        let running = Box::pin(app::start(app, settings, clock.clone())).await;
        let running = running.unwrap_or_else(|error| panic!("{error}"));
        let address = running.address();
        let internal = running.internal_address();
        let served = running.served().to_vec();
        tokio::spawn(running.run(std::future::pending()));
        Self { address, internal, clock, issuer, database, pepper, served, rights }
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
            // Hashing runs at low priority, so each job waits for every other test.
            ("APP_API_KEYS__CONCURRENT_HASHES", "8"),
            // Key rotation waits for one refresh interval.
            ("APP_KEYS__REFRESH_MS", "500"),
            // Opening a connection costs PostgreSQL more than the queries of most tests.
            ("APP_DATABASE__MAX_CONNECTIONS", "2"),
            ("APP_HTTP__LISTEN", "127.0.0.1:0"),
            ("APP_OIDC__ISSUER", issuer),
            ("APP_OIDC__AUDIENCE", AUDIENCE),
            ("APP_OIDC__SERVICE_CLIENTS", SERVICE_CLIENT),
            ("APP_QUOTA__READ_PER_MINUTE", "1000000"),
            ("APP_QUOTA__WRITE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__SENSITIVE_PER_MINUTE", "1000000"),
            ("APP_QUOTA__EXPORT_PER_MINUTE", "1000000"),
            ("APP_QUOTA__TENANT_PER_MINUTE", "1000000"),
            ("APP_SECRETS__MAC_KEY", &mac_key),
            ("APP_SECRETS__PEPPER", &pepper),
        ];
        variables.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
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
        self.bearer(self.issuer.access_token(&person_of(self.rights.roles, tenant, role), scopes))
    }
}

/// A keyset entry, `version:key`, with a random key.
pub fn keyset(version: u16) -> String {
    format!("{version}:{}", STANDARD.encode(palisade::crypto::random::<32>().unwrap()))
}

/// The demo person with this tenant and role.
pub fn person_of(roles: RoleTable, tenant: &Tenant, role: Role) -> Person {
    people(roles).into_iter().find(|person| person.tenant == tenant.id && person.role == role).unwrap()
}

/// A development issuer that knows these scopes and roles.
pub async fn issuer_of(rights: Rights, clock: Clock) -> DevIssuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    DevIssuer::start(listener, AUDIENCE, rights, clock).unwrap()
}
