//! Terminal output of `cargo dev`, and the token files that its printed commands read.
//!
//! [`run`](super::run) prints its progress here and, when the stack is ready, the addresses and
//! commands to try. [`TokenFiles`] keeps one access token per tenant and role on disk and renews
//! it in the background.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;

use super::{
    DevError,
    certificates::Certificates,
    failed,
    files::write_private,
    issuer::{DevIssuer, SERVICE_CLIENT, WEB_CLIENT},
    people::Person,
};
use crate::{
    app::{Demo, Request, Stack},
    authn::API_KEYS,
};

/// Interval between renewals of the token files. Tokens expire after 15 minutes.
const RENEWAL_INTERVAL: Duration = Duration::from_mins(10);

/// Prints a line of progress to standard error, for steps that can take seconds.
pub(super) fn print_step(step: &str) {
    eprintln!("· {step}");
}

/// One file per tenant and role, each with an access token that has not expired.
pub(super) struct TokenFiles {
    folder: PathBuf,
    /// File with the connection URL of the operator login, for `incident` commands.
    operator_url: PathBuf,
}

impl TokenFiles {
    pub(super) fn write(folder: &Path, issuer: &DevIssuer, operator_url: &SecretString) -> Result<Self, DevError> {
        let files = Self { folder: folder.join("tokens"), operator_url: folder.join("operator-url") };
        let write = || {
            write_private(&files.operator_url, operator_url.expose_secret())?;
            files.renew(issuer)
        };
        write().map_err(failed::<std::io::Error>(format!("cannot write below {}", folder.display())))?;
        Ok(files)
    }

    /// Spawns a task that renews the files until it is aborted.
    pub(super) fn spawn_renewal(self, issuer: DevIssuer) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL_INTERVAL).await;
                if let Err(error) = self.renew(&issuer) {
                    tracing::warn!(%error, "could not renew token files");
                }
            }
        })
    }

    fn renew(&self, issuer: &DevIssuer) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for person in issuer.people() {
            let token = issuer.access_token(person, issuer.scopes());
            write_private(&self.path(person), &token)?;
        }
        Ok(())
    }

    fn path(&self, person: &Person) -> PathBuf {
        self.folder.join(format!("{}-{}", person.tenant_name, person.role.as_str()))
    }
}

/// Prints addresses, token files and commands that work when pasted.
pub(super) fn print_ready(
    [api, internal]: [SocketAddr; 2],
    issuer: &DevIssuer,
    database: &str,
    tokens: &TokenFiles,
    certificates: &Certificates,
    demo: &Demo,
    elapsed: Duration,
) {
    let base = format!("http://{api}");
    println!("\nReady in {:.1} s.\n", elapsed.as_secs_f64());
    println!("  API          {base}");
    println!("  docs         {base}/docs");
    if let Some(page) = demo.files.first() {
        println!("  demo page    {base}{}", page.path);
    }
    println!("  internal     https://{internal}, by client certificate");
    println!("  issuer       {}", issuer.url());
    println!("  database     {database}");
    println!("\nTokens, renewed every 10 minutes, one file per tenant and role:\n");
    for person in issuer.people() {
        println!("  {:<8} {:<8} {}", person.tenant_name, person.role.as_str(), tokens.path(person).display());
    }
    println!("\nClients of the issuer: {WEB_CLIENT} (public, code + PKCE), {SERVICE_CLIENT} (client credentials).");
    println!("\nTry (each prints its status last):\n");
    let stack = Stack { base: &base, tokens: &tokens.folder };
    for Request { status, meaning, arguments } in (demo.requests)(&stack) {
        println!("  # {status}: {meaning}");
        println!("  curl -s -w '\\n%{{http_code}}\\n' {arguments}");
    }
    let scope = demo.scopes.split(',').next().unwrap_or_default();
    if API_KEYS {
        let new_key = format!("-d '{{\"name\":\"try\",\"scopes\":[\"{scope}\"],\"validForDays\":30}}'");
        println!("  # 201: an API key, for the header X-API-Key");
        println!(
            "  curl -s -w '\\n%{{http_code}}\\n' {} -H 'Content-Type: application/json' {new_key} {base}/v1/api-keys",
            stack.auth("acme-admin")
        );
    }
    println!(
        "\n  # as an operator: revoke a user; within two seconds its tokens get 401 (until the files are renewed)"
    );
    println!(
        "  APP_PROFILE=development APP_DATABASE__OPERATOR_URL_FILE={} cargo run --features dev -- \\\n    \
         incident revoke subject viewer@globex.example --reason 'trying it'",
        tokens.operator_url.display()
    );
    println!("\n  # 200: a token for a service, by client credentials (needs jq)");
    println!(
        "  curl -s -u {SERVICE_CLIENT}:{} -d grant_type=client_credentials -d scope={scope} {}/token | jq -r \
         .access_token",
        issuer.service_secret(),
        issuer.url()
    );
    println!("\n  # 200, on the internal listener: the client certificate names the service");
    for (client, path) in [("prometheus", "/metrics"), ("job", demo.list)] {
        println!(
            "  curl -s -w '\\n%{{http_code}}\\n' --cacert {} --cert {} --key {} 'https://{internal}{path}'",
            certificates.root().display(),
            certificates.certificate(client).display(),
            certificates.key(client).display()
        );
    }
    println!("\nCtrl-C stops everything.\n");
}
