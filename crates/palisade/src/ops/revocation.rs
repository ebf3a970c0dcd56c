//! `incident revoke`: ends credentials before they expire (AUTHN-11).
//!
//! Called by [`super::Incident`]. Checks that the value identifies something, since a misspelt
//! value would revoke nothing without an error, and writes the revocation with the operator's
//! login.

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{IncidentError, check_reason};
use crate::{
    authn::{API_KEY_SUBJECT, SERVICE_SUBJECT, api_key_subject, strip_subject_prefix},
    model::RevocationKind,
    store::maintenance::{Operator, OperatorError},
};

/// How far in the future `--before` may be: more than the accepted clock skew of an issuer.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// The credentials that are revoked.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// Type of the value
    #[arg(value_enum)]
    pub kind: RevokeKind,
    /// The `jti`, the subject or client as it appears in logs, or the UUID of the tenant; empty for
    /// `everything`
    #[arg(default_value = "")]
    #[serde(default)]
    pub value: String,
    /// Revoke credentials issued at this time or earlier (RFC 3339), at most five minutes in the
    /// future in case the issuer's clock is ahead; default: now
    #[arg(long, value_name = "TIME")]
    pub before: Option<DateTime<Utc>>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// What the value of a revocation identifies (AUTHN-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevokeKind {
    #[cfg_attr(feature = "api_keys", doc = "One token by its `jti`, and the API keys that were created with it")]
    #[cfg_attr(not(feature = "api_keys"), doc = "One token by its `jti`")]
    Token,
    #[cfg_attr(
        feature = "api_keys",
        doc = "All tokens of a person or service, and the API keys they created; or one API key, as `api-key:<id>`, where the part of the key's text between the two `_` may replace the id"
    )]
    #[cfg_attr(not(feature = "api_keys"), doc = "All tokens of a person or service")]
    Subject,
    #[cfg_attr(feature = "api_keys", doc = "All tokens that were issued to a client, but no API keys")]
    #[cfg_attr(not(feature = "api_keys"), doc = "All tokens that were issued to a client")]
    Client,
    #[cfg_attr(feature = "api_keys", doc = "All tokens and API keys of a tenant")]
    #[cfg_attr(not(feature = "api_keys"), doc = "All tokens of a tenant")]
    Tenant,
    #[cfg_attr(feature = "api_keys", doc = "All tokens and API keys")]
    #[cfg_attr(not(feature = "api_keys"), doc = "All tokens")]
    Everything,
}

impl From<RevokeKind> for RevocationKind {
    fn from(kind: RevokeKind) -> Self {
        match kind {
            RevokeKind::Token => Self::Token,
            RevokeKind::Subject => Self::Subject,
            RevokeKind::Client => Self::Client,
            RevokeKind::Tenant => Self::Tenant,
            RevokeKind::Everything => Self::Everything,
        }
    }
}

impl Revocation {
    /// Revokes the credentials. Every replica rejects them within two seconds.
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Operator, OperatorError>,
        now: DateTime<Utc>,
    ) -> Result<String, IncidentError> {
        let value = self.checked_value()?;
        if self.before.is_some_and(|before| before > now + MAX_AHEAD) {
            return Err(IncidentError::Invalid(
                "credentials issued more than five minutes in the future cannot be revoked yet",
            ));
        }
        if self.before.is_some() && self.kind == RevokeKind::Token {
            return Err(IncidentError::Invalid(
                "`before` does not apply to a token: it is revoked whenever it was issued",
            ));
        }
        let kind = RevocationKind::from(self.kind);
        let entry = connect().await?.revoke(kind, &value, self.before, &self.reason).await?;
        Ok(format!("revoked {} (entry {entry})", [kind.as_str(), &value].join(" ").trim_end()))
    }

    /// The value in the spelling that tokens and API keys are compared with.
    fn checked_value(&self) -> Result<String, IncidentError> {
        check_reason(&self.reason).map_err(IncidentError::Invalid)?;
        match self.kind {
            RevokeKind::Everything if self.value.is_empty() => Ok(String::new()),
            RevokeKind::Everything => Err(IncidentError::Invalid("`everything` takes no value")),
            // Lower case with hyphens, the spelling that is compared.
            RevokeKind::Tenant if !self.value.is_empty() => {
                let id: uuid::Uuid =
                    self.value.parse().map_err(|_| IncidentError::Invalid("a tenant is identified by its UUID"))?;
                Ok(id.to_string())
            }
            RevokeKind::Subject => {
                check_name(&self.value)?;
                // In any letter case, this prefix is reserved for API keys: no token has such a
                // subject.
                if let Some(named) = strip_subject_prefix(&self.value, API_KEY_SUBJECT) {
                    return api_key_subject(named).map_err(IncidentError::Invalid);
                }
                // Service names are lower case, whatever case the settings use.
                let is_service = strip_subject_prefix(&self.value, SERVICE_SUBJECT).is_some();
                Ok(if is_service { self.value.to_ascii_lowercase() } else { self.value.clone() })
            }
            _ => check_name(&self.value).map(|()| self.value.clone()),
        }
    }
}

/// Checks a subject, client or token id.
pub(super) fn check_name(name: &str) -> Result<(), IncidentError> {
    let fault = match name {
        "" => "a value is required",
        _ if name.len() > 255 => "a value must have at most 255 bytes",
        _ if name.contains(char::is_control) => "a value must not contain control characters",
        _ => return Ok(()),
    };
    Err(IncidentError::Invalid(fault))
}

#[cfg(all(test, not(feature = "api_keys")))]
mod tests {
    use clap::Subcommand as _;

    #[test]
    fn log_08_help_without_api_keys_does_not_mention_them() {
        let mut command = super::super::Incident::augment_subcommands(clap::Command::new("incident"));
        command.build();
        for subcommand in command.get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            assert!(!help.contains("API key"), "{help}");
        }
        assert!(!command.render_long_help().to_string().contains("API key"));
    }
}
