use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use service::{
    api::ServedRoute,
    app,
    authz::{matrix::Scope, policy::Role},
    dev::{
        database::Urls,
        demo::{self, Person, Tenant},
        issuer::{DevIssuer, SERVICE_CLIENT},
    },
    domain::Clock,
    settings::Settings,
};
use tokio::net::TcpListener;

use super::{Actor, Authority, Credential, Forge, events, eventually, postgres};

/// The demo tenants; each has products, and orders of its own.
pub const ACME: Tenant = demo::TENANTS[0];
/// The other one.
pub const GLOBEX: Tenant = demo::TENANTS[1];

/// All tests together are one busy address, from which many failures come.
pub const UNTHROTTLED: [(&str, &str); 4] = [
    ("APP_THROTTLE__ADDRESS_PER_SECOND", "100000"),
    ("APP_THROTTLE__ADDRESS_BURST", "100000"),
    ("APP_PENALTY__FREE_FAILURES", "1000000"),
    ("APP_PENALTY__FAILURES", "1000000"),
];

pub const AUDIENCE: &str = "api://under-test";

/// The service on a socket of its own, with a database and an issuer of its own.
pub struct TestApp {
    pub address: SocketAddr,
    /// Of the internal listener, if it was asked for.
    pub internal: Option<SocketAddr>,
    pub clock: Clock,
    pub issuer: DevIssuer,
    pub database: Urls,
    pub pepper: String,
    pub served: Vec<ServedRoute>,
}

impl TestApp {
    /// With the settings that ship, but for what a test must have of its own.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One for all the tests that leave nothing behind which another could notice.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestApp> = OnceLock::new();
        SHARED.get_or_init(|| {
            // On a runtime of its own, which outlives the test that happens to be first.
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

    /// With some variables set otherwise, or not at all if the value is empty.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_on(postgres::test_database().await, variables).await
    }

    /// With a database that is there already.
    pub async fn start_on(database: Urls, variables: &[(&str, &str)]) -> Self {
        let started = Self::start_cold(database, variables).await;
        if variables.iter().all(|(name, _)| *name != "APP_OIDC__ISSUER") {
            started.wait_until_ready().await;
        }
        started
    }

    /// By TLS; it shows a certificate that this authority signed.
    pub async fn start_by_tls(variables: &[(&str, &str)], authority: &Authority) -> Self {
        let started = Self::start_cold(postgres::test_database().await, variables).await;
        let anonymous = Actor::by_tls(authority.client(started.address).build().unwrap(), started.address.port(), None);
        eventually("ready", async || anonymous.get("/health/ready").await.status == 200).await;
        started
    }

    /// It may not be ready.
    async fn start_cold(database: Urls, variables: &[(&str, &str)]) -> Self {
        events::record();
        let clock = Clock::system();
        let issuer = start_issuer(clock.clone()).await;
        let mut all = Self::variables(&database, issuer.url());
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.retain(|_, value| !value.is_empty());
        let pepper = all["APP_SECRETS__PEPPER"].clone();
        let settings = Settings::from_variables(all).unwrap();
        // As the service says it: the message tells how to repair what keeps it from starting.
        let app = Box::pin(app::start(settings, clock.clone())).await.unwrap_or_else(|error| panic!("{error}"));
        let (address, internal, served) = (app.address(), app.internal_address(), app.served().to_vec());
        tokio::spawn(app.run(std::future::pending()));
        Self { address, internal, clock, issuer, database, pepper, served }
    }

    /// The environment of a service for this database and issuer. Quotas are wide: a test of something else asks a lot.
    pub fn variables(database: &Urls, issuer: &str) -> BTreeMap<String, String> {
        let mut variables = database.variables();
        let key = || STANDARD.encode(service::crypto::random::<32>().unwrap());
        let (mac_key, pepper) = (key(), key());
        let own = [
            ("APP_PROFILE", "development"),
            // At a low priority, hashing waits for every other test.
            ("APP_API_KEYS__CONCURRENT_HASHES", "8"),
            // A rotation waits for that long.
            ("APP_KEYS__REFRESH_MS", "500"),
            // A connection costs PostgreSQL more than most tests ask of it.
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
        variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables
    }

    /// Keys of the issuer are fetched after the start; tests begin when they are there.
    pub async fn wait_until_ready(&self) {
        eventually("ready", async || self.anonymous().get("/health/ready").await.status == 200).await;
    }

    /// Somebody without a credential.
    pub fn anonymous(&self) -> Actor {
        Actor::new(self.address, None)
    }

    /// Whoever holds this token.
    pub fn bearer(&self, token: impl Into<String>) -> Actor {
        Actor::new(self.address, Some(token.into()))
    }

    /// Whoever holds this API key.
    pub fn api_key(&self, text: &str) -> Actor {
        Actor::with(self.address, Some(Credential::ApiKey(text.to_owned())))
    }

    /// What an administrator of Acme is answered who makes an API key with these scopes.
    pub async fn new_api_key(&self, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let key = json!({ "name": "for a test", "scopes": scopes, "validForDays": 30 });
        let admin = self.user(Role::Admin);
        admin.send_until_served(admin.request(http::Method::POST, "/v1/api-keys").json(&key)).await.ok(201)
    }

    /// Whatever was done to it, it answers.
    pub async fn still_serves(&self) {
        self.anonymous().get("/health/live").await.ok(200);
    }

    /// A person of Acme with this role and every scope.
    pub fn user(&self, role: Role) -> Actor {
        self.user_of(&ACME, role, &Scope::ALL)
    }

    /// A person of any tenant, with any role and scopes.
    pub fn user_of(&self, tenant: &Tenant, role: Role, scopes: &[Scope]) -> Actor {
        self.bearer(self.issuer.access_token(&person(tenant, role), scopes))
    }

    /// Makes tokens that the issuer would not.
    pub fn forge(&self) -> Forge<'_> {
        Forge::new(&self.issuer)
    }
}

/// A part of a keyset, with a key of its own.
pub fn keyset(version: u16) -> String {
    format!("{version}:{}", STANDARD.encode(service::crypto::random::<32>().unwrap()))
}

/// A demo person.
pub fn person(tenant: &Tenant, role: Role) -> Person {
    let wanted = |person: &Person| person.tenant == tenant.id && person.role == role;
    demo::people().into_iter().find(wanted).unwrap()
}

pub async fn start_issuer(clock: Clock) -> DevIssuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    DevIssuer::start(listener, AUDIENCE, demo::people(), ACME.id, clock).unwrap()
}
