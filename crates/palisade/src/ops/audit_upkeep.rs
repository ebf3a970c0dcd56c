//! `audit prune` and `audit restored`: retention of the audit trail, and restores that explain seals
//! in the log (LOG-05).
//!
//! `main` runs them with the owner's login. Each is an event of the trail, which auditors see, and a
//! line of the log: `audit verify --anchors` relies on what both have.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};

use super::{
    audit::AuditError,
    audit_anchors::{Anchors, Declarations, SealDigest},
    check_reason,
};
use crate::{
    crypto::hex,
    settings::LoginSettings,
    store::maintenance::{AuditOwner, AuditReader, Pruning},
    telemetry::event,
};

/// Seals that one event and its line of the log name at most.
const SEALS_PER_EVENT: usize = 100;

/// Delete old events, with the login of `APP_DATABASE__OWNER_URL`
#[derive(Args, Clone, Debug)]
pub struct Prune {
    /// Delete the events that were sealed before this time (RFC 3339), at least 30 days ago
    #[arg(long)]
    pub before: DateTime<Utc>,
    /// Reason, recorded in the audit trail
    #[arg(long, required_unless_present = "dry_run")]
    pub reason: Option<String>,
    /// Only show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// The number of the last deleted seal, as `--dry-run` shows it; without it, the command asks for
    /// it if standard input is a terminal, and fails otherwise
    #[arg(long, value_name = "SEAL")]
    pub confirm: Option<String>,
}

impl Prune {
    /// Prunes the trail, one seal per transaction. A run after an interrupted one completes it.
    pub async fn run(&self, login: &LoginSettings, mut report: impl FnMut(String)) -> Result<(), AuditError> {
        let reason = self.reason.as_deref().unwrap_or_default();
        if !self.dry_run {
            check_reason(reason).map_err(AuditError::Invalid)?;
        }
        let mut owner = AuditOwner::connect(&login.url).await?;
        let plan = owner.plan_pruning(self.before).await?;
        let planned = |p: &Pruning| format!("up to seal {} of {}: {} events", p.number, p.sealed_at, p.events);
        report(plan.as_ref().map_or_else(|| "no seal is that old".to_owned(), planned));
        if self.dry_run {
            return Ok(());
        }
        if let Some(plan) = &plan {
            let terminal = io::stdin().is_terminal().then(|| io::stdin().lock());
            super::confirm(&plan.number.to_string(), self.confirm.as_deref(), terminal).map_err(AuditError::Invalid)?;
        }
        // Without a plan, the database says why there is none.
        let root = owner.record_pruning(self.before, reason).await?;
        if let Some(plan) = plan.filter(|plan| plan.number == root) {
            event::audit_pruned(root, &hex(&plan.digest), plan.events, reason);
        }
        let mut pruned = 0;
        while let Some(events) = owner.prune_seal(root).await? {
            pruned += events;
        }
        report(format!("{pruned} events deleted; the trail begins after seal {root}"));
        Ok(())
    }
}

/// Declare that the database was restored to an earlier time, with the login of
/// `APP_DATABASE__OWNER_URL`
#[derive(Args, Clone, Debug)]
pub struct Restored {
    /// Time that it was restored to (RFC 3339)
    #[arg(long)]
    pub to: DateTime<Utc>,
    /// File with log lines of the service, from before and since the restore. The seals in it that
    /// the database lacks or has with other digests are declared lost
    #[arg(long, value_name = "FILE")]
    pub anchors: PathBuf,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

impl Restored {
    /// Records which seals of the log are lost.
    pub async fn run(&self, login: &LoginSettings, mut report: impl FnMut(String)) -> Result<(), AuditError> {
        check_reason(&self.reason).map_err(AuditError::Invalid)?;
        let mut reader = AuditReader::connect(&login.url).await?;
        let mut trail = reader.snapshot().await?;
        let declared = Declarations::read(&mut trail).await?;
        // Pruned seals are in the log only, and are not lost.
        let first = declared.root.as_ref().map_or(1, |(number, _)| *number);
        let mut logged = Anchors::read(&self.anchors, first, &declared)?.digests;
        let stored = |number, digest: &[u8]| {
            if let Some(digests) = logged.get_mut(&number) {
                digests.remove(&hex(digest));
            }
        };
        trail.digests(stored).await?;
        drop(trail);
        let lost: Vec<_> = logged
            .into_iter()
            .flat_map(|(number, digests)| digests.into_iter().map(move |digest| (number, digest)))
            .collect();
        if lost.is_empty() {
            return Err(AuditError::NothingLost);
        }
        let mut owner = AuditOwner::connect(&login.url).await?;
        for part in lost.chunks(SEALS_PER_EVENT) {
            owner.record_restore(self.to, &self.reason, &part.iter().map(seal_as_change).collect()).await?;
            let seals: Vec<_> = part.iter().map(|(number, digest)| format!("{number}:{digest}")).collect();
            event::audit_restored(&seals.join(" "), &self.reason);
        }
        report(format!("{} seals of the log are declared lost", lost.len()));
        Ok(())
    }
}

/// A lost seal as an element of `changes`.
fn seal_as_change((number, digest): &SealDigest) -> Value {
    json!({ "table": "audit_seals", "key": number.to_string(), "column": "digest", "before": digest })
}
