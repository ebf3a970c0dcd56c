//! Ambiguous tokens and requests (AUTHN-08): tokens that bring their own key or have duplicate
//! names, and requests with two credentials or a token in the query.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Attack, AttackSetup, RequestParts, authorization, changed, row};
use crate::support::authn::challenge;

#[tokio::test]
async fn authn_08_headers_with_their_own_key_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(own_keys(&setup)).await;
    assert!(setup.issuer.key_requests() <= 2, "a token made the service fetch keys");
}

pub(super) fn own_keys(setup: &AttackSetup) -> Vec<Attack> {
    let url = "https://evil.example/keys";
    let parameters = [
        ("jwk", setup.stranger.jwk()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jku", json!(false)),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ];
    parameters.map(|(name, value)| row(name, &setup.with_header(name, value), "forbidden_header")).into()
}

#[tokio::test]
async fn authn_08_ambiguous_tokens_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(ambiguous(&setup)).await;
}

pub(super) fn ambiguous(setup: &AttackSetup) -> Vec<Attack> {
    let header = setup.header().to_string();
    let claims = setup.claims().to_string();
    let without =
        |object: &str, name: &str| changed(serde_json::from_str(object).unwrap(), name, Value::Null).to_string();
    let twice = |object: &str, member: &str| format!("{{{member},{}", &object[1..]);
    let signed = |header: &str, claims: &str| setup.ec.sign_text(header, claims);
    let good = setup.valid_token();
    let inner = URL_SAFE_NO_PAD.encode(&good);
    let tenant = r#""tenant_id":"0190a000-0000-7000-8000-000000061063""#;
    let nested = format!("{}1{}", r#"{"a":"#.repeat(17), "}".repeat(17));
    vec![
        row("alg twice", &signed(&twice(&header, r#""alg":"none""#), &claims), "malformed"),
        row("kid twice", &signed(&twice(&header, r#""kid":"other""#), &claims), "malformed"),
        row(
            "an unknown parameter twice",
            &signed(&twice(&twice(&header, r#""x":1"#), r#""x":2"#), &claims),
            "malformed",
        ),
        row("exp twice", &signed(&header, &twice(&claims, r#""exp":1"#)), "malformed"),
        row("sub twice", &signed(&header, &twice(&claims, r#""sub":"root""#)), "malformed"),
        row("tenant twice", &signed(&header, &twice(&claims, tenant)), "malformed"),
        row("twice, further in", &signed(&header, &twice(&claims, r#""a":{"b":1,"b":2}"#)), "malformed"),
        row("claims no object", &signed(&header, "[]"), "malformed"),
        row("claims null", &signed(&header, "null"), "malformed"),
        row("exp null", &signed(&header, &twice(&without(&claims, "exp"), r#""exp":null"#)), "claims"),
        row("sub null", &signed(&header, &twice(&without(&claims, "sub"), r#""sub":null"#)), "claims"),
        row("aud null", &signed(&header, &twice(&without(&claims, "aud"), r#""aud":null"#)), "claims"),
        row("iss null", &signed(&header, &twice(&without(&claims, "iss"), r#""iss":null"#)), "issuer"),
        row("kid null", &signed(&twice(&without(&header, "kid"), r#""kid":null"#), &claims), "unknown_key"),
        row("half an emoji in a claim", &signed(&header, &twice(&claims, r#""x":"\ud83d""#)), "malformed"),
        row("half an emoji in a claim's name", &signed(&header, &twice(&claims, r#""\ude00":1"#)), "malformed"),
        row("half an emoji in the header", &signed(&twice(&header, r#""x":"\ud83d\u0041""#), &claims), "malformed"),
        row("header no object", &signed("\"at+jwt\"", &claims), "malformed"),
        row("claims and more", &signed(&header, &format!("{claims}{{}}")), "malformed"),
        row("deep claims", &signed(&header, &twice(&claims, &format!(r#""deep":{nested}"#))), "malformed"),
        row(
            "a token in a token",
            &setup.ec.sign_text(&changed(setup.header(), "cty", json!("JWT")).to_string(), &good),
            "malformed",
        ),
        row("a token as its claims", &format!("{}.{inner}.{inner}", URL_SAFE_NO_PAD.encode(&header)), "malformed"),
        row("encrypted (JWE)", "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA", "malformed"),
        row("bad base64", "!!!.e30.e30", "malformed"),
        row(
            "claims not UTF-8",
            &format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode([0xff, 0xfe])),
            "malformed",
        ),
        row("of the greatest length", &"a".repeat(8 * 1024), "malformed"),
        row("a character longer", &"a".repeat(8 * 1024 + 1), "too_long"),
        row("valid, but padded beyond the limit", &setup.with_claims(&json!({ "x": "x".repeat(8000) })), "too_long"),
        row("a list too long", &setup.with_claims(&json!({ "x": vec!["x"; 257] })), "too_broad"),
        row("dots", "..", "malformed"),
        row("a space inside", &good.replacen('.', ". ", 1), "malformed"),
    ]
}

#[tokio::test]
async fn authn_08_two_credentials_and_tokens_in_the_query_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(two_credentials(&setup)).await;
    let good = setup.valid_token();
    let header = ("authorization", format!("Bearer {good}"));
    // The scheme may be in any case (RFC 9110 section 11.1).
    setup.get(&authorization(format!("bearer {good}"))).await.ok(200);
    let cookies = both(&[header, ("cookie", "theme=dark; lang=de".into())], "");
    setup.get(&cookies).await.ok(200);
    // A cookie alone is no credential.
    let cookie = both(&[("cookie", format!("access_token={good}"))], "");
    assert_eq!(challenge(&setup.get(&cookie).await).get("error"), None);
}

pub(super) fn two_credentials(setup: &AttackSetup) -> Vec<Attack> {
    let good = setup.valid_token();
    let header = ("authorization", format!("Bearer {good}"));
    let in_query = format!("?access_token={good}");
    let mut not_utf8 = format!("Bearer {good}").into_bytes();
    not_utf8.push(0xff);
    vec![
        ("two Authorization headers".into(), both(&[header.clone(), header.clone()], ""), "two_credentials"),
        (
            "the second is empty".into(),
            both(&[header.clone(), ("authorization", String::new())], ""),
            "two_credentials",
        ),
        (
            "header and session cookie".into(),
            both(&[header.clone(), ("cookie", "a=b; __Host-session=s".into())], ""),
            "two_credentials",
        ),
        (
            "header and token cookie".into(),
            both(&[header.clone(), ("cookie", format!("access_token={good}"))], ""),
            "two_credentials",
        ),
        ("header and query".into(), both(std::slice::from_ref(&header), &in_query), "two_credentials"),
        ("query twice".into(), both(&[], &format!("{in_query}&access_token=x")), "two_credentials"),
        ("query alone".into(), both(&[], &in_query), "in_query"),
        ("query alone, spelled oddly".into(), both(&[], &in_query.replacen("access", "%61ccess", 1)), "in_query"),
        ("another scheme".into(), authorization(format!("Basic {good}")), "malformed"),
        ("two spaces".into(), authorization(format!("Bearer  {good}")), "malformed"),
        ("a tab".into(), authorization(format!("Bearer\t{good}")), "malformed"),
        ("two in one".into(), authorization(format!("Bearer {good},Bearer {good}")), "malformed"),
        ("no token".into(), authorization("Bearer"), "malformed"),
        ("a token without scheme".into(), authorization(good.clone()), "malformed"),
        ("not UTF-8".into(), authorization(not_utf8), "malformed"),
    ]
}

fn both(headers: &[(&'static str, String)], query: &str) -> RequestParts {
    RequestParts {
        headers: headers.iter().map(|(name, value)| (*name, value.clone().into_bytes())).collect(),
        query: query.to_owned(),
    }
}
