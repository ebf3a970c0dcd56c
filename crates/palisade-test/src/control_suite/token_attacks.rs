//! Attacks on tokens (AUTHN-02 to AUTHN-08). Each gets the same 401, and its event has the reason.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use palisade::authz::Callers;
use serde_json::{Value, json};

use super::Fixture;
use crate::{
    AUDIENCE, MisbehavingIssuer, Operation, Reply, TestApp, TestKey, TestService, UNTHROTTLED,
    authn::{assert_rejected, reject_reason},
};

/// A service, its issuer, and the keys that attackers sign with.
struct Attacks {
    app: TestApp,
    issuer: MisbehavingIssuer,
    ec: TestKey,
    rsa: TestKey,
    /// A key with the id of `ec` that the issuer does not publish.
    stranger: TestKey,
}

impl Attacks {
    async fn new(service: &'static TestService) -> Self {
        let ec = TestKey::es256("ec-1");
        let rsa = TestKey::rs256("rsa-1");
        let issuer = MisbehavingIssuer::with_keys(service, &[&ec, &rsa]).await;
        let app = issuer.app(&UNTHROTTLED).await;
        app.wait_until_ready().await;
        let attacks = Self { app, issuer, ec, rsa, stranger: TestKey::es256("ec-1") };
        // If valid tokens were rejected, the attacks would prove nothing.
        for key in [&attacks.ec, &attacks.rsa] {
            attacks.get_me(&attacks.issuer.token(key, attacks.now())).await.ok(200);
        }
        attacks
    }

    fn now(&self) -> i64 {
        self.app.clock.timestamp()
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.ec.id })
    }

    /// A token of the issuer with one header parameter set, or removed by null.
    fn with_header(&self, name: &str, value: impl Into<Value>) -> String {
        let claims = self.issuer.claims(self.now()).to_string();
        self.ec.sign_text(&changed(self.header(), name, value.into()).to_string(), &claims)
    }

    /// A token of the issuer with claims set, or removed by null.
    fn with_claims(&self, claims: &Value) -> String {
        let all = claims.as_object().unwrap().iter();
        let claims = all.fold(self.issuer.claims(self.now()), |all, (name, value)| changed(all, name, value.clone()));
        self.ec.sign_text(&self.header().to_string(), &claims.to_string())
    }

    async fn get_me(&self, token: &str) -> Reply {
        self.app.bearer(token).get("/v1/me").await
    }

    async fn assert_rejected(&self, name: &str, token: &str, reason: &str) {
        let reply = self.get_me(token).await;
        assert_eq!(reply.status, 401, "GET /v1/me accepts a token with {name}: {reply:#?}");
        assert_rejected(&reply, name);
        assert_eq!(reject_reason(&reply), reason, "{name}");
    }

    async fn assert_claims_rejected<const N: usize>(&self, attacks: [(Value, &str); N]) {
        for (claims, reason) in attacks {
            self.assert_rejected(&claims.to_string(), &self.with_claims(&claims), reason).await;
        }
    }
}

fn changed(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    object
}

/// Signatures of another key, of another token, cut or missing.
pub async fn signatures(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    let good = attacks.issuer.token(&attacks.ec, attacks.now());
    let other = attacks.issuer.token(&attacks.ec, attacks.now());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (_, other_signature) = other.rsplit_once('.').unwrap();
    let claims = attacks.issuer.claims(attacks.now()).to_string();
    let (header, _) = good.split_once('.').unwrap();
    let richer = changed(attacks.issuer.claims(attacks.now()), "sub", json!("another-subject")).to_string();
    for (name, token, reason) in [
        (
            "the signature of another key",
            attacks.stranger.sign_text(&attacks.header().to_string(), &claims),
            "signature",
        ),
        ("changed claims", format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(richer)), "signature"),
        ("the signature of another token", format!("{signed}.{other_signature}"), "signature"),
        ("no signature", format!("{signed}."), "signature"),
        ("half a signature", format!("{signed}.{}", &signature[..40]), "signature"),
        ("a signature of zeros", format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "signature"),
        ("a part too few", signed.to_owned(), "malformed"),
        ("an unknown key", attacks.with_header("kid", "unknown"), "unknown_key"),
    ] {
        attacks.assert_rejected(name, &token, reason).await;
    }
}

/// Each operation that is not public rejects a token of a foreign key.
pub async fn every_operation<F: Fixture>(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    let claims = attacks.issuer.claims(attacks.now()).to_string();
    let forged = attacks.app.bearer(attacks.stranger.sign_text(&attacks.header().to_string(), &claims));
    for operation in Operation::all(service).iter().filter(|operation| operation.row.callers != Callers::Public) {
        let reply = operation.call(&forged, &F::unused_id(&operation.path)).await;
        assert_eq!(reply.status, 401, "{operation} accepts a token of a foreign key: {reply:#?}");
    }
}

/// Algorithms that attackers choose: none, HMAC with the public key, and those of other keys.
pub async fn algorithms(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    for alg in ["none", "None", "HS256", "HS512", "RS256", "PS256", "EdDSA", "ES384", "ES256K", "es256", ""] {
        attacks.assert_rejected(&format!("alg {alg:?}"), &attacks.with_header("alg", alg), "algorithm").await;
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = attacks.issuer.claims(attacks.now());
    let unsigned = format!("{}.{}.", part(&changed(attacks.header(), "alg", json!("none"))), part(&claims));
    attacks.assert_rejected("alg none and no signature", &unsigned, "algorithm").await;
    // Algorithm confusion: the public key as the secret of an HMAC (RFC 8725 section 2.1).
    for key in [&attacks.ec, &attacks.rsa] {
        for secret in [key.public_der(), key.jwk().to_string().into_bytes()] {
            let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": key.id });
            let signed = format!("{}.{}", part(&header), part(&claims));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
            attacks.assert_rejected("the public key as HMAC secret", &token, "algorithm").await;
        }
    }
    for (key, alg, kid) in [
        (&attacks.ec, "ES256", &attacks.rsa.id),
        (&attacks.rsa, "RS256", &attacks.ec.id),
        (&attacks.rsa, "PS256", &attacks.rsa.id),
    ] {
        let header = json!({ "alg": alg, "typ": "at+jwt", "kid": kid }).to_string();
        let token = key.sign_text(&header, &claims.to_string());
        attacks.assert_rejected("the algorithm of another key", &token, "algorithm").await;
    }
}

/// Issuers that are not exactly the trusted one.
pub async fn issuers(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    let url = &attacks.issuer.url;
    for iss in [
        json!("https://evil.example"),
        json!(format!("{url}/")),
        json!(url.to_uppercase()),
        json!(format!("{url}.evil.example")),
        json!([url]),
        json!(""),
        Value::Null,
    ] {
        attacks.assert_claims_rejected([(json!({ "iss": iss }), "issuer")]).await;
    }
}

/// Audiences without this API.
pub async fn audiences(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    for aud in [
        json!("api://another-api"),
        json!(format!("{AUDIENCE}/")),
        json!(AUDIENCE.to_uppercase()),
        json!(format!("{AUDIENCE} api://another-api")),
        json!(["api://another-api"]),
        json!([]),
        json!(""),
    ] {
        attacks.assert_claims_rejected([(json!({ "aud": aud }), "audience")]).await;
    }
    attacks.assert_claims_rejected([(json!({ "aud": null }), "claims"), (json!({ "aud": 1 }), "claims")]).await;
}

/// Tokens that have expired, are not valid yet, live too long or state no time.
pub async fn lifetimes(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    let now = attacks.now();
    attacks
        .assert_claims_rejected([
            (json!({ "iat": now - 600, "exp": now - 35 }), "expired"),
            (json!({ "iat": 0, "exp": 1 }), "expired"),
            (json!({ "iat": now + 60, "exp": now + 600 }), "not_yet_valid"),
            (json!({ "nbf": now + 60 }), "not_yet_valid"),
            (json!({ "iat": now, "exp": now + 901 }), "lifetime"),
            (json!({ "exp": i64::MAX }), "lifetime"),
            (json!({ "exp": null }), "claims"),
            (json!({ "iat": null }), "claims"),
            (json!({ "exp": (now + 600).to_string() }), "claims"),
            (json!({ "exp": u64::MAX }), "claims"),
        ])
        .await;
}

/// ID tokens, refresh tokens, and access tokens without the claims of one.
pub async fn token_types(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    for typ in ["JWT", "id+jwt", "logout+jwt", "rt+jwt", "dpop+jwt", ""] {
        attacks.assert_rejected(&format!("typ {typ:?}"), &attacks.with_header("typ", typ), "token_type").await;
    }
    attacks.assert_rejected("no typ", &attacks.with_header("typ", Value::Null), "token_type").await;
    attacks
        .assert_claims_rejected([
            (json!({ "nonce": "n" }), "token_type"),
            (json!({ "at_hash": "h" }), "token_type"),
            (json!({ "typ": "ID" }), "token_type"),
            (json!({ "typ": "Refresh" }), "token_type"),
            (json!({ "token_use": "id" }), "token_type"),
            (json!({ "sub": null }), "claims"),
            (json!({ "sub": "" }), "claims"),
            (json!({ "sub": "a\nb" }), "claims"),
            (json!({ "sub": "api-key:0190a000-0000-7000-8000-00000000ac3e" }), "claims"),
            (json!({ "client_id": null }), "claims"),
            (json!({ "tenant_id": null }), "claims"),
            (json!({ "tenant_id": "acme" }), "claims"),
            (json!({ "roles": "admin" }), "claims"),
            (json!({ "scope": 1 }), "claims"),
            (json!({ "cnf": { "jkt": "AA" } }), "binding"),
        ])
        .await;
}

/// Tokens that bring their own key, or name a parameter twice.
pub async fn own_keys(service: &'static TestService) {
    let attacks = Attacks::new(service).await;
    for (name, value) in [
        ("jwk", attacks.stranger.jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/keys")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
    ] {
        attacks.assert_rejected(name, &attacks.with_header(name, value), "forbidden_header").await;
    }
    let header = attacks.header().to_string();
    let claims = attacks.issuer.claims(attacks.now()).to_string();
    let twice = |object: &str, member: &str| format!("{{{member},{}", &object[1..]);
    let two_algorithms = attacks.ec.sign_text(&twice(&header, r#""alg":"none""#), &claims);
    attacks.assert_rejected("two algorithms", &two_algorithms, "malformed").await;
    let two_subjects = attacks.ec.sign_text(&header, &twice(&claims, r#""sub":"root""#));
    attacks.assert_rejected("two subjects", &two_subjects, "malformed").await;
}
