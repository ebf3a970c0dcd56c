//! The attack table for an issuer with one relaxation on. It accepts the attacks on that rule only.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Attack, AttackSetup, claims, malformed, signature};
use crate::support::ACME;

/// Settings, the parameters and claims of a valid token, and the rows of the table that it accepts.
type Relaxation<'a> = (&'a [(&'a str, &'a str)], (Value, Value), &'a [&'a str]);

/// Runs the whole table. Rejections are one event each, whatever the reason.
async fn accepted(setup: &AttackSetup) -> BTreeSet<String> {
    let tables: [fn(&AttackSetup) -> Vec<Attack>; 10] = [
        signature::signatures,
        signature::unknown_keys,
        signature::algorithms,
        claims::issuers,
        claims::audiences,
        claims::lifetimes,
        claims::token_types,
        malformed::own_keys,
        malformed::ambiguous,
        malformed::two_credentials,
    ];
    let mut accepted = BTreeSet::new();
    for (name, parts, _) in tables.iter().flat_map(|table| table(setup)) {
        let reply = setup.get(&parts).await;
        if reply.status == 200 {
            accepted.insert(if name.starts_with("aud ") { "any aud".to_owned() } else { name });
        } else {
            assert!([400, 401, 431].contains(&reply.status.as_u16()), "{name}: {reply:#?}");
            let events = reply.events();
            assert_eq!((events.len(), events[0]["event"].as_str()), (1, "authn_token_invalid"), "{name}");
        }
    }
    accepted
}

#[tokio::test]
async fn authn_07_attack_table_holds_for_an_issuer_with_each_relaxation() {
    let acme = ACME.id.to_string();
    let map = format!("acme={acme}");
    let same = || (json!({}), json!({}));
    let subjects = [
        "no subject",
        "empty subject",
        "subject of control characters",
        "subject too long",
        "subject is a number",
        "subject of an API key",
        "subject is a space",
        "subject with a direction override",
        "sub null",
    ];
    let tenants = ["no tenant", "tenant no UUID", "two tenants", "tenant in braces", "tenant without hyphens"];
    let templated = [
        ("ISSUER", "{url}/{tid}"),
        ("DISCOVERY_URL", "{url}/.well-known/openid-configuration"),
        ("TENANT_CLAIM", "tid"),
        ("TENANTS", &acme),
    ];
    let jwt = || (json!({ "typ": "JWT" }), json!({ "use": "access" }));
    let relaxations: &[Relaxation<'_>] = &[
        (&[("TOKEN_TYPE", "at+jwt, none")], same(), &["no typ"]),
        (&[("TOKEN_TYPE", "at+jwt, JWT")], same(), &["typ \"JWT\"", "typ \"application/JWT\""]),
        (
            &[("TOKEN_TYPE", "JWT"), ("ACCESS_TOKEN_CLAIMS", "use=access")],
            jwt(),
            &["typ \"JWT\"", "typ \"application/JWT\"", "an ID token's nonce"],
        ),
        (&[("AUDIENCE", "some-client"), ("AUDIENCE_CLAIM", "client_id")], same(), &["any aud"]),
        (&[("SUBJECT_CLAIM", "uid")], (json!({}), json!({ "uid": "a-caller" })), &subjects),
        (&[("FIXED_CLIENT", "portal")], same(), &["no client", "empty client", "client is a number"]),
        (&templated, (json!({}), json!({ "iss": format!("{{url}}/{acme}"), "tid": acme })), &tenants),
        (&[("JWKS_URL", "{url}/keys")], same(), &[]),
        (&[("ALGORITHMS", "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, Ed25519")], same(), &[]),
        (&[("FRACTIONAL_TIMES", "true")], same(), &["exp as a fraction", "iat as a float", "nbf as a float"]),
        (&[("MAX_TOKEN_LIFETIME_SECONDS", "7200")], same(), &["longer than the cap", "longer than the cap, and old"]),
        (&[("MAX_TOKEN_BYTES", "24576")], same(), &["valid, but padded beyond the limit"]),
        (&[("MAX_CLAIM_ITEMS", "4096")], same(), &["a list too long"]),
        (&[("ACCEPT_ACTORS", "true")], same(), &["an actor"]),
        (&[("TENANT_MAP", &map)], (json!({}), json!({ "tenant_id": "acme" })), &["tenant no UUID"]),
        (
            &[("CLIENT_CLAIM", "cid")],
            (json!({}), json!({ "cid": "some-client" })),
            &["no client", "empty client", "client is a number"],
        ),
    ];
    for (settings, shape, expected) in relaxations {
        let setup = AttackSetup::with_settings(settings, shape.clone()).await;
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(accepted(&setup).await, expected, "{settings:?}");
    }
}
