//! A TCP address that can be closed and opened again ([`TcpSwitch`]).
//!
//! It stands before a test server, such as an issuer or a vault, so that a test can make the server
//! unreachable. Dropping those servers would not: they keep the connections that they have.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::eventually;

/// An address that relays to a server while open. Closed, nothing listens there and existing
/// connections are cut.
pub struct TcpSwitch {
    address: SocketAddr,
    relay: Option<JoinHandle<()>>,
}

impl TcpSwitch {
    /// Reserves an address and leaves it closed. It has its own loopback IP address, so that no
    /// other test gets the port while it is closed.
    pub async fn new() -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let ip = Ipv4Addr::new(127, 9, 0, COUNT.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), relay: None }
    }

    /// Base URL of the switch.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Listens, and relays every connection to this server.
    pub async fn open_to(&mut self, server: SocketAddr) {
        let address = self.address;
        let mut listener = None;
        eventually("the address is free", async || {
            listener = TcpListener::bind(address).await.ok();
            listener.is_some()
        })
        .await;
        self.relay = Some(tokio::spawn(relay(listener.unwrap(), server)));
    }

    /// Cuts all connections and waits until connecting fails.
    pub async fn close(&mut self) {
        let relay = self.relay.take().expect("the switch is open");
        relay.abort();
        assert!(relay.await.is_err_and(|error| error.is_cancelled()));
        // A child process that another test is forking holds a copy of the socket until it execs.
        let address = self.address;
        eventually("nothing listens", async || TcpStream::connect(address).await.is_err()).await;
    }
}

impl Drop for TcpSwitch {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.abort();
        }
    }
}

/// Relays connections until it is dropped, which cuts them.
async fn relay(listener: TcpListener, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(server).await {
                // Fails when either side closes the connection.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
