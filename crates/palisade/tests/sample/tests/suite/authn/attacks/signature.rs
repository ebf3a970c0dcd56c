//! Signatures (AUTHN-02), algorithms (AUTHN-03) and key ids (AUTHN-08) that attackers choose.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Attack, AttackSetup, authorization, bearer, changed, row};
use crate::support::{
    MisbehavingIssuer, SERVICE, TestKey, UNTHROTTLED,
    authn::{assert_rejected, reject_reason},
};

#[tokio::test]
async fn authn_02_invalid_signatures_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(signatures(&setup)).await;
}

pub(super) fn signatures(setup: &AttackSetup) -> Vec<Attack> {
    let header = setup.header().to_string();
    let claims = setup.claims().to_string();
    let good = setup.valid_token();
    let parts: Vec<&str> = good.split('.').collect();
    let richer = URL_SAFE_NO_PAD.encode(changed(setup.claims(), "sub", json!("another-subject")).to_string());
    let other = setup.valid_token();
    let other_signature = other.rsplit_once('.').unwrap().1;
    let token = |signature: &str| format!("{}.{}.{signature}", parts[0], parts[1]);
    vec![
        row("another key under the same id", &setup.stranger.sign_text(&header, &claims), "signature"),
        row("changed claims", &format!("{}.{richer}.{}", parts[0], parts[2]), "signature"),
        row("another token's signature", &token(other_signature), "signature"),
        row("no signature", &token(""), "signature"),
        row("half a signature", &token(&parts[2][..40]), "signature"),
        row("a longer signature", &token(&format!("{}AAAA", parts[2])), "signature"),
        row("zeros", &token(&URL_SAFE_NO_PAD.encode([0; 64])), "signature"),
        row("padding", &token(&format!("{}==", parts[2])), "malformed"),
        row("the standard alphabet", &token(&format!("+/{}", &parts[2][2..])), "malformed"),
        row("a part too few", &format!("{}.{}", parts[0], parts[1]), "malformed"),
        row("a part too many", &format!("{good}.{}", parts[2]), "malformed"),
        row("a dot at the end", &format!("{good}."), "malformed"),
    ]
}

#[tokio::test]
async fn authn_02_unknown_keys_are_rejected() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(unknown_keys(&setup)).await;
}

pub(super) fn unknown_keys(setup: &AttackSetup) -> Vec<Attack> {
    let mut attacks: Vec<Attack> =
        ["unknown", "../../etc/passwd", "' or 1=1 --", "ec-1\n", "EC-1", "", &"k".repeat(10_000 / 2)]
            .into_iter()
            .map(|kid| row(format!("kid {kid:.20}"), &setup.with_header("kid", kid), "unknown_key"))
            .collect();
    attacks.push(row("kid of 10 kB", &setup.with_header("kid", "k".repeat(10_000)), "too_long"));
    attacks.push(row("no kid", &setup.with_header("kid", Value::Null), "unknown_key"));
    attacks.push(row("kid is a list", &setup.with_header("kid", json!(["ec-1"])), "unknown_key"));
    let for_encryption = setup.header_of("ES256", &setup.encryption.id);
    let claims = setup.claims().to_string();
    attacks.push(row("a key for encryption", &setup.encryption.sign_text(&for_encryption, &claims), "unknown_key"));
    let weak = setup.header_of("RS256", "weak");
    attacks.push(row("a key of 1024 bits", &setup.rsa.sign_text(&weak, &claims), "unknown_key"));
    attacks
}

#[tokio::test]
async fn authn_08_malformed_key_ids_cause_no_fetch() {
    let setup = AttackSetup::new().await;
    let fetches = setup.issuer.key_requests();
    for kid in ["", "a\nb", "\u{0}", &"k".repeat(257)] {
        assert_rejected(&setup.get(&bearer(&setup.with_header("kid", kid))).await, kid);
    }
    assert_eq!(setup.issuer.key_requests(), fetches, "a token made the service fetch keys");
    let longest = TestKey::es256(&"k".repeat(256));
    setup.issuer.publish(&[&longest]);
    setup.get(&bearer(&setup.issuer.token(&longest, setup.now()))).await.ok(200);
}

/// An id is only compared with those of the set, whatever it looks like.
#[tokio::test]
async fn authn_08_key_ids_of_any_text_are_compared_with_the_set() {
    let ids = ["key/a", "public:abc", "urn:x:1", "iBAkwWyW/GzZB0b==", "../../etc/passwd", "' or 1=1 --", "\u{e9} x"];
    let keys = ids.map(TestKey::es256);
    let issuer = MisbehavingIssuer::with_keys(&SERVICE, &keys.each_ref()).await;
    let app = issuer.app(&UNTHROTTLED).await;
    app.wait_until_ready().await;
    let now = app.clock.timestamp();
    for (key, other) in keys.iter().zip(keys.iter().skip(1)) {
        app.bearer(issuer.token(key, now)).get("/v1/me").await.ok(200);
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": key.id }).to_string();
        let forged = app.bearer(other.sign_text(&header, &issuer.claims(now).to_string())).get("/v1/me").await;
        assert_eq!(reject_reason(&forged), "signature", "{}", key.id);
    }
}

#[tokio::test]
async fn authn_03_only_the_algorithm_of_the_key_is_accepted() {
    let setup = AttackSetup::new().await;
    setup.assert_all_rejected(algorithms(&setup)).await;
}

pub(super) fn algorithms(setup: &AttackSetup) -> Vec<Attack> {
    let mut attacks: Vec<Attack> = [
        "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS256", "PS256", "EdDSA", "ES384", "ES512",
        "ES256K", "RS1", "es256", "ES256 ", "",
    ]
    .into_iter()
    .map(|alg| row(format!("alg {alg:?}"), &setup.with_header("alg", alg), "algorithm"))
    .collect();
    attacks.push(row("alg is a list", &setup.with_header("alg", json!(["ES256"])), "algorithm"));
    attacks.push(row("no alg", &setup.with_header("alg", Value::Null), "algorithm"));
    let unsigned = setup.header_of("none", &setup.ec.id);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    attacks.push(row(
        "none, unsigned",
        &format!("{}.{}.", part(&unsigned), part(&setup.claims().to_string())),
        "algorithm",
    ));
    // Algorithm confusion: the public key as the secret of an HMAC (RFC 8725 section 2.1).
    for key in [&setup.ec, &setup.rsa] {
        for secret in [key.public_der(), key.jwk().to_string().into_bytes()] {
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            (header.kid, header.typ) = (Some(key.id.clone()), setup.header()["typ"].as_str().map(str::to_owned));
            let secret = jsonwebtoken::EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &setup.claims(), &secret).unwrap();
            attacks.push(row(format!("{}'s public key as HMAC secret", key.alg), &token, "algorithm"));
        }
    }
    let claims = setup.claims().to_string();
    let mixed = |alg: &str, kid: &str| setup.header_of(alg, kid);
    let ec = &setup.ec;
    let rsa = &setup.rsa;
    attacks.push(row(
        "EC signature under the RSA key's id",
        &ec.sign_text(&mixed("ES256", &rsa.id), &claims),
        "algorithm",
    ));
    attacks.push(row(
        "RSA signature under the EC key's id",
        &rsa.sign_text(&mixed("RS256", &ec.id), &claims),
        "algorithm",
    ));
    attacks.push(row(
        "PS256 signature of an RS256 key",
        &rsa.sign_text(&mixed("PS256", &rsa.id), &claims),
        "algorithm",
    ));
    attacks
}

/// Replaces each character by its neighbour in the alphabet, which differs in the lowest bit, and
/// by a dot.
#[tokio::test]
async fn authn_02_tokens_with_a_changed_character_are_rejected() {
    let setup = AttackSetup::new().await;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let good = setup.valid_token();
    for position in 0..good.len() {
        let old = good.as_bytes()[position];
        let neighbour = alphabet.iter().position(|letter| *letter == old).map_or(b'A', |index| alphabet[index ^ 1]);
        for new in [neighbour, b'.'] {
            if new == old {
                continue;
            }
            let mut changed = good.clone().into_bytes();
            changed[position] = new;
            let reply = setup.get(&authorization([b"Bearer ".as_slice(), &changed].concat())).await;
            assert_eq!(reply.status, 401, "at {position}: {}", char::from(new));
        }
    }
}
