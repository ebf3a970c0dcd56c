//! ID tokens and token responses that an issuer should not send (AUTHN-14).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use url::Url;

use super::SESSIONS;
use crate::support::{Browser, GLOBEX, MisbehavingIssuer, Reply, SERVICE, TestApp, TestKey};

/// A sign-in at an issuer whose answers the test chooses.
pub(super) struct SignIn {
    pub(super) app: TestApp,
    pub(super) issuer: MisbehavingIssuer,
    key: TestKey,
}

impl SignIn {
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these settings too.
    pub(super) async fn with(settings: &[(&str, &str)]) -> Self {
        let key = TestKey::es256("signing");
        let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
        let app = issuer.app(&[&SESSIONS[..], settings].concat()).await;
        app.wait_until_ready().await;
        Self { app, issuer, key }
    }

    pub(super) fn access_token(&self) -> String {
        self.issuer.token(&self.key, self.app.clock.timestamp())
    }

    /// A browser with a session.
    pub(super) async fn browser(&self) -> Browser {
        self.run_with(&self.access_token()).await.0
    }

    /// A browser with a session of another service at the same issuer.
    pub(super) async fn browser_of(&self, app: &TestApp) -> Browser {
        let access_token = self.access_token();
        let answer = |nonce: &str| Self::response(&access_token, &self.sign(&self.header(), &self.id_claims(nonce)));
        self.run_from(Browser::new(app), "/auth/login", answer).await.0
    }

    /// Signs in with this access token.
    pub(super) async fn run_with(&self, access_token: &str) -> (Browser, Reply) {
        let answer = |nonce: &str| Self::response(access_token, &self.sign(&self.header(), &self.id_claims(nonce)));
        self.run(answer).await
    }

    /// Signs in from this path, with these claims in the ID token.
    pub(super) async fn sign_in_again(
        &self,
        browser: Browser,
        path: &str,
        changed: &[(&str, Value)],
    ) -> (Browser, Reply) {
        let access_token = self.access_token();
        let answer = |nonce: &str| {
            let mut claims = self.id_claims(nonce);
            for (name, value) in changed {
                claims[name] = value.clone();
            }
            Self::response(&access_token, &self.sign(&self.header(), &claims))
        };
        self.run_from(browser, path, answer).await
    }

    /// Signs an access token with one claim changed.
    pub(super) fn access_token_with(&self, name: &str, value: Value) -> String {
        let mut claims = self.issuer.claims(self.app.clock.timestamp());
        claims[name] = value;
        self.sign(&json!({ "alg": self.key.alg, "typ": "at+jwt", "kid": self.key.id }), &claims)
    }

    /// The claims of a valid ID token.
    fn id_claims(&self, nonce: &str) -> Value {
        let now = self.app.clock.timestamp();
        json!({
            "iss": self.issuer.url, "aud": "demo-web", "sub": "a-caller", "iat": now, "exp": now + 300,
            "nonce": nonce, "sid": "a-session",
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.key.sign_text(&header.to_string(), &claims.to_string())
    }

    fn header(&self) -> Value {
        json!({ "alg": self.key.alg, "typ": "JWT", "kid": self.key.id })
    }

    /// Signs in while the token endpoint answers with what `answer` makes of the nonce.
    async fn run(&self, answer: impl FnOnce(&str) -> Value) -> (Browser, Reply) {
        self.run_from(Browser::new(&self.app), "/auth/login", answer).await
    }

    async fn run_from(&self, mut browser: Browser, path: &str, answer: impl FnOnce(&str) -> Value) -> (Browser, Reply) {
        let url: Url = browser.begin(path).await;
        let parameter = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        self.issuer.answer_token_requests(200, answer(&parameter("nonce")));
        let reply = browser.get(&format!("/auth/callback?code=c&state={}", parameter("state"))).await;
        (browser, reply)
    }

    /// Signs in with an ID token of this header and these claims.
    async fn with_id_token(&self, change: impl FnOnce(&mut Value, &mut Value, &str)) -> Reply {
        let access_token = self.access_token();
        let answer = |nonce: &str| {
            let (mut header, mut claims) = (self.header(), self.id_claims(nonce));
            change(&mut header, &mut claims, &access_token);
            Self::response(&access_token, &self.sign(&header, &claims))
        };
        self.run(answer).await.1
    }

    fn response(access_token: &str, id_token: &str) -> Value {
        json!({ "access_token": access_token, "token_type": "Bearer", "id_token": id_token, "refresh_token": "r-1" })
    }
}

/// Makes the response of the token endpoint for a nonce.
type Answer<'a> = Box<dyn Fn(&str) -> Value + 'a>;

/// The left half of the SHA-256 of a text, in base64url.
fn left_half(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(&palisade::crypto::sha256(text.as_bytes())[..16])
}

#[tokio::test]
async fn authn_14_id_token_is_validated_in_full() {
    let sign_in = SignIn::new().await;
    let now = sign_in.app.clock.timestamp();
    let set = |name: &'static str, value: Value| move |_: &mut Value, claims: &mut Value, _: &str| claims[name] = value;
    // Valid ones first: with and without `typ`, a list of one audience, and the hash of the access token.
    let valid = sign_in.with_id_token(|_, _, _| {}).await;
    assert_eq!(valid.status, 303, "{valid:#?}");
    let valid = sign_in.with_id_token(|header, claims, token| {
        header.as_object_mut().unwrap().remove("typ");
        claims["aud"] = json!(["demo-web"]);
        claims["azp"] = json!("demo-web");
        claims["at_hash"] = json!(left_half(token));
    });
    assert_eq!(valid.await.status, 303);
    for (claim, value) in [
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("aud", json!("another-client")),
        ("aud", json!(["demo-web", "another-client"])),
        ("aud", json!("api://under-test")),
        ("azp", json!("another-client")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(now - 60)),
        ("exp", json!(now)),
        ("exp", Value::Null),
        ("iat", json!(now + 3_600)),
        ("iat", json!("now")),
        ("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")),
        ("sub", json!("another-caller")),
        ("sub", json!("service:x")),
        ("sub", Value::Null),
        ("sid", json!("a\nb")),
    ] {
        let reply = sign_in.with_id_token(set(claim, value.clone())).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{claim} {value}: {reply:#?}");
        assert!(reply.headers.get_all("set-cookie").iter().all(|it| !it.to_str().unwrap().contains("session=")));
    }
    for (name, value) in [("typ", "at+jwt"), ("typ", "logout+jwt"), ("alg", "none"), ("alg", "HS256"), ("kid", "other")]
    {
        let reply = sign_in.with_id_token(|header, _, _| header[name] = json!(value)).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{name} {value}");
    }
}

#[tokio::test]
async fn authn_14_token_response_without_proof_of_the_person_is_refused() {
    let sign_in = SignIn::new().await;
    let access_token = sign_in.access_token();
    let id_token = |nonce: &str| sign_in.sign(&sign_in.header(), &sign_in.id_claims(nonce));
    let id_token_of_service = |nonce: &str| {
        let mut claims = sign_in.id_claims(nonce);
        claims["sub"] = json!("demo-service");
        sign_in.sign(&sign_in.header(), &claims)
    };
    let stranger = TestKey::es256("signing");
    let forged = |nonce: &str| stranger.sign_text(&sign_in.header().to_string(), &sign_in.id_claims(nonce).to_string());
    let mut service = sign_in.issuer.claims(sign_in.app.clock.timestamp());
    service["sub"] = json!("demo-service");
    service["client_id"] = json!("demo-service");
    let service = sign_in.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": "signing" }), &service);
    let answers: [(&str, Answer<'_>); 6] = [
        ("no ID token", Box::new(|_| json!({ "access_token": access_token, "token_type": "Bearer" }))),
        ("a forged ID token", Box::new(|nonce| SignIn::response(&access_token, &forged(nonce)))),
        ("the access token as ID token", Box::new(|_| SignIn::response(&access_token, &access_token))),
        ("the ID token as access token", Box::new(|nonce| SignIn::response(&id_token(nonce), &id_token(nonce)))),
        ("a token of a service", Box::new(|nonce| SignIn::response(&service, &id_token_of_service(nonce)))),
        ("no JSON Web Token", Box::new(|nonce| SignIn::response("opaque", &id_token(nonce)))),
    ];
    for (name, answer) in answers {
        let (browser, reply) = sign_in.run(answer).await;
        assert_eq!(reply.problem(401), "unauthenticated", "{name}: {reply:#?}");
        assert!(browser.cookies.is_empty(), "{name}");
    }
    for (status, body, expected) in [
        (400, json!({ "error": "invalid_grant" }), 401),
        (401, json!({ "error": "invalid_client" }), 503),
        (500, json!({}), 503),
        (200, json!("no object"), 503),
        (200, json!({ "access_token": access_token, "token_type": "DPoP" }), 503),
        (302, json!({}), 503),
    ] {
        let mut browser = Browser::new(&sign_in.app);
        let url = browser.begin("/auth/login").await;
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        sign_in.issuer.answer_token_requests(status, body);
        browser.get(&format!("/auth/callback?code=c&state={state}")).await.problem(expected);
        assert!(browser.cookies.is_empty(), "{status}");
    }
}

/// A session has no actor: it would hide which one acted (RFC 8693).
#[tokio::test]
async fn authn_13_token_with_an_actor_opens_no_session() {
    let sign_in = SignIn::with(&[("APP_OIDC__ACCEPT_ACTORS", "true")]).await;
    let token = sign_in.access_token_with("act", json!({ "sub": "helpdesk" }));
    sign_in.app.bearer(&*token).get("/v1/me").await.ok(200);
    let (browser, reply) = sign_in.run_with(&token).await;
    assert_eq!(reply.problem(401), "unauthenticated");
    assert_eq!(reply.event("authn_token_invalid")["reason"], "actor");
    assert!(browser.cookies.is_empty());
}

/// A code of one issuer must not reach another (mix-up): with two issuers, each must name itself.
#[tokio::test]
async fn authn_14_issuer_parameter_is_required_with_two_issuers() {
    let key = TestKey::es256("signing");
    let [first, second] =
        [MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await, MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await];
    let globex = GLOBEX.id.to_string();
    let further = [
        ("APP_OIDC__FURTHER__PARTNER__ISSUER", &*second.url),
        ("APP_OIDC__FURTHER__PARTNER__AUDIENCE", "api://partner"),
        ("APP_OIDC__FURTHER__PARTNER__TENANTS", &globex),
        ("APP_SESSIONS__FURTHER__PARTNER__CLIENT_ID", "partner-web"),
    ];
    let app = first.app(&[&SESSIONS[..], &further].concat()).await;
    app.wait_until_ready().await;
    for (login, named) in [
        ("/auth/login", None),
        ("/auth/login", Some(&second.url)),
        ("/auth/login?issuer=partner", None),
        ("/auth/login?issuer=partner", Some(&first.url)),
    ] {
        let mut browser = Browser::new(&app);
        let url = browser.begin(login).await;
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let iss = named.map(|iss| format!("&iss={iss}")).unwrap_or_default();
        let reply = browser.get(&format!("/auth/callback?code=c&state={state}{iss}")).await;
        assert_eq!(reply.event("authn_token_invalid")["claim"], "iss", "{login} {named:?}");
        reply.problem(401);
    }
    assert!([first, second].iter().all(|issuer| issuer.token_forms().is_empty()), "a code went out");
}

#[tokio::test]
async fn authn_14_session_without_refresh_token_ends_with_its_access_token() {
    let sign_in = SignIn::new().await;
    let access_token = sign_in.access_token();
    let answer = |nonce: &str| {
        let mut answer = SignIn::response(&access_token, &sign_in.sign(&sign_in.header(), &sign_in.id_claims(nonce)));
        answer.as_object_mut().unwrap().remove("refresh_token");
        answer
    };
    let (mut browser, _) = sign_in.run(answer).await;
    let session = browser.session().await;
    assert_eq!(session["expiresAt"], session["accessExpiresAt"]);
    // There is nothing to refresh it with.
    assert_eq!(browser.change(http::Method::POST, "/auth/refresh").await.ok(200)["expiresAt"], session["expiresAt"]);
    sign_in.app.clock.advance(std::time::Duration::from_secs(601));
    assert_eq!(browser.get("/v1/me").await.problem(401), "unauthenticated");
}

#[tokio::test]
async fn authn_14_code_is_sent_with_the_verifier_and_the_client_s_secret() {
    let key = TestKey::es256("signing");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    issuer.set_metadata("token_endpoint_auth_methods_supported", json!(["client_secret_post"]));
    issuer.set_metadata("authorization_response_iss_parameter_supported", json!(true));
    let secret = ("APP_SESSIONS__CLIENT_SECRET", "a client secret & more");
    let app = issuer.app(&[&SESSIONS[..], &[secret]].concat()).await;
    app.wait_until_ready().await;
    let mut browser = Browser::new(&app);
    let url = browser.begin("/auth/login").await;
    let parameter = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    issuer.answer_token_requests(400, json!({ "error": "invalid_grant" }));
    // An issuer that announces `iss` must send it, so no code goes out without it.
    browser.get(&format!("/auth/callback?code=c&state={}", parameter("state"))).await.problem(401);
    assert_eq!(issuer.token_forms(), Vec::<String>::new());
    let url = browser.begin("/auth/login").await;
    let parameter = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    let iss: String = url::form_urlencoded::byte_serialize(issuer.url.as_bytes()).collect();
    browser.get(&format!("/auth/callback?code=c&state={}&iss={iss}", parameter("state"))).await.problem(401);
    let form = &issuer.token_forms()[0];
    let sent =
        |name: &str| url::form_urlencoded::parse(form.as_bytes()).find(|(n, _)| n == name).unwrap().1.into_owned();
    assert_eq!(sent("client_secret"), secret.1);
    assert_eq!(sent("redirect_uri"), format!("http://{}/auth/callback", app.address));
    let challenge = URL_SAFE_NO_PAD.encode(palisade::crypto::sha256(sent("code_verifier").as_bytes()));
    assert_eq!(challenge, parameter("code_challenge"));
}
