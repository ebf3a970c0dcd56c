use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{NotDone, check_reason};
use crate::{
    authn::{API_KEY_SUBJECT, SERVICE_SUBJECT, after_kind, api_key_id},
    domain::RevocationKind,
    store::{Operator, OperatorError},
};

/// How far ahead an instant may be: more than any issuer's clock is that is believed.
const AHEAD: TimeDelta = TimeDelta::minutes(5);

/// What is revoked, and why.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// What the value names
    #[arg(value_enum)]
    pub kind: Kind,
    /// The `jti`, the subject or client as logs show it, or the tenant's UUID; nothing for everything
    #[arg(default_value = "")]
    #[serde(default)]
    pub value: String,
    /// Credentials issued at this time or earlier are refused, later ones accepted (RFC 3339). Default: now; at most five
    /// minutes ahead, for an issuer whose clock is
    #[arg(long, value_name = "TIME")]
    pub before: Option<DateTime<Utc>>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// What a revocation names (AUTHN-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One token, by its `jti`, and the API keys that were made by it
    Token,
    /// All tokens of a person or program, and the API keys they made; or one API key, as `api-key:<id>`, or with the part of its text
    /// between the two `_` in place of the id
    Subject,
    /// All tokens that a client got; not the API keys
    Client,
    /// All tokens and API keys of a tenant
    Tenant,
    /// All tokens and API keys there are
    Everything,
}

impl From<Kind> for RevocationKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Token => Self::Token,
            Kind::Subject => Self::Subject,
            Kind::Client => Self::Client,
            Kind::Tenant => Self::Tenant,
            Kind::Everything => Self::Everything,
        }
    }
}

impl Revocation {
    /// Revokes. Every replica refuses the credentials within two seconds.
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
        now: DateTime<Utc>,
    ) -> Result<String, NotDone> {
        let value = self.checked_value()?;
        if self.before.is_some_and(|before| before > now + AHEAD) {
            return Err(NotDone::Value("what is issued more than five minutes ahead cannot be revoked yet"));
        }
        if self.before.is_some() && self.kind == Kind::Token {
            return Err(NotDone::Value("a token is revoked whenever it was issued: no instant is needed"));
        }
        let entry = connect().await?.revoke(self.kind.into(), &value, self.before, &self.reason).await?;
        Ok(format!(
            "revoked {} (entry {entry})",
            [RevocationKind::from(self.kind).as_str(), &value].join(" ").trim_end()
        ))
    }

    /// A value that names nothing would revoke nothing, and nobody would notice.
    fn checked_value(&self) -> Result<String, NotDone> {
        check_reason(&self.reason).map_err(NotDone::Value)?;
        match self.kind {
            Kind::Everything if self.value.is_empty() => Ok(String::new()),
            Kind::Everything => Err(NotDone::Value("`everything` takes no value")),
            // In the one spelling that is compared.
            Kind::Tenant if !self.value.is_empty() => {
                let id: uuid::Uuid = self.value.parse().map_err(|_| NotDone::Value("a tenant is named by its UUID"))?;
                Ok(id.to_string())
            }
            Kind::Subject => {
                check_name(&self.value)?;
                // No token has such a subject in letters of whatever case, so it is meant for one of these.
                if let Some(named) = after_kind(&self.value, API_KEY_SUBJECT) {
                    let id = api_key_id(named).ok_or(NotDone::Value(
                        "an API key is named by its id, or by the part of its text between the two `_`",
                    ))?;
                    return Ok(format!("{API_KEY_SUBJECT}{id}"));
                }
                // The names of services are small, however they are written in the settings.
                let is_service = after_kind(&self.value, SERVICE_SUBJECT).is_some();
                Ok(if is_service { self.value.to_ascii_lowercase() } else { self.value.clone() })
            }
            _ => check_name(&self.value).map(|()| self.value.clone()),
        }
    }
}

/// What names somebody or something.
pub(super) fn check_name(name: &str) -> Result<(), NotDone> {
    let fault = match name {
        "" => "a value is required",
        _ if name.len() > 255 => "a value has at most 255 bytes",
        _ if name.contains(char::is_control) => "a value has no control characters",
        _ => return Ok(()),
    };
    Err(NotDone::Value(fault))
}
