//! [`TestApp`] with the orders service, and its people.

use std::sync::OnceLock;

use palisade::{
    authz::{Role, Scope},
    dev::{
        database::Urls,
        issuer::DevIssuer,
        people::{Person, Tenant},
    },
    model::Clock,
};
use serde_json::{Value, json};
use service::{
    access::{ACCESS, roles},
    app,
};

use super::{
    Actor, Authority, Forge, TestApp, UNTHROTTLED,
    app::{issuer_of, person_of},
    eventually, postgres,
};

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
        Self::start_app(&app(), variables).await
    }

    /// Starts on an existing database. With a foreign issuer it does not wait for readiness.
    pub async fn start_on(database: Urls, variables: &[(&str, &str)]) -> Self {
        Self::start_app_on(&app(), database, variables).await
    }

    /// Starts with TLS settings among the variables, and waits with a client that trusts this
    /// authority.
    pub async fn start_with_tls(variables: &[(&str, &str)], authority: &Authority) -> Self {
        let started = Self::start_without_waiting(&app(), postgres::test_database().await, variables).await;
        let client = authority.client(started.address).build().unwrap();
        let anonymous = Actor::over_tls(client, started.address.port(), None);
        eventually("ready", async || anonymous.get("/health/ready").await.status == 200).await;
        started
    }

    /// Creates an API key with these scopes as an administrator of Acme and returns the response
    /// body.
    pub async fn new_api_key(&self, scopes: &[Scope]) -> Value {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let key = json!({ "name": "for a test", "scopes": scopes, "validForDays": 30 });
        let admin = self.user(roles::ADMIN);
        admin.send_until_served(admin.request(http::Method::POST, "/v1/api-keys").json(&key)).await.ok(201)
    }

    /// A builder of tokens that the issuer would not issue.
    pub fn forge(&self) -> Forge<'_> {
        Forge::new(&self.issuer)
    }
}

/// The demo person with this tenant and role.
pub fn person(tenant: &Tenant, role: Role) -> Person {
    person_of(ACCESS.rights.roles, tenant, role)
}

pub async fn start_issuer(clock: Clock) -> DevIssuer {
    issuer_of(ACCESS.rights, clock).await
}
