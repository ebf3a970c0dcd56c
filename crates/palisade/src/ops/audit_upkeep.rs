//! `audit prune` and `audit restored`: retention of the audit trail, and restores that explain seals
//! in the log (LOG-05).
//!
//! `main` runs them with the owner's login. Each is an event of the trail, which `audit verify`
//! relies on and auditors see.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::{
    audit::AuditError,
    audit_anchors::{Anchors, Declarations},
    check_reason,
};
use crate::{
    crypto::hex,
    settings::LoginSettings,
    store::maintenance::{AuditOwner, AuditReader},
};

/// Seals that one event names at most.
const SEALS_PER_EVENT: usize = 500;

/// Delete old events, with the login of `APP_DATABASE__OWNER_URL`
#[derive(Args, Clone, Debug)]
pub struct Prune {
    /// Delete the events that were sealed before this time (RFC 3339), at least 30 days ago
    #[arg(long)]
    pub before: DateTime<Utc>,
    /// Reason, recorded in the audit trail
    #[arg(long)]
    pub reason: String,
}

impl Prune {
    /// Prunes the trail, one seal per transaction. A run after an interrupted one completes it.
    pub async fn run(&self, login: &LoginSettings, mut report: impl FnMut(String)) -> Result<(), AuditError> {
        check_reason(&self.reason).map_err(AuditError::Reason)?;
        let mut owner = AuditOwner::connect(&login.url).await?;
        let root = owner.record_pruning(self.before, &self.reason).await?;
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
        check_reason(&self.reason).map_err(AuditError::Reason)?;
        let mut reader = AuditReader::connect(&login.url).await?;
        let mut trail = reader.snapshot().await?;
        let declared = Declarations::read(&mut trail).await?;
        // Pruned seals are in the log only, and are not lost.
        let first = declared.root.as_ref().map_or(1, |(number, _)| *number);
        let mut logged = Anchors::read(&self.anchors, first, &declared.lost)?.digests;
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
            .map(|(number, digest)| {
                json!({ "table": "audit_seals", "key": number.to_string(), "column": "digest", "before": digest })
            })
            .collect();
        if lost.is_empty() {
            return Err(AuditError::NothingLost);
        }
        let mut owner = AuditOwner::connect(&login.url).await?;
        for part in lost.chunks(SEALS_PER_EVENT) {
            owner.record_restore(self.to, &self.reason, &part.into()).await?;
        }
        report(format!("{} seals of the log are declared lost", lost.len()));
        Ok(())
    }
}
