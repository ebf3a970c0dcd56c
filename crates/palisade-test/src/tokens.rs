//! Access tokens that the issuer would not issue ([`Forge`]).

use palisade::dev::issuer::{DevIssuer, SigningKey};
use serde_json::Value;

use crate::{ACME, TestService};

/// Signs any claims with the issuer's key. The claims start as those of a valid token of an Acme
/// administrator, so that a test changes exactly one of them.
pub struct Forge<'a> {
    key: &'a SigningKey,
    claims: Value,
}

impl<'a> Forge<'a> {
    /// Claims of a valid token of this issuer.
    pub fn new(service: &TestService, issuer: &'a DevIssuer) -> Self {
        let admin = service.person(&ACME, service.admin_role());
        Self { key: issuer.key(), claims: issuer.claims(&admin, service.rights().scopes) }
    }

    /// Sets a claim; null removes it.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.claims, name, value.into());
        self
    }

    /// Signs the claims.
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
