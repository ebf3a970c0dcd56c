//! A client whose tokens are bound to its key (DPoP, RFC 9449).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use palisade::crypto::sha256;
use serde_json::{Map, Value, json};

use crate::{Actor, Reply, TestApp, TestKey};

/// A client with a key of its own.
pub struct DpopClient(TestKey);

/// Header and claims of a proof, which a test may change before it is signed.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The JOSE header, with the public key.
    pub header: Value,
    /// The claims (RFC 9449 section 4.2).
    pub claims: Value,
}

impl Default for DpopClient {
    /// A client with an ES256 key.
    fn default() -> Self {
        Self(TestKey::es256("client"))
    }
}

impl DpopClient {
    /// A client with this key.
    pub fn new(key: TestKey) -> Self {
        Self(key)
    }

    /// The members of the public key that determine it (RFC 7638 section 3.2).
    pub fn jwk(&self) -> Value {
        let Value::Object(members) = self.0.jwk() else { panic!("a JWK is an object") };
        let determines = |name: &str| ["crv", "e", "kty", "n", "x", "y"].contains(&name);
        members.into_iter().filter(|(name, _)| determines(name)).collect::<Map<_, _>>().into()
    }

    /// The thumbprint of the key, as `cnf.jkt` of a token has it.
    pub fn thumbprint(&self) -> String {
        let mut jwk = self.jwk();
        jwk.sort_all_objects();
        URL_SAFE_NO_PAD.encode(sha256(jwk.to_string().as_bytes()))
    }

    /// A token of an administrator that is bound to the key.
    pub fn token(&self, app: &TestApp) -> String {
        app.forge().claim("cnf", json!({ "jkt": self.thumbprint() })).token()
    }

    /// A valid proof for one request with this token.
    pub fn proof(&self, app: &TestApp, method: &str, url: &str, token: &str, nonce: &str) -> Proof {
        Proof {
            header: json!({ "typ": "dpop+jwt", "alg": self.0.alg, "jwk": self.jwk() }),
            claims: json!({
                "jti": uuid::Uuid::now_v7(), "htm": method, "htu": url, "iat": app.clock.timestamp(),
                "ath": URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())), "nonce": nonce,
            }),
        }
    }

    /// Signs a proof, whatever its header says.
    pub fn sign(&self, proof: &Proof) -> String {
        self.0.sign_text(&proof.header.to_string(), &proof.claims.to_string())
    }
}

/// Gets a path with this token under the scheme `DPoP` and these proofs.
pub async fn get_with_proofs(caller: &Actor, path: &str, token: &str, proofs: &[String]) -> Reply {
    let request = caller.request(Method::GET, path).header("authorization", format!("DPoP {token}"));
    caller.send(proofs.iter().fold(request, |request, proof| request.header("dpop", proof))).await
}
