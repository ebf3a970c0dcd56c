use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use poem::Result;
use poem_openapi::{Enum, Object, OpenApi, payload::Json};
use tokio::sync::Mutex;

use super::{Context, Tag};
use crate::problem::{Kind, Problem};

/// For the database to answer.
const LIMIT: Duration = Duration::from_millis(500);
/// How long an answer is reused, so that a flood of probes is no flood of queries.
const REUSE: Duration = Duration::from_millis(250);

pub(super) struct Health {
    context: Arc<Context>,
    database: Mutex<Option<(Instant, bool)>>,
}

/// What is well.
#[derive(Debug, Enum)]
#[oai(rename_all = "camelCase", rename = "HealthState")]
enum State {
    /// The process.
    Up,
    /// The service.
    Ready,
}

/// The state of the service.
#[derive(Debug, Object)]
#[oai(rename = "HealthStatus")]
struct Status {
    /// Whether the process is alive, or the service can do its work.
    status: State,
}

impl Health {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, database: Mutex::new(None) }
    }

    async fn database_answers(&self) -> bool {
        let mut known = self.database.lock().await;
        match *known {
            Some((at, answer)) if at.elapsed() < REUSE => answer,
            _ => {
                let answer = self.context.database.is_ready(LIMIT).await;
                *known = Some((Instant::now(), answer));
                answer
            }
        }
    }
}

#[OpenApi(tag = "Tag::Operations")]
impl Health {
    /// Is the process alive
    ///
    /// Depends on nothing: restarting the service does not mend its database.
    #[oai(path = "/health/live", method = "get", operation_id = "getLiveness")]
    async fn live(&self) -> Json<Status> {
        Json(Status { status: State::Up })
    }

    /// Can the service do its work
    ///
    /// 200 if the database answers and the keys of an issuer are known, else 503.
    #[oai(path = "/health/ready", method = "get", operation_id = "getReadiness")]
    async fn ready(&self) -> Result<Json<Status>> {
        if self.context.authenticator.is_ready() && self.database_answers().await {
            Ok(Json(Status { status: State::Ready }))
        } else {
            Err(Problem::new(Kind::Unavailable).into())
        }
    }
}
