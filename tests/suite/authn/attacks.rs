//! One row per attack on a token: what is presented, and the reason that only the log may know.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::assert_refused;
use crate::support::{AUDIENCE, Actor, OddIssuer, Reply, TestApp, TestKey, UNTHROTTLED};

/// What an attacker has: a service, its issuer, good tokens, and keys of both kinds.
struct Field {
    app: TestApp,
    anonymous: Actor,
    issuer: OddIssuer,
    ec: TestKey,
    rsa: TestKey,
    /// Of the issuer, published for encryption.
    encryption: TestKey,
    stranger: TestKey,
}

/// What is presented, and the reason in the event.
type Attack = (String, Presented, &'static str);

#[derive(Default)]
struct Presented {
    headers: Vec<(&'static str, Vec<u8>)>,
    query: String,
}

impl Field {
    async fn new() -> Self {
        let (ec, rsa, encryption) = (TestKey::es256("ec-1"), TestKey::rs256("rsa-1"), TestKey::es256("enc-1"));
        let issuer = OddIssuer::with_keys(&[]).await;
        let mut enc = encryption.jwk();
        enc["use"] = json!("enc");
        // Its modulus has 1024 bits.
        let weak = json!({ "kty": "RSA", "kid": "weak", "use": "sig", "alg": "RS256", "e": "AQAB",
                           "n": URL_SAFE_NO_PAD.encode([0xa7; 128]) });
        issuer.publish_raw(json!({ "keys": [ec.jwk(), rsa.jwk(), enc, weak] }));
        let app = issuer.app(&UNTHROTTLED).await;
        app.wait_until_ready().await;
        let anonymous = app.anonymous();
        let field = Self { app, anonymous, issuer, ec, rsa, encryption, stranger: TestKey::es256("ec-1") };
        // Without these nothing below would prove anything.
        for key in [&field.ec, &field.rsa] {
            field.get(&bearer(&field.issuer.token(key, field.now()))).await.ok(200);
        }
        field
    }

    fn now(&self) -> i64 {
        self.app.clock.timestamp()
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.ec.id })
    }

    fn claims(&self) -> Value {
        self.issuer.claims(self.now())
    }

    fn good(&self) -> String {
        self.issuer.token(&self.ec, self.now())
    }

    /// Signed by the issuer's key, with one parameter of the header set, or removed by null.
    fn with_header(&self, name: &str, value: impl Into<Value>) -> String {
        self.ec.sign_text(&changed(self.header(), name, value.into()).to_string(), &self.claims().to_string())
    }

    /// Signed by the issuer's key, with claims set, or removed by null.
    fn with_claims(&self, claims: &Value) -> String {
        let all = claims.as_object().unwrap().iter();
        let claims = all.fold(self.claims(), |all, (name, value)| changed(all, name, value.clone()));
        self.ec.sign_text(&self.header().to_string(), &claims.to_string())
    }

    async fn get(&self, presented: &Presented) -> Reply {
        let mut request = self.anonymous.request(Method::GET, &format!("/v1/me{}", presented.query));
        for (name, value) in &presented.headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        self.anonymous.send(request).await
    }

    /// Each is the same 401 as any other, and leaves one event with its own reason.
    async fn refuses(&self, attacks: Vec<Attack>) {
        let plain = self.get(&bearer("e30.e30.e30")).await;
        for (name, presented, reason) in attacks {
            let reply = self.get(&presented).await;
            assert_refused(&reply, &name);
            assert_eq!(reply.comparable(), plain.comparable(), "{name}");
            let events = reply.events();
            let told: Vec<(&str, &str)> =
                events.iter().map(|event| (event["event"].as_str(), event["reason"].as_str())).collect();
            assert_eq!(told, [("authn_token_invalid", reason)], "{name}");
            assert_eq!(events[0]["source"], "127.0.0.1", "{name}");
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

fn bearer(token: &str) -> Presented {
    authorization(format!("Bearer {token}"))
}

fn authorization(value: impl Into<Vec<u8>>) -> Presented {
    Presented { headers: vec![("authorization", value.into())], query: String::new() }
}

fn row(name: impl Into<String>, token: &str, reason: &'static str) -> Attack {
    (name.into(), bearer(token), reason)
}

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

#[tokio::test]
async fn authn_04_wrong_issuer_is_refused() {
    let field = Field::new().await;
    let url = &field.issuer.url;
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
    let attacks = wrong.map(|iss| row(iss.to_string(), &field.with_claims(&json!({ "iss": iss })), "issuer"));
    field.refuses(attacks.into()).await;
}

#[tokio::test]
async fn authn_05_wrong_audience_is_refused() {
    let field = Field::new().await;
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
    let attacks = near.map(|aud| row(aud.to_string(), &field.with_claims(&json!({ "aud": aud })), "audience"));
    field.refuses(attacks.into()).await;
    let wrong_type = [json!({ AUDIENCE: true }), json!([[AUDIENCE]]), json!(1), Value::Null];
    let attacks = wrong_type.map(|aud| row(aud.to_string(), &field.with_claims(&json!({ "aud": aud })), "claims"));
    field.refuses(attacks.into()).await;
    let several = field.with_claims(&json!({ "aud": ["api://another-api", AUDIENCE] }));
    field.get(&bearer(&several)).await.ok(200);
}

#[tokio::test]
async fn authn_06_a_token_is_valid_only_in_its_time() {
    let field = Field::new().await;
    let now = field.now();
    let seconds = f64::from(u32::try_from(now).unwrap());
    let attacks = [
        ("expired", json!({ "iat": now - 600, "exp": now - 35 }), "expired"),
        ("expired long ago", json!({ "iat": 0, "exp": 1 }), "expired"),
        ("negative", json!({ "exp": -1 }), "claims"),
        ("the least there is", json!({ "exp": i64::MIN }), "claims"),
        ("made in the future", json!({ "iat": now + 60, "exp": now + 600 }), "not_yet_valid"),
        ("not valid yet", json!({ "nbf": now + 60 }), "not_yet_valid"),
        ("longer than the cap", json!({ "iat": now, "exp": now + 901 }), "lifetime"),
        ("longer than the cap, and old", json!({ "iat": now - 5000, "exp": now + 60 }), "lifetime"),
        ("as good as for ever", json!({ "exp": i64::MAX }), "lifetime"),
        ("made before time began", json!({ "iat": i64::MIN, "exp": i64::MAX }), "lifetime"),
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
    let rows = attacks.map(|(name, claims, reason)| row(name, &field.with_claims(&claims), reason));
    field.refuses(rows.into()).await;
    // Within the leeway of 30 s for clocks that differ.
    let late = field.with_claims(&json!({ "iat": now - 600, "exp": now - 15 }));
    field.get(&bearer(&late)).await.ok(200);
    let early = field.with_claims(&json!({ "iat": now + 30, "nbf": now + 30, "exp": now + 600 }));
    field.get(&bearer(&early)).await.ok(200);
}

#[tokio::test]
async fn authn_07_only_an_access_token_is_one() {
    let field = Field::new().await;
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
        types.iter().map(|typ| row(format!("typ {typ:?}"), &field.with_header("typ", *typ), "token_type")).collect();
    attacks.push(row("typ is a number", &field.with_header("typ", 1), "token_type"));
    attacks.push(row("no typ", &field.with_header("typ", Value::Null), "token_type"));
    for (name, claims) in [
        ("an ID token's nonce", json!({ "nonce": "n" })),
        ("an ID token's at_hash", json!({ "at_hash": "h" })),
        ("an ID token's c_hash", json!({ "c_hash": "h" })),
        ("an ID token by name", json!({ "typ": "ID" })),
        ("a refresh token by name", json!({ "typ": "Refresh" })),
        ("an ID token by use", json!({ "token_use": "id" })),
        ("a security event", json!({ "events": {} })),
    ] {
        attacks.push(row(name, &field.with_claims(&claims), "token_type"));
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
        ("jti that no revocation could name", json!({ "jti": "j".repeat(256) })),
        ("subject is a space", json!({ "sub": " " })),
        ("subject that shows as another", json!({ "sub": "ad\u{202e}nim" })),
        ("tenant in braces", json!({ "tenant_id": "{0190a000-0000-7000-8000-00000000ac3e}" })),
        ("tenant without hyphens", json!({ "tenant_id": "0190a00000007000800000000000ac3e" })),
    ] {
        attacks.push(row(name, &field.with_claims(&claims), "claims"));
    }
    for bound in [json!({ "x5t#S256": "AA" }), json!({ "jkt": "AA" })] {
        attacks.push(row("bound to a key that is not shown", &field.with_claims(&json!({ "cnf": bound })), "binding"));
    }
    attacks.push(row(
        "a client that may not act for itself",
        &field.with_claims(&json!({ "sub": "some-client" })),
        "service_client",
    ));
    attacks.push(row("a refresh token that means nothing here", "Zm9v", "malformed"));
    field.refuses(attacks).await;
    let long = "s".repeat(255);
    let longest = field.with_claims(&json!({ "sub": long, "client_id": long.replace('s', "c"), "jti": long }));
    field.get(&bearer(&longest)).await.ok(200);
    for typ in ["AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        field.get(&bearer(&field.with_header("typ", typ))).await.ok(200);
    }
}

#[tokio::test]
async fn authn_08_a_header_that_brings_its_own_key_is_refused() {
    let field = Field::new().await;
    let url = "https://evil.example/keys";
    let parameters = [
        ("jwk", field.stranger.jwk()),
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
    let attacks = parameters.map(|(name, value)| row(name, &field.with_header(name, value), "forbidden_header"));
    field.refuses(attacks.into()).await;
    assert!(field.issuer.key_requests() <= 2, "a token made the service ask for keys");
}

#[tokio::test]
async fn authn_08_what_could_be_read_in_two_ways_is_refused() {
    let field = Field::new().await;
    let (header, claims) = (field.header().to_string(), field.claims().to_string());
    let without =
        |object: &str, name: &str| changed(serde_json::from_str(object).unwrap(), name, Value::Null).to_string();
    let twice = |object: &str, member: &str| format!("{{{member},{}", &object[1..]);
    let signed = |header: &str, claims: &str| field.ec.sign_text(header, claims);
    let good = field.good();
    let inner = URL_SAFE_NO_PAD.encode(&good);
    let tenant = r#""tenant_id":"0190a000-0000-7000-8000-000000061063""#;
    let nested = format!("{}1{}", r#"{"a":"#.repeat(17), "}".repeat(17));
    let attacks = vec![
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
        row("header no object", &signed("\"at+jwt\"", &claims), "malformed"),
        row("claims and more", &signed(&header, &format!("{claims}{{}}")), "malformed"),
        row("deep claims", &signed(&header, &twice(&claims, &format!(r#""deep":{nested}"#))), "malformed"),
        row(
            "a token in a token",
            &field.ec.sign_text(&changed(field.header(), "cty", json!("JWT")).to_string(), &good),
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
        row("as long as may be", &"a".repeat(8 * 1024), "malformed"),
        row("a character longer", &"a".repeat(8 * 1024 + 1), "too_long"),
        row("good, but padded beyond the limit", &field.with_claims(&json!({ "x": "x".repeat(8000) })), "too_long"),
        row("dots", "..", "malformed"),
        row("a space inside", &good.replacen('.', ". ", 1), "malformed"),
    ];
    field.refuses(attacks).await;
}

#[tokio::test]
async fn authn_08_one_credential_in_one_place() {
    let field = Field::new().await;
    let good = field.good();
    let both = |headers: &[(&'static str, String)], query: &str| Presented {
        headers: headers.iter().map(|(name, value)| (*name, value.clone().into_bytes())).collect(),
        query: query.to_owned(),
    };
    let header = ("authorization", format!("Bearer {good}"));
    let in_query = format!("?access_token={good}");
    let mut not_utf8 = format!("Bearer {good}").into_bytes();
    not_utf8.push(0xff);
    let attacks: Vec<Attack> = vec![
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
        ("header and query".into(), both(std::slice::from_ref(&header), &in_query), "in_query"),
        ("query alone".into(), both(&[], &in_query), "in_query"),
        ("query alone, spelled oddly".into(), both(&[], &in_query.replacen("access", "%61ccess", 1)), "in_query"),
        ("another scheme".into(), authorization(format!("Basic {good}")), "malformed"),
        ("two spaces".into(), authorization(format!("Bearer  {good}")), "malformed"),
        ("a tab".into(), authorization(format!("Bearer\t{good}")), "malformed"),
        ("two in one".into(), authorization(format!("Bearer {good},Bearer {good}")), "malformed"),
        ("no token".into(), authorization("Bearer"), "malformed"),
        ("a token without scheme".into(), authorization(good.clone()), "malformed"),
        ("not UTF-8".into(), authorization(not_utf8), "malformed"),
    ];
    field.refuses(attacks).await;
    // The scheme may be in any case (RFC 9110 section 11.1).
    field.get(&authorization(format!("bearer {good}"))).await.ok(200);
    let cookies = both(&[header, ("cookie", "theme=dark; lang=de".into())], "");
    field.get(&cookies).await.ok(200);
    // A cookie alone is no credential.
    let cookie = both(&[("cookie", format!("access_token={good}"))], "");
    assert_eq!(field.get(&cookie).await.header("www-authenticate"), Some("Bearer"));
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
