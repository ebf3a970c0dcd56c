use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use serde_json::json;
use service::dev::database::Urls;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use uuid::Uuid;

use super::{Actor, Reply, eventually, id, query};

/// Each caller calls again as soon as it is answered, but no sooner than this after the call before.
const PACE: Duration = Duration::from_millis(60);
/// Calls of one caller: some minutes of them.
const MOST: usize = 10_000;
/// The service ends a request after 10 s; the rest is for a machine that is busy.
const LONGEST: Duration = Duration::from_secs(15);

/// Somebody who asks for the same again and again.
pub struct Caller {
    pub name: &'static str,
    pub actor: Actor,
    pub asks: Ask,
    /// The status of what they are answered.
    pub usual: u16,
    /// The same while the dependency is away.
    pub meanwhile: u16,
    /// Whether they may be refused for being in a hurry.
    pub is_hasty: bool,
}

pub enum Ask {
    For(Method, String),
    /// One order after the other, each with a key; one that was answered with 503 is tried again.
    ForOrders,
}

/// Callers at work.
pub struct Load {
    lanes: Vec<Lane>,
    stop: Arc<AtomicBool>,
}

struct Lane {
    name: &'static str,
    usual: u16,
    meanwhile: u16,
    is_hasty: bool,
    seen: Arc<Seen>,
    task: JoinHandle<Vec<Call>>,
}

#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    latest: AtomicU16,
}

/// One call, and what became of it.
#[derive(Debug)]
struct Call {
    from: Instant,
    until: Instant,
    status: u16,
    /// The key, and the order it was answered with.
    placed: Option<(String, String)>,
}

/// The moments of an outage.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Until here nobody notices anything.
    pub began: Instant,
    /// From here on everybody is answered as they are meanwhile.
    pub known: Instant,
    /// Until here.
    pub ended: Instant,
    /// From here on everybody is answered as usual.
    pub over: Instant,
}

/// Every call of a load.
pub struct Calls(Vec<(Lane, Vec<Call>)>);

impl Caller {
    async fn work(self, seen: Arc<Seen>, stop: Arc<AtomicBool>) -> Vec<Call> {
        let (mut pace, mut calls) = (interval(PACE), Vec::new());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut key, mut again) = (new_key(), false);
        // Who was told to come back does, and so knows in the end what became of the order.
        while calls.len() < MOST && (again || !stop.load(Ordering::SeqCst)) {
            pace.tick().await;
            let from = Instant::now();
            let reply = timeout(LONGEST, self.call(&key)).await;
            let reply = reply.unwrap_or_else(|_| panic!("{}: no answer within {LONGEST:?}", self.name));
            let status = reply.status.as_u16();
            again = status == 503;
            if again {
                assert_eq!(reply.problem(503), "unavailable", "{}", self.name);
            }
            let placed = (status == 201).then(|| (key.clone(), id(&reply.body)));
            calls.push(Call { from, until: Instant::now(), status, placed });
            seen.latest.store(status, Ordering::SeqCst);
            seen.calls.fetch_add(1, Ordering::SeqCst);
            if !again {
                key = new_key();
            }
        }
        calls
    }

    async fn call(&self, key: &str) -> Reply {
        let request = match &self.asks {
            Ask::For(method, path) => self.actor.request(method.clone(), path),
            Ask::ForOrders => {
                let order = json!({ "lines": [{ "sku": "PEN-BLUE", "quantity": 1 }], "shippingSpeed": "standard" });
                self.actor.request(Method::POST, "/v1/orders").header("idempotency-key", key).json(&order)
            }
        };
        self.actor.send(request).await
    }
}

fn new_key() -> String {
    Uuid::now_v7().to_string()
}

impl Load {
    pub fn start(callers: Vec<Caller>) -> Self {
        let mut load = Self { lanes: Vec::new(), stop: Arc::default() };
        for caller in callers {
            load.add(caller);
        }
        load
    }

    pub fn add(&mut self, caller: Caller) {
        let Caller { name, usual, meanwhile, is_hasty, .. } = caller;
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn(caller.work(Arc::clone(&seen), Arc::clone(&self.stop)));
        self.lanes.push(Lane { name, usual, meanwhile, is_hasty, seen, task });
    }

    /// Until everybody was answered so many times more.
    pub async fn more(&self, calls: usize) {
        let count = |lane: &Lane| lane.seen.calls.load(Ordering::SeqCst);
        let before: Vec<usize> = self.lanes.iter().map(count).collect();
        self.wait("everybody goes on", |at, lane| count(lane) >= before[at] + calls).await;
    }

    /// Until everybody is answered as they are while the dependency is away.
    pub async fn is_hit(&self) {
        self.wait("the outage is known", |_, lane| lane.latest() == lane.meanwhile).await;
    }

    /// Until everybody is answered as usual.
    pub async fn is_well(&self) {
        self.wait("all is as before", |_, lane| lane.latest() == lane.usual).await;
    }

    async fn wait(&self, what: &str, holds: impl Fn(usize, &Lane) -> bool) {
        eventually(what, async || {
            self.lanes.iter().enumerate().all(|(at, lane)| {
                assert!(!lane.task.is_finished(), "{} stopped, which a message before this one explains", lane.name);
                holds(at, lane)
            })
        })
        .await;
    }

    pub async fn finish(self) -> Calls {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for mut lane in self.lanes {
            let calls = timeout(LONGEST * 2, &mut lane.task).await;
            all.push((lane, calls.expect("everybody is answered in the end").unwrap()));
        }
        Calls(all)
    }
}

impl Lane {
    fn latest(&self) -> u16 {
        self.seen.latest.load(Ordering::SeqCst)
    }
}

impl Calls {
    /// Nobody got what is not theirs, nobody was answered with a failure that is not the dependency's, and nobody was
    /// refused before it was away or once it was back.
    pub fn judge(&self, stages: &Stages) {
        for (lane, calls) in &self.0 {
            let (name, mut meanwhile, mut after) = (lane.name, 0, 0);
            for call in calls {
                let (one, other) = if call.until <= stages.began {
                    (lane.usual, lane.usual)
                } else if call.from >= stages.over {
                    after += 1;
                    (lane.usual, lane.usual)
                } else if call.from >= stages.known && call.until <= stages.ended {
                    meanwhile += 1;
                    (lane.meanwhile, lane.meanwhile)
                } else {
                    (lane.usual, lane.meanwhile)
                };
                let at = call.from.saturating_duration_since(stages.began);
                assert!(lane.usual < 400 || call.status >= 400, "{name} was let in {at:?} after it began: {call:?}");
                // It gives the database half a second, which on a busy machine is not enough now and then.
                let is_hasty = lane.is_hasty && call.status == 503;
                assert!(
                    [one, other].contains(&call.status) || is_hasty,
                    "{name}, {at:?} after it began: {call:?}, and not {one} or {other}; {stages:?}"
                );
            }
            assert!(meanwhile > 0 && after > 0, "{name} was called {meanwhile} times in the outage, {after} after it");
        }
    }

    /// Each order that was answered with is there, each key has one, and nobody has another.
    pub async fn assert_kept(&self, database: &Urls) {
        let placed = self.0.iter().flat_map(|(_, calls)| calls).filter_map(|call| call.placed.clone());
        let (keys, orders): (BTreeSet<String>, BTreeSet<String>) = placed.unzip();
        assert!(!orders.is_empty() && keys.len() == orders.len(), "two keys were answered with one order");
        let stored = query(&database.owner, "select id::text from orders where created_by like 'load-%'").await;
        let answers = query(&database.owner, "select key from idempotency_keys where subject like 'load-%'").await;
        for (what, answered, stored) in [("order", orders, stored), ("key", keys, answers)] {
            let there: BTreeSet<String> = stored.iter().cloned().collect();
            let lost: Vec<&String> = answered.difference(&there).collect();
            assert!(lost.is_empty(), "{what}s that were answered with are lost: {lost:?}");
            assert_eq!(stored.len(), answered.len(), "{what}s are there that nobody was answered with");
        }
    }
}
