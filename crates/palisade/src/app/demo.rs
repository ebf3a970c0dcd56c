//! What a service adds to the development stack: demo data, and requests to try.

use std::{error::Error, path::Path, pin::Pin};

use secrecy::SecretString;
use sqlx::PgConnection;

use crate::model::TenantId;

/// The future of [`Demo::seed`].
pub type SeedFuture<'a> = Pin<Box<dyn Future<Output = Result<(), DemoError>> + Send + 'a>>;

/// Why demo data cannot be added.
pub type DemoError = Box<dyn Error + Send + Sync>;

/// Keys of sealed columns in the development database.
#[derive(Clone, Debug)]
pub struct DemoKeys {
    /// Master keys that wrap the data keys.
    pub master: SecretString,
    /// Keys of blind indexes.
    pub index: SecretString,
}

/// Demo data of a service, and requests for which it suffices.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// Adds the data of a tenant that does not exist yet: transaction as `app_owner`, keys, tenant,
    /// and the number of the tenant, from 1.
    pub seed: for<'a> fn(&'a mut PgConnection, &'a DemoKeys, TenantId, u128) -> SeedFuture<'a>,
    /// Requests that work when pasted.
    pub requests: fn(&Stack<'_>) -> Vec<Request>,
    /// Scopes of the demo job, which has a client certificate, separated by commas.
    pub scopes: &'static str,
    /// Path that the demo job may get.
    pub list: &'static str,
}

/// A service without demo data.
impl Default for Demo {
    fn default() -> Self {
        Self { seed: |_, _, _, _| Box::pin(async { Ok(()) }), requests: |_| Vec::new(), scopes: "", list: "/v1/me" }
    }
}

/// A request to try, as arguments of `curl`.
#[derive(Clone, Debug)]
pub struct Request {
    /// The status of the response.
    pub status: &'static str,
    /// What it shows.
    pub meaning: &'static str,
    /// Headers, body and URL.
    pub arguments: String,
}

/// The running stack, as requests name it.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// URL of the API.
    pub base: &'a str,
    /// Folder of the files with tokens.
    pub tokens: &'a Path,
}

impl Stack<'_> {
    /// The argument with a person's token, by tenant and role: `acme-viewer`.
    #[must_use]
    pub fn auth(&self, person: &str) -> String {
        format!("-H \"Authorization: Bearer $(cat {})\"", self.tokens.join(person).display())
    }
}
