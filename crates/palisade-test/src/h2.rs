//! HTTP/2 at the level of frames (RFC 9113) and header blocks (RFC 7541), for requests that no
//! client library sends.
//!
//! Functions make frames and header blocks as bytes; [`H2`] is a connection that sends header
//! blocks and counts the responses. Tests of floods and of unread responses use it.

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

use crate::eventually;

/// The header block of `GET http://x/`, from the static table (RFC 7541 appendix A).
pub const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The connection preface and empty client settings (RFC 9113 section 3.4).
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat()
}

/// An integer with a prefix of `prefix` bits (RFC 7541 section 5.1).
fn integer(prefix: u32, first: u8, value: usize) -> Vec<u8> {
    let max = (1 << prefix) - 1;
    let Some(mut rest) = value.checked_sub(max) else {
        return vec![first | u8::try_from(value).unwrap()];
    };
    let mut bytes = vec![first | u8::try_from(max).unwrap()];
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

/// A header field with a name of the static table, which the receiver adds to its dynamic table
/// (RFC 7541 section 6.2.1): later header blocks repeat it with one byte.
pub fn indexed(name: usize, value: &str) -> Vec<u8> {
    [integer(6, 0x40, name), text(value)].concat()
}

/// A header field that is not added to the dynamic table (RFC 7541 section 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// The header block of a `GET`, with a bearer token if one is given.
pub fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut block = [&[0x82, 0x86][..], &literal(":path", path), &literal(":authority", "x")].concat();
    block.extend(token.iter().flat_map(|token| literal("authorization", &format!("Bearer {token}"))));
    block
}

/// A connection that reads and counts frames. It never resets a stream.
pub struct H2 {
    writer: OwnedWriteHalf,
    /// The stream id of the next request.
    stream: u32,
    /// Bytes sent so far.
    pub sent: usize,
    counts: Arc<Counts>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    bytes: AtomicUsize,
    headers: AtomicUsize,
    stream_ends: AtomicUsize,
}

impl H2 {
    /// Connects from this local address. Without a flow-control window the service can send the
    /// headers of responses but no data (RFC 9113 section 5.2).
    pub async fn connect(address: SocketAddr, from: IpAddr, has_window: bool) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let (mut reader, mut writer) = socket.connect(address).await?.into_split();
        let window: u32 = if has_window { 1 << 30 } else { 0 };
        let settings = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        let update = frame(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        let greeting = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &update].concat();
        writer.write_all(&greeting).await?;
        let counts = Arc::<Counts>::default();
        let reader_counts = Arc::clone(&counts);
        let reader = tokio::spawn(async move {
            let mut frames = Vec::new();
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                reader_counts.bytes.fetch_add(length, Ordering::SeqCst);
                frames.extend_from_slice(&buffer[..length]);
                let mut at = 0;
                while let Some(head) = frames.get(at..at + 9) {
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    let kind = head[3];
                    let flags = head[4];
                    if frames.len() < at + 9 + length {
                        break;
                    }
                    at += 9 + length;
                    // END_STREAM on DATA or HEADERS, or RST_STREAM, ends a stream.
                    reader_counts.headers.fetch_add(usize::from(kind == 1), Ordering::SeqCst);
                    let ends = kind == 3 || matches!(kind, 0 | 1) && flags & 1 == 1;
                    reader_counts.stream_ends.fetch_add(usize::from(ends), Ordering::SeqCst);
                }
                frames.drain(..at);
            }
        });
        Ok(Self { writer, stream: 1, sent: greeting.len(), counts, reader })
    }

    /// Sends a request with this header block and no body.
    pub async fn send(&mut self, block: &[u8]) -> std::io::Result<()> {
        let request = frame(1, 5, self.stream, block);
        self.stream += 2;
        self.sent += request.len();
        self.writer.write_all(&request).await
    }

    /// Waits until the headers of `count` responses have arrived.
    pub async fn wait_for_response_headers(&self, count: usize) {
        eventually("responses begin", async || self.counts.headers.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until `count` streams have ended.
    pub async fn wait_for_stream_ends(&self, count: usize) {
        eventually("responses end", async || self.counts.stream_ends.load(Ordering::SeqCst) >= count).await;
    }

    /// Bytes received so far.
    pub fn received(&self) -> usize {
        self.counts.bytes.load(Ordering::SeqCst)
    }

    /// Whether the service has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }
}

/// Closes the connection, even if its reader still waits for bytes.
impl Drop for H2 {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
