//! Attacks on tokens: each row is a request, and the reason in the event of its rejection. The
//! response is the same 401 for all, except for two credentials (400) and too large tokens (431).

mod claims;
mod malformed;
mod relaxed;
mod signature;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::{
    Actor, MisbehavingIssuer, Reply, SERVICE, TestApp, TestKey, UNTHROTTLED,
    authn::{assert_ambiguous, assert_rejected},
};

/// A service, its issuer, and the keys that attackers sign with.
struct AttackSetup {
    app: TestApp,
    anonymous: Actor,
    issuer: MisbehavingIssuer,
    ec: TestKey,
    rsa: TestKey,
    /// A key that the issuer publishes for encryption.
    encryption: TestKey,
    /// A key with the id of `ec` that the issuer does not publish.
    stranger: TestKey,
    /// How valid tokens of the issuer differ from the default: parameters and claims.
    shape: (Value, Value),
}

/// Name, request and the reason in the event. The reason determines the response.
type Attack = (String, RequestParts, &'static str);

#[derive(Default)]
struct RequestParts {
    headers: Vec<(&'static str, Vec<u8>)>,
    query: String,
}

impl AttackSetup {
    async fn new() -> Self {
        Self::with_settings(&[], (json!({}), json!({}))).await
    }

    /// `{url}` in a setting or a claim stands for the address of the issuer.
    async fn with_settings(settings: &[(&str, &str)], shape: (Value, Value)) -> Self {
        let ec = TestKey::es256("ec-1");
        let rsa = TestKey::rs256("rsa-1");
        let encryption = TestKey::es256("enc-1");
        let mut issuer = MisbehavingIssuer::with_keys(&SERVICE, &[]).await;
        let mut enc = encryption.jwk();
        enc["use"] = json!("enc");
        // Its modulus has 1024 bits.
        let weak = json!({ "kty": "RSA", "kid": "weak", "use": "sig", "alg": "RS256", "e": "AQAB",
                           "n": URL_SAFE_NO_PAD.encode([0xa7; 128]) });
        issuer.publish_raw(json!({ "keys": [ec.jwk(), rsa.jwk(), enc, weak] }));
        let base = issuer.url.clone();
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (format!("APP_OIDC__{name}"), value.replace("{url}", &base))).collect();
        if let Some((_, url)) = settings.iter().find(|(name, _)| name == "APP_OIDC__ISSUER") {
            issuer.set_metadata("issuer", url.as_str());
            issuer.url.clone_from(url);
        }
        let shape = (shape.0, serde_json::from_str(&shape.1.to_string().replace("{url}", &base)).unwrap());
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let app = issuer.app(&UNTHROTTLED.into_iter().chain(settings).collect::<Vec<_>>()).await;
        app.wait_until_ready().await;
        let anonymous = app.anonymous();
        let setup = Self { app, anonymous, issuer, ec, rsa, encryption, stranger: TestKey::es256("ec-1"), shape };
        // If valid tokens were rejected, the attacks would prove nothing.
        for key in [&setup.ec, &setup.rsa] {
            let token = key.sign_text(&setup.header_of(key.alg, &key.id), &setup.claims().to_string());
            setup.get(&bearer(&token)).await.ok(200);
        }
        setup
    }

    fn now(&self) -> i64 {
        self.app.clock.timestamp()
    }

    fn header(&self) -> Value {
        with_all(json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.ec.id }), &self.shape.0)
    }

    /// A valid header, but for this algorithm and key.
    fn header_of(&self, alg: &str, kid: &str) -> String {
        with_all(self.header(), &json!({ "alg": alg, "kid": kid })).to_string()
    }

    fn claims(&self) -> Value {
        with_all(self.issuer.claims(self.now()), &self.shape.1)
    }

    fn valid_token(&self) -> String {
        self.with_claims(&json!({}))
    }

    /// A token of the issuer with one header parameter set, or removed by null.
    fn with_header(&self, name: &str, value: impl Into<Value>) -> String {
        self.ec.sign_text(&changed(self.header(), name, value.into()).to_string(), &self.claims().to_string())
    }

    /// A token of the issuer with claims set, or removed by null.
    fn with_claims(&self, claims: &Value) -> String {
        let claims = with_all(self.claims(), claims);
        self.ec.sign_text(&self.header().to_string(), &claims.to_string())
    }

    async fn get(&self, parts: &RequestParts) -> Reply {
        let mut request = self.anonymous.request(Method::GET, &format!("/v1/me{}", parts.query));
        for (name, value) in &parts.headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        self.anonymous.send(request).await
    }

    /// Checks that each attack gets the same 401 and causes one event with its reason.
    async fn assert_all_rejected(&self, attacks: Vec<Attack>) {
        let plain = self.get(&bearer("e30.e30.e30")).await;
        for (name, parts, reason) in attacks {
            let reply = self.get(&parts).await;
            match reason {
                "two_credentials" => assert_ambiguous(&reply, &name),
                "too_long" | "too_broad" => assert_eq!(reply.problem(431), "headers_too_large", "{name}"),
                _ => {
                    assert_rejected(&reply, &name);
                    assert_eq!(reply.comparable(), plain.comparable(), "{name}");
                }
            }
            let events = reply.events();
            let logged: Vec<(&str, &str)> =
                events.iter().map(|event| (event["event"].as_str(), event["reason"].as_str())).collect();
            assert_eq!(logged, [("authn_token_invalid", reason)], "{name}");
            assert_eq!(events[0]["source"], "127.0.0.1", "{name}");
        }
    }
}

fn with_all(object: Value, changes: &Value) -> Value {
    let changes = changes.as_object().unwrap().iter();
    changes.fold(object, |object, (name, value)| changed(object, name, value.clone()))
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

fn bearer(token: &str) -> RequestParts {
    authorization(format!("Bearer {token}"))
}

fn authorization(value: impl Into<Vec<u8>>) -> RequestParts {
    RequestParts { headers: vec![("authorization", value.into())], query: String::new() }
}

fn row(name: impl Into<String>, token: &str, reason: &'static str) -> Attack {
    (name.into(), bearer(token), reason)
}
