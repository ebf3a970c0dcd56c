//! Access tokens that the issuer would not issue ([`Forge`]).

use palisade::dev::issuer::{DevIssuer, SigningKey};
use serde_json::Value;
use service::access::{roles, scopes};

use super::{ACME, person};

/// Signs any claims with the issuer's key. The claims start as those of a valid token of an Acme
/// administrator, so that a test changes exactly one of them.
pub struct Forge<'a> {
    key: &'a SigningKey,
    claims: Value,
}

impl<'a> Forge<'a> {
    pub fn new(issuer: &'a DevIssuer) -> Self {
        let claims = issuer.claims(&person(&ACME, roles::ADMIN), &scopes::ALL);
        Self { key: issuer.key(), claims }
    }

    /// Sets a claim; null removes it.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.claims, name, value.into());
        self
    }

    pub fn token(&self) -> String {
        self.key.access_token(&self.claims)
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    let object = object.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
}
