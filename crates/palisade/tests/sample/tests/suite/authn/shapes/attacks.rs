//! The attack table for an issuer with every relaxation on: only the rules relaxed accept more.

use serde_json::{Value, json};

use super::{Shape, assert_reason};
use crate::support::{ACME, TestKey, authn::reject_reason};

/// Every relaxation at once.
async fn relaxed() -> Shape {
    let map = format!("acme={}", ACME.id);
    Shape::new(&[
        ("TOKEN_TYPE", "none, JWT"),
        ("AUDIENCE", "api://a, api://b"),
        ("AUDIENCE_CLAIM", "resource"),
        ("CLIENTS", "web, job"),
        ("SERVICE_CLIENTS", "job"),
        ("ALGORITHMS", "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, Ed25519"),
        ("FRACTIONAL_TIMES", "true"),
        ("SUBJECT_CLAIM", "uid"),
        ("TENANT_CLAIM", "/organization/*~"),
        ("TENANT_MAP", &map),
        ("ROLES_CLAIM", "groups"),
        ("ROLE_MAP", "Admins=admin"),
        ("SCOPE_PREFIX", "notes/"),
        ("SCOPE_MAP", "Read=notes:read"),
        ("MAX_TOKEN_BYTES", "24576"),
        ("MAX_CLAIM_ITEMS", "4096"),
        ("MAX_TOKEN_LIFETIME_SECONDS", "7200"),
    ])
    .await
}

/// The claims of a valid token of this issuer.
fn valid() -> Value {
    json!({
        "aud": null, "resource": "api://b", "client_id": "web", "sub": null, "uid": "alice", "tenant_id": null,
        "organization": { "acme": {} }, "roles": null, "groups": ["Admins", "x"], "scope": "notes/Read openid",
    })
}

fn with(changes: &Value) -> Value {
    let mut claims = valid();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn authn_07_relaxed_issuer_still_rejects_attacks() {
    let shape = relaxed().await;
    let untyped = json!({ "typ": null });
    let me = async |claims: Value| shape.send(json!({ "typ": null }), claims).await;
    let accepted = me(valid()).await.ok(200);
    assert_eq!((&accepted["roles"], &accepted["scopes"]), (&json!(["admin"]), &json!(["notes:read"])));
    let now = shape.now();
    for (claims, reason, claim) in [
        (json!({ "nonce": "n" }), "token_type", "nonce"),
        (json!({ "at_hash": "h" }), "token_type", "at_hash"),
        (json!({ "typ": "Refresh" }), "token_type", "typ"),
        (json!({ "token_use": "id" }), "token_type", "token_use"),
        (json!({ "aud": "web" }), "token_type", "aud"),
        (json!({ "aud": ["web"] }), "token_type", "aud"),
        (json!({ "resource": "api://c" }), "audience", ""),
        (json!({ "resource": null, "aud": "api://a" }), "claims", "aud"),
        (json!({ "client_id": "evil" }), "client", ""),
        (json!({ "client_id": null }), "claims", "client"),
        (json!({ "uid": null }), "claims", "sub"),
        (json!({ "uid": "a\nb" }), "claims", "sub"),
        (json!({ "uid": "service:x" }), "claims", "sub"),
        (json!({ "uid": "web" }), "service_client", ""),
        (json!({ "sub": "web" }), "service_client", ""),
        (json!({ "organization": { "acme": {}, "b": {} } }), "claims", "tenant"),
        (json!({ "organization": { "b": {} } }), "tenant", ""),
        (json!({ "groups": "Admins" }), "claims", "roles"),
        (json!({ "exp": now - 60, "iat": now - 600 }), "expired", ""),
        (json!({ "iat": now + 60 }), "not_yet_valid", ""),
        (json!({ "exp": now + 7_300 }), "lifetime", ""),
        (json!({ "exp": null }), "claims", "exp"),
        (json!({ "iss": "https://evil.example" }), "issuer", ""),
        (json!({ "cnf": { "jkt": "AA" } }), "binding", ""),
    ] {
        assert_reason(&me(with(&claims)).await, reason, claim);
    }
    for (header, reason) in [
        (json!({ "typ": "at+jwt" }), "token_type"),
        (json!({ "typ": "id+jwt" }), "token_type"),
        (json!({ "typ": null, "alg": "none" }), "algorithm"),
        (json!({ "typ": null, "alg": "HS256" }), "algorithm"),
        (json!({ "typ": null, "alg": "RS384" }), "algorithm"),
        (json!({ "typ": null, "alg": "ES256" }), "algorithm"),
        (json!({ "typ": null, "kid": "unknown" }), "unknown_key"),
        (json!({ "typ": null, "jwk": TestKey::es256("a").jwk() }), "forbidden_header"),
        (json!({ "typ": null, "crit": ["exp"] }), "forbidden_header"),
    ] {
        assert_eq!(reject_reason(&shape.send(header.clone(), valid()).await), reason, "{header}");
    }
    let good = shape.token(&untyped, &valid());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = TestKey::rs256("a").sign_text("{}", "{}");
    let forged = format!("{signed}.{}", other.rsplit('.').next().unwrap());
    assert_eq!(reject_reason(&shape.app.bearer(forged).get("/v1/me").await), "signature");
    // Names of this API are none of the issuer's.
    let plain = me(with(&json!({ "groups": ["admin", "writer"], "scope": "notes:read notes:write" }))).await.ok(200);
    assert_eq!((&plain["roles"], &plain["scopes"]), (&json!([]), &json!([])));
    let job = me(with(&json!({ "uid": "job", "client_id": "job" }))).await.ok(200);
    assert_eq!((&job["kind"], &job["roles"]), (&json!("service"), &json!(["service"])));
}
