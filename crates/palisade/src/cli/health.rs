//! The command `health`: asks the service on this machine for its readiness or liveness (FAIL-04).
//!
//! For the probes of containers, whose image has neither a shell nor `curl`. It reads the address
//! from the settings of `serve`, and no secret. The exit status is the result.

use std::{error::Error as StdError, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use url::Url;

use crate::settings::ProbeSettings;

/// Time for the whole probe. Orchestrators count a probe that takes longer as failed.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(super) struct Health {
    /// Ask for liveness, which depends on nothing, instead of readiness
    #[arg(long)]
    live: bool,
    /// URL of the service; by default that of `APP_HTTP__LISTEN` on this machine
    #[arg(long)]
    url: Option<Url>,
}

impl Health {
    /// Fails unless the service answers 200 in time.
    pub(super) async fn run(self) -> Result<(), Box<dyn StdError>> {
        let mut client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT);
        let mut url = if let Some(url) = self.url {
            url
        } else {
            let ProbeSettings { address, is_tls } = ProbeSettings::load()?;
            // The certificate names another host, and an expired one is no reason for a restart. The
            // probe sends no credential, and the connection does not leave this machine.
            client = client.tls_danger_accept_invalid_certs(true);
            Url::parse(&format!("{}://{address}", if is_tls { "https" } else { "http" }))?
        };
        url.set_path(if self.live { "/health/live" } else { "/health/ready" });
        let status = client.build()?.get(url).send().await.map_err(reqwest::Error::without_url)?.status();
        if status != StatusCode::OK {
            return Err(format!("the service answered {status}").into());
        }
        println!("{}", if self.live { "up" } else { "ready" });
        Ok(())
    }
}
