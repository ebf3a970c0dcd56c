use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::eventually;

/// The address of a server of the suite's, which goes away when it does: shut, nobody listens there, and who was
/// connected is cut off. (Servers that are dropped go on with the connections they have.)
pub struct Door {
    address: SocketAddr,
    relay: Option<JoinHandle<()>>,
}

impl Door {
    /// At an address of its own, and shut. Nothing else listens on its IP address, so no other test gets the
    /// port while it is shut.
    pub async fn new() -> Self {
        static DOORS: AtomicU8 = AtomicU8::new(1);
        let own = Ipv4Addr::new(127, 9, 0, DOORS.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((own, 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), relay: None }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// To whatever listens there.
    pub async fn open_to(&mut self, server: SocketAddr) {
        let (address, mut free) = (self.address, None);
        eventually("the address is free", async || {
            free = TcpListener::bind(address).await.ok();
            free.is_some()
        })
        .await;
        self.relay = Some(tokio::spawn(relay(free.unwrap(), server)));
    }

    pub async fn shut(&mut self) {
        let relay = self.relay.take().expect("it is open");
        relay.abort();
        assert!(relay.await.is_err_and(|error| error.is_cancelled()));
        // A process that another test starts has a copy of the socket until it runs its program.
        let address = self.address;
        eventually("nothing listens", async || TcpStream::connect(address).await.is_err()).await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.abort();
        }
    }
}

/// Dropped, it takes all connections with it.
async fn relay(listener: TcpListener, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut outside, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut inside) = TcpStream::connect(server).await {
                // Either side may hang up.
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
