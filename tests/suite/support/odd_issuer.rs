use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use http::{StatusCode, header};
use poem::{EndpointExt as _, Response, Route, Server, get, handler, listener::TcpAcceptor, web::Data};
use serde_json::{Value, json};
use service::authz::matrix::Scope;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    app::{ACME, AUDIENCE, TestApp},
    keys::TestKey,
};

/// An issuer on a socket that says whatever a test wants it to say.
pub struct OddIssuer {
    pub url: String,
    says: Arc<Says>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Says {
    metadata: Mutex<Value>,
    keys: Mutex<Value>,
    /// Where to answer everything with a redirect to.
    redirect: Mutex<Option<String>>,
    down: AtomicBool,
    discoveries: AtomicU64,
    key_requests: AtomicU64,
}

impl OddIssuer {
    /// One with these keys, and nothing odd yet.
    pub async fn with_keys(keys: &[&TestKey]) -> Self {
        Self::at("127.0.0.1:0", keys).await
    }

    pub async fn at(address: &str, keys: &[&TestKey]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let says = Arc::new(Says { metadata: Mutex::new(metadata), ..Says::default() });
        let app = Route::new()
            .at("/.well-known/openid-configuration", get(discovery))
            .at("/keys", get(key_set))
            .data(Arc::clone(&says));
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        let server = tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await.unwrap() });
        let issuer = Self { url, says, server };
        issuer.publish(keys);
        issuer
    }

    pub fn publish(&self, keys: &[&TestKey]) {
        self.publish_raw(json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }));
    }

    pub fn publish_raw(&self, document: Value) {
        *self.says.keys.lock().unwrap() = document;
    }

    pub fn metadata(&self, name: &str, value: impl Into<Value>) {
        self.says.metadata.lock().unwrap()[name] = value.into();
    }

    /// Makes the discovery document so long, in bytes.
    pub fn pad_to(&self, length: usize) {
        self.metadata("padding", "");
        let padding = length - self.says.metadata.lock().unwrap().to_string().len();
        self.metadata("padding", "x".repeat(padding));
    }

    pub fn redirect_to(&self, url: impl Into<String>) {
        *self.says.redirect.lock().unwrap() = Some(url.into());
    }

    pub fn set_down(&self, down: bool) {
        self.says.down.store(down, Ordering::SeqCst);
    }

    /// How often discovery was begun.
    pub fn discoveries(&self) -> u64 {
        self.says.discoveries.load(Ordering::SeqCst)
    }

    /// How often the keys were asked for.
    pub fn key_requests(&self) -> u64 {
        self.says.key_requests.load(Ordering::SeqCst)
    }

    /// A service that trusts this issuer. Not waited for: it may never be ready.
    pub async fn app(&self, variables: &[(&str, &str)]) -> TestApp {
        let mut all = vec![("APP_OIDC__ISSUER", self.url.as_str())];
        all.extend(variables);
        TestApp::start_with(&all).await
    }

    /// The claims of a token that is good in every way: an administrator of Acme.
    pub fn claims(&self, now: i64) -> Value {
        let scopes = Scope::ALL.map(Scope::as_str).join(" ");
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "somebody", "client_id": "some-client",
            "iat": now, "exp": now + 600, "jti": uuid::Uuid::now_v7().to_string(),
            "scope": scopes, "tenant_id": ACME.id.to_string(), "roles": ["admin"],
        })
    }

    /// A good token, signed with this key.
    pub fn token(&self, key: &TestKey, now: i64) -> String {
        let header = json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id });
        key.sign_text(&header.to_string(), &self.claims(now).to_string())
    }
}

impl Drop for OddIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Says {
    fn answer(&self, document: &Mutex<Value>) -> Response {
        if self.down.load(Ordering::SeqCst) {
            return StatusCode::SERVICE_UNAVAILABLE.into();
        }
        if let Some(target) = self.redirect.lock().unwrap().as_ref() {
            return Response::builder().status(StatusCode::FOUND).header(header::LOCATION, target).finish();
        }
        Response::builder().content_type("application/json").body(document.lock().unwrap().to_string())
    }
}

#[handler]
fn discovery(Data(says): Data<&Arc<Says>>) -> Response {
    says.discoveries.fetch_add(1, Ordering::SeqCst);
    says.answer(&says.metadata)
}

#[handler]
fn key_set(Data(says): Data<&Arc<Says>>) -> Response {
    says.key_requests.fetch_add(1, Ordering::SeqCst);
    says.answer(&says.keys)
}
