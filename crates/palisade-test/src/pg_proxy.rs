//! A proxy between the service and PostgreSQL ([`PgProxy`]) that records messages and breaks
//! connections.
//!
//! Tests count the round trips of a request, lose the answer to a chosen message, silence
//! connections as a firewall does, or take the database down.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};
use url::Url;

/// A proxy on its own port. It records each message whose answer the service waits for: `Query` and
/// `Sync` (PostgreSQL documentation, section 55.2).
pub struct PgProxy {
    url: SecretString,
    messages: Arc<Mutex<Vec<String>>>,
    faults: Arc<Faults>,
}

/// The faults that a test has injected.
struct Faults {
    /// Lose the answer to a message of this kind, after this number of others of the kind.
    after: Mutex<Option<(&'static str, usize)>>,
    losing: AtomicBool,
    lost: Notify,
    /// Forward a message of this kind late.
    delay: Mutex<Option<(&'static str, Duration)>>,
    /// The number of connections so far; those with a number below `silent` get no answers.
    connections: AtomicU64,
    silent: AtomicU64,
    /// Whether the database is down.
    down: watch::Sender<bool>,
}

impl PgProxy {
    /// Starts a proxy to the database of this URL.
    pub async fn start(database: &SecretString) -> Self {
        let mut url = Url::parse(database.expose_secret()).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let faults = Faults {
            after: Mutex::new(None),
            losing: AtomicBool::new(false),
            lost: Notify::new(),
            delay: Mutex::new(None),
            connections: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            down: watch::Sender::new(false),
        };
        let proxy = Self { url: url.to_string().into(), messages: Arc::default(), faults: Arc::new(faults) };
        let messages = Arc::clone(&proxy.messages);
        let faults = Arc::clone(&proxy.faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut down = faults.down.subscribe();
                if *down.borrow_and_update() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let relay = relay(client, server, Arc::clone(&messages), Arc::clone(&faults));
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay => {}
                        _ = down.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// The database's URL through this proxy.
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// Returns and forgets the messages recorded so far.
    pub fn take_messages(&self) -> Vec<String> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }

    /// Drops all answers from the message of this kind on, after `others` messages of that kind.
    pub fn lose_answer_to(&self, kind: &'static str, others: usize) {
        *self.faults.after.lock().unwrap() = Some((kind, others));
    }

    /// Records and forwards each message of this kind late.
    pub fn delay(&self, kind: &'static str, by: Duration) {
        *self.faults.delay.lock().unwrap() = Some((kind, by));
    }

    /// Drops all answers on the existing connections without closing them, like a firewall that has
    /// forgotten the connections.
    pub fn silence(&self) {
        self.faults.silent.store(self.faults.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Drops all answers on existing and future connections.
    pub fn silence_all(&self) {
        self.faults.silent.store(u64::MAX, Ordering::SeqCst);
    }

    /// While down, all connections are closed and new ones are closed at once, like those of a
    /// killed server.
    pub fn set_down(&self, down: bool) {
        self.faults.down.send_replace(down);
    }

    /// Waits until the database has sent the answer that is lost.
    pub async fn wait_until_lost(&self) {
        tokio::time::timeout(Duration::from_secs(10), self.faults.lost.notified()).await.unwrap();
    }
}

async fn relay(client: TcpStream, server: TcpStream, messages: Arc<Mutex<Vec<String>>>, faults: Arc<Faults>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answer_faults = Arc::clone(&faults);
    let number = faults.connections.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if answer_faults.losing.load(Ordering::SeqCst) {
                answer_faults.lost.notify_one();
            } else if number < answer_faults.silent.load(Ordering::SeqCst) {
                // Dropped.
            } else if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    // The first messages have no type byte: SSLRequest (which the server declines), then the
    // startup message.
    loop {
        let Some(body) = read_body(&mut from_client).await else { return };
        let is_ssl_request = body.starts_with(&80_877_103_u32.to_be_bytes());
        if write(&mut to_server, None, &body).await.is_none() {
            return;
        }
        if !is_ssl_request {
            break;
        }
    }
    let mut executes = false;
    while let Ok(kind) = from_client.read_u8().await {
        let Some(body) = read_body(&mut from_client).await else { return };
        let label = match kind {
            b'Q' => {
                let text = String::from_utf8_lossy(&body);
                text.split([' ', ';', '\0']).next().map(str::to_lowercase)
            }
            // A `Sync` alone is the pool's test of a returned connection.
            b'S' => Some(if std::mem::take(&mut executes) { "statement" } else { "ping" }.to_owned()),
            _ => {
                executes = true;
                None
            }
        };
        if let Some(label) = label {
            let delay = *faults.delay.lock().unwrap();
            if let Some((_, by)) = delay.filter(|(kind, _)| *kind == label) {
                tokio::time::sleep(by).await;
            }
            match faults.after.lock().unwrap().as_mut() {
                Some((kind, 0)) if *kind == label => faults.losing.store(true, Ordering::SeqCst),
                Some((kind, others)) if *kind == label => *others -= 1,
                _ => {}
            }
            messages.lock().unwrap().push(label);
        }
        if write(&mut to_server, Some(kind), &body).await.is_none() {
            return;
        }
    }
}

/// Reads a message after its type byte; returns it without the length.
async fn read_body(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; (length as usize).checked_sub(4)?];
    from.read_exact(&mut body).await.ok()?;
    Some(body)
}

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), kind: Option<u8>, body: &[u8]) -> Option<()> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    to.write_all(&message).await.ok()
}
