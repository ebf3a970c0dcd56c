use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::{
    events::{self, Fields},
    eventually,
};

/// Somebody who calls the service.
pub struct Actor {
    client: reqwest::Client,
    base: String,
    credential: Option<Credential>,
}

/// What a caller shows.
pub enum Credential {
    Token(String),
    ApiKey(String),
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    /// Null if the body is not JSON.
    pub body: Value,
}

impl Actor {
    pub fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self::with(address, token.map(Credential::Token))
    }

    pub fn with(address: SocketAddr, credential: Option<Credential>) -> Self {
        let client = client().build().unwrap();
        Self { client, base: format!("http://{address}"), credential }
    }

    /// Through a client of one's own, to `localhost` by TLS.
    pub fn by_tls(client: reqwest::Client, port: u16, token: Option<String>) -> Self {
        Self { client, base: format!("https://localhost:{port}"), credential: token.map(Credential::Token) }
    }

    /// Whether there is a connection at all.
    pub async fn is_let_in(&self) -> bool {
        self.request(Method::GET, "/health/live").send().await.is_ok()
    }

    /// The same caller from another address of this machine.
    pub fn at_address(self, local: IpAddr) -> Self {
        let client = client().local_address(local).build().unwrap();
        Self { client, ..self }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// With this body; null is none.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.request(Method::POST, path);
        self.send(if body.is_null() { request } else { request.json(body) }).await
    }

    /// A body of any bytes under any content type.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.request(Method::POST, path).header("content-type", content_type).body(body)).await
    }

    /// A request to change before it is sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.credential {
            Some(Credential::Token(token)) => request.bearer_auth(token),
            Some(Credential::ApiKey(key)) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// As a client does that is asked to come back: hashing an API key takes what processor time nothing else wants.
    pub async fn send_until_served(&self, request: reqwest::RequestBuilder) -> Reply {
        let mut reply = None;
        eventually("served", async || {
            reply = Some(self.send(request.try_clone().unwrap()).await);
            reply.as_ref().is_some_and(|reply| reply.status != 503)
        })
        .await;
        reply.unwrap()
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status, headers, text, body }
    }
}

/// Reading the machine's certificates takes longer than most tests, and plain HTTP needs none. A
/// connection is not used again when the service may be about to close it, after five seconds.
fn client() -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
    client.pool_idle_timeout(Duration::from_secs(2))
}

impl Reply {
    /// The problem's code, after checking that it is a well-formed problem of this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:#?}");
        assert_eq!(self.body["status"], status, "{self:#?}");
        let trace_id = self.body["traceId"].as_str().unwrap();
        assert_eq!(self.headers["x-request-id"], trace_id, "{self:#?}");
        self.body["code"].as_str().unwrap()
    }

    /// The faults of the input, as `pointer code`.
    pub fn faults(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        errors.iter().map(|e| format!("{} {}", text(&e["pointer"]), text(&e["code"]))).collect()
    }

    /// The security events of this request.
    pub fn events(&self) -> Vec<Fields> {
        events::of(self.header("x-request-id").unwrap())
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Everything a caller could tell two refusals apart by, but for what differs between any two requests.
    pub fn comparable(&self) -> (StatusCode, Vec<(String, String)>, Value) {
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .filter(|(name, _)| !["date", "ratelimit", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        let mut body = self.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.remove("traceId");
            body.remove("instance");
        }
        (self.status, headers, body)
    }
}
