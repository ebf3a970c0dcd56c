//! The load: a closed loop of keep-alive HTTP/1.1 connections that send prepared requests.
//!
//! In: an address and a [`Plan`]. Out: an [`Outcome`] with rate and latencies. It runs in threads
//! of its own and costs a few microseconds a request, because the machine is shared with what it
//! measures.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
};

/// Longest wait for responses after the end of a round.
const GRACE: Duration = Duration::from_secs(10);
/// Largest head and body of a response, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// The requests of one operation, as bytes, and the status of a right response.
pub(crate) struct Plan {
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) expected: u16,
    /// Whether each request is sent once only. The round ends early without further requests.
    pub(crate) once: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Responses with the expected status.
    pub(crate) expected: usize,
    /// Responses with another status.
    pub(crate) unexpected: usize,
    /// Requests without a response.
    pub(crate) errors: usize,
    pub(crate) seconds: f64,
    /// Median of the response times, in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What one or more connections have seen.
#[derive(Default)]
struct Samples {
    micros: Vec<u32>,
    unexpected: usize,
    errors: usize,
}

impl Samples {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.unexpected += other.unexpected;
        self.errors += other.errors;
    }
}

/// Sends requests for `time` over this number of connections.
pub(crate) async fn run(address: SocketAddr, plan: &Arc<Plan>, connections: usize, time: Duration) -> Outcome {
    let plan = Arc::clone(plan);
    let (sender, outcome) = oneshot::channel();
    std::thread::spawn(move || sender.send(run_threads(address, &plan, connections, time)));
    outcome.await.expect("the load does not fail")
}

fn run_threads(address: SocketAddr, plan: &Arc<Plan>, connections: usize, time: Duration) -> Outcome {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (processors / 2).clamp(1, connections.min(4));
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let spawn = |thread| {
        let (plan, next) = (Arc::clone(plan), Arc::clone(&next));
        let connections = (thread..connections).step_by(threads).count();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_connections(address, &plan, &next, connections, started + time))
        })
    };
    let handles: Vec<_> = (0..threads).map(spawn).collect();
    let mut all = Samples::default();
    for handle in handles {
        all.add(handle.join().unwrap());
    }
    let seconds = started.elapsed().as_secs_f64();
    all.micros.sort_unstable();
    let percentile = |share: usize| {
        let micros = all.micros.get((all.micros.len() * share / 100).min(all.micros.len().saturating_sub(1)));
        f64::from(micros.copied().unwrap_or(0)) / 1000.0
    };
    let (p50, p99) = (percentile(50), percentile(99));
    Outcome { expected: all.micros.len(), unexpected: all.unexpected, errors: all.errors, seconds, p50, p99 }
}

async fn run_connections(
    address: SocketAddr,
    plan: &Arc<Plan>,
    next: &Arc<AtomicUsize>,
    connections: usize,
    deadline: Instant,
) -> Samples {
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn(run_connection(address, Arc::clone(plan), Arc::clone(next), deadline));
    }
    let mut all = Samples::default();
    let collect = async {
        while let Some(samples) = running.join_next().await {
            all.add(samples.unwrap());
        }
    };
    let _ = tokio::time::timeout_at((deadline + GRACE).into(), collect).await;
    // What has not responded by now never will.
    all.errors += running.len();
    all
}

async fn run_connection(address: SocketAddr, plan: Arc<Plan>, next: Arc<AtomicUsize>, deadline: Instant) -> Samples {
    let mut samples = Samples::default();
    let mut client = Client::new(address);
    while Instant::now() < deadline {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let index = if plan.once { index } else { index % plan.requests.len() };
        let Some(request) = plan.requests.get(index) else { break };
        let started = Instant::now();
        match client.send(request).await {
            Ok((status, _)) if status == plan.expected => {
                samples.micros.push(started.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
            }
            Ok(_) => samples.unexpected += 1,
            Err(_) => {
                samples.errors += 1;
                // Does not spin on a server that is gone.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    samples
}

/// Sends one request on a connection of its own, and returns status and JSON body.
pub(crate) async fn fetch(address: SocketAddr, request: &[u8]) -> io::Result<(u16, Value)> {
    let mut client = Client::new(address);
    let sent = tokio::time::timeout(GRACE, client.send(request)).await?;
    let (status, body) = sent?;
    Ok((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}

struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; 64 << 10] }
    }

    /// Returns the status and the body. Connects again if the server closed the connection after an
    /// earlier response, as it may after a request that it did not read to its end.
    async fn send(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        let mut response = Err(io::ErrorKind::NotConnected.into());
        if let Some(stream) = &mut self.stream {
            response = exchange(stream, request, &mut self.buffer).await;
        }
        if response.is_err() {
            self.stream = None;
            let mut stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            response = exchange(&mut stream, request, &mut self.buffer).await;
            self.stream = Some(stream);
        }
        let response = response?;
        if response.closes {
            self.stream = None;
        }
        Ok((response.status, &self.buffer[response.body]))
    }
}

struct Response {
    status: u16,
    body: std::ops::Range<usize>,
    closes: bool,
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> io::Result<Response> {
    stream.write_all(request).await?;
    let mut filled = 0;
    let mut response: Option<Response> = None;
    loop {
        if let Some(response) = response.take_if(|response| response.body.end <= filled) {
            return Ok(response);
        }
        if filled == buffer.len() {
            buffer.resize((filled * 2).min(MAX_RESPONSE), 0);
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        if response.is_none() {
            response = parse_head(&buffer[..filled])?;
        }
    }
}

/// Parses status and length (RFC 9112). `None` if the head is not complete yet.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Response>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no HTTP status"))?;
    let (mut length, mut closes) = (0, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::other("a response of unknown length"));
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let start = end + 4;
    Ok(Some(Response { status, body: start..start + length, closes }))
}
