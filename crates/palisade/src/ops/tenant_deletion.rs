//! `tenant delete`: deletes the rows of a suspended tenant but what the law keeps (CRYPTO-08).
//!
//! In: the command, from [`super::TenantCommand`]. The data keys go first, which is final; the rows
//! follow in batches. A command that breaks off can be run again.

use std::io::{self, IsTerminal as _};

use clap::Args;
use serde::Deserialize;
use uuid::Uuid;

use super::{TenantError, TenantOutcome};
use crate::{
    model::{TenantId, TenantState},
    store::maintenance::{DeletionItem, Operator},
    telemetry::event,
};

/// A tenant to delete.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteTenant {
    /// UUID of the tenant
    pub tenant: Uuid,
    /// Reason, recorded in the audit trail
    #[arg(long, required_unless_present = "dry_run")]
    pub reason: Option<String>,
    /// Only list what would be deleted and kept
    #[arg(long)]
    #[serde(default)]
    pub dry_run: bool,
    /// The UUID of the tenant again; without it, the command asks for it if standard input is a
    /// terminal, and fails otherwise
    #[arg(long, value_name = "TENANT")]
    pub confirm: Option<String>,
}

/// A deletion that has begun: the data keys are destroyed.
#[derive(Debug)]
pub struct Deletion {
    operator: Operator,
    tenant: TenantId,
    kept: Vec<DeletionItem>,
}

impl DeleteTenant {
    /// Lists what is deleted and kept. Unless it is a dry run, destroys the data keys, after a
    /// confirmation.
    pub(super) async fn begin(&self, mut operator: Operator, actor: &str) -> Result<TenantOutcome, TenantError> {
        let tenant = TenantId::from_uuid(self.tenant);
        let entry = operator.find_tenant(tenant).await?;
        match entry.map(|entry| entry.state) {
            None => return Err(TenantError::Invalid("the tenant is unknown; `tenant list` shows all")),
            Some(TenantState::Deleted) => return Err(TenantError::Invalid("the tenant was deleted already")),
            Some(_) => {}
        }
        let items = operator.describe_deletion(tenant).await?;
        let mut lines: Vec<String> = items.iter().map(|item| describe_item(tenant, item, self.dry_run)).collect();
        if self.dry_run {
            return Ok(TenantOutcome { lines, deletion: None });
        }
        self.check_confirmation(actor.is_empty()).map_err(TenantError::Invalid)?;
        let reason = self.reason.as_deref().unwrap_or_default();
        let destroyed = operator.begin_deletion(tenant, reason).await?.unwrap_or_default();
        event::tenant_changed("delete", &tenant.to_string(), actor, reason);
        event::crypto_key_destroyed(&tenant.to_string(), destroyed.unsigned_abs(), reason);
        lines.push(format!("{tenant}: deletion has begun, {destroyed} data keys destroyed"));
        let kept = items.into_iter().filter(|item| item.kept_for.is_some()).collect();
        Ok(TenantOutcome { lines, deletion: Some(Deletion { operator, tenant, kept }) })
    }

    /// Asks at the command line only: a service has no terminal.
    fn check_confirmation(&self, at_command_line: bool) -> Result<(), &'static str> {
        let terminal = (at_command_line && io::stdin().is_terminal()).then(|| io::stdin().lock());
        super::confirm(&self.tenant.to_string(), self.confirm.as_deref(), terminal)
    }
}

fn describe_item(tenant: TenantId, item: &DeletionItem, is_plan: bool) -> String {
    let DeletionItem { table, rows, kept_for } = item;
    match kept_for {
        Some(reason) => format!("{tenant}: {rows} rows of {table} stay: {reason}"),
        None if is_plan => format!("{tenant}: {rows} rows of {table} would be deleted"),
        None => format!("{tenant}: {rows} rows of {table} are deleted"),
    }
}

impl Deletion {
    /// Deletes the rows in batches. If it breaks off, the same command continues.
    pub async fn complete(mut self, mut report: impl FnMut(String)) -> Result<(), TenantError> {
        let tenant = self.tenant;
        while let Some(batch) = self.operator.delete_tenant_rows(tenant).await? {
            let done = if batch.is_cleared { "cleared" } else { "deleted" };
            report(format!("{tenant}: {} rows of {} {done}", batch.rows, batch.table));
        }
        self.operator.finish_deletion(tenant).await?;
        report(format!("{tenant}: deleted. What stays:"));
        for item in &self.kept {
            report(describe_item(tenant, item, false));
        }
        report(format!(
            "{tenant}: its UUID in the registry and its destroyed data keys stay, so that it cannot return"
        ));
        Ok(())
    }
}
