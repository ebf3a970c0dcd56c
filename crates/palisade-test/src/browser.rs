//! [`Browser`]: a client with cookies, as a page of the service uses it.
//!
//! It signs in at the development issuer, and writes the headers that a browser writes. Tests change
//! one of them, or replay a cookie.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header};
use palisade::dev::people::Person;
use serde_json::Value;
use url::Url;

use crate::{Actor, Reply, TestApp};

/// A browser on a page of the service.
#[derive(Clone)]
pub struct Browser {
    actor: Actor,
    /// The origin of its page.
    pub origin: String,
    /// The cookies that it has, by name.
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    /// A browser without cookies, on a page of this service.
    pub fn new(app: &TestApp) -> Self {
        Self { actor: app.anonymous(), origin: format!("http://{}", app.address), cookies: BTreeMap::new() }
    }

    /// The same browser at another replica.
    #[must_use]
    pub fn at(&self, app: &TestApp) -> Self {
        Self { actor: app.anonymous(), ..self.clone() }
    }

    /// Its session cookie.
    #[track_caller]
    pub fn session_cookie(&self) -> &str {
        &self.cookies["__Host-session"]
    }

    /// A request with its cookies, as a page of the same origin sends it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let is_safe = method.is_safe();
        let request = self.actor.request(method, path).header("sec-fetch-site", "same-origin");
        let request = if is_safe { request } else { request.header(header::ORIGIN, &self.origin) };
        self.with_cookies(request)
    }

    /// Adds its cookies.
    pub fn with_cookies(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if self.cookies.is_empty() {
            return request;
        }
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header(header::COOKIE, pairs.join("; "))
    }

    /// Sends a request and keeps the cookies of the reply.
    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> Reply {
        let reply = self.actor.send(request).await;
        self.keep(&reply.headers);
        reply
    }

    fn keep(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Sends a `GET` request.
    pub async fn get(&mut self, path: &str) -> Reply {
        let request = self.request(Method::GET, path);
        self.send(request).await
    }

    /// Sends a request with the CSRF token.
    pub async fn change(&mut self, method: Method, path: &str) -> Reply {
        let token = self.csrf_token().await;
        let request = self.request(method, path).header("x-csrf-token", token);
        self.send(request).await
    }

    /// The CSRF token of its session.
    pub async fn csrf_token(&mut self) -> String {
        let session = self.get("/auth/session").await.ok(200);
        session["csrfToken"].as_str().unwrap().to_owned()
    }

    /// Begins a sign-in. Returns the URL of the issuer.
    pub async fn begin(&mut self, path: &str) -> Url {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 303, "{reply:#?}");
        Url::parse(reply.header("location").unwrap()).unwrap()
    }

    /// Chooses a person on the page of the development issuer. Returns the callback with its query.
    pub async fn choose(&self, authorization: &Url, person: &Person) -> String {
        let client = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
        let request = client.build().unwrap().post(authorization.clone());
        let subject: String = url::form_urlencoded::byte_serialize(person.subject.as_bytes()).collect();
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let reply = request.body(format!("subject={subject}")).send().await.unwrap();
        let location = reply.headers().get(header::LOCATION).expect("a redirect of the issuer");
        let callback = Url::parse(location.to_str().unwrap()).unwrap();
        format!("{}?{}", callback.path(), callback.query().unwrap_or_default())
    }

    /// Signs a person in. Returns the reply of the callback.
    pub async fn sign_in(&mut self, person: &Person) -> Reply {
        let authorization = self.begin("/auth/login").await;
        let callback = self.choose(&authorization, person).await;
        let reply = self.get(&callback).await;
        assert_eq!(reply.status, 303, "{reply:#?}");
        reply
    }

    /// Its session as the service shows it.
    pub async fn session(&mut self) -> Value {
        self.get("/auth/session").await.ok(200)
    }
}
