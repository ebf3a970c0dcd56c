//! Liveness and readiness probes (FAIL-04).
//!
//! Liveness depends on nothing: restarting the process does not repair its database. Readiness
//! checks the database and the authenticator, and ends with a stop signal. Both probes are public
//! and have no quota, so the result of the database check is cached.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use poem::Result;
use poem_openapi::{Enum, Object, OpenApi, payload::Json};
use tokio::sync::Mutex;

use super::Tag;
use crate::{
    http::Context,
    problem::{Kind, Problem},
};

/// Time limit of the database check.
const DATABASE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for which a database check is reused, so that a flood of probes is no flood of queries.
const CACHE_TTL: Duration = Duration::from_millis(250);

pub(super) struct Health {
    context: Arc<Context>,
    /// Time and result of the last database check.
    last_check: Mutex<Option<(Instant, bool)>>,
}

/// Health of the service: `up` (the process answers) or `ready` (the service can serve requests).
#[derive(Debug, Enum)]
#[oai(rename_all = "camelCase", rename = "HealthState")]
enum State {
    Up,
    Ready,
}

/// Result of a health probe.
#[derive(Debug, Object)]
#[oai(rename = "HealthStatus")]
struct Status {
    /// `up` for the liveness probe, `ready` for the readiness probe.
    status: State,
}

impl Health {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, last_check: Mutex::new(None) }
    }

    async fn database_is_ready(&self) -> bool {
        let mut last_check = self.last_check.lock().await;
        match *last_check {
            Some((checked_at, is_ready)) if checked_at.elapsed() < CACHE_TTL => is_ready,
            _ => {
                let is_ready = self.context.database.is_ready(DATABASE_TIMEOUT).await;
                *last_check = Some((Instant::now(), is_ready));
                is_ready
            }
        }
    }
}

#[OpenApi(tag = "Tag::Operations")]
impl Health {
    /// Check liveness
    ///
    /// Returns 200 while the process can answer. The probe checks no dependency, so an outage of
    /// the database causes no restart.
    #[oai(path = "/health/live", method = "get", operation_id = "getLiveness")]
    async fn live(&self) -> Json<Status> {
        Json(Status { status: State::Up })
    }

    /// Check readiness
    ///
    /// Returns 200 if the database answers within 500 ms, the keys of at least one issuer are
    /// loaded, revocations can be read, and the service is not stopping. Otherwise returns 503
    /// (`unavailable`).
    #[oai(path = "/health/ready", method = "get", operation_id = "getReadiness")]
    async fn ready(&self) -> Result<Json<Status>> {
        let is_stopping = self.context.is_stopping.load(Ordering::Relaxed);
        if !is_stopping && self.context.authenticator.is_ready() && self.database_is_ready().await {
            Ok(Json(Status { status: State::Ready }))
        } else {
            Err(Problem::new(Kind::Unavailable).into())
        }
    }
}
