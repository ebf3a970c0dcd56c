//! Token shapes that an issuer's settings accept (AUTHN-03 to AUTHN-08): each setting accepts its
//! shape and nothing more. docs/issuers.md has the settings of real providers.

mod attacks;
mod keys;
mod names;
mod settings;

use serde_json::{Value, json};

use crate::support::{MisbehavingIssuer, Reply, SERVICE, TestApp, TestKey, UNTHROTTLED, authn::reject_reason};

/// An issuer with one RSA key, and a service with its settings.
struct Shape {
    app: TestApp,
    issuer: MisbehavingIssuer,
    key: TestKey,
}

impl Shape {
    /// `settings` are those of the first issuer, without `APP_OIDC__`.
    async fn new(settings: &[(&str, &str)]) -> Self {
        let key = TestKey::rs256("a");
        let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
        let settings: Vec<_> = settings.iter().map(|(name, value)| (format!("APP_OIDC__{name}"), *value)).collect();
        let settings = settings.iter().map(|(name, value)| (name.as_str(), *value));
        let app = issuer.app(&UNTHROTTLED.into_iter().chain(settings).collect::<Vec<_>>()).await;
        app.wait_until_ready().await;
        Self { app, issuer, key }
    }

    fn now(&self) -> i64 {
        self.app.clock.timestamp()
    }

    /// A token with these header parameters and claims set, or removed by null.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let base = json!({ "alg": "RS256", "kid": self.key.id, "typ": "at+jwt" });
        let claims = changed(self.issuer.claims(self.now()), claims);
        self.key.sign_text(&changed(base, header).to_string(), &claims.to_string())
    }

    /// The response to a token of the type `at+jwt` with these claims.
    async fn me(&self, claims: Value) -> Reply {
        self.send(json!({}), claims).await
    }

    async fn send(&self, header: Value, claims: Value) -> Reply {
        self.app.bearer(self.token(&header, &claims)).get("/v1/me").await
    }
}

fn changed(mut object: Value, changes: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() { drop(members.remove(name)) } else { drop(members.insert(name.clone(), value.clone())) }
    }
    object
}

/// The reason and the claim in the event of a rejected token.
#[track_caller]
fn reason(reply: &Reply) -> (String, String) {
    let reason = reject_reason(reply);
    (reason, reply.events()[0].get("claim").cloned().unwrap_or_default())
}

#[track_caller]
fn assert_reason(reply: &Reply, expected: &str, claim: &str) {
    assert_eq!(reason(reply), (expected.to_owned(), claim.to_owned()), "{reply:#?}");
}

#[tokio::test]
async fn authn_07_tokens_without_type_need_a_setting() {
    let shape = Shape::new(&[("TOKEN_TYPE", "none")]).await;
    let untyped = json!({ "typ": null });
    shape.send(untyped.clone(), json!({})).await.ok(200);
    for typ in [json!("JWT"), json!("none"), json!("at+jwt"), json!(""), json!(1), json!(["none"])] {
        assert_reason(&shape.send(json!({ "typ": typ }), json!({})).await, "token_type", "");
    }
    for (claims, mark) in [
        (json!({ "nonce": "n" }), "nonce"),
        (json!({ "at_hash": "h" }), "at_hash"),
        (json!({ "c_hash": "h" }), "c_hash"),
        (json!({ "token_use": "id" }), "token_use"),
        (json!({ "typ": "ID" }), "typ"),
        (json!({ "client_id": crate::support::AUDIENCE }), "aud"),
    ] {
        assert_reason(&shape.send(untyped.clone(), claims).await, "token_type", mark);
    }
    let both = Shape::new(&[("TOKEN_TYPE", "none, at+jwt")]).await;
    for header in [untyped, json!({})] {
        both.send(header, json!({})).await.ok(200);
    }
}

/// Keycloak before 25 copies `nonce` into access tokens, whose claim `typ` says what they are.
#[tokio::test]
async fn authn_07_proof_of_an_access_token_replaces_the_marks() {
    let shape = Shape::new(&[("TOKEN_TYPE", "JWT"), ("ACCESS_TOKEN_CLAIMS", "typ=Bearer")]).await;
    let jwt = json!({ "typ": "JWT" });
    shape.send(jwt.clone(), json!({ "typ": "Bearer", "nonce": "n" })).await.ok(200);
    for (claims, mark) in [
        (json!({}), "access_token_claims"),
        (json!({ "nonce": "n" }), "access_token_claims"),
        (json!({ "typ": "ID" }), "typ"),
        (json!({ "typ": "Bearer", "at_hash": "h" }), "at_hash"),
    ] {
        assert_reason(&shape.send(jwt.clone(), claims).await, "token_type", mark);
    }
    let default = Shape::new(&[("TOKEN_TYPE", "JWT")]).await;
    assert_reason(&default.send(jwt, json!({ "typ": "Bearer", "nonce": "n" })).await, "token_type", "nonce");
}

#[tokio::test]
async fn authn_05_audience_is_one_of_a_list_in_a_claim() {
    let shape = Shape::new(&[("AUDIENCE", "api://a, api://b"), ("CLIENTS", "web, job")]).await;
    let claims = |aud: Value, client: &str| json!({ "aud": aud, "client_id": client });
    for aud in [json!("api://a"), json!("api://b"), json!(["x", "api://b"])] {
        shape.me(claims(aud, "web")).await.ok(200);
    }
    for aud in [json!("api://a, api://b"), json!("api://"), json!([]), json!("")] {
        assert_reason(&shape.me(claims(aud, "web")).await, "audience", "");
    }
    assert_reason(&shape.me(claims(json!("api://a"), "other")).await, "client", "");

    let by_client = Shape::new(&[("AUDIENCE", "web"), ("AUDIENCE_CLAIM", "client_id")]).await;
    let without_aud = |client: Value| json!({ "aud": null, "client_id": client });
    by_client.me(without_aud(json!("web"))).await.ok(200);
    assert_reason(&by_client.me(without_aud(json!("other"))).await, "audience", "");
    assert_reason(&by_client.me(without_aud(json!(1))).await, "claims", "aud");
    assert_reason(&by_client.me(without_aud(Value::Null)).await, "claims", "aud");
}

/// Claims with times, from the time and the function that adds a fraction to one.
type Times = fn(i64, fn(i64) -> Value) -> Value;

#[tokio::test]
async fn authn_06_fractions_shorten_the_validity() {
    let fraction: fn(i64) -> Value = |seconds| json!(f64::from(u32::try_from(seconds).unwrap()) + 0.5);
    let strict = Shape::new(&[]).await;
    assert_reason(&strict.me(json!({ "exp": fraction(strict.now() + 600) })).await, "claims", "exp");
    let shape = Shape::new(&[("FRACTIONAL_TIMES", "true"), ("LEEWAY_SECONDS", "0")]).await;
    // Again if a second ends in between.
    let at_one_second = async |claims: Times| loop {
        let now = shape.now();
        let reply = shape.me(claims(now, fraction)).await;
        if shape.now() == now {
            return reply;
        }
    };
    let valid = at_one_second(|now, at| json!({ "iat": at(now - 60), "exp": at(now + 600), "nbf": at(now - 1) })).await;
    valid.ok(200);
    let cases: [(Times, &str); 5] = [
        (|now, at| json!({ "iat": now - 60, "exp": at(now) }), "expired"),
        (|now, at| json!({ "iat": at(now), "exp": now + 600 }), "not_yet_valid"),
        (|now, at| json!({ "nbf": at(now) }), "not_yet_valid"),
        (|now, at| json!({ "iat": now, "exp": at(now + 900) }), "lifetime"),
        (|now, _| json!({ "iat": now, "exp": (now + 600).to_string() }), "claims"),
    ];
    for (claims, expected) in cases {
        assert_eq!(reject_reason(&at_one_second(claims).await), expected, "{}", claims(0, fraction));
    }
}

/// People in many groups have large tokens. Their office must not be locked out for it.
#[tokio::test]
async fn authn_17_large_tokens_get_431_and_count_as_no_failure() {
    let groups: Vec<String> = (0..157).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let names: Vec<String> = (0..300).map(|number| format!("r{number}")).collect();
    let many = [json!({ "groups": groups }), json!({ "realm_access": { "roles": names } })];
    let key = TestKey::rs256("a");
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &[&key]).await;
    let app = issuer.app(&[]).await;
    app.wait_until_ready().await;
    let shape = Shape { app, issuer, key };
    let padding = json!({ "x": "x".repeat(9_000) });
    for _ in 0..15 {
        for claims in [&many[1], &padding] {
            assert_eq!(shape.me(claims.clone()).await.problem(431), "headers_too_large");
        }
    }
    assert_eq!(reject_reason(&shape.me(json!({ "sub": "" })).await), "claims", "the address is locked out");
    shape.me(json!({})).await.ok(200);

    let wide = Shape::new(&[("MAX_TOKEN_BYTES", "16384"), ("MAX_CLAIM_ITEMS", "512")]).await;
    for claims in many {
        wide.me(claims).await.ok(200);
    }
    assert_eq!(wide.me(json!({ "x": "x".repeat(16_000) })).await.problem(431), "headers_too_large");
    assert_eq!(wide.me(json!({ "x": vec!["x"; 513] })).await.problem(431), "headers_too_large");
}
