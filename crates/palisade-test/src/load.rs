//! Load during an outage: [`Caller`]s that send the same request again and again ([`Load`]), and
//! the assertions on what they received ([`CallLog`]).
//!
//! `drills/outages.rs` starts a load, takes a dependency down and up again, and notes the times.
//! Then each call must have the status that its caller normally gets, or the one that the matrix
//! gives for the outage; and each acknowledged object must be stored exactly once (FAIL-01,
//! FAIL-03).

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use palisade::dev::database::Urls;
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use uuid::Uuid;

use crate::{Actor, Reply, eventually, query};

/// The least time between two calls of a caller. Otherwise each call follows the response to the
/// last.
const INTERVAL: Duration = Duration::from_millis(60);
/// The most calls of one caller: some minutes of them.
const MAX_CALLS: usize = 10_000;
/// The service ends a request after 10 s; the rest is for a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A client that sends the same request again and again.
pub struct Caller {
    /// Name in messages.
    pub name: &'static str,
    /// The caller.
    pub actor: Actor,
    /// The request that it repeats.
    pub request: LoadRequest,
    /// The status while all dependencies respond.
    pub normal_status: u16,
    /// The status while the dependency is down.
    pub outage_status: u16,
    /// Whether 503 is accepted at any time. The readiness probe gives the database half a second,
    /// which is too short now and then on a busy machine.
    pub may_time_out: bool,
}

/// The request of a [`Caller`].
pub enum LoadRequest {
    /// A request without a body.
    Path(Method, String),
    /// Creates one object after the other by `POST` of this body to this path, each with an
    /// idempotency key. After 503 it retries with the same key.
    Create(&'static str, Value),
}

/// Callers at work, each in its own task.
pub struct Load {
    callers: Vec<RunningCaller>,
    stop: Arc<AtomicBool>,
}

struct RunningCaller {
    name: &'static str,
    normal_status: u16,
    outage_status: u16,
    may_time_out: bool,
    progress: Arc<Progress>,
    task: JoinHandle<Vec<Call>>,
}

#[derive(Default)]
struct Progress {
    calls: AtomicUsize,
    latest_status: AtomicU16,
}

/// One call and its outcome.
#[derive(Debug)]
struct Call {
    from: Instant,
    until: Instant,
    status: u16,
    /// The idempotency key and the id of the object that the response acknowledged.
    created: Option<(String, String)>,
}

/// The times of an outage.
#[derive(Clone, Copy, Debug)]
pub struct OutageTimes {
    /// Until here every caller gets its normal status.
    pub began: Instant,
    /// From here until `ended` every caller gets its outage status.
    pub noticed: Instant,
    /// From here on a caller may get either status.
    pub ended: Instant,
    /// From here on every caller gets its normal status again.
    pub recovered: Instant,
}

/// Every call of a finished load, by caller.
pub struct CallLog(Vec<(RunningCaller, Vec<Call>)>);

impl Caller {
    async fn run(self, progress: Arc<Progress>, stop: Arc<AtomicBool>) -> Vec<Call> {
        let mut pace = interval(INTERVAL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calls = Vec::new();
        let mut key = new_key();
        let mut retry = false;
        // A caller that got 503 retries before it stops, so the outcome of each creation is known.
        while calls.len() < MAX_CALLS && (retry || !stop.load(Ordering::SeqCst)) {
            pace.tick().await;
            let from = Instant::now();
            let reply = timeout(RESPONSE_TIMEOUT, self.call(&key)).await;
            let reply = reply.unwrap_or_else(|_| panic!("{}: no response within {RESPONSE_TIMEOUT:?}", self.name));
            let status = reply.status.as_u16();
            retry = status == 503;
            if retry {
                assert_eq!(reply.problem(503), "unavailable", "{}", self.name);
            }
            let created = (status == 201).then(|| (key.clone(), reply.body["id"].as_str().unwrap().to_owned()));
            calls.push(Call { from, until: Instant::now(), status, created });
            progress.latest_status.store(status, Ordering::SeqCst);
            progress.calls.fetch_add(1, Ordering::SeqCst);
            if !retry {
                key = new_key();
            }
        }
        calls
    }

    async fn call(&self, key: &str) -> Reply {
        let request = match &self.request {
            LoadRequest::Path(method, path) => self.actor.request(method.clone(), path),
            LoadRequest::Create(path, body) => {
                self.actor.request(Method::POST, path).header("idempotency-key", key).json(body)
            }
        };
        self.actor.send(request).await
    }
}

fn new_key() -> String {
    Uuid::now_v7().to_string()
}

impl Load {
    /// Starts a task for each caller.
    pub fn start(callers: Vec<Caller>) -> Self {
        let mut load = Self { callers: Vec::new(), stop: Arc::default() };
        for caller in callers {
            load.add(caller);
        }
        load
    }

    /// Starts a further caller.
    pub fn add(&mut self, caller: Caller) {
        let Caller { name, normal_status, outage_status, may_time_out, .. } = caller;
        let progress = Arc::<Progress>::default();
        let task = tokio::spawn(caller.run(Arc::clone(&progress), Arc::clone(&self.stop)));
        self.callers.push(RunningCaller { name, normal_status, outage_status, may_time_out, progress, task });
    }

    /// Waits until every caller has completed this number of further calls.
    pub async fn wait_for_calls(&self, calls: usize) {
        let count = |caller: &RunningCaller| caller.progress.calls.load(Ordering::SeqCst);
        let before: Vec<usize> = self.callers.iter().map(count).collect();
        self.wait("all callers get further responses", |at, caller| count(caller) >= before[at] + calls).await;
    }

    /// Waits until every caller's latest status is its outage status.
    pub async fn wait_until_affected(&self) {
        self.wait("the service notices the outage", |_, caller| caller.latest_status() == caller.outage_status).await;
    }

    /// Waits until every caller's latest status is its normal status.
    pub async fn wait_until_normal(&self) {
        self.wait("all callers are served as before", |_, caller| caller.latest_status() == caller.normal_status).await;
    }

    async fn wait(&self, what: &str, holds: impl Fn(usize, &RunningCaller) -> bool) {
        eventually(what, async || {
            self.callers.iter().enumerate().all(|(at, caller)| {
                assert!(!caller.task.is_finished(), "{} stopped; a message above says why", caller.name);
                holds(at, caller)
            })
        })
        .await;
    }

    /// Stops all callers and returns what they received.
    pub async fn finish(self) -> CallLog {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for mut caller in self.callers {
            let calls = timeout(RESPONSE_TIMEOUT * 2, &mut caller.task).await;
            all.push((caller, calls.expect("every caller gets a response and stops").unwrap()));
        }
        CallLog(all)
    }
}

impl RunningCaller {
    fn latest_status(&self) -> u16 {
        self.progress.latest_status.load(Ordering::SeqCst)
    }
}

impl CallLog {
    /// Asserts the status of every call: the normal one before the outage and after the recovery,
    /// the outage status during it, either of the two in between. A call that is normally rejected
    /// is rejected throughout.
    pub fn assert_statuses(&self, times: &OutageTimes) {
        for (caller, calls) in &self.0 {
            let RunningCaller { name, normal_status: normal, outage_status: outage, .. } = caller;
            let mut during = 0;
            let mut after = 0;
            for call in calls {
                let expected = if call.until <= times.began {
                    [normal, normal]
                } else if call.from >= times.recovered {
                    after += 1;
                    [normal, normal]
                } else if call.from >= times.noticed && call.until <= times.ended {
                    during += 1;
                    [outage, outage]
                } else {
                    [normal, outage]
                };
                let at = call.from.saturating_duration_since(times.began);
                let is_rejected = call.status >= 400;
                assert!(*normal < 400 || is_rejected, "{name} was accepted {at:?} after the outage began: {call:?}");
                let timed_out = caller.may_time_out && call.status == 503;
                assert!(
                    expected.contains(&&call.status) || timed_out,
                    "{name}, {at:?} after the outage began: {call:?}, expected {expected:?}; {times:?}"
                );
            }
            assert!(during > 0 && after > 0, "{name} completed {during} calls in the outage, {after} after it");
        }
    }

    /// Asserts that each acknowledged object is stored, once for each idempotency key, and no other.
    /// The query reads the ids of the objects that subjects named `load-…` have created.
    pub async fn assert_created_stored(&self, database: &Urls, stored: &str) {
        let created = self.0.iter().flat_map(|(_, calls)| calls).filter_map(|call| call.created.clone());
        let (keys, objects): (BTreeSet<String>, BTreeSet<String>) = created.unzip();
        assert!(!objects.is_empty() && keys.len() == objects.len(), "two keys were answered with the same object");
        let stored_objects = query(&database.owner, stored).await;
        let stored_keys =
            query(&database.owner, "select key from palisade.idempotency_keys where subject like 'load-%'").await;
        for (what, acknowledged, stored) in [("object", objects, stored_objects), ("key", keys, stored_keys)] {
            let found: BTreeSet<String> = stored.iter().cloned().collect();
            let lost: Vec<&String> = acknowledged.difference(&found).collect();
            assert!(lost.is_empty(), "acknowledged {what}s are lost: {lost:?}");
            let unacknowledged: Vec<&String> = found.difference(&acknowledged).collect();
            assert!(unacknowledged.is_empty(), "{what}s are stored that no response acknowledged: {unacknowledged:?}");
            assert_eq!(stored.len(), found.len(), "a {what} is stored twice");
        }
    }
}
