use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};
use url::Url;

/// Stands between the service and its database, and notes each message that the service waits to be answered:
/// `Query` and `Sync` of PostgreSQL's protocol (documentation, section 55.2). It can also lose an answer.
pub struct Wire {
    url: SecretString,
    seen: Arc<Mutex<Vec<String>>>,
    cut: Arc<Cut>,
}

/// What is to be lost.
struct Cut {
    /// The answer to a message of this kind, after so many others of it.
    after: Mutex<Option<(&'static str, usize)>>,
    armed: AtomicBool,
    reached: Notify,
    /// How many connections there were, and how many of them are silent.
    connections: AtomicU64,
    silent: AtomicU64,
    /// Whether the database is gone.
    down: watch::Sender<bool>,
}

impl Wire {
    /// A way to the database of this URL, over a port of its own.
    pub async fn to(database: &SecretString) -> Self {
        let mut url = Url::parse(database.expose_secret()).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let cut = Cut {
            after: Mutex::new(None),
            armed: AtomicBool::new(false),
            reached: Notify::new(),
            connections: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            down: watch::Sender::new(false),
        };
        let wire = Self { url: url.to_string().into(), seen: Arc::default(), cut: Arc::new(cut) };
        let (seen, cut) = (Arc::clone(&wire.seen), Arc::clone(&wire.cut));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut down = cut.down.subscribe();
                if *down.borrow_and_update() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let relay = relay(client, server, Arc::clone(&seen), Arc::clone(&cut));
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay => {}
                        _ = down.changed() => {}
                    }
                });
            }
        });
        wire
    }

    /// The database's URL by this way.
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// What was sent since this was last asked.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// From the message of this kind on that follows `others` of it, nothing comes back.
    pub fn lose_answer_to(&self, kind: &'static str, others: usize) {
        *self.cut.after.lock().unwrap() = Some((kind, others));
    }

    /// Nothing comes back any more on the connections that there are, and none of them closes: what a firewall does
    /// that has forgotten them.
    pub fn silence(&self) {
        self.cut.silent.store(self.cut.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Nothing comes back any more, on those to come either.
    pub fn silence_for_good(&self) {
        self.cut.silent.store(u64::MAX, Ordering::SeqCst);
    }

    /// All connections end, and new ones do so at once: what a server does that is killed. Or it is back.
    pub fn down(&self, down: bool) {
        self.cut.down.send_replace(down);
    }

    /// Until the database has answered the message whose answer is lost.
    pub async fn lost(&self) {
        tokio::time::timeout(std::time::Duration::from_secs(10), self.cut.reached.notified()).await.unwrap();
    }
}

async fn relay(client: TcpStream, server: TcpStream, seen: Arc<Mutex<Vec<String>>>, cut: Arc<Cut>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = Arc::clone(&cut);
    let number = cut.connections.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if answers.armed.load(Ordering::SeqCst) {
                answers.reached.notify_one();
            } else if number < answers.silent.load(Ordering::SeqCst) {
                // Read, and kept.
            } else if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    // The first messages have no type: one that asks for TLS (which the server declines), and the greeting.
    loop {
        let Some(body) = read_body(&mut from_client).await else { return };
        let asks_for_tls = body.starts_with(&80_877_103_u32.to_be_bytes());
        if write(&mut to_server, None, &body).await.is_none() {
            return;
        }
        if !asks_for_tls {
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
            // Nothing but an end of message: the pool tests a connection that was given back.
            b'S' => Some(if std::mem::take(&mut executes) { "statement" } else { "ping" }.to_owned()),
            _ => {
                executes = true;
                None
            }
        };
        if let Some(label) = label {
            match cut.after.lock().unwrap().as_mut() {
                Some((kind, 0)) if *kind == label => cut.armed.store(true, Ordering::SeqCst),
                Some((kind, others)) if *kind == label => *others -= 1,
                _ => {}
            }
            seen.lock().unwrap().push(label);
        }
        if write(&mut to_server, Some(kind), &body).await.is_none() {
            return;
        }
    }
}

/// A message without its type and length.
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
