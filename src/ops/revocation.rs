use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use thiserror::Error;

use super::check_reason;
use crate::{
    domain::RevocationKind,
    settings::LoginSettings,
    store::{Operator, OperatorError},
};

/// What is revoked, and why.
#[derive(Args, Clone, Debug)]
pub struct Revocation {
    /// What the value names
    #[arg(value_enum)]
    pub kind: Kind,
    /// The `jti`, the subject or client as logs show it, or the tenant's UUID; nothing for everything
    #[arg(default_value = "")]
    pub value: String,
    /// Credentials issued at this time or earlier are refused, later ones accepted (RFC 3339). Default: now
    #[arg(long, value_name = "TIME")]
    pub before: Option<DateTime<Utc>>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// What a revocation names (AUTHN-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One token, by its `jti`
    Token,
    /// All tokens of a person or program, and the API keys they made; or one API key, as `api-key:<id>`
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

/// Why nothing was revoked.
#[derive(Debug, Error)]
pub enum NotRevoked {
    /// The value does not fit the kind.
    #[error("{0}")]
    Value(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] OperatorError),
}

impl Revocation {
    /// Revokes, as the operator's login. Every replica refuses the credentials within two seconds.
    pub async fn revoke(&self, login: &LoginSettings, now: DateTime<Utc>) -> Result<i64, NotRevoked> {
        let value = self.checked_value().map_err(NotRevoked::Value)?;
        let before = self.before.unwrap_or(now);
        if before > now {
            return Err(NotRevoked::Value("what is issued later than now cannot be revoked yet"));
        }
        let mut operator = Operator::connect(&login.url).await?;
        Ok(operator.revoke(self.kind.into(), &value, before, &self.reason).await?)
    }

    /// A value that names nothing would revoke nothing, and nobody would notice.
    fn checked_value(&self) -> Result<String, &'static str> {
        check_reason(&self.reason)?;
        match self.kind {
            Kind::Everything if self.value.is_empty() => Ok(String::new()),
            Kind::Everything => Err("`everything` takes no value"),
            _ if self.value.is_empty() => Err("a value is required"),
            _ if self.value.len() > 255 => Err("a value has at most 255 bytes"),
            _ if self.value.contains(char::is_control) => Err("a value has no control characters"),
            // In the one spelling that is compared.
            Kind::Tenant => {
                let id: uuid::Uuid = self.value.parse().map_err(|_| "a tenant is named by its UUID")?;
                Ok(id.to_string())
            }
            _ => Ok(self.value.clone()),
        }
    }
}
