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
    certificates::Certificates,
    demo::{self, Person},
    files::write_private,
    issuer::{DevIssuer, SERVICE_CLIENT, WEB_CLIENT},
    run::DevError,
};
use crate::authz::matrix::Scope;

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
        write().map_err(|source| DevError::Files { folder: files.folder.clone(), source })?;
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
        for person in demo::people() {
            let token = issuer.access_token(&person, &Scope::ALL);
            write_private(&self.path(&person), &token)?;
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
    elapsed: Duration,
) {
    let base = format!("http://{api}");
    let token = |name: &str| format!("$(cat {})", tokens.folder.join(name).display());
    let auth = |name: &str| format!("-H \"Authorization: Bearer {}\"", token(name));
    let order = demo::FIRST_ORDER;
    println!("\nReady in {:.1} s.\n", elapsed.as_secs_f64());
    println!("  API          {base}");
    println!("  docs         {base}/docs");
    println!("  internal     https://{internal}, by client certificate");
    println!("  issuer       {}", issuer.url());
    println!("  database     {database}");
    println!("\nTokens, renewed every 10 minutes, one file per tenant and role:\n");
    for person in demo::people() {
        println!("  {:<8} {:<8} {}", person.tenant_name, person.role.as_str(), tokens.path(&person).display());
    }
    println!("\nClients of the issuer: {WEB_CLIENT} (public, code + PKCE), {SERVICE_CLIENT} (client credentials).");
    println!("\nTry (each prints its status last):\n");
    let body = r#"{"lines":[{"sku":"PAPER-A4","quantity":3}],"shippingSpeed":"express"}"#;
    let post = format!("-H 'Content-Type: application/json' -d '{body}' {base}/v1/orders");
    let sales = auth("acme-sales");
    let viewer = auth("acme-viewer");
    let other_tenant = auth("globex-admin");
    let customer = demo::FIRST_CUSTOMER;
    let pay = format!(
        "{} -H 'Idempotency-Key: try-it' -H 'Content-Type: application/json' \
         -d '{{\"amount\":{{\"amount\":100,\"currency\":\"EUR\"}}}}' {base}/v1/invoices/{}/payments",
        auth("acme-billing"),
        demo::OPEN_INVOICE
    );
    for (status, meaning, arguments) in [
        ("201", "place an order", format!("{sales} {post}")),
        ("200", "list orders", format!("{viewer} '{base}/v1/orders?limit=2'")),
        ("200", "read one order", format!("{viewer} {base}/v1/orders/{order}")),
        ("200", "read a customer; personal data is masked", format!("{sales} {base}/v1/customers/{customer}")),
        ("201", "record a payment; a retry does not pay twice", pay),
        ("401", "no token", format!("{base}/v1/orders")),
        ("403", "a viewer may not place orders", format!("{viewer} {post}")),
        ("404", "another tenant's order looks like a missing one", format!("{other_tenant} {base}/v1/orders/{order}")),
        (
            "400",
            "a field that is not in the schema",
            format!("{sales} -H 'Content-Type: application/json' -d '{{\"price\":1}}' {base}/v1/orders"),
        ),
    ] {
        println!("  # {status}: {meaning}");
        println!("  curl -s -w '\\n%{{http_code}}\\n' {arguments}");
    }
    let new_key = "-d '{\"name\":\"try\",\"scopes\":[\"orders:read\"],\"validForDays\":30}'";
    println!("  # 201: an API key, for the header X-API-Key");
    println!(
        "  curl -s -w '\\n%{{http_code}}\\n' {} -H 'Content-Type: application/json' {new_key} {base}/v1/api-keys",
        auth("acme-admin")
    );
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
        "  curl -s -u {SERVICE_CLIENT}:{} -d grant_type=client_credentials -d scope=orders:read {}/token | jq -r \
         .access_token",
        issuer.service_secret(),
        issuer.url()
    );
    println!("\n  # 200, on the internal listener: the client certificate names the service");
    for (client, path) in [("prometheus", "/metrics"), ("job", "/v1/orders?limit=2")] {
        println!(
            "  curl -s -w '\\n%{{http_code}}\\n' --cacert {} --cert {} --key {} 'https://{internal}{path}'",
            certificates.root().display(),
            certificates.certificate(client).display(),
            certificates.key(client).display()
        );
    }
    println!("\nCtrl-C stops everything.\n");
}
