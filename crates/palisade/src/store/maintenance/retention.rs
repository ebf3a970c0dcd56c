//! Deletion of rows that have expired, of every tenant (INPUT-10, AUTHN-12): stored responses, ended
//! API keys, roles of subjects without API keys.
//!
//! Every replica tries, at its start and then once an hour. Rows that another replica is deleting
//! are skipped.

use std::time::Duration;

use uuid::Uuid;

use super::Maintenance;
use crate::db::{DbError, TracingExecutor};

/// Time between two passes.
const INTERVAL: Duration = Duration::from_hours(1);
/// Time until the next attempt after a failure.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// Pause between two batches, to spare the database for callers.
const PAUSE: Duration = Duration::from_millis(20);

impl Maintenance {
    /// Deletes expired rows periodically. Never ends.
    pub async fn sweep_periodically(&self) {
        loop {
            let pause = match self.sweep().await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "could not delete expired rows; retrying in a minute");
                    RETRY_INTERVAL
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Deletes the expired rows of all tenants, in batches.
    pub async fn sweep(&self) -> Result<(), DbError> {
        let mut next = Some(Uuid::nil());
        while let Some(position) = next {
            let mut connection = self.0.writer.connection().await?;
            let sweep = sqlx::query_scalar!("select palisade.sweep($1)", position);
            next = sweep.fetch_one(TracingExecutor(&mut connection)).await?;
            drop(connection);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}
