//! Incident commands (LOG-08): revoke, end sign-ins, throttle, read-only mode, rotate keys.
//!
//! The same types are parsed by clap for `incident …` and by serde for `POST /incidents`. `main`
//! and the internal listener call [`Incident::run`], which carries out the command with an operator
//! login and records it in the audit trail. Overrides reach every replica within two seconds.

use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, Subcommand};
use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

use super::{ResealOptions, Revocation, Throttle, check_reason};
use crate::{
    authn::{API_KEY_SUBJECT, SERVICE_SUBJECT, strip_subject_prefix},
    model::{Override, RevocationKind, TenantId},
    store::maintenance::{Operator, OperatorError},
    telemetry::event,
};

/// Maximum duration of an override, in hours: a year.
pub(super) const MAX_HOURS: i32 = 8_784;

/// An incident command. The audit trail records each one, with its reason.
#[derive(Clone, Debug, Subcommand, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Incident {
    /// Revoke credentials before they expire; effective on all replicas within 2 s
    Revoke(Revocation),
    #[cfg_attr(
        feature = "api_keys",
        doc = "End all sign-ins of a person on all replicas within 2 s; their API keys stay valid"
    )]
    #[cfg_attr(not(feature = "api_keys"), doc = "End all sign-ins of a person on all replicas within 2 s")]
    Sessions(Sessions),
    /// Set a temporary rate limit for a tenant, for everyone or for a network, within 2 s
    Throttle(Throttle),
    /// Turn read-only mode on or off on all replicas, within 2 s
    ReadOnly(ReadOnly),
    /// Create a new data key for one tenant or all, and re-encrypt sealed data with it
    Rotate(Rotation),
}

/// The person whose sign-ins end.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sessions {
    /// The person's subject as it appears in logs
    pub subject: String,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// Read-only mode, on or off.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadOnly {
    /// `true` turns read-only mode on, `false` turns it off
    #[arg(action = ArgAction::Set)]
    pub on: bool,
    /// Hours until read-only mode ends by itself
    #[arg(long, default_value_t = one_day())]
    #[serde(default = "one_day")]
    pub hours: i32,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// The tenant whose data keys are rotated, or all.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// UUID of the tenant; default: all tenants
    #[arg(long)]
    pub tenant: Option<Uuid>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

pub(super) const fn one_day() -> i32 {
    24
}

/// Result of an incident command.
#[derive(Clone, Debug)]
pub struct IncidentOutcome {
    /// One line for the operator.
    pub message: String,
    /// Set if the caller must also re-encrypt sealed data, which takes long: see
    /// [`rotate`](super::rotate).
    pub rotation: Option<ResealOptions>,
}

/// Errors of an incident command. Nothing was changed, as far as is known.
#[derive(Debug, Error)]
pub enum IncidentError {
    /// A value is out of bounds, or contradicts another one.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database refused or did not answer.
    #[error(transparent)]
    Store(#[from] OperatorError),
}

impl Incident {
    /// Carries out the command with the operator's `login`. `actor` is the service that sent it,
    /// which the audit trail names; empty at the command line.
    pub async fn run(
        &self,
        login: &SecretString,
        actor: &str,
        now: DateTime<Utc>,
    ) -> Result<IncidentOutcome, IncidentError> {
        let connect = async || Operator::connect_for(login, actor).await;
        let (message, rotation) = match self {
            Self::Revoke(revocation) => (revocation.run(connect, now).await?, None),
            Self::Sessions(sessions) => (sessions.run(connect).await?, None),
            Self::Throttle(throttle) => (throttle.run(connect).await?, None),
            Self::ReadOnly(read_only) => (read_only.run(connect).await?, None),
            Self::Rotate(rotation) => {
                check_reason(&rotation.reason).map_err(IncidentError::Invalid)?;
                connect().await?.record_rotation(rotation.tenant.map(TenantId::from_uuid), &rotation.reason).await?;
                ("keys are being rotated".to_owned(), Some(ResealOptions::new(rotation.tenant)))
            }
        };
        event::incident_handled(self.name(), actor, &message, self.reason());
        Ok(IncidentOutcome { message, rotation })
    }

    fn reason(&self) -> &str {
        match self {
            Self::Revoke(Revocation { reason, .. })
            | Self::Sessions(Sessions { reason, .. })
            | Self::Throttle(Throttle { reason, .. })
            | Self::ReadOnly(ReadOnly { reason, .. })
            | Self::Rotate(Rotation { reason, .. }) => reason,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Revoke(_) => "revoke",
            Self::Sessions(_) => "sessions",
            Self::Throttle(_) => "throttle",
            Self::ReadOnly(_) => "read-only",
            Self::Rotate(_) => "rotate",
        }
    }
}

impl Sessions {
    async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
    ) -> Result<String, IncidentError> {
        check_reason(&self.reason).map_err(IncidentError::Invalid)?;
        super::revocation::check_name(&self.subject)?;
        if [SERVICE_SUBJECT, API_KEY_SUBJECT].iter().any(|kind| strip_subject_prefix(&self.subject, kind).is_some()) {
            return Err(IncidentError::Invalid("only people have sign-ins; use `revoke subject` for other subjects"));
        }
        let entry = connect().await?.revoke(RevocationKind::Sessions, &self.subject, None, &self.reason).await?;
        Ok(format!("sign-ins of {} ended (entry {entry})", self.subject))
    }
}

impl ReadOnly {
    async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
    ) -> Result<String, IncidentError> {
        let hours = if self.on { checked_hours(self.hours)? } else { 0 };
        check_reason(&self.reason).map_err(IncidentError::Invalid)?;
        let until = connect().await?.apply_override(&Override::ReadOnly, hours, &self.reason).await?;
        Ok(if hours > 0 {
            format!("{} until {}", Override::ReadOnly, until.to_rfc3339())
        } else {
            "read-only mode is off".to_owned()
        })
    }
}

/// Checks the duration of an override.
pub(super) fn checked_hours(hours: i32) -> Result<i32, IncidentError> {
    if (0..=MAX_HOURS).contains(&hours) {
        Ok(hours)
    } else {
        Err(IncidentError::Invalid("an override lasts 0 to 8784 hours"))
    }
}
