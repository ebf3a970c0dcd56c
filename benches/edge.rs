//! What the edge and quotas cost: `cargo bench --bench edge 2>/dev/null`.
//!
//! The edge as it ships, log lines included (they go to standard error), beside hyper alone, with the same handler and the
//! same callers on loopback; `APP_LOG__FILTER=off` leaves the lines out. Quotas in this process with a million callers, and in a `redis-server` if there is one.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::print_stdout, reason = "memory is a figure too")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use divan::{Bencher, counter::ItemsCount};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use poem::endpoint::make_sync;
use service::{
    crypto::MacKey,
    domain::{Clock, QuotaName, TenantId},
    edge,
    quota::{Buckets, Owner, Policy, SharedBuckets},
    settings::{self, Settings},
    telemetry::{self, LogFormat},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use uuid::Uuid;

const CALLERS: usize = 32;
const CALLS: usize = 100;
const KEYS: usize = 1_000_000;
const READ: Policy = Policy { name: QuotaName::Read, quota: 1_000_000 };

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn main() {
    let filter = std::env::var("APP_LOG__FILTER").ok().and_then(|filter| filter.parse().ok());
    telemetry::init(LogFormat::Json, &filter.unwrap_or_default());
    divan::main();
}

/// Hyper and a handler that says `ok`.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn requests_by_hyper_alone(bencher: Bencher) {
    static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| RUNTIME.block_on(serve_by_hyper()));
    call(bencher, *ADDRESS);
}

/// The same handler behind the whole edge.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn requests_through_the_edge(bencher: Bencher) {
    static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| RUNTIME.block_on(serve_by_edge()));
    call(bencher, *ADDRESS);
}

async fn serve_by_hyper() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let ok =
                    |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))) };
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(ok))
                    .await;
            });
        }
    });
    address
}

async fn serve_by_edge() -> SocketAddr {
    let key = || STANDARD.encode(service::crypto::random::<32>().unwrap());
    let database = |login: &str| format!("postgres://{login}:password@127.0.0.1:9/none");
    let variables = [
        ("APP_PROFILE", "development".to_owned()),
        ("APP_DATABASE__WRITER_URL", database("writer")),
        ("APP_DATABASE__READER_URL", database("reader")),
        ("APP_DATABASE__AUTHN_URL", database("authn")),
        ("APP_DATABASE__KEYS_URL", database("keys")),
        ("APP_KEYS__MASTER", format!("1:{}", key())),
        ("APP_KEYS__INDEX", format!("1:{}", key())),
        ("APP_OIDC__ISSUER", "http://127.0.0.1:9".to_owned()),
        ("APP_OIDC__AUDIENCE", "api://benchmark".to_owned()),
        ("APP_SECRETS__MAC_KEY", key()),
        ("APP_SECRETS__PEPPER", key()),
        ("APP_THROTTLE__ADDRESS_PER_SECOND", "1000000".to_owned()),
        ("APP_THROTTLE__ADDRESS_BURST", "1000000".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let settings: &'static Settings = Box::leak(Box::new(Settings::from_variables(variables).unwrap()));
    let app = poem::Route::new().at("/", make_sync(|_| "ok"));
    let app = poem::EndpointExt::map_to_response(app);
    let stack = edge::stack(
        app,
        edge::Door::Public,
        settings,
        Arc::new(|_| None),
        &Arc::new(service::measures::Measures::new(Clock::system())),
    )
    .unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = edge::Listener { door: edge::Door::Public, socket, tls: None };
    tokio::spawn(edge::serve(listener, stack, &settings.http, std::future::pending()));
    address
}

/// Many connections at once, each asking again when it was answered.
fn call(bencher: Bencher, address: SocketAddr) {
    let connect = || async move {
        let mut connections = Vec::new();
        for _ in 0..CALLERS {
            connections.push(TcpStream::connect(address).await.unwrap());
        }
        connections
    };
    bencher.counter(ItemsCount::new(CALLERS * CALLS)).with_inputs(|| RUNTIME.block_on(connect())).bench_values(
        |connections| {
            RUNTIME.block_on(async {
                let calls: Vec<_> = connections.into_iter().map(|stream| tokio::spawn(ask(stream))).collect();
                for call in calls {
                    call.await.unwrap();
                }
            });
        },
    );
}

async fn ask(mut stream: TcpStream) {
    let mut answer = Vec::with_capacity(4_096);
    for _ in 0..CALLS {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        answer.clear();
        while !answer.ends_with(b"ok") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection ended");
        }
    }
}

/// One decision among a million callers who are remembered.
#[divan::bench(threads = [1, 2], sample_size = 1_000)]
fn quota_in_process(bencher: Bencher) {
    static BUCKETS: LazyLock<Buckets> = LazyLock::new(|| {
        let before = resident();
        let buckets = Buckets::new(Clock::system());
        for key in 0..KEYS {
            buckets.take(&key, READ);
        }
        println!("{} bytes for each caller who is remembered", (resident() - before) / KEYS);
        buckets
    });
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let buckets = &*BUCKETS;
    bencher
        // Far apart in memory, one after the other.
        .with_inputs(|| NEXT.fetch_add(7_919, Ordering::Relaxed) % KEYS)
        .bench_values(|key| buckets.take(&key, READ));
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

struct Redis(Child, SharedBuckets);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Both buckets of a call, in the shared store.
#[divan::bench]
fn quota_in_redis(bencher: Bencher) {
    let Some(redis) = RUNTIME.block_on(redis()) else { return println!("no redis-server, so no figure") };
    let tenant = TenantId::from_uuid(Uuid::now_v7());
    let asked = [
        (Owner { tenant, name: QuotaName::Read, subject: Some("somebody@acme.example") }, READ),
        (Owner { tenant, name: QuotaName::Tenant, subject: None }, Policy { name: QuotaName::Tenant, ..READ }),
    ];
    bencher.bench_local(|| RUNTIME.block_on(redis.1.take(&asked)).unwrap());
}

async fn redis() -> Option<Redis> {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
    let mut server = Command::new("redis-server");
    server.args(["--save", "", "--bind", "127.0.0.1", "--port", &port]).stdout(Stdio::null());
    let server = server.spawn().ok()?;
    let settings = settings::SharedQuota {
        url: format!("redis://127.0.0.1:{port}").into(),
        authorities: None,
        prefix: "benchmark".to_owned(),
        timeout: Duration::from_secs(1),
    };
    let redis = Redis(server, SharedBuckets::new(&settings, MacKey::generate().unwrap()).unwrap());
    for _ in 0..100 {
        if redis.1.connect().await.is_ok() {
            return Some(redis);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}
