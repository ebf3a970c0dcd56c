//! [`TestApp`]: the service in this process, on its own socket, database and issuer.
//!
//! Tests start one (or use the shared one), make [`Actor`]s from it by role, tenant or credential,
//! and talk to it over HTTP. Also here: the settings that every test starts from, demo tenants and
//! people, and keysets.

use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use service::{
    access::{ACCESS, roles, scopes},
    app,
    authz::{Role, Scope},
    dev::{
        database::Urls,
        issuer::{DevIssuer, SERVICE_CLIENT},
        people::{Person, TENANTS, Tenant, people},
    },
    http::ServedRoute,
    model::Clock,
};
use tokio::net::TcpListener;

use super::{Actor, Authority, Credential, Forge, events, eventually, postgres};

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
}

impl TestApp {
    /// Starts with the default settings, apart from those in [`Self::variables`].
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The app shared by all tests that leave no state which another test could notice.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestApp> = OnceLock::new();
        SHARED.get_or_init(|| {
            // Its own runtime outlives the test that happens to be first.
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    sender.send(Self::start_with(&UNTHROTTLED).await).unwrap();
                    std::future::pending::<()>().await;
                });
            });
            receiver.recv().expect("the shared app starts")
        })
    }

    /// Starts with these variables changed; an empty value removes the variable.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_on(postgres::test_database().await, variables).await
    }

    /// Starts on an existing database. With a foreign issuer it does not wait for readiness.
    pub async fn start_on(database: Urls, variables: &[(&str, &str)]) -> Self {
        let started = Self::start_without_waiting(database, variables).await;
        if variables.iter().all(|(name, _)| *name != "APP_OIDC__ISSUER") {
            started.wait_until_ready().await;
        }
        started
    }

    /// Starts with TLS settings among the variables, and waits with a client that trusts this
    /// authority.
    pub async fn start_with_tls(variables: &[(&str, &str)], authority: &Authority) -> Self {
        let started = Self::start_without_waiting(postgres::test_database().await, variables).await;
        let client = authority.client(started.address).build().unwrap();
        let anonymous = Actor::over_tls(client, started.address.port(), None);
        eventually("ready", async || anonymous.get("/health/ready").await.status == 200).await;
        started
    }

    /// Starts without waiting for readiness.
    async fn start_without_waiting(database: Urls, variables: &[(&str, &str)]) -> Self {
        events::record();
        let clock = Clock::system();
        let issuer = start_issuer(clock.clone()).await;
        let mut all = Self::variables(&database, issuer.url());
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        let pepper = all["APP_SECRETS__PEPPER"].clone();
        let settings = app().read_settings(all).unwrap();
        // Displays the error as the service does: its message says what to repair.
        let app = Box::pin(app::start(&app(), settings, clock.clone())).await.unwrap_or_else(|error| panic!("{error}"));
        let address = app.address();
        let internal = app.internal_address();
        let served = app.served().to_vec();
        tokio::spawn(app.run(std::future::pending()));
        Self { address, internal, clock, issuer, database, pepper, served }
    }

    /// The environment of a service for this database and issuer. Quotas are so high that only
    /// tests of quotas, which lower them, reach any.
    pub fn variables(database: &Urls, issuer: &str) -> BTreeMap<String, String> {
        let mut variables = database.variables();
        let random_key = || STANDARD.encode(service::crypto::random::<32>().unwrap());
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

    /// Creates an API key with these scopes as an administrator of Acme and returns the response
    /// body.
    pub async fn new_api_key(&self, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let key = json!({ "name": "for a test", "scopes": scopes, "validForDays": 30 });
        let admin = self.user(roles::ADMIN);
        admin.send_until_served(admin.request(http::Method::POST, "/v1/api-keys").json(&key)).await.ok(201)
    }

    /// Asserts that the service responds to a liveness probe.
    pub async fn still_serves(&self) {
        self.anonymous().get("/health/live").await.ok(200);
    }

    /// A person of Acme with this role and every scope.
    pub fn user(&self, role: Role) -> Actor {
        self.user_of(&ACME, role, &scopes::ALL)
    }

    /// A person of any tenant, with any role and scopes.
    pub fn user_of(&self, tenant: &Tenant, role: Role, scopes: &[Scope]) -> Actor {
        self.bearer(self.issuer.access_token(&person(tenant, role), scopes))
    }

    /// A builder of tokens that the issuer would not issue.
    pub fn forge(&self) -> Forge<'_> {
        Forge::new(&self.issuer)
    }
}

/// A keyset entry, `version:key`, with a random key.
pub fn keyset(version: u16) -> String {
    format!("{version}:{}", STANDARD.encode(service::crypto::random::<32>().unwrap()))
}

/// The demo person with this tenant and role.
pub fn person(tenant: &Tenant, role: Role) -> Person {
    people(ACCESS.rights.roles).into_iter().find(|person| person.tenant == tenant.id && person.role == role).unwrap()
}

pub async fn start_issuer(clock: Clock) -> DevIssuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    DevIssuer::start(listener, AUDIENCE, ACCESS.rights, clock).unwrap()
}
