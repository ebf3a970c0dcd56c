//! What operators order at the internal listener: the same commands as at the command line (LOG-08).

use std::sync::Arc;

use http::StatusCode;
use poem::{Request, Response};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Context, strict_json};
use crate::{
    domain::TenantId,
    ops::{self, Incident, NotDone, Pass, Rotation},
    problem::{Kind, Problem},
    settings::{LoginSettings, Sources},
    store::Database,
};

/// Where they are carried out.
#[derive(Debug)]
pub struct IncidentDesk {
    login: LoginSettings,
    sources: Sources,
    /// Held by a rotation that is under way.
    rotating: Arc<Mutex<()>>,
}

impl IncidentDesk {
    /// With the login of the settings, and where it is read anew each time.
    #[must_use]
    pub fn new(login: LoginSettings, sources: Sources) -> Self {
        Self { login, sources, rotating: Arc::default() }
    }

    /// Its password may be another by now. If something else cannot be read, an incident is no time to insist on it.
    async fn login(&self) -> SecretString {
        let sources = self.sources.clone();
        let now = tokio::task::spawn_blocking(move || sources.read()).await;
        let now = now.ok().and_then(Result::ok).and_then(|settings| settings.incidents);
        now.map_or_else(
            || {
                tracing::warn!("settings cannot be read: an order is carried out with the password of the start");
                self.login.url.clone()
            },
            |login| login.url,
        )
    }
}

/// Does what a service orders that has the right to. Its name is in the audit trail.
pub(super) async fn handle(context: &Context, service: &str, request: &mut Request) -> Result<Response, Problem> {
    let Some(desk) = &context.incidents else { return Err(Problem::new(Kind::NotFound)) };
    let value = strict_json::read_body(request).await?;
    let incident: Incident = serde_json::from_value(value)
        .map_err(|_| Problem::new(Kind::InvalidInput).detail("This is none of the commands, or not all of one."))?;
    let rotation = match &incident {
        Incident::Rotate(rotation) => Some(begin_rotation(context, desk, rotation).await?),
        _ => None,
    };
    let login = desk.login().await;
    let done = incident.run(&login, service, context.clock.now()).await.map_err(|error| match error {
        NotDone::Value(fault) => Problem::new(Kind::InvalidInput).detail(fault),
        NotDone::Store(error) => {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "an order was not carried out");
            Problem::new(Kind::Unavailable)
        }
    })?;
    let status = match done.rotate.zip(rotation) {
        Some((pass, alone)) => {
            tokio::spawn(rotate(context.database.clone(), pass, alone));
            StatusCode::ACCEPTED
        }
        None => StatusCode::OK,
    };
    let body = json!({ "outcome": done.said }).to_string();
    Ok(Response::builder().status(status).content_type("application/json").body(body))
}

/// One at a time, and only of a tenant that there is.
async fn begin_rotation(
    context: &Context,
    desk: &IncidentDesk,
    rotation: &Rotation,
) -> Result<OwnedMutexGuard<()>, Problem> {
    let busy = |_| Problem::new(Kind::Conflict).detail("Keys are being rotated.");
    let alone = Arc::clone(&desk.rotating).try_lock_owned().map_err(busy)?;
    let tenants = context.database.tenants_with_keys().await?;
    if rotation.tenant.is_some_and(|tenant| !tenants.contains(&TenantId::from_uuid(tenant))) {
        return Err(Problem::new(Kind::InvalidInput).detail("There is no such tenant, or it has nothing sealed."));
    }
    Ok(alone)
}

/// Beside the requests. If it is broken off, `keys reseal` goes on.
async fn rotate(database: Database, pass: Pass, _alone: OwnedMutexGuard<()>) {
    match ops::rotate(&database, &pass, &mut |line| tracing::info!(line, "rotating keys")).await {
        Ok(()) => tracing::info!("keys were rotated"),
        Err(error) => tracing::error!(%error, "keys were not rotated, or not all"),
    }
}
