//! Three replicas on one PostgreSQL and one Redis, under load: a kill, a stop, and an upgrade of the
//! schema lose no acknowledged order and place none twice (FAIL-03, FAIL-04).
//!
//! The balancer is in the clients: it probes the readiness of each replica, and a request goes to
//! the next ready one. As a proxy does, it takes another replica if the connection is refused, since
//! nothing was sent. A client repeats a request without a response, with the same idempotency key.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::Method;
use palisade::{
    dev::{database::Urls, issuer::DevIssuer},
    model::Clock,
};
use service::access::{roles, scopes};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{
    ACME, Actor, Redis, SERVICE, ServiceProcess, TestApp, UNTHROTTLED, eventually, id, order_body, person, query, run,
    start_issuer,
};

const CLIENTS: usize = 4;
/// Longer than it takes the balancer to notice that a replica is not ready.
const SHUTDOWN_DELAY_MS: &str = "1000";
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The replicas that clients can choose, and what the clients have seen.
#[derive(Default)]
struct Balancer {
    /// Each address, and whether its last probe succeeded.
    replicas: Mutex<BTreeMap<SocketAddr, bool>>,
    next: AtomicUsize,
    stop: AtomicBool,
    placed: AtomicUsize,
    /// Requests that were sent and got no response.
    broken: AtomicUsize,
    /// Responses of 500 and above.
    failed: AtomicUsize,
}

impl Balancer {
    fn add(self: &Arc<Self>, address: SocketAddr) {
        self.replicas.lock().unwrap().insert(address, true);
        let balancer = Arc::clone(self);
        tokio::spawn(async move {
            while !balancer.stop.load(SeqCst) {
                let probe = Actor::new(address, None).request(Method::GET, "/health/ready");
                let reply = probe.timeout(Duration::from_secs(2)).send().await;
                let is_ready = reply.is_ok_and(|reply| reply.status() == 200);
                balancer.replicas.lock().unwrap().insert(address, is_ready);
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        });
    }

    /// The next replica that is ready.
    async fn pick(&self) -> SocketAddr {
        let started = Instant::now();
        loop {
            let replicas = self.replicas.lock().unwrap().clone();
            let ready: Vec<_> = replicas.into_iter().filter(|(_, is_ready)| *is_ready).collect();
            if let Some((address, _)) = ready.get(self.next.fetch_add(1, SeqCst) % ready.len().max(1)) {
                return *address;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "no replica is ready");
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Waits until this many further orders are acknowledged.
    async fn wait_for_orders(&self, count: usize) {
        let enough = self.placed.load(SeqCst) + count;
        eventually("orders are placed", async || self.placed.load(SeqCst) >= enough).await;
    }

    fn faults(&self) -> (usize, usize) {
        (self.broken.load(SeqCst), self.failed.load(SeqCst))
    }
}

/// Places one order after the other; returns the acknowledged ones by their idempotency keys.
async fn place_orders(balancer: Arc<Balancer>, token: String) -> BTreeMap<String, String> {
    let mut actors = BTreeMap::new();
    let mut placed = BTreeMap::new();
    while !balancer.stop.load(SeqCst) {
        let key = Uuid::now_v7().to_string();
        let order = loop {
            let address = balancer.pick().await;
            let actor = actors.entry(address).or_insert_with(|| Actor::new(address, Some(token.clone())));
            let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", &key);
            match request.json(&order_body("PAPER-A4", 1)).send().await {
                Ok(reply) if reply.status() == 201 => match reply.json().await {
                    Ok(order) => break id(&order),
                    Err(_) => drop(balancer.broken.fetch_add(1, SeqCst)),
                },
                // The first attempt is still in flight.
                Ok(reply) if reply.status() == 409 => tokio::time::sleep(PROBE_INTERVAL).await,
                Ok(reply) => {
                    assert!(reply.status().is_server_error(), "{reply:?}");
                    balancer.failed.fetch_add(1, SeqCst);
                }
                Err(error) => {
                    if !error.is_connect() {
                        balancer.broken.fetch_add(1, SeqCst);
                    }
                    // Until its next probe, as proxies do.
                    balancer.replicas.lock().unwrap().insert(address, false);
                }
            }
        };
        placed.insert(key, order);
        balancer.placed.fetch_add(1, SeqCst);
    }
    placed
}

/// Three replicas under load.
struct Cluster {
    replicas: Vec<ServiceProcess>,
    balancer: Arc<Balancer>,
    clients: Vec<JoinHandle<BTreeMap<String, String>>>,
    token: String,
    variables: BTreeMap<String, String>,
    database: Urls,
    /// The orders of the demo data.
    before: BTreeSet<String>,
    _issuer: DevIssuer,
    _redis: Option<Redis>,
}

const ORDERS: &str = "select id::text from orders";

impl Cluster {
    async fn start() -> Self {
        let database = SERVICE.database().await;
        let issuer = start_issuer(Clock::system()).await;
        let redis = Redis::start().await;
        let mut variables = TestApp::variables(&database, issuer.url());
        let url = redis.as_ref().map(Redis::url);
        let further = [("APP_HTTP__SHUTDOWN_DELAY_MS", SHUTDOWN_DELAY_MS)];
        let store = url.as_ref().map(|url| ("APP_QUOTA__REDIS_URL", url.as_str()));
        for (name, value) in UNTHROTTLED.into_iter().chain(further).chain(store) {
            variables.insert(name.to_owned(), value.to_owned());
        }
        let token = issuer.access_token(&person(&ACME, roles::SALES), &scopes::ALL);
        let before = query(&database.owner, ORDERS).await.into_iter().collect();
        let mut cluster = Self {
            replicas: Vec::new(),
            balancer: Arc::default(),
            clients: Vec::new(),
            token,
            variables,
            database,
            before,
            _issuer: issuer,
            _redis: redis,
        };
        for _ in 0..3 {
            cluster.start_replica().await;
        }
        let client = |_| tokio::spawn(place_orders(Arc::clone(&cluster.balancer), cluster.token.clone()));
        cluster.clients = (0..CLIENTS).map(client).collect();
        cluster
    }

    async fn start_replica(&mut self) {
        let replica = ServiceProcess::start(&SERVICE, &self.variables).await;
        self.balancer.add(replica.address);
        self.replicas.push(replica);
    }

    /// Stops the clients. Asserts that each acknowledged order is stored, once, and no other; and
    /// that a retry on another replica gets the same order.
    async fn assert_exactly_once(self) {
        self.balancer.stop.store(true, SeqCst);
        let mut placed = BTreeMap::new();
        for client in self.clients {
            placed.extend(client.await.unwrap());
        }
        let mut stored = query(&self.database.owner, ORDERS).await;
        stored.retain(|order| !self.before.contains(order));
        stored.sort();
        let mut acknowledged: Vec<String> = placed.values().cloned().collect();
        acknowledged.sort();
        assert_eq!(stored, acknowledged, "the orders that are stored, and those that were acknowledged");
        let (key, order) = placed.first_key_value().unwrap();
        let actor = Actor::new(self.replicas.last().unwrap().address, Some(self.token));
        let request = actor.request(Method::POST, "/v1/orders").header("idempotency-key", key);
        let retry = actor.send(request.json(&order_body("PAPER-A4", 1))).await;
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
        assert_eq!(&id(&retry.ok(201)), order);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_03_killed_and_stopped_replicas_lose_no_acknowledged_order() {
    let mut cluster = Cluster::start().await;
    let balancer = Arc::clone(&cluster.balancer);
    balancer.wait_for_orders(40).await;
    assert_eq!(balancer.faults(), (0, 0), "before the kill");
    cluster.replicas.remove(0).kill();
    balancer.wait_for_orders(40).await;
    let (broken, failed) = balancer.faults();
    assert!(broken <= CLIENTS && failed == 0, "{broken} requests without a response, {failed} with a 5xx");
    let (status, log) = cluster.replicas.remove(0).terminate().await;
    assert!(status.success(), "{status} {log}");
    balancer.wait_for_orders(40).await;
    assert_eq!(balancer.faults(), (broken, failed), "requests that the stop broke");
    cluster.assert_exactly_once().await;
}

/// What the next version of this service could add.
const EXPAND: &str = "
    set local lock_timeout = '5s';
    create table order_labels (tenant_id uuid not null, order_id uuid not null, primary key (tenant_id, order_id));
    select palisade.isolate_tenants('order_labels');
    grant select, insert on order_labels to app_writer;
    alter table orders add column warehouse text;
    grant update (warehouse) on orders to app_writer;
    insert into _sqlx_migrations select 9000, 'expand order labels', now(), true, '', 0;";

#[tokio::test(flavor = "multi_thread")]
async fn fail_03_replicas_of_the_version_before_serve_while_the_schema_expands() {
    let mut cluster = Cluster::start().await;
    let balancer = Arc::clone(&cluster.balancer);
    balancer.wait_for_orders(40).await;
    run(&cluster.database.owner, EXPAND).await.unwrap();
    balancer.wait_for_orders(40).await;
    // One that starts again after the migration.
    let (status, log) = cluster.replicas.remove(0).terminate().await;
    assert!(status.success(), "{status} {log}");
    cluster.start_replica().await;
    balancer.wait_for_orders(40).await;
    assert_eq!(balancer.faults(), (0, 0), "requests that the upgrade broke");
    cluster.assert_exactly_once().await;
}
