//! `tenant …`: the registry of tenants (AUTHN-04, AUTHN-11, CRYPTO-08). docs/tenants.md explains the
//! states.
//!
//! The same types are parsed by clap for `tenant …` and by serde for `POST /tenants`. `main` and the
//! internal listener call [`TenantCommand::run`] with an operator login. Every replica applies a
//! change within two seconds.

use std::{io, str::FromStr};

use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use uuid::Uuid;

use super::{DeleteTenant, Deletion, check_reason};
use crate::{
    db::{DbError, UnfitDatabase},
    model::{Name, QuotaName, TenantId, TenantState},
    store::maintenance::{Operator, OperatorError, TenantChange, TenantEntry},
    telemetry::event,
};

/// A command on the registry of tenants. The audit trail records each change, with its reason.
#[derive(Clone, Debug, Subcommand, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum TenantCommand {
    /// Register a tenant, so that its callers are accepted
    Create(CreateTenant),
    /// List tenants with their states, in order of their ids
    List(ListTenants),
    /// Change name, limits or external ids of a tenant
    Update(UpdateTenant),
    /// Refuse all callers of a tenant on all replicas within 2 s; its data stays
    Suspend(NamedTenant),
    /// Accept the callers of a suspended tenant again
    Resume(NamedTenant),
    /// Delete the data of a suspended tenant but what the law keeps. Asks for the UUID of the tenant
    /// first; an interrupted command can be run again
    Delete(DeleteTenant),
    /// Write everything that a tenant owns to a file that is encrypted with age, sealed fields in
    /// plain text (needs the settings of `serve` too)
    #[cfg(feature = "exports")]
    Export(super::ExportTenant),
}

/// A tenant to register.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTenant {
    /// UUID of the tenant; default: a new one
    pub tenant: Option<Uuid>,
    /// Name, for operators
    #[arg(long)]
    pub name: Option<String>,
    /// Quota in calls per minute, such as `tenant=5000`; may be given several times
    #[arg(long = "limit", value_name = "QUOTA=CALLS")]
    #[serde(default)]
    pub limits: Vec<TenantLimit>,
    /// The tenant in tokens of an issuer: its `iss`, a space, and the value of the tenant claim; may
    /// be given several times
    #[arg(long = "external-id", value_name = "ISSUER ID")]
    #[serde(default)]
    pub external_ids: Vec<ExternalId>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// A change of a tenant. Options that are absent change nothing.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTenant {
    /// UUID of the tenant
    pub tenant: Uuid,
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// All its quotas, as `create` takes them; they replace the ones before
    #[arg(long = "limit", value_name = "QUOTA=CALLS")]
    #[serde(default)]
    pub limits: Vec<TenantLimit>,
    /// All its external ids, as `create` takes them; they replace the ones before
    #[arg(long = "external-id", value_name = "ISSUER ID")]
    #[serde(default)]
    pub external_ids: Vec<ExternalId>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// A page of the registry.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListTenants {
    /// Begin after this UUID; a page has 1,000 tenants
    #[arg(long)]
    pub after: Option<Uuid>,
}

/// A tenant and a reason.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedTenant {
    /// UUID of the tenant
    pub tenant: Uuid,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

/// A quota of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TenantLimit(QuotaName, u32);

impl FromStr for TenantLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (name, calls) = text.split_once('=')?;
            let calls = calls.parse().ok().filter(|calls| (1..=1_000_000).contains(calls))?;
            Some(Self(name.parse().ok()?, calls))
        };
        parse().ok_or("expected `tenant`, `read`, `write`, `sensitive` or `export`, `=`, and 1 to 1000000")
    }
}

/// The tenant in tokens of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ExternalId(String, String);

impl FromStr for ExternalId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once(' ').filter(|(issuer, id)| {
            (1..=500).contains(&issuer.len()) && (1..=255).contains(&id.len()) && !text.contains(char::is_control)
        });
        let (issuer, id) = pair.ok_or("expected an issuer, a space, and an id of at most 255 bytes")?;
        Ok(Self(issuer.to_owned(), id.to_owned()))
    }
}

macro_rules! from_text {
    ($($type:ty),+) => {$(
        impl TryFrom<String> for $type {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    )+};
}
from_text!(TenantLimit, ExternalId);

/// Errors of a command on tenants.
#[derive(Debug, Error)]
pub enum TenantError {
    /// A value is invalid, or the tenant is in a state that the command does not fit.
    #[error("{0}")]
    Invalid(&'static str),
    /// A query with the operator's login failed.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// A query with a login of the service failed.
    #[error(transparent)]
    Store(#[from] DbError),
    /// The database fails a check, or a master key is missing.
    #[error(transparent)]
    Unfit(#[from] UnfitDatabase),
    /// The file of the export cannot be written.
    #[error("cannot write {}", .0.display())]
    File(std::path::PathBuf, #[source] io::Error),
}

/// Result of a command.
#[derive(Debug, Default)]
pub struct TenantOutcome {
    /// Lines for the operator.
    pub lines: Vec<String>,
    /// A deletion that has begun and is not complete.
    pub deletion: Option<Deletion>,
}

impl TenantCommand {
    /// Carries out the command with the operator's `login`. `actor` is the service that sent it, which
    /// the audit trail names; empty at the command line. An export is started elsewhere.
    pub async fn run(&self, login: &SecretString, actor: &str) -> Result<TenantOutcome, TenantError> {
        if let Some(reason) = self.reason() {
            check_reason(reason).map_err(TenantError::Invalid)?;
        }
        let mut operator = Operator::connect_for(login, actor).await?;
        let outcome = match self {
            Self::Create(create) => create.run(&mut operator).await?,
            Self::List(list) => {
                let page = operator.list_tenants(list.after.unwrap_or_default()).await?;
                return Ok(TenantOutcome { lines: page.iter().map(describe).collect(), deletion: None });
            }
            Self::Update(update) => update.run(&mut operator).await?,
            Self::Suspend(NamedTenant { tenant, reason }) => {
                set_state(&mut operator, *tenant, TenantState::Suspended, reason).await?
            }
            Self::Resume(NamedTenant { tenant, reason }) => {
                set_state(&mut operator, *tenant, TenantState::Active, reason).await?
            }
            Self::Delete(delete) => return delete.begin(operator, actor).await,
            #[cfg(feature = "exports")]
            Self::Export(_) => return Err(TenantError::Invalid("an export needs the settings of the service")),
        };
        let (tenant, line) = outcome;
        event::tenant_changed(self.name(), &tenant.to_string(), actor, self.reason().unwrap_or_default());
        Ok(TenantOutcome { lines: vec![line], deletion: None })
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Create(CreateTenant { reason, .. })
            | Self::Update(UpdateTenant { reason, .. })
            | Self::Suspend(NamedTenant { reason, .. })
            | Self::Resume(NamedTenant { reason, .. }) => Some(reason),
            Self::Delete(delete) => (!delete.dry_run).then(|| delete.reason.as_deref().unwrap_or_default()),
            Self::List(_) => None,
            #[cfg(feature = "exports")]
            Self::Export(export) => Some(&export.reason),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::List(_) => "list",
            Self::Update(_) => "update",
            Self::Suspend(_) => "suspend",
            Self::Resume(_) => "resume",
            Self::Delete(_) => "delete",
            #[cfg(feature = "exports")]
            Self::Export(_) => "export",
        }
    }
}

fn describe(tenant: &TenantEntry) -> String {
    let name = tenant.name.as_deref().unwrap_or("-");
    let limits: Vec<_> = tenant.limits.iter().map(|(name, calls)| format!(" {name}={calls}")).collect();
    let limits = limits.concat();
    let external = if tenant.external_ids.as_array().is_none_or(Vec::is_empty) {
        String::new()
    } else {
        format!(" external ids {}", tenant.external_ids)
    };
    let since = tenant.deleted_at.or(tenant.suspended_at).unwrap_or(tenant.created_at);
    format!("{} {} since {} {name}{limits}{external}", tenant.id, tenant.state, since.format("%Y-%m-%dT%H:%M:%SZ"))
}

fn change(
    name: Option<&String>,
    limits: &[TenantLimit],
    external_ids: &[ExternalId],
) -> Result<TenantChange, TenantError> {
    let invalid = |_| TenantError::Invalid("a name has 1 to 200 characters without hidden ones");
    let name =
        name.map(|name| name.parse::<Name>().map(|name| name.as_str().to_owned()).map_err(invalid)).transpose()?;
    let limits: Vec<_> = limits.iter().map(|limit| (limit.0, limit.1)).collect();
    let external_ids: Vec<_> = external_ids.iter().map(|id| (id.0.clone(), id.1.clone())).collect();
    Ok(TenantChange {
        name,
        limits: Some(limits).filter(|limits| !limits.is_empty()),
        external_ids: Some(external_ids).filter(|ids| !ids.is_empty()),
    })
}

impl CreateTenant {
    async fn run(&self, operator: &mut Operator) -> Result<(TenantId, String), TenantError> {
        let tenant = self.tenant.unwrap_or_else(Uuid::now_v7);
        if tenant.is_nil() {
            return Err(TenantError::Invalid("the nil UUID stands for all tenants"));
        }
        let tenant = TenantId::from_uuid(tenant);
        let change = change(self.name.as_ref(), &self.limits, &self.external_ids)?;
        if operator.create_tenant(tenant, &change, &self.reason).await? {
            return Ok((tenant, format!("{tenant}: created")));
        }
        Err(TenantError::Invalid("the tenant exists already, or was deleted; `tenant list` shows its state"))
    }
}

impl UpdateTenant {
    async fn run(&self, operator: &mut Operator) -> Result<(TenantId, String), TenantError> {
        let tenant = TenantId::from_uuid(self.tenant);
        let change = change(self.name.as_ref(), &self.limits, &self.external_ids)?;
        if operator.update_tenant(tenant, &change, &self.reason).await? {
            return Ok((tenant, format!("{tenant}: updated")));
        }
        Err(TenantError::Invalid("the tenant is unknown, or was deleted; `tenant list` shows its state"))
    }
}

async fn set_state(
    operator: &mut Operator,
    tenant: Uuid,
    state: TenantState,
    reason: &str,
) -> Result<(TenantId, String), TenantError> {
    let tenant = TenantId::from_uuid(tenant);
    if operator.set_tenant_state(tenant, state, reason).await? {
        return Ok((tenant, format!("{tenant}: {state}, on every replica within two seconds")));
    }
    Err(TenantError::Invalid(match state {
        TenantState::Active => "only a suspended tenant can be resumed; `tenant list` shows its state",
        _ => "only an active tenant can be suspended; `tenant list` shows its state",
    }))
}
