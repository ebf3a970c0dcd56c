//! Tokens of the issuer with claims that this service must reject: issuer (AUTHN-04), audience
//! (AUTHN-05), times (AUTHN-06), and tokens that are not access tokens (AUTHN-07).

use serde_json::{Value, json};

use super::{Attack, AttackSetup, bearer, row};
use crate::support::{AUDIENCE, authn::assert_rejected};

#[tokio::test]
async fn authn_04_wrong_issuer_is_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(issuers(&setup)).await;
}

pub(super) fn issuers(setup: &AttackSetup) -> Vec<Attack> {
    let url = &setup.issuer.url;
    let wrong = [
        json!("https://evil.example"),
        json!(format!("{url}/")),
        json!(url.to_uppercase()),
        json!(format!("{url}.evil.example")),
        json!(format!(" {url}")),
        json!(&url[..url.len() - 1]),
        json!([url, "https://evil.example"]),
        json!([url]),
        json!({ "url": url }),
        json!(""),
        Value::Null,
    ];
    let attack = |iss: &Value| row(format!("iss {iss}"), &setup.with_claims(&json!({ "iss": iss })), "issuer");
    wrong.iter().map(attack).collect()
}

#[tokio::test]
async fn authn_05_wrong_audience_is_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(audiences(&setup)).await;
    let several = setup.with_claims(&json!({ "aud": ["api://another-api", AUDIENCE] }));
    setup.get(&bearer(&several)).await.ok(200);
}

pub(super) fn audiences(setup: &AttackSetup) -> Vec<Attack> {
    let near = [
        json!("api://another-api"),
        json!(format!("{AUDIENCE}/")),
        json!(AUDIENCE.to_uppercase()),
        json!(&AUDIENCE[..AUDIENCE.len() - 1]),
        json!(format!("{AUDIENCE} api://another-api")),
        json!("some-client"),
        json!(["api://another-api", "demo-web"]),
        json!([]),
        json!(""),
    ];
    let wrong_type = [json!({ AUDIENCE: true }), json!([[AUDIENCE]]), json!(1), Value::Null];
    let near = near.iter().map(|aud| (aud, "audience"));
    let all = near.chain(wrong_type.iter().map(|aud| (aud, "claims")));
    let attack = |(aud, reason)| row(format!("aud {aud}"), &setup.with_claims(&json!({ "aud": aud })), reason);
    all.map(attack).collect()
}

#[tokio::test]
async fn authn_06_tokens_outside_their_lifetime_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(lifetimes(&setup)).await;
    let now = setup.now();
    // The leeway for differing clocks is 30 s.
    let late = setup.with_claims(&json!({ "iat": now - 600, "exp": now - 15 }));
    setup.get(&bearer(&late)).await.ok(200);
    let early = setup.with_claims(&json!({ "iat": now + 30, "nbf": now + 30, "exp": now + 600 }));
    setup.get(&bearer(&early)).await.ok(200);
}

pub(super) fn lifetimes(setup: &AttackSetup) -> Vec<Attack> {
    let now = setup.now();
    let seconds = f64::from(u32::try_from(now).unwrap());
    let attacks = [
        ("expired", json!({ "iat": now - 600, "exp": now - 35 }), "expired"),
        ("expired long ago", json!({ "iat": 0, "exp": 1 }), "expired"),
        ("negative", json!({ "exp": -1 }), "claims"),
        ("the smallest integer", json!({ "exp": i64::MIN }), "claims"),
        ("issued in the future", json!({ "iat": now + 60, "exp": now + 600 }), "not_yet_valid"),
        ("not valid yet", json!({ "nbf": now + 60 }), "not_yet_valid"),
        ("longer than the cap", json!({ "iat": now, "exp": now + 901 }), "lifetime"),
        ("longer than the cap, and old", json!({ "iat": now - 5000, "exp": now + 60 }), "lifetime"),
        ("unlimited in effect", json!({ "exp": i64::MAX }), "lifetime"),
        ("issued at the smallest integer", json!({ "iat": i64::MIN, "exp": i64::MAX }), "lifetime"),
        ("no lifetime", json!({ "exp": now, "iat": now }), "lifetime"),
        ("ends before it begins", json!({ "exp": now, "iat": now + 20 }), "lifetime"),
        ("no exp", json!({ "exp": null }), "claims"),
        ("no iat", json!({ "iat": null }), "claims"),
        ("exp as text", json!({ "exp": (now + 600).to_string() }), "claims"),
        ("exp as a float", json!({ "exp": 1e15 }), "claims"),
        ("exp as a fraction", json!({ "exp": seconds + 600.5 }), "claims"),
        ("iat as a float", json!({ "iat": seconds + 0.5 }), "claims"),
        ("iat negative", json!({ "iat": -1 }), "lifetime"),
        ("nbf as a float", json!({ "nbf": seconds - 0.5 }), "claims"),
        ("nbf is a list", json!({ "nbf": [now] }), "claims"),
        ("exp beyond any integer", json!({ "exp": u64::MAX }), "claims"),
        ("exp is true", json!({ "exp": true }), "claims"),
        ("iat as text", json!({ "iat": now.to_string() }), "claims"),
        ("nbf as text", json!({ "nbf": now.to_string() }), "claims"),
    ];
    let rows = attacks.map(|(name, claims, reason)| row(name, &setup.with_claims(&claims), reason));
    rows.into()
}

#[tokio::test]
async fn authn_07_other_token_types_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(token_types(&setup)).await;
    let long = "s".repeat(255);
    let longest = setup.with_claims(&json!({ "sub": long, "client_id": long.replace('s', "c"), "jti": long }));
    setup.get(&bearer(&longest)).await.ok(200);
    for typ in ["AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        setup.get(&bearer(&setup.with_header("typ", typ))).await.ok(200);
    }
}

pub(super) fn token_types(setup: &AttackSetup) -> Vec<Attack> {
    let types = [
        "JWT",
        "at",
        "id+jwt",
        "logout+jwt",
        "rt+jwt",
        "dpop+jwt",
        "at+jwt+jwt",
        "application/JWT",
        "text/at+jwt",
        "applicatiom/at+jwt",
        "",
    ];
    let mut attacks: Vec<Attack> =
        types.iter().map(|typ| row(format!("typ {typ:?}"), &setup.with_header("typ", *typ), "token_type")).collect();
    attacks.push(row("typ is a number", &setup.with_header("typ", 1), "token_type"));
    attacks.push(row("no typ", &setup.with_header("typ", Value::Null), "token_type"));
    for (name, claims) in [
        ("an ID token's nonce", json!({ "nonce": "n" })),
        ("an ID token's at_hash", json!({ "at_hash": "h" })),
        ("an ID token's c_hash", json!({ "c_hash": "h" })),
        ("an ID token by name", json!({ "typ": "ID" })),
        ("a refresh token by name", json!({ "typ": "Refresh" })),
        ("an ID token by use", json!({ "token_use": "id" })),
        ("a security event", json!({ "events": {} })),
    ] {
        attacks.push(row(name, &setup.with_claims(&claims), "token_type"));
    }
    for (name, claims) in [
        ("no subject", json!({ "sub": null })),
        ("empty subject", json!({ "sub": "" })),
        ("subject of control characters", json!({ "sub": "a\nb" })),
        ("subject too long", json!({ "sub": "s".repeat(256) })),
        ("subject is a number", json!({ "sub": 1 })),
        ("subject of an API key", json!({ "sub": "api-key:0190a000-0000-7000-8000-00000000ac3e" })),
        ("no client", json!({ "client_id": null })),
        ("empty client", json!({ "client_id": "" })),
        ("client is a number", json!({ "client_id": 1 })),
        ("no tenant", json!({ "tenant_id": null })),
        ("tenant no UUID", json!({ "tenant_id": "acme" })),
        ("two tenants", json!({ "tenant_id": ["0190a000-0000-7000-8000-00000000ac3e"] })),
        ("roles no array", json!({ "roles": "admin" })),
        ("roles of numbers", json!({ "roles": [1] })),
        ("scope is a number", json!({ "scope": 1 })),
        ("jti is a number", json!({ "jti": 1 })),
        ("jti is empty", json!({ "jti": "" })),
        ("jti too long for a revocation", json!({ "jti": "j".repeat(256) })),
        ("jti with a control character", json!({ "jti": "j\n" })),
        ("subject is a space", json!({ "sub": " " })),
        ("subject with a direction override", json!({ "sub": "ad\u{202e}nim" })),
        ("tenant in braces", json!({ "tenant_id": "{0190a000-0000-7000-8000-00000000ac3e}" })),
        ("tenant without hyphens", json!({ "tenant_id": "0190a00000007000800000000000ac3e" })),
    ] {
        attacks.push(row(name, &setup.with_claims(&claims), "claims"));
    }
    for bound in [json!({ "x5t#S256": "AA" }), json!({ "jkt": "AA" })] {
        attacks.push(row(
            "bound to a key that the request does not prove",
            &setup.with_claims(&json!({ "cnf": bound })),
            "binding",
        ));
    }
    attacks.push(row(
        "a client that is not listed as a service",
        &setup.with_claims(&json!({ "sub": "some-client" })),
        "service_client",
    ));
    let actor = json!({ "act": { "sub": "helpdesk" } });
    attacks.push(row("an actor", &setup.with_claims(&actor), "actor"));
    attacks.push(row("an opaque refresh token", "Zm9v", "malformed"));
    attacks
}

/// The event of a rejected token names the claim, for the operator who sets up an issuer. The caller
/// does not learn it.
#[tokio::test]
async fn log_01_rejected_tokens_name_the_claim_in_their_event() {
    let setup = AttackSetup::new().await;
    for (change, claim) in [
        (json!({ "aud": null }), Some("aud")),
        (json!({ "sub": null }), Some("sub")),
        (json!({ "sub": "a\nb" }), Some("sub")),
        (json!({ "iat": null }), Some("iat")),
        (json!({ "iat": 1.5 }), Some("iat")),
        (json!({ "client_id": " " }), Some("client")),
        (json!({ "tenant_id": "acme" }), Some("tenant")),
        (json!({ "roles": "admin" }), Some("roles")),
        (json!({ "scope": 1 }), Some("scope")),
        (json!({ "jti": "" }), Some("jti")),
        (json!({ "iss": "https://evil.example" }), None),
    ] {
        let reply = setup.get(&bearer(&setup.with_claims(&change))).await;
        assert_rejected(&reply, &change.to_string());
        assert_eq!(reply.events()[0].get("claim").map(String::as_str), claim, "{change}");
    }
}
