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
                    match self.count_left_over(seal.number).await {
                        Ok(0) => {}
                        Ok(rows) => event::audit_row_changed(seal.number, rows),
                        Err(error) => event::audit_not_sealed(&error),
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

    /// The number of events under a seal about rows that were changed past the service.
    async fn count_left_over(&self, seal: i64) -> Result<i64, DbError> {
        let mut connection = self.0.writer.connection().await?;
        let rows = sqlx::query_scalar!(r#"select palisade.count_left_over($1) as "rows!""#, seal);
        Ok(rows.fetch_one(TracingExecutor(&mut connection)).await?)
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
