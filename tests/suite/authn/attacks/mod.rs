//! One row per attack on a token: what is presented, and the reason that only the log may know.

mod claims;
mod form;
mod signature;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::assert_refused;
use crate::support::{Actor, OddIssuer, Reply, TestApp, TestKey, UNTHROTTLED};

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
