//! What to do in an incident: the same from the command line and at the internal listener (LOG-08).

use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, Subcommand};
use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

use super::{Pass, Revocation, Throttle, check_reason};
use crate::{
    authn::{API_KEY_SUBJECT, SERVICE_SUBJECT, after_kind},
    domain::{Measure, RevocationKind, TenantId},
    store::{Operator, OperatorError},
    telemetry::event,
};

/// Longest time that a measure may be in force, in hours: a year.
pub(super) const MAX_HOURS: i32 = 8_784;

/// What to do. Each act is in the audit trail, with its reason.
#[derive(Clone, Debug, Subcommand, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Incident {
    /// Refuse credentials before they end, at every replica within two seconds
    Revoke(Revocation),
    /// End the sign-ins of a person, at every replica within two seconds: they sign in again, and their API keys go on
    Sessions(Sessions),
    /// Give a tenant, everyone or a range of addresses a limit of their own, at every replica within two seconds
    Throttle(Throttle),
    /// Have nobody change anything, at every replica within two seconds
    ReadOnly(ReadOnly),
    /// Give every tenant, or one, a new data key and seal everything anew with it
    Rotate(Rotation),
}

/// Whose sign-ins end, and why.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sessions {
    /// The person, as logs show them
    pub subject: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// Whether anything may be changed, and why not.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadOnly {
    /// `true` for read-only, `false` for as usual
    #[arg(action = ArgAction::Set)]
    pub on: bool,
    /// After so many hours it is as usual again
    #[arg(long, default_value_t = one_day())]
    #[serde(default = "one_day")]
    pub hours: i32,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// Whose keys are rotated, and why.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<Uuid>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

pub(super) const fn one_day() -> i32 {
    24
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Done {
    /// For whoever ordered it.
    pub said: String,
    /// What is to be done besides, and takes its time: see [`rotate`](super::rotate).
    pub rotate: Option<Pass>,
}

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum NotDone {
    /// A value is out of bounds, or does not fit another.
    #[error("{0}")]
    Value(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] OperatorError),
}

impl Incident {
    /// Does it with the operator's login, for `whom` if that is somebody else.
    pub async fn run(&self, login: &SecretString, whom: &str, now: DateTime<Utc>) -> Result<Done, NotDone> {
        let connect = async || Operator::connect_for(login, whom).await;
        let (said, rotate) = match self {
            Self::Revoke(revocation) => (revocation.run(connect, now).await?, None),
            Self::Sessions(sessions) => (sessions.run(connect).await?, None),
            Self::Throttle(throttle) => (throttle.run(connect).await?, None),
            Self::ReadOnly(read_only) => (read_only.run(connect).await?, None),
            Self::Rotate(rotation) => {
                check_reason(&rotation.reason).map_err(NotDone::Value)?;
                connect().await?.note_rotation(rotation.tenant.map(TenantId::from_uuid), &rotation.reason).await?;
                ("keys are being rotated".to_owned(), Some(Pass::of(rotation.tenant)))
            }
        };
        event::incident_handled(self.name(), whom, &said, self.reason());
        Ok(Done { said, rotate })
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
    async fn run(&self, connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>) -> Result<String, NotDone> {
        check_reason(&self.reason).map_err(NotDone::Value)?;
        super::revocation::check_name(&self.subject)?;
        if [SERVICE_SUBJECT, API_KEY_SUBJECT].iter().any(|kind| after_kind(&self.subject, kind).is_some()) {
            return Err(NotDone::Value("only persons sign in; `revoke subject` shuts out a service or an API key"));
        }
        let entry = connect().await?.revoke(RevocationKind::Sessions, &self.subject, None, &self.reason).await?;
        Ok(format!("sign-ins of {} ended (entry {entry})", self.subject))
    }
}

impl ReadOnly {
    async fn run(&self, connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>) -> Result<String, NotDone> {
        let hours = if self.on { checked_hours(self.hours)? } else { 0 };
        check_reason(&self.reason).map_err(NotDone::Value)?;
        let until = connect().await?.order(&Measure::ReadOnly, hours, &self.reason).await?;
        Ok(if hours > 0 {
            format!("{} until {}", Measure::ReadOnly, until.to_rfc3339())
        } else {
            "not read-only".to_owned()
        })
    }
}

/// How long a measure is in force.
pub(super) fn checked_hours(hours: i32) -> Result<i32, NotDone> {
    if (0..=MAX_HOURS).contains(&hours) {
        Ok(hours)
    } else {
        Err(NotDone::Value("a measure is in force for 0 to 8784 hours"))
    }
}
