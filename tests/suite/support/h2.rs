//! HTTP/2 frame by frame, for what no client library would send (RFC 9113, RFC 7541).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, tcp::OwnedWriteHalf},
    task::JoinHandle,
};

use super::eventually;

/// `GET http://x/`, of entries of the static table (RFC 7541 appendix A).
pub const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and the client's settings.
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat()
}

/// A length or index with a prefix of so many bits (RFC 7541 section 5.1).
fn integer(prefix: u32, first: u8, value: usize) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    let Some(mut rest) = value.checked_sub(most) else {
        return vec![first | u8::try_from(value).unwrap()];
    };
    let mut bytes = vec![first | u8::try_from(most).unwrap()];
    while rest >= 128 {
        bytes.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [integer(7, 0, text.len()), text.as_bytes().to_vec()].concat()
}

/// A field with a name of the static table, that is added to the dynamic table: later headers name it by one byte.
pub fn indexed(name: usize, value: &str) -> Vec<u8> {
    [integer(6, 0x40, name), text(value)].concat()
}

/// A field that is not added.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// The header block of a `GET`, with a credential if one is given.
pub fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut block = [&[0x82, 0x86][..], &literal(":path", path), &literal(":authority", "x")].concat();
    block.extend(token.iter().flat_map(|token| literal("authorization", &format!("Bearer {token}"))));
    block
}

/// A connection. It answers pings, and never resets a stream.
pub struct H2 {
    writer: OwnedWriteHalf,
    /// Of the next request.
    stream: u32,
    pub sent: usize,
    seen: Arc<Seen>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    bytes: AtomicUsize,
    heads: AtomicUsize,
    ended: AtomicUsize,
}

impl H2 {
    /// From an address of this machine. Without a window, the service can send heads of responses and no more.
    pub async fn connect(address: SocketAddr, from: IpAddr, has_window: bool) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let (mut reader, mut writer) = socket.connect(address).await?.into_split();
        let window: u32 = if has_window { 1 << 30 } else { 0 };
        let settings = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        let update = frame(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &update].concat();
        writer.write_all(&hello).await?;
        let seen = Arc::<Seen>::default();
        let counts = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            let mut frames = Vec::new();
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                counts.bytes.fetch_add(length, Ordering::SeqCst);
                frames.extend_from_slice(&buffer[..length]);
                let mut at = 0;
                while let Some(head) = frames.get(at..at + 9) {
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    let (kind, flags) = (head[3], head[4]);
                    if frames.len() < at + 9 + length {
                        break;
                    }
                    at += 9 + length;
                    // Heads of responses; and what ends a stream: the flag on data or a head, or a reset.
                    counts.heads.fetch_add(usize::from(kind == 1), Ordering::SeqCst);
                    let ends = kind == 3 || matches!(kind, 0 | 1) && flags & 1 == 1;
                    counts.ended.fetch_add(usize::from(ends), Ordering::SeqCst);
                }
                frames.drain(..at);
            }
        });
        Ok(Self { writer, stream: 1, sent: hello.len(), seen, reader })
    }

    /// Sends a request of this header block.
    pub async fn send(&mut self, block: &[u8]) -> std::io::Result<()> {
        let request = frame(1, 5, self.stream, block);
        self.stream += 2;
        self.sent += request.len();
        self.writer.write_all(&request).await
    }

    /// Until so many responses have begun.
    pub async fn heads(&self, wanted: usize) {
        eventually("responses begin", async || self.seen.heads.load(Ordering::SeqCst) >= wanted).await;
    }

    /// Until so many responses have ended.
    pub async fn ended(&self, wanted: usize) {
        eventually("responses end", async || self.seen.ended.load(Ordering::SeqCst) >= wanted).await;
    }

    pub fn received(&self) -> usize {
        self.seen.bytes.load(Ordering::SeqCst)
    }

    pub fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }
}

/// Closes the connection, also where its reader would go on.
impl Drop for H2 {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
