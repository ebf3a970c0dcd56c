//! What operators order at the internal listener: the same commands as at the command line (LOG-08).

use http::StatusCode;
use poem::{Request, Response};
use secrecy::SecretString;
use serde_json::json;

use super::{Context, strict_json};
use crate::{
    ops::{self, Incident, NotDone, Pass},
    problem::{Kind, Problem},
    settings::{LoginSettings, Sources},
    store::Database,
};

/// Where they are carried out.
#[derive(Debug)]
pub struct IncidentDesk {
    login: LoginSettings,
    sources: Sources,
}

impl IncidentDesk {
    /// With the operator's login of the settings, and where it is read anew each time.
    #[must_use]
    pub fn new(login: LoginSettings, sources: Sources) -> Self {
        Self { login, sources }
    }

    /// Its password may be another by now. If something else cannot be read, an incident is no time to insist on it.
    fn login(&self) -> SecretString {
        let now = self.sources.read().ok().and_then(|settings| settings.incidents);
        now.map_or_else(|| self.login.url.clone(), |login| login.url)
    }
}

/// Does what a service orders that has the right to. Its name is in the audit trail.
pub(super) async fn handle(context: &Context, service: &str, request: &mut Request) -> Result<Response, Problem> {
    let Some(desk) = &context.incidents else { return Err(Problem::new(Kind::NotFound)) };
    let value = strict_json::read_body(request).await?;
    let incident: Incident = serde_json::from_value(value)
        .map_err(|_| Problem::new(Kind::InvalidInput).detail("This is none of the commands, or not all of one."))?;
    let done = incident.run(&desk.login(), service, context.clock.now()).await.map_err(|error| match error {
        NotDone::Value(fault) => Problem::new(Kind::InvalidInput).detail(fault),
        NotDone::Store(error) => {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "an order was not carried out");
            Problem::new(Kind::Unavailable)
        }
    })?;
    let status = match done.rotate {
        Some(pass) => {
            tokio::spawn(rotate(context.database.clone(), pass));
            StatusCode::ACCEPTED
        }
        None => StatusCode::OK,
    };
    let body = json!({ "outcome": done.said }).to_string();
    Ok(Response::builder().status(status).content_type("application/json").body(body))
}

/// Beside the requests. If it is broken off, `keys reseal` goes on.
async fn rotate(database: Database, pass: Pass) {
    match ops::rotate(&database, &pass, &mut |line| tracing::info!(line, "rotating keys")).await {
        Ok(()) => tracing::info!("keys were rotated"),
        Err(error) => tracing::error!(%error, "keys were not rotated, or not all"),
    }
}
