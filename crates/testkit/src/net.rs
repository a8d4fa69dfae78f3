//! Ports of the loopback interface.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Ports below those that the kernel gives to connections and to listeners that name none, so that none of these takes one before
/// it is used.
const FIRST: u32 = 12_000;
const PORTS: u32 = 18_000;

/// An address of the loopback interface that nobody listens on at the moment. No other call of this process gets it; two processes
/// begin at different ports.
///
/// # Panics
/// Where no port is free.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = process::id().wrapping_mul(7919);
    let free = (0..PORTS).find_map(|_| {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Relaxed)) % PORTS;
        let port = u16::try_from(FIRST + offset).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok()
    });
    free.unwrap()
}

/// Waits until somebody accepts connections at `address`.
///
/// # Panics
/// Where nobody does within 30 s.
pub fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {address}");
        thread::sleep(Duration::from_millis(20));
    }
}
