//! Signatures, keys and algorithms.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Attack, Field, authorization, bearer, changed, row};
use crate::{authn::assert_refused, support::TestKey};

#[tokio::test]
async fn authn_02_a_signature_that_is_not_the_issuers_is_refused() {
    let field = Field::new().await;
    let (header, claims) = (field.header().to_string(), field.claims().to_string());
    let good = field.good();
    let parts: Vec<&str> = good.split('.').collect();
    let richer = URL_SAFE_NO_PAD.encode(changed(field.claims(), "sub", json!("somebody-else")).to_string());
    let other = field.issuer.token(&field.ec, field.now());
    let other_signature = other.rsplit_once('.').unwrap().1;
    let token = |signature: &str| format!("{}.{}.{signature}", parts[0], parts[1]);
    field
        .refuses(vec![
            row("another key under the same id", &field.stranger.sign_text(&header, &claims), "signature"),
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
        ])
        .await;
}

#[tokio::test]
async fn authn_02_a_key_the_issuer_does_not_have_is_refused() {
    let field = Field::new().await;
    let mut attacks: Vec<Attack> =
        ["unknown", "../../etc/passwd", "' or 1=1 --", "ec-1\n", "EC-1", "", &"k".repeat(10_000 / 2)]
            .into_iter()
            .map(|kid| row(format!("kid {kid:.20}"), &field.with_header("kid", kid), "unknown_key"))
            .collect();
    attacks.push(row("kid of 10 kB", &field.with_header("kid", "k".repeat(10_000)), "too_long"));
    attacks.push(row("no kid", &field.with_header("kid", Value::Null), "unknown_key"));
    attacks.push(row("kid is a list", &field.with_header("kid", json!(["ec-1"])), "unknown_key"));
    let for_encryption = json!({ "alg": "ES256", "typ": "at+jwt", "kid": field.encryption.id }).to_string();
    let claims = field.claims().to_string();
    attacks.push(row("a key for encryption", &field.encryption.sign_text(&for_encryption, &claims), "unknown_key"));
    let weak = json!({ "alg": "RS256", "typ": "at+jwt", "kid": "weak" }).to_string();
    attacks.push(row("a key of 1024 bits", &field.rsa.sign_text(&weak, &claims), "unknown_key"));
    field.refuses(attacks).await;
}

#[tokio::test]
async fn authn_08_what_cannot_be_a_key_id_is_not_asked_for() {
    let field = Field::new().await;
    let asked = field.issuer.key_requests();
    for kid in ["", "../../etc/passwd", "' or 1=1 --", "a b", "a/b", "\u{e9}", &"k".repeat(129)] {
        assert_refused(&field.get(&bearer(&field.with_header("kid", kid))).await, kid);
    }
    assert_eq!(field.issuer.key_requests(), asked, "a token made the service ask for keys");
    let longest = TestKey::es256(&"k".repeat(128));
    field.issuer.publish(&[&longest]);
    field.get(&bearer(&field.issuer.token(&longest, field.now()))).await.ok(200);
}

#[tokio::test]
async fn authn_03_only_the_keys_own_algorithm_is_accepted() {
    let field = Field::new().await;
    let mut attacks: Vec<Attack> = [
        "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS256", "PS256", "EdDSA", "ES384", "ES512",
        "ES256K", "RS1", "es256", "ES256 ", "",
    ]
    .into_iter()
    .map(|alg| row(format!("alg {alg:?}"), &field.with_header("alg", alg), "algorithm"))
    .collect();
    attacks.push(row("alg is a list", &field.with_header("alg", json!(["ES256"])), "algorithm"));
    attacks.push(row("no alg", &field.with_header("alg", Value::Null), "algorithm"));
    let unsigned = json!({ "alg": "none", "typ": "at+jwt", "kid": field.ec.id }).to_string();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    attacks.push(row(
        "none, unsigned",
        &format!("{}.{}.", part(&unsigned), part(&field.claims().to_string())),
        "algorithm",
    ));
    // The public key, which everybody has, used as the secret of an HMAC.
    for key in [&field.ec, &field.rsa] {
        for secret in [key.public_der(), key.jwk().to_string().into_bytes()] {
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            (header.kid, header.typ) = (Some(key.id.clone()), Some("at+jwt".to_owned()));
            let secret = jsonwebtoken::EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &field.claims(), &secret).unwrap();
            attacks.push(row(format!("{}'s public key as HMAC secret", key.alg), &token, "algorithm"));
        }
    }
    let claims = field.claims().to_string();
    let mixed = |alg: &str, kid: &str| json!({ "alg": alg, "typ": "at+jwt", "kid": kid }).to_string();
    let (ec, rsa) = (&field.ec, &field.rsa);
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
        "PS256 of a key that is for RS256",
        &rsa.sign_text(&mixed("PS256", &rsa.id), &claims),
        "algorithm",
    ));
    field.refuses(attacks).await;
}

/// Every character of a good token, replaced by its neighbour in the alphabet, which differs in the lowest bit, and by
/// a dot: none of the results lets anybody in.
#[tokio::test]
async fn authn_02_no_change_of_a_token_lets_anybody_in() {
    let field = Field::new().await;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let good = field.good();
    for place in 0..good.len() {
        let old = good.as_bytes()[place];
        let neighbour = alphabet.iter().position(|letter| *letter == old).map_or(b'A', |index| alphabet[index ^ 1]);
        for new in [neighbour, b'.'] {
            if new == old {
                continue;
            }
            let mut changed = good.clone().into_bytes();
            changed[place] = new;
            let reply = field.get(&authorization([b"Bearer ".as_slice(), &changed].concat())).await;
            assert_eq!(reply.status, 401, "at {place}: {}", char::from(new));
        }
    }
}
