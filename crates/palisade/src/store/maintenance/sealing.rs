//! Sealing of the audit trail (LOG-05): closes finished events of the journal under a hash chain.
//!
//! Every replica tries at each interval; the database lets one of them seal at a time.

use std::time::{Duration, Instant};

use super::Maintenance;
use crate::{
    crypto::hex,
    db::{DbError, TracingExecutor},
    model::AuditSeal,
    telemetry::event,
};

/// Events of a full stretch, as `seal_audit_journal` seals at once: more may be waiting.
const FULL_STRETCH: i64 = 10_000;

/// Interval between two events about a trail that still cannot be sealed.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

impl Maintenance {
    /// Seals the trail once per `interval`, in as many stretches as there are. Reports a failure at
    /// once and then each minute. Never ends.
    pub async fn seal_periodically(&self, interval: Duration) {
        let mut reported: Option<Instant> = None;
        let mut highest = 0;
        let mut waits = true;
        loop {
            if waits {
                tokio::time::sleep(interval).await;
            }
            waits = true;
            match self.seal_audit_journal().await {
                Ok(Some(seal)) => {
                    reported = None;
                    event::audit_sealed(seal.number, seal.upto, seal.events, &hex(&seal.digest));
                    if seal.number <= highest {
                        // A seal that this replica saw is gone from the database.
                        event::audit_trail_invalid(1);
                    }
                    highest = highest.max(seal.number);
                    waits = seal.events < FULL_STRETCH;
                }
                Ok(None) => reported = None,
                Err(error) if reported.is_none_or(|at| at.elapsed() > REPORT_INTERVAL) => {
                    event::audit_not_sealed(&error);
                    reported = Some(Instant::now());
                }
                Err(_) => {}
            }
        }
    }

    /// Seals the finished events of the journal.
    ///
    /// `None`: there are none, or another replica is sealing.
    ///
    /// # Errors
    /// The database does not answer, or refuses.
    pub async fn seal_audit_journal(&self) -> Result<Option<AuditSeal>, DbError> {
        let mut connection = self.0.writer.connection().await?;
        let seal = sqlx::query_as!(
            AuditSeal,
            r#"select number as "number!", upto as "upto!", events as "events!", digest as "digest!"
               from palisade.seal_audit_journal()"#
        )
        .fetch_optional(TracingExecutor(&mut connection))
        .await?;
        Ok(seal)
    }
}
