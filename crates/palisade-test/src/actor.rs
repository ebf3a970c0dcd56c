//! An HTTP client of the service, [`Actor`], and what it receives, [`Reply`].
//!
//! [`TestApp`](crate::TestApp) makes actors for its own address. Tests send requests through them
//! and assert on the reply's status, body, headers, field errors and security events.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::{
    events::{self, Fields},
    eventually,
};

/// A caller of the service: a client with a base URL and, usually, a credential.
#[derive(Clone)]
pub struct Actor {
    client: reqwest::Client,
    base: String,
    credential: Option<Credential>,
}

/// A credential that the actor sends with every request.
#[derive(Clone)]
pub enum Credential {
    /// A bearer token.
    Token(String),
    /// The text of an API key.
    ApiKey(String),
}

/// A response that was read completely.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: StatusCode,
    /// Headers, with lower-case names.
    pub headers: HeaderMap,
    /// The whole body.
    pub text: String,
    /// Null if the body is not JSON.
    pub body: Value,
}

impl Actor {
    /// A caller of this address, with this bearer token.
    pub fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self::with_credential(address, token.map(Credential::Token))
    }

    /// A caller of this address, with this credential.
    pub fn with_credential(address: SocketAddr, credential: Option<Credential>) -> Self {
        let client = client().build().unwrap();
        Self { client, base: format!("http://{address}"), credential }
    }

    /// Connects to `localhost` over TLS, with a client that the test has configured.
    pub fn over_tls(client: reqwest::Client, port: u16, token: Option<String>) -> Self {
        Self { client, base: format!("https://localhost:{port}"), credential: token.map(Credential::Token) }
    }

    /// Whether the service completes the connection (and its handshake) and sends any response.
    pub async fn can_connect(&self) -> bool {
        self.request(Method::GET, "/health/live").send().await.is_ok()
    }

    /// The same caller, connecting from another loopback address.
    #[must_use]
    pub fn at_address(self, local: IpAddr) -> Self {
        let client = client().local_address(local).build().unwrap();
        Self { client, ..self }
    }

    /// Sends a `GET` request.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts this JSON body; `null` means no body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.request(Method::POST, path);
        self.send(if body.is_null() { request } else { request.json(body) }).await
    }

    /// Posts any bytes under any content type.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.request(Method::POST, path).header("content-type", content_type).body(body)).await
    }

    /// A request with this actor's credential, which the test completes and sends.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.credential {
            Some(Credential::Token(token)) => request.bearer_auth(token),
            Some(Credential::ApiKey(key)) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// Retries while the response is 503. Hashing of API keys runs at low priority and is shed when
    /// the machine is busy.
    pub async fn send_until_served(&self, request: reqwest::RequestBuilder) -> Reply {
        let mut reply = None;
        eventually("served", async || {
            reply = Some(self.send(request.try_clone().unwrap()).await);
            reply.as_ref().is_some_and(|reply| reply.status != 503)
        })
        .await;
        reply.unwrap()
    }

    /// Sends the request and reads the whole response.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status, headers, text, body }
    }
}

/// A client without the machine's root certificates: loading them takes longer than most tests, and
/// plain HTTP needs none. It drops idle connections after two seconds, since the service closes
/// them after five and a request on a closing connection would fail.
fn client() -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
    client.pool_idle_timeout(Duration::from_secs(2))
}

impl Reply {
    /// Asserts a well-formed problem (RFC 9457) of this status and returns its code.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:#?}");
        assert_eq!(self.body["status"], status, "{self:#?}");
        let trace_id = self.body["traceId"].as_str().unwrap();
        assert_eq!(self.headers["x-request-id"], trace_id, "{self:#?}");
        self.body["code"].as_str().unwrap()
    }

    /// The field errors of a problem, each as `pointer code`.
    pub fn faults(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        errors.iter().map(|e| format!("{} {}", text(&e["pointer"]), text(&e["code"]))).collect()
    }

    /// The security events of this request.
    pub fn events(&self) -> Vec<Fields> {
        events::for_trace_id(self.header("x-request-id").unwrap())
    }

    /// The first security event of this request with this name.
    #[track_caller]
    pub fn event(&self, name: &str) -> Fields {
        let events = self.events();
        let found = events.iter().find(|event| event["event"] == name).cloned();
        found.unwrap_or_else(|| panic!("no event {name} in {events:#?}"))
    }

    /// Asserts the status and returns the body.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        self.body
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Everything by which a caller could distinguish two error responses, without what differs
    /// between any two requests: date, quota and trace id.
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

/// The number of successes; the other replies must have this status.
#[track_caller]
pub fn count_successes(replies: &[Reply], failure: u16) -> usize {
    let (succeeded, failed): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status.is_success());
    for reply in failed {
        reply.problem(failure);
    }
    succeeded.len()
}
