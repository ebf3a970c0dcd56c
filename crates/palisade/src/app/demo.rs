//! What a service adds to the development stack: demo data, requests to try, and the files of a demo
//! page.
//!
//! [`super::start`] serves the files beside the API, in the development profile only.

use std::{error::Error, path::Path, pin::Pin, sync::Arc};

use http::{Method, header};
use poem::Endpoint;
use secrecy::SecretString;
use sqlx::PgConnection;

use crate::{model::TenantId, settings::Profile};

/// Policy of the demo page: only files of the service, and no code inside the page.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

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
    /// Files of a page that calls the API.
    pub files: &'static [DemoFile],
}

/// A file that the command `dev` serves beside the API.
#[derive(Clone, Copy, Debug)]
pub struct DemoFile {
    /// Path of its URL.
    pub path: &'static str,
    /// Media type, with the charset.
    pub media_type: &'static str,
    /// Content.
    pub text: &'static str,
}

/// The API, and the files of the demo beside it. They are no operations: the OpenAPI document does
/// not list them, and a release build does not contain them.
pub(super) struct WithFiles<E> {
    routes: Arc<E>,
    files: &'static [DemoFile],
}

impl<E> WithFiles<E> {
    pub(super) fn new(routes: Arc<E>, demo: Demo, profile: Profile) -> Self {
        Self { routes, files: if profile == Profile::Development { demo.files } else { &[] } }
    }
}

impl<E: Endpoint<Output = poem::Response>> Endpoint for WithFiles<E> {
    type Output = poem::Response;

    async fn call(&self, request: poem::Request) -> poem::Result<Self::Output> {
        let is_requested = |file: &&DemoFile| request.method() == Method::GET && request.uri().path() == file.path;
        let Some(file) = self.files.iter().find(is_requested) else { return self.routes.call(request).await };
        let response = poem::Response::builder().content_type(file.media_type);
        Ok(response.header(header::CONTENT_SECURITY_POLICY, PAGE_POLICY).body(file.text))
    }
}

/// A service without demo data.
impl Default for Demo {
    fn default() -> Self {
        Self {
            seed: |_, _, _, _| Box::pin(async { Ok(()) }),
            requests: |_| Vec::new(),
            scopes: "",
            list: "/v1/me",
            files: &[],
        }
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
