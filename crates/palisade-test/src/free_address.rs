//! [`free_address`]: a loopback address for a server that cannot choose its own port, or that
//! restarts on the same one.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// A free port of 127.0.0.1 from 20000 to 31999. No system assigns these to a client or to port 0
/// (Linux starts at 32768), so the port stays free until the server listens. Processes that run at
/// once begin at different ports.
///
/// # Panics
///
/// If all of these ports are in use.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let offset = start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("ports 20000 to 31999 are all in use");
}
