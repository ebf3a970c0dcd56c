//! `POST /incidents` on the internal listener: the incident commands of the command line (LOG-08).
//!
//! A service with the right `incidents` sends a command as JSON. The command runs with the
//! operator's PostgreSQL login and is audited under the name of the service. A key rotation
//! continues in the background, one at a time.

use std::sync::Arc;

use http::StatusCode;
use poem::{Request, Response};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    http::strict_json,
    model::{Clock, TenantId},
    ops::{self, Incident, IncidentError, ResealOptions, Rotation},
    problem::{Kind, Problem},
    settings::{LoginSettings, Sources},
    store::maintenance::Maintenance,
    telemetry::causes,
};

/// Runs incident commands for services.
#[derive(Debug)]
pub struct IncidentCommands {
    login: LoginSettings,
    sources: Sources,
    /// Locked while a key rotation runs.
    rotation_lock: Arc<Mutex<()>>,
    pub(super) maintenance: Maintenance,
}

impl IncidentCommands {
    /// `login` is the operator's login at startup; `sources` are read again for each command.
    #[must_use]
    pub fn new(login: LoginSettings, sources: Sources, maintenance: Maintenance) -> Self {
        Self { login, sources, rotation_lock: Arc::default(), maintenance }
    }

    /// The URL of the operator's login, with the password of now instead of startup.
    ///
    /// Falls back to the startup URL: in an incident, an unrelated fault in the settings must not
    /// block the command.
    pub(super) async fn database_url(&self) -> SecretString {
        let sources = self.sources.clone();
        let settings = tokio::task::spawn_blocking(move || sources.read()).await;
        let login = settings.ok().and_then(Result::ok).and_then(|settings| settings.incidents);
        login.map_or_else(
            || {
                tracing::warn!("settings unreadable; using the startup password for this incident command");
                self.login.url.clone()
            },
            |login| login.url,
        )
    }
}

/// Runs the command in the body of the request. The audit trail names `service`.
///
/// Answers 200 with the outcome, or 202 for a key rotation, which continues in the background.
pub(super) async fn handle(
    commands: Option<&IncidentCommands>,
    clock: &Clock,
    service: &str,
    request: &mut Request,
) -> Result<Response, Problem> {
    let Some(commands) = commands else { return Err(Problem::new(Kind::NotFound)) };
    let value = strict_json::read_body(request).await?;
    let incident: Incident = serde_json::from_value(value).map_err(|_| {
        Problem::new(Kind::InvalidInput).detail("Unknown command, or a field is missing, unknown or invalid.")
    })?;
    let rotation_guard = match &incident {
        Incident::Rotate(rotation) => Some(lock_rotation(commands, rotation).await?),
        _ => None,
    };
    let url = commands.database_url().await;
    let done = incident.run(&url, service, clock.now()).await.map_err(|error| match error {
        IncidentError::Invalid(fault) => Problem::new(Kind::InvalidInput).detail(fault),
        IncidentError::Store(error) => {
            tracing::error!(%error, cause = causes(&error), "incident command failed");
            Problem::new(Kind::Unavailable)
        }
    })?;
    let status = match done.rotation.zip(rotation_guard) {
        Some((options, guard)) => {
            tokio::spawn(rotate(commands.maintenance.clone(), options, guard));
            StatusCode::ACCEPTED
        }
        None => StatusCode::OK,
    };
    let body = json!({ "outcome": done.message }).to_string();
    Ok(Response::builder().status(status).content_type("application/json").body(body))
}

/// Rejects a second rotation (409), and a tenant without data keys (400).
async fn lock_rotation(commands: &IncidentCommands, rotation: &Rotation) -> Result<OwnedMutexGuard<()>, Problem> {
    let guard = Arc::clone(&commands.rotation_lock)
        .try_lock_owned()
        .map_err(|_| Problem::new(Kind::Conflict).detail("A key rotation is already in progress."))?;
    if let Some(tenant) = rotation.tenant.map(TenantId::from_uuid)
        && !commands.maintenance.has_data_keys(tenant).await?
    {
        return Err(Problem::new(Kind::InvalidInput).detail("Unknown tenant, or a tenant without encrypted data."));
    }
    Ok(guard)
}

/// Rotates keys in the background. `keys reseal` completes a rotation that breaks off.
async fn rotate(maintenance: Maintenance, options: ResealOptions, _guard: OwnedMutexGuard<()>) {
    match ops::rotate(&maintenance, &options, &mut |line| tracing::info!(line, "key rotation progress")).await {
        Ok(()) => tracing::info!("key rotation finished"),
        Err(error) => tracing::error!(%error, "key rotation failed or is incomplete; run `keys reseal`"),
    }
}
