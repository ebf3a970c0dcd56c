//! Cost of the edge and of quotas: `cargo bench --bench edge 2>/dev/null`.
//!
//! Compares the complete edge, including its log lines on standard error, with plain hyper: same
//! handler, same clients, on loopback. `APP_LOG__FILTER=off` turns the log lines off. Also measures
//! quotas in this process with a million callers, and in a `redis-server` if one is installed.

#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "reports memory use")]

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
use palisade::{
    crypto::MacKey,
    edge,
    model::{Clock, QuotaName, TenantId},
    quota::{Bucket, LocalBuckets, QuotaPolicy, SharedBuckets},
    settings::{self, Settings},
    telemetry::{self, LogFormat},
};
use poem::endpoint::make_sync;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use uuid::Uuid;

const CONNECTIONS: usize = 32;
const REQUESTS_PER_CONNECTION: usize = 100;
const QUOTA_CALLERS: usize = 1_000_000;
const READ: QuotaPolicy = QuotaPolicy { name: QuotaName::Read, quota: 1_000_000 };

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A service with the kernel's operations only.
fn service() -> palisade::App {
    palisade::App::new("benchmark", "0.0.0")
}

fn main() {
    let filter = std::env::var("APP_LOG__FILTER").ok().and_then(|filter| filter.parse().ok());
    telemetry::init(LogFormat::Json, &filter.unwrap_or_default());
    divan::main();
}

/// Plain hyper with a handler that returns `ok`.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn requests_plain_hyper(bencher: Bencher) {
    static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| RUNTIME.block_on(serve_with_hyper()));
    bench_requests(bencher, *ADDRESS);
}

/// The same handler behind the whole edge.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn requests_through_the_edge(bencher: Bencher) {
    static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| RUNTIME.block_on(serve_with_edge()));
    bench_requests(bencher, *ADDRESS);
}

async fn serve_with_hyper() -> SocketAddr {
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

async fn serve_with_edge() -> SocketAddr {
    let key = || STANDARD.encode(palisade::crypto::random::<32>().unwrap());
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
    let settings: &'static Settings = Box::leak(Box::new(service().read_settings(variables).unwrap()));
    let app = poem::Route::new().at("/", make_sync(|_| "ok"));
    let app = poem::EndpointExt::map_to_response(app);
    let stack = edge::stack(
        app,
        edge::ListenerKind::Public,
        settings,
        Arc::new(|_| None),
        &Arc::new(palisade::quota::Overrides::new(Clock::system())),
    )
    .unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = edge::Listener { kind: edge::ListenerKind::Public, socket, tls: None };
    tokio::spawn(edge::serve(listener, stack, &settings.http, std::future::pending()));
    address
}

/// Concurrent connections, each with one request at a time.
fn bench_requests(bencher: Bencher, address: SocketAddr) {
    let connect = || async move {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(TcpStream::connect(address).await.unwrap());
        }
        connections
    };
    bencher
        .counter(ItemsCount::new(CONNECTIONS * REQUESTS_PER_CONNECTION))
        .with_inputs(|| RUNTIME.block_on(connect()))
        .bench_values(|connections| {
            RUNTIME.block_on(async {
                let tasks: Vec<_> = connections.into_iter().map(|stream| tokio::spawn(send_requests(stream))).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
}

async fn send_requests(mut stream: TcpStream) {
    let mut response = Vec::with_capacity(4_096);
    for _ in 0..REQUESTS_PER_CONNECTION {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        response.clear();
        while !response.ends_with(b"ok") {
            assert!(stream.read_buf(&mut response).await.unwrap() > 0, "the connection was closed");
        }
    }
}

/// One decision while a million callers have buckets.
#[divan::bench(threads = [1, 2], sample_size = 1_000)]
fn quota_in_process(bencher: Bencher) {
    static BUCKETS: LazyLock<LocalBuckets> = LazyLock::new(|| {
        let before = resident_bytes();
        let buckets = LocalBuckets::new(Clock::system());
        for caller in 0..QUOTA_CALLERS {
            let _ = buckets.take(&caller, READ.quota);
        }
        println!("{} bytes per caller", (resident_bytes() - before) / QUOTA_CALLERS);
        buckets
    });
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let buckets = &*BUCKETS;
    bencher
        // A large stride, so that successive callers are far apart in memory.
        .with_inputs(|| NEXT.fetch_add(7_919, Ordering::Relaxed) % QUOTA_CALLERS)
        .bench_values(|caller| buckets.take(&caller, READ.quota));
}

/// Resident memory of this process, assuming pages of 4 KiB.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

struct Redis {
    server: Child,
    buckets: SharedBuckets,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
    }
}

/// Both buckets of a call, in the quota store.
#[divan::bench]
fn quota_in_redis(bencher: Bencher) {
    let Some(redis) = RUNTIME.block_on(start_redis()) else { return println!("skipped: no redis-server") };
    let tenant = TenantId::from_uuid(Uuid::now_v7());
    let buckets = [
        Bucket { tenant, subject: Some("alice@acme.example"), policy: READ },
        Bucket { tenant, subject: None, policy: QuotaPolicy { name: QuotaName::Tenant, ..READ } },
    ];
    bencher.bench_local(|| RUNTIME.block_on(redis.buckets.take(&buckets)).unwrap());
}

async fn start_redis() -> Option<Redis> {
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
    let redis = Redis { server, buckets: SharedBuckets::new(&settings, MacKey::generate().unwrap()).unwrap() };
    for _ in 0..100 {
        if redis.buckets.connect().await.is_ok() {
            return Some(redis);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}
