//! The development issuer (`crates/palisade/src/dev/issuer`): authorization code with PKCE, client
//! credentials, refresh tokens and revocation, and tokens that are not access tokens (AUTHN-07).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use palisade::{
    crypto,
    dev::issuer::{SERVICE_CLIENT, WEB_CLIENT},
};
use serde_json::{Value, json};

use crate::support::{ACME, SERVICE, TestApp};

const REDIRECT_URI: &str = "http://127.0.0.1:7777/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0123456789";

struct Client {
    http: reqwest::Client,
    metadata: Value,
}

impl Client {
    async fn discover(app: &TestApp) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let url = format!("{}/.well-known/openid-configuration", app.issuer.url());
        let metadata: Value = http.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(metadata["issuer"], app.issuer.url());
        Self { http, metadata }
    }

    fn endpoint(&self, name: &str) -> &str {
        self.metadata[name].as_str().unwrap()
    }

    fn form(pairs: &[(&str, &str)]) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    async fn post(&self, endpoint: &str, pairs: &[(&str, &str)]) -> reqwest::Response {
        let request = self.http.post(self.endpoint(endpoint));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(Self::form(pairs)).send().await.unwrap()
    }

    /// Selects a user on the page at this URL.
    async fn select_user(&self, url: &str) -> reqwest::Response {
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        request.body(Self::form(&[("subject", "writer@acme.example")])).send().await.unwrap()
    }

    async fn token(&self, pairs: &[(&str, &str)]) -> (u16, Value) {
        let response = self.post("token_endpoint", pairs).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Sends an authorization request and selects a user; the code.
    async fn code(&self, scope: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(crypto::sha256(VERIFIER.as_bytes()));
        let request = [
            ("client_id", WEB_CLIENT),
            ("redirect_uri", REDIRECT_URI),
            ("response_type", "code"),
            ("scope", scope),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let url = format!("{}?{}", self.endpoint("authorization_endpoint"), Self::form(&request));
        let page = self.http.get(&url).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("writer@acme.example"));
        let selected = self.select_user(&url).await;
        assert_eq!(selected.status(), 303);
        let target = url::Url::parse(selected.headers()["location"].to_str().unwrap()).unwrap();
        assert!(target.as_str().starts_with(REDIRECT_URI));
        let parameter = |name: &str| target.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        assert_eq!(parameter("state"), "the-state");
        assert_eq!(parameter("iss"), self.metadata["issuer"]);
        parameter("code")
    }

    async fn exchange(&self, code: &str, verifier: &str) -> (u16, Value) {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("client_id", WEB_CLIENT),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", REDIRECT_URI),
        ])
        .await
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        self.token(&[("grant_type", "refresh_token"), ("client_id", WEB_CLIENT), ("refresh_token", token)]).await
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn dev_issuer_signs_a_user_in_with_code_and_pkce() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let code = client.code("openid notes:read made:up").await;
    let (status, tokens) = client.exchange(&code, VERIFIER).await;
    assert_eq!((status, &tokens["scope"]), (200, &json!("openid notes:read")));
    assert_eq!(tokens["refresh_token"], Value::Null, "without the scope offline_access");
    let me = app.bearer(text(&tokens["access_token"])).get("/v1/me").await.ok(200);
    assert_eq!((&me["subject"], &me["scopes"]), (&json!("writer@acme.example"), &json!(["notes:read"])));

    let (status, again) = client.exchange(&code, VERIFIER).await;
    assert_eq!((status, &again["error"]), (400, &json!("invalid_grant")), "the code was used before");
    let unused_code = client.code("openid").await;
    let (status, wrong) = client.exchange(&unused_code, "not-the-verifier").await;
    assert_eq!((status, &wrong["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test]
async fn authn_07_id_and_refresh_tokens_are_rejected() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let code = client.code("openid offline_access notes:read").await;
    let (_, tokens) = client.exchange(&code, VERIFIER).await;
    for name in ["id_token", "refresh_token"] {
        let reply = app.bearer(text(&tokens[name])).get("/v1/me").await;
        assert_eq!(reply.problem(401), "unauthenticated", "{name}");
    }
}

#[tokio::test]
async fn dev_issuer_issues_tokens_for_client_credentials() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let secret = app.issuer.service_secret();
    let request = |secret| {
        [
            ("grant_type", "client_credentials"),
            ("client_id", SERVICE_CLIENT),
            ("client_secret", secret),
            ("scope", "notes:read notes:write"),
        ]
    };
    let (status, tokens) = client.token(&request(secret)).await;
    assert_eq!(status, 200);
    let service = app.bearer(text(&tokens["access_token"]));
    let me = service.get("/v1/me").await.ok(200);
    assert_eq!((&me["kind"], &me["roles"]), (&json!("service"), &json!(["service"])));
    assert_eq!(me["tenantId"], ACME.id.to_string());
    service.get("/v1/notes").await.ok(200);
    assert_eq!(service.get("/v1/audit-events").await.problem(403), "insufficient_scope");

    let (status, rejected) = client.token(&request("wrong")).await;
    assert_eq!((status, &rejected["error"]), (401, &json!("invalid_client")));
    // The public client has no secret, so it gets no token for itself.
    let (status, rejected) =
        client.token(&[("grant_type", "client_credentials"), ("client_id", WEB_CLIENT), ("scope", "notes:read")]).await;
    assert_eq!((status, &rejected["error"]), (400, &json!("unauthorized_client")));
}

#[tokio::test]
async fn dev_issuer_ends_the_family_of_a_reused_refresh_token() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let code = client.code("offline_access notes:read").await;
    let (_, first) = client.exchange(&code, VERIFIER).await;
    let old = text(&first["refresh_token"]);
    let (status, second) = client.refresh(old).await;
    assert_eq!(status, 200);
    let new = text(&second["refresh_token"]);
    assert_ne!(new, old);
    app.bearer(text(&second["access_token"])).get("/v1/notes").await.ok(200);
    let (status, reused) = client.refresh(old).await;
    assert_eq!((status, &reused["error"]), (400, &json!("invalid_grant")));
    let (status, _) = client.refresh(new).await;
    assert_eq!(status, 400, "the successor ends with its family");
}

#[tokio::test]
async fn dev_issuer_ends_the_refresh_tokens_of_a_reused_code() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let code = client.code("offline_access").await;
    let (_, tokens) = client.exchange(&code, VERIFIER).await;
    let (status, rotated) = client.refresh(text(&tokens["refresh_token"])).await;
    assert_eq!(status, 200);
    assert_eq!(client.exchange(&code, VERIFIER).await.0, 400);
    assert_eq!(client.refresh(text(&rotated["refresh_token"])).await.0, 400);
}

/// A web page can make its own name resolve to the loopback address, but not change the header.
#[tokio::test]
async fn dev_issuer_answers_for_loopback_hosts_only() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let port = url::Url::parse(app.issuer.url()).unwrap().port().unwrap();
    for (host, status) in [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("[::1]", 200),
        ("rebound.example", 421),
        ("localhost.example", 421),
        ("127.0.0.1.example", 421),
        ("user@127.0.0.1.example", 421),
        ("10.0.0.1", 421),
    ] {
        for path in ["/.well-known/openid-configuration", "/jwks"] {
            let request = client.http.get(format!("{}{path}", app.issuer.url()));
            let answer = request.header("host", format!("{host}:{port}")).send().await.unwrap();
            assert_eq!(answer.status(), status, "{host} {path}");
        }
        let token = client.http.post(client.endpoint("token_endpoint")).header("host", format!("{host}:{port}"));
        assert_eq!(token.send().await.unwrap().status() == 421, status == 421, "{host}");
    }
}

#[tokio::test]
async fn dev_issuer_rejects_revoked_refresh_tokens() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let code = client.code("offline_access").await;
    let (_, tokens) = client.exchange(&code, VERIFIER).await;
    let token = text(&tokens["refresh_token"]);
    let revoked = client.post("revocation_endpoint", &[("client_id", WEB_CLIENT), ("token", token)]).await;
    assert_eq!(revoked.status(), 200);
    assert_eq!(client.refresh(token).await.0, 400);
}

#[tokio::test]
async fn dev_issuer_rejects_unregistered_redirect_uris_and_plain_pkce() {
    let app = SERVICE.shared();
    let client = Client::discover(app).await;
    let challenge = URL_SAFE_NO_PAD.encode(crypto::sha256(VERIFIER.as_bytes()));
    for (redirect, method) in [
        ("https://evil.example/callback", "S256"),
        ("http://127.0.0.1.evil.example/", "S256"),
        ("javascript:alert(1)", "S256"),
        (REDIRECT_URI, "plain"),
    ] {
        let request = [
            ("client_id", WEB_CLIENT),
            ("redirect_uri", redirect),
            ("response_type", "code"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", method),
        ];
        let url = format!("{}?{}", client.endpoint("authorization_endpoint"), Client::form(&request));
        assert_eq!(client.select_user(&url).await.status(), 400, "{redirect} {method}");
    }
}
