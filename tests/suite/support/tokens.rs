use serde_json::{Value, json};
use service::{
    authz::{matrix::Scope, policy::Role},
    dev::issuer::{DevIssuer, SigningKey},
};

use super::app::{ACME, person};

/// Signs what the issuer would not, with the issuer's own key unless told otherwise. Starts
/// from a token that is good in every way, so that a test spoils exactly one thing.
pub struct Forge<'a> {
    key: &'a SigningKey,
    header: Value,
    claims: Value,
}

impl<'a> Forge<'a> {
    pub fn new(issuer: &'a DevIssuer) -> Self {
        let claims = issuer.claims(&person(&ACME, Role::Admin), &Scope::ALL);
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": issuer.key().id() });
        Self { key: issuer.key(), header, claims }
    }

    /// With a claim set; null removes it.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.claims, name, value.into());
        self
    }

    /// With a header parameter set; null removes it.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.header, name, value.into());
        self
    }

    /// Signed by somebody else.
    pub fn key(self, key: &SigningKey) -> Forge<'_> {
        Forge { key, header: self.header, claims: self.claims }
    }

    /// Now, as the token has it.
    pub fn now(&self) -> i64 {
        self.claims["iat"].as_i64().unwrap()
    }

    pub fn claims(&self) -> &Value {
        &self.claims
    }

    pub fn token(&self) -> String {
        self.key.sign(&self.header, &self.claims)
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
