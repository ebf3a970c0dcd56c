//! `POST /tenants` on the internal listener: the commands of `tenant …` (AUTHN-11, CRYPTO-08).
//!
//! A service with the right `tenants` sends a command as JSON. The command runs with the operator's
//! PostgreSQL login and is audited under the name of the service. A deletion continues in the
//! background; the same command continues one that broke off.

use http::{StatusCode, header};
#[cfg(feature = "exports")]
use poem::Body;
use poem::{Request, Response};
use serde_json::json;

use super::IncidentCommands;
use crate::{
    http::strict_json,
    model::Clock,
    ops::{Deletion, TenantCommand, TenantError},
    problem::{Kind, Problem},
    store::maintenance::OperatorError,
    telemetry::causes,
};

/// Runs the command in the body of the request. The audit trail names `service`.
///
/// Answers 200 with the outcome, or with the file of an export; 202 for a deletion, which continues in
/// the background.
pub(super) async fn handle(
    commands: Option<&IncidentCommands>,
    clock: &Clock,
    service: &str,
    request: &mut Request,
) -> Result<Response, Problem> {
    let Some(commands) = commands else { return Err(Problem::new(Kind::NotFound)) };
    let value = strict_json::read_body(request).await?;
    let command: TenantCommand = serde_json::from_value(value).map_err(|_| {
        Problem::new(Kind::InvalidInput).detail("Unknown command, or a field is missing, unknown or invalid.")
    })?;
    let url = commands.database_url().await;
    #[cfg(feature = "exports")]
    if let TenantCommand::Export(export) = &command {
        let export = export.start(&commands.maintenance, &url, service, clock).await.map_err(problem)?;
        let body = Body::from_bytes_stream(export.into_stream());
        return Ok(Response::builder().status(StatusCode::OK).content_type("application/octet-stream").body(body));
    }
    #[cfg(not(feature = "exports"))]
    let _ = clock;
    let outcome = command.run(&url, service).await.map_err(problem)?;
    let status = if outcome.deletion.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    if let Some(deletion) = outcome.deletion {
        tokio::spawn(complete(deletion));
    }
    let body = json!({ "outcome": outcome.lines }).to_string();
    Ok(Response::builder()
        .status(status)
        .header(header::CACHE_CONTROL, "no-store")
        .content_type("application/json")
        .body(body))
}

/// Completes a deletion in the background.
async fn complete(deletion: Deletion) {
    if let Err(error) = deletion.complete(|line| tracing::info!(line, "deletion of a tenant progresses")).await {
        tracing::error!(%error, "deletion of a tenant is incomplete; repeat `tenant delete`");
    }
}

fn problem(error: TenantError) -> Problem {
    match error {
        TenantError::Invalid(fault) => Problem::new(Kind::InvalidInput).detail(fault),
        TenantError::Operator(OperatorError::ExternalIdTaken) => {
            Problem::new(Kind::Conflict).detail("Another tenant has this external id of this issuer.")
        }
        TenantError::Operator(OperatorError::TenantNotSuspended) => {
            Problem::new(Kind::Conflict).detail("The tenant was not suspended for a day.")
        }
        error => {
            tracing::error!(%error, cause = causes(&error), "command on a tenant failed");
            Problem::new(Kind::Unavailable)
        }
    }
}
