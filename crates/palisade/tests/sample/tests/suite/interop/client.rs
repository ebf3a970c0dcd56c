//! An OAuth client for the interop tests, and as much of a browser as the sign-in pages of the
//! provider need.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use palisade::crypto;
use serde_json::Value;
use url::Url;

/// The redirect URI of the web client. The test reads the code from the redirect itself.
pub const REDIRECT_URI: &str = "http://127.0.0.1:7777/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0123456789";

/// A web application and a service client of an OpenID provider.
pub struct Client {
    http: reqwest::Client,
    metadata: Value,
}

impl Client {
    /// Reads the discovery document of the issuer.
    pub async fn discover(issuer: &str) -> Self {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // Loading the root certificates takes longer than most tests, and HTTP needs none.
        let builder = if issuer.starts_with("http://") { builder.tls_certs_only([]) } else { builder };
        let http = builder.build().unwrap();
        let url = format!("{issuer}/.well-known/openid-configuration");
        let metadata: Value = http.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(metadata["issuer"], issuer);
        Self { http, metadata }
    }

    /// An access token of a service client (RFC 6749 section 4.4).
    pub async fn client_credentials(&self, id: &str, secret: &str, parameters: &[(&str, &str)]) -> String {
        let form = [&[("grant_type", "client_credentials")], parameters].concat();
        let (status, tokens) = self.token(|request| request.basic_auth(id, Some(secret)), &form).await;
        assert_eq!(status, 200, "{tokens}");
        text(&tokens["access_token"])
    }

    /// Signs a user in, with consent to all scopes (RFC 6749 section 4.1, RFC 7636); the tokens.
    pub async fn sign_in(&self, username: &str, scope: &str) -> Value {
        let challenge = URL_SAFE_NO_PAD.encode(crypto::sha256(VERIFIER.as_bytes()));
        let request = [
            ("client_id", "web"),
            ("redirect_uri", REDIRECT_URI),
            ("response_type", "code"),
            ("scope", scope),
            ("prompt", "consent"),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let url = Url::parse_with_params(&text(&self.metadata["authorization_endpoint"]), request).unwrap();
        let callback = self.pages().sign_in(url, username, REDIRECT_URI).await;
        let parameters: BTreeMap<_, _> = callback.query_pairs().into_owned().collect();
        assert_eq!(parameters["state"], "the-state");
        assert_eq!(parameters["iss"], self.metadata["issuer"], "RFC 9207");
        let exchange = [
            ("grant_type", "authorization_code"),
            ("client_id", "web"),
            ("code", &parameters["code"]),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT_URI),
        ];
        let (status, tokens) = self.token(|request| request, &exchange).await;
        assert_eq!(status, 200, "{tokens}");
        tokens
    }

    /// A browser for the pages of the provider, without cookies.
    pub fn pages(&self) -> ProviderPages {
        ProviderPages { http: self.http.clone(), cookies: BTreeMap::new() }
    }

    pub async fn refresh(&self, token: &str) -> (u16, Value) {
        let form = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", token)];
        self.token(|request| request, &form).await
    }

    async fn token(
        &self,
        authenticate: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
        form: &[(&str, &str)],
    ) -> (u16, Value) {
        let request = authenticate(self.http.post(text(&self.metadata["token_endpoint"])));
        let response = submit(request, form).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

/// A browser for the pages of the provider: redirects, cookies, and a form on each.
pub struct ProviderPages {
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl ProviderPages {
    /// Follows the pages until a redirect to a URL that begins so; the target of that redirect. A user
    /// who is signed in sees no page.
    pub async fn sign_in(&mut self, start: Url, username: &str, until: &str) -> Url {
        let mut page = start.clone();
        let mut response = self.visit(self.http.get(start), &[]).await;
        for _ in 0..12 {
            if let Some(location) = response.headers().get("location") {
                page = page.join(location.to_str().unwrap()).unwrap();
                if page.as_str().starts_with(until) {
                    return page;
                }
                response = self.visit(self.http.get(page.clone()), &[]).await;
                continue;
            }
            let html = response.text().await.unwrap();
            let between = |start: &str| html.split_once(start)?.1.split_once('"').map(|(value, _)| value.to_owned());
            let (action, prompt) = between("action=\"").zip(between("name=\"prompt\" value=\"")).expect(&html);
            page = page.join(&action).unwrap();
            let form = [("prompt", prompt.as_str()), ("login", username), ("password", "any")];
            response = self.visit(self.http.post(page.clone()), &form).await;
        }
        panic!("no redirect to the client; the last page is {page}");
    }

    /// Confirms the page of a sign-out; the target of the redirect that follows.
    pub async fn sign_out(&mut self, start: Url) -> String {
        let html = self.visit(self.http.get(start.clone()), &[]).await.text().await.unwrap();
        let between = |start: &str| html.split_once(start)?.1.split_once('"').map(|(value, _)| value.to_owned());
        let (action, xsrf) = between("action=\"").zip(between("name=\"xsrf\" value=\"")).expect(&html);
        let request = self.http.post(start.join(&action).unwrap());
        let response = self.visit(request, &[("xsrf", &xsrf), ("logout", "yes")]).await;
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn visit(&mut self, request: reqwest::RequestBuilder, form: &[(&str, &str)]) -> reqwest::Response {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header("cookie", cookies.join("; "));
        let response = if form.is_empty() { request.send().await.unwrap() } else { submit(request, form).await };
        for cookie in response.headers().get_all("set-cookie") {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        response
    }
}

async fn submit(request: reqwest::RequestBuilder, form: &[(&str, &str)]) -> reqwest::Response {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
