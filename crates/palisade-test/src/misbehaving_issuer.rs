//! An issuer whose metadata, keys and availability a test controls ([`MisbehavingIssuer`]).
//!
//! It serves the discovery document and the key set over HTTP, can redirect, fail or grow too
//! large, and counts the requests for each.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{StatusCode, header};
use poem::{EndpointExt as _, Request, Response, Route, Server, get, handler, listener::TcpAcceptor, post, web::Data};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{ACME, AUDIENCE, TestApp, TestKey, TestService};

/// An issuer on its own socket, stopped on drop.
pub struct MisbehavingIssuer {
    /// Base URL, the issuer in tokens.
    pub url: String,
    service: &'static TestService,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    metadata: Mutex<Value>,
    keys: Mutex<Value>,
    /// If set, every response is a redirect to this URL.
    redirect: Mutex<Option<String>>,
    down: AtomicBool,
    discoveries: AtomicU64,
    key_requests: AtomicU64,
    /// Status and body of the next answers of the token endpoint.
    tokens: Mutex<(u16, Value)>,
    /// While it is locked, the token endpoint does not answer.
    token_answers: Arc<tokio::sync::Mutex<()>>,
    /// The forms that the token endpoint received.
    token_forms: Mutex<Vec<String>>,
    /// The passwords that it received (`client_secret_basic`).
    token_credentials: Mutex<Vec<String>>,
}

impl MisbehavingIssuer {
    /// Starts with these keys and correct metadata.
    pub async fn with_keys(service: &'static TestService, keys: &[&TestKey]) -> Self {
        Self::at(service, "127.0.0.1:0", keys).await
    }

    /// The same, at this address and port.
    pub async fn at(service: &'static TestService, address: &str, keys: &[&TestKey]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        });
        let state = Arc::new(State { metadata: Mutex::new(metadata), ..State::default() });
        let app = Route::new()
            .at("/.well-known/openid-configuration", get(discovery))
            .at("/keys", get(key_set))
            .at("/token", post(token))
            .data(Arc::clone(&state));
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        let server = tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await.unwrap() });
        let issuer = Self { url, service, state, server };
        issuer.publish(keys);
        issuer
    }

    /// Publishes these keys in place of the earlier ones.
    pub fn publish(&self, keys: &[&TestKey]) {
        self.publish_raw(json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }));
    }

    /// Publishes any document as the key set.
    pub fn publish_raw(&self, document: Value) {
        *self.state.keys.lock().unwrap() = document;
    }

    /// Sets a member of the discovery document.
    pub fn set_metadata(&self, name: &str, value: impl Into<Value>) {
        self.state.metadata.lock().unwrap()[name] = value.into();
    }

    /// Pads the discovery document to this length in bytes.
    pub fn pad_to(&self, length: usize) {
        self.set_metadata("padding", "");
        let padding = length - self.state.metadata.lock().unwrap().to_string().len();
        self.set_metadata("padding", "x".repeat(padding));
    }

    /// Redirects every request to this URL.
    pub fn redirect_to(&self, url: impl Into<String>) {
        *self.state.redirect.lock().unwrap() = Some(url.into());
    }

    /// Responds with 503, or serves again.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Answers token requests with this status and body from now on.
    pub fn answer_token_requests(&self, status: u16, body: Value) {
        *self.state.tokens.lock().unwrap() = (status, body);
    }

    /// Lets token requests wait for their answers, until the result is dropped.
    pub async fn hold_token_requests(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.state.token_answers).lock_owned().await
    }

    /// The forms that the token endpoint received.
    pub fn token_forms(&self) -> Vec<String> {
        self.state.token_forms.lock().unwrap().clone()
    }

    /// The secrets of clients that the token endpoint received, as RFC 6749 section 2.3.1 encodes them.
    pub fn token_credentials(&self) -> Vec<String> {
        self.state.token_credentials.lock().unwrap().clone()
    }

    /// The number of requests for the discovery document.
    pub fn discoveries(&self) -> u64 {
        self.state.discoveries.load(Ordering::SeqCst)
    }

    /// The number of requests for the key set.
    pub fn key_requests(&self) -> u64 {
        self.state.key_requests.load(Ordering::SeqCst)
    }

    /// A service that trusts this issuer. It may never become ready, so this does not wait.
    pub async fn app(&self, variables: &[(&str, &str)]) -> TestApp {
        let mut all = vec![("APP_OIDC__ISSUER", self.url.as_str())];
        all.extend(variables);
        self.service.start_with(&all).await
    }

    /// The claims of a valid token of an administrator of Acme.
    pub fn claims(&self, now: i64) -> Value {
        let scopes: Vec<&str> = self.service.rights().scopes.iter().map(|scope| scope.as_str()).collect();
        let scopes = scopes.join(" ");
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "a-caller", "client_id": "some-client",
            "iat": now, "exp": now + 600, "jti": uuid::Uuid::now_v7().to_string(),
            "scope": scopes, "tenant_id": ACME.id.to_string(), "roles": [self.service.admin_role().as_str()],
        })
    }

    /// A valid token, signed with this key.
    pub fn token(&self, key: &TestKey, now: i64) -> String {
        let header = json!({ "alg": key.alg, "typ": "at+jwt", "kid": key.id });
        key.sign_text(&header.to_string(), &self.claims(now).to_string())
    }
}

impl Drop for MisbehavingIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    fn respond(&self, document: &Mutex<Value>) -> Response {
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
fn discovery(Data(state): Data<&Arc<State>>) -> Response {
    state.discoveries.fetch_add(1, Ordering::SeqCst);
    state.respond(&state.metadata)
}

#[handler]
fn key_set(Data(state): Data<&Arc<State>>) -> Response {
    state.key_requests.fetch_add(1, Ordering::SeqCst);
    state.respond(&state.keys)
}

#[handler]
async fn token(Data(state): Data<&Arc<State>>, request: &Request, form: String) -> Response {
    state.token_forms.lock().unwrap().push(form);
    let basic = request.header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Basic "));
    let decoded = basic.and_then(|basic| STANDARD.decode(basic).ok()).and_then(|text| String::from_utf8(text).ok());
    let secret = decoded.and_then(|text| text.split_once(':').map(|(_, secret)| secret.to_owned()));
    state.token_credentials.lock().unwrap().extend(secret);
    drop(state.token_answers.lock().await);
    if state.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into();
    }
    let (status, body) = state.tokens.lock().unwrap().clone();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_IMPLEMENTED);
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}
