//! Who is calling. Every refusal is the same opaque 401, whatever was wrong.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use service::{
    authz::{
        matrix::{self, Callers, Scope},
        policy::Role,
    },
    dev::{demo, issuer::SigningKey},
};

use crate::support::{ACME, Reply, TestApp};

/// One answer for every bad credential.
#[track_caller]
fn assert_refused(reply: &Reply, case: &str) {
    assert_eq!(reply.status, 401, "{case}: {reply:#?}");
    assert_eq!(reply.problem(401), "unauthenticated", "{case}");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{case}");
    assert_eq!(reply.body["detail"], Value::Null, "{case}");
}

#[tokio::test]
async fn authn_01_every_operation_refuses_anonymous_callers() {
    let app = TestApp::shared();
    let anonymous = app.anonymous();
    let mut refused = 0;
    // From the router, so that what the document hides is tried as well.
    for (method, path) in &app.served {
        let row = matrix::find(method, path).unwrap();
        let filled: Vec<String> = path
            .split('/')
            .map(|part| if part.starts_with(':') { demo::FIRST_ORDER.to_string() } else { part.to_owned() })
            .collect();
        let request = anonymous.request(method.clone(), &filled.join("/")).header("content-type", "text/plain");
        let reply = anonymous.send(request.body("not even JSON")).await;
        if row.callers == Callers::Public {
            assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
        } else {
            assert_eq!(reply.problem(401), "unauthenticated", "{method} {path}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{method} {path}");
            assert_eq!(reply.body["errors"], Value::Null, "{method} {path} told an anonymous caller about the body");
            refused += 1;
        }
    }
    assert!(refused >= 7, "only {refused} operations were tried");
}

#[tokio::test]
async fn authn_02_a_token_of_the_issuer_is_accepted() {
    let app = TestApp::shared();
    let me = app.user_of(&ACME, Role::Sales, &[Scope::OrdersRead]).get("/v1/me").await.ok(200);
    let expected = json!({
        "subject": "sales@acme.example", "clientId": "demo-web", "kind": "user",
        "tenantId": ACME.id.to_string(), "roles": ["sales"], "scopes": ["orders:read"],
    });
    assert_eq!(me, expected);
}

#[tokio::test]
async fn authn_02_a_signature_that_is_not_the_issuers_is_refused() {
    let app = TestApp::shared();
    // The same key id, another key.
    let stranger = SigningKey::generate().unwrap();
    assert_refused(&app.bearer(app.forge().key(&stranger).token()).get("/v1/me").await, "another key");

    let good = app.forge().token();
    let parts: Vec<&str> = good.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["roles"] = json!(["admin", "auditor"]);
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    for (case, token) in [
        ("changed claims", format!("{}.{changed}.{}", parts[0], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("a part too few", format!("{}.{}", parts[0], parts[1])),
        ("a part too many", format!("{good}.{}", parts[2])),
        ("half a signature", good[..good.len() - 40].to_owned()),
    ] {
        assert_refused(&app.bearer(token).get("/v1/me").await, case);
    }
    app.bearer(good).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_02_a_key_the_issuer_does_not_have_is_refused() {
    let app = TestApp::shared();
    for kid in ["unknown", "../../etc/passwd", "' or 1=1 --", "", &"k".repeat(200)] {
        assert_refused(&app.bearer(app.forge().header("kid", kid).token()).get("/v1/me").await, kid);
    }
    assert_refused(&app.bearer(app.forge().header("kid", Value::Null).token()).get("/v1/me").await, "no kid");
}

#[tokio::test]
async fn authn_03_only_the_keys_own_algorithm_is_accepted() {
    let app = TestApp::shared();
    for alg in ["none", "None", "NONE", "nOnE", "HS256", "HS512", "RS256", "PS256", "ES384", "EdDSA", "es256", ""] {
        assert_refused(&app.bearer(app.forge().header("alg", alg).token()).get("/v1/me").await, alg);
    }
    // The public key, which everybody has, used as the secret of an HMAC.
    let jwk = app.issuer.key().jwk();
    let secret = jwk["x"].as_str().unwrap();
    let header = jsonwebtoken::Header {
        kid: Some(app.issuer.key().id().to_owned()),
        typ: Some("at+jwt".to_owned()),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256)
    };
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let confused = jsonwebtoken::encode(&header, app.forge().claims(), &key).unwrap();
    assert_refused(&app.bearer(confused).get("/v1/me").await, "public key as HMAC secret");
}

#[tokio::test]
async fn authn_04_wrong_issuer_is_refused() {
    let app = TestApp::shared();
    let issuer = app.issuer.url().to_owned();
    for wrong in [
        json!("https://evil.example"),
        json!(format!("{issuer}/")),
        json!(issuer.to_uppercase()),
        json!(format!("{issuer}.evil.example")),
        json!([issuer, "https://evil.example"]),
        json!(""),
        Value::Null,
    ] {
        let case = wrong.to_string();
        assert_refused(&app.bearer(app.forge().claim("iss", wrong).token()).get("/v1/me").await, &case);
    }
}

#[tokio::test]
async fn authn_05_wrong_audience_is_refused() {
    let app = TestApp::shared();
    for wrong in [
        json!("api://another-api"),
        json!("api://under-test/"),
        json!("API://UNDER-TEST"),
        json!("api://under"),
        json!(["api://another-api", "demo-web"]),
        json!([]),
        json!(""),
        json!({ "api://under-test": true }),
        Value::Null,
    ] {
        let case = wrong.to_string();
        assert_refused(&app.bearer(app.forge().claim("aud", wrong).token()).get("/v1/me").await, &case);
    }
    let several = app.forge().claim("aud", json!(["api://another-api", "api://under-test"])).token();
    app.bearer(several).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_06_a_token_is_valid_only_in_its_time() {
    let app = TestApp::shared();
    let now = app.forge().now();
    let cases = [
        ("expired", json!({ "iat": now - 600, "exp": now - 31 })),
        ("expired long ago", json!({ "iat": 0, "exp": 1 })),
        ("made in the future", json!({ "iat": now + 60, "exp": now + 600 })),
        ("not valid yet", json!({ "nbf": now + 60 })),
        ("longer than the cap", json!({ "iat": now, "exp": now + 901 })),
        ("as good as for ever", json!({ "exp": i64::MAX })),
        ("no lifetime", json!({ "exp": now, "iat": now })),
        ("ends before it begins", json!({ "exp": now, "iat": now + 20 })),
        ("no exp", json!({ "exp": null })),
        ("no iat", json!({ "iat": null })),
        ("exp as text", json!({ "exp": (now + 600).to_string() })),
        ("exp as a fraction", json!({ "exp": 1e15 })),
        ("nbf as text", json!({ "nbf": now.to_string() })),
        ("negative", json!({ "exp": -1 })),
    ];
    for (case, claims) in cases {
        let changed = claims.as_object().unwrap().iter();
        let forge = changed.fold(app.forge(), |forge, (name, value)| forge.claim(name, value.clone()));
        assert_refused(&app.bearer(forge.token()).get("/v1/me").await, case);
    }
    // Within the leeway of 30 s for clocks that differ.
    let late = app.forge().claim("iat", now - 600).claim("exp", now - 15).token();
    app.bearer(late).get("/v1/me").await.ok(200);
}

#[tokio::test]
async fn authn_06_a_cached_token_ends_when_it_says() {
    let app = TestApp::start().await;
    let user = app.user(Role::Viewer);
    user.get("/v1/me").await.ok(200);
    user.get("/v1/me").await.ok(200);
    app.clock.advance(Duration::from_secs(900 + 31));
    assert_refused(&user.get("/v1/me").await, "after exp");
}

#[tokio::test]
async fn authn_07_only_an_access_token_is_one() {
    let app = TestApp::shared();
    for typ in [json!("JWT"), json!("at"), json!("id+jwt"), json!("logout+jwt"), json!(""), json!(1), Value::Null] {
        let case = typ.to_string();
        assert_refused(&app.bearer(app.forge().header("typ", typ).token()).get("/v1/me").await, &case);
    }
    for typ in ["AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        app.bearer(app.forge().header("typ", typ).token()).get("/v1/me").await.ok(200);
    }
    let id_token = app.forge().claim("nonce", "n").token();
    assert_refused(&app.bearer(id_token).get("/v1/me").await, "an ID token's claims");
    for claim in ["sub", "client_id", "tenant_id"] {
        assert_refused(&app.bearer(app.forge().claim(claim, Value::Null).token()).get("/v1/me").await, claim);
    }
    assert_refused(&app.bearer(app.forge().claim("sub", "").token()).get("/v1/me").await, "empty subject");
    assert_refused(&app.bearer(app.forge().claim("tenant_id", "acme").token()).get("/v1/me").await, "tenant no UUID");
    assert_refused(&app.bearer(app.forge().claim("roles", "admin").token()).get("/v1/me").await, "roles no array");
}

#[tokio::test]
async fn authn_08_a_header_that_brings_its_own_key_is_refused() {
    let app = TestApp::shared();
    let stranger = SigningKey::generate().unwrap();
    let url = "https://evil.example/keys";
    for (name, value) in [
        ("jwk", stranger.jwk()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
    ] {
        assert_refused(&app.bearer(app.forge().header(name, value).token()).get("/v1/me").await, name);
    }
}

#[tokio::test]
async fn authn_08_one_credential_in_one_place() {
    let app = TestApp::shared();
    let token = app.forge().token();
    let anonymous = app.anonymous();
    let with = |values: &[String]| {
        values.iter().fold(anonymous.request(Method::GET, "/v1/me"), |r, value| r.header("authorization", value))
    };
    for values in [
        vec![format!("Bearer {token}"), format!("Bearer {token}")],
        vec![format!("Basic {token}")],
        vec![format!("Bearer  {token}")],
        vec![format!("Bearer {token} ")],
        vec![format!("Bearer {token},Bearer {token}")],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![token.clone()],
        vec![format!("Bearer {}", "a".repeat(9000))],
    ] {
        let reply = anonymous.send(with(&values)).await;
        // HTTP trims the space at a value's end, so this one is the good token after all.
        if values == [format!("Bearer {token} ")] {
            reply.ok(200);
        } else {
            assert_refused(&reply, &format!("{values:?}"));
        }
    }
    anonymous.send(with(&[format!("bearer {token}")])).await.ok(200);
    let in_query = anonymous.get(&format!("/v1/me?access_token={token}")).await;
    assert_eq!(in_query.problem(401), "unauthenticated");
}

#[tokio::test]
async fn authn_09_a_flood_of_unknown_keys_is_no_flood_of_fetches() {
    let app = TestApp::start().await;
    let user = app.user(Role::Viewer);
    let before = app.issuer.key_requests();
    for round in 0..20 {
        let stranger = app.bearer(app.forge().header("kid", format!("unknown-{round}")).token());
        // Some wait for the answer, some hang up while the keys are being fetched.
        let _ = tokio::time::timeout(Duration::from_millis(round % 4), stranger.get("/v1/me")).await;
        assert_refused(&stranger.get("/v1/me").await, "unknown");
    }
    assert_eq!(app.issuer.key_requests() - before, 1);
    user.get("/v1/me").await.ok(200);
}
