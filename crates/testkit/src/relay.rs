//! A faulty network between two processes, or between two ends in one.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
};

use crate::{Faults, FaultyStream};

/// Passes TCP connections on to another address, with faults; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    counts: Arc<Counts>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    forward: AtomicU64,
    backward: AtomicU64,
}

impl Relay {
    /// Listens on a free port of the loopback interface for connections to `target`. The first connection
    /// has these faults, towards the target and back from it; later ones have none.
    #[must_use]
    pub fn once(target: SocketAddr, forward: Faults, backward: Faults) -> Self {
        Self::each(target, move |nth| {
            if nth == 0 { (forward, backward) } else { (Faults::default(), Faults::default()) }
        })
    }

    /// The same with these faults on every connection.
    #[must_use]
    pub fn always(target: SocketAddr, forward: Faults, backward: Faults) -> Self {
        Self::each(target, move |_| (forward, backward))
    }

    /// The same with the faults that `faults` names for the nth connection, the first being 0.
    #[must_use]
    pub fn each(
        target: SocketAddr,
        faults: impl Fn(u64) -> (Faults, Faults) + Send + 'static,
    ) -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, target, faults, shared) => {}
                }
            });
        });
        Self { address, counts, _stop: stop }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were made so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Bytes that came in so far, of all connections: towards the target, and back from it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts.forward), read(&self.counts.backward))
    }

    /// Waits until so many bytes have come in towards the target, of all connections.
    ///
    /// # Panics
    /// Where they have not after a minute.
    #[track_caller]
    pub fn wait_for_bytes(&self, bytes: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.bytes().0 < bytes {
            assert!(Instant::now() < deadline, "{} bytes of {bytes} came in", self.bytes().0);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    faults: impl Fn(u64) -> (Faults, Faults),
    counts: Arc<Counts>,
) {
    while let Ok((near, _)) = listener.accept().await {
        let (forward, backward) = faults(counts.connections.fetch_add(1, Ordering::Relaxed));
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let mut near = near;
            // Refused: the near end is dropped, which is what it would see of a refusal through a tunnel.
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            if between(&mut near, &mut far, forward, backward, &counts).await.is_err() {
                // Neither end gets what is still on its way.
                for stream in [&near, &far] {
                    let _ = set_socket_linger(stream, Some(Duration::ZERO));
                }
            }
        });
    }
}

/// Passes what each of two streams says on to the other until both have ended, with these faults from `near` to
/// `far`, and back. Returns how many bytes came in from each.
///
/// # Errors
/// Where a stream breaks, or was to be cut. Whoever drops the streams then cuts both ways.
pub async fn pass_between(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    mut far: impl AsyncRead + AsyncWrite + Unpin,
    forward: Faults,
    backward: Faults,
) -> io::Result<(u64, u64)> {
    let counts = Counts::default();
    between(&mut near, &mut far, forward, backward, &counts).await?;
    Ok((counts.forward.into_inner(), counts.backward.into_inner()))
}

async fn between(
    near: &mut (impl AsyncRead + AsyncWrite + Unpin),
    far: &mut (impl AsyncRead + AsyncWrite + Unpin),
    forward: Faults,
    backward: Faults,
    counts: &Counts,
) -> io::Result<()> {
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    let there = pass(near_read, far_write, forward, &counts.forward);
    let back = pass(far_read, near_write, backward, &counts.backward);
    tokio::try_join!(there, back).map(drop)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    faults: Faults,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut to = FaultyStream::new(to, Faults::default(), faults);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        to.write_all(&buffer[..length]).await?;
        if faults.end.is_some_and(|end| to.bytes_written() >= end) {
            return to.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener as Listener, TcpStream as Stream},
    };

    /// Sends `0123456789` through a relay and returns what arrives and what comes back of it.
    fn echo(relay: &Relay, server: &Listener) -> (Vec<u8>, Vec<u8>) {
        let mut client = Stream::connect(relay.address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"0123456789").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        served.read_to_end(&mut there).unwrap();
        let _ = served.write_all(&there); // the relay may have cut this way already
        drop(served);
        client.read_to_end(&mut back).unwrap();
        (there, back)
    }

    #[test]
    fn only_the_first_connection_is_faulty() {
        let server = Listener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let relay = Relay::once(target, Faults::flip(0), Faults::end(3));
        assert_eq!(echo(&relay, &server), (b"1123456789".to_vec(), b"112".to_vec()));
        assert_eq!(echo(&relay, &server), (b"0123456789".to_vec(), b"0123456789".to_vec()));
        assert_eq!((relay.connections(), relay.bytes()), (2, (20, 20)));
    }

    #[test]
    fn a_cut_ends_both_ways() {
        let server = Listener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let relay = Relay::always(target, Faults::cut(4), Faults::default());
        let mut client = Stream::connect(relay.address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"0123456789").unwrap();
        for end in [&mut client, &mut served] {
            let error = end.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn two_streams_in_one_process() {
        let ((mut client, near), (far, mut server)) =
            (tokio::io::duplex(64), tokio::io::duplex(64));
        let passed = pass_between(near, far, Faults::flip(1), Faults::end(2));
        let ends = async {
            client.write_all(b"abc").await.unwrap();
            client.shutdown().await.unwrap();
            let (mut there, mut back) = (Vec::new(), Vec::new());
            server.read_to_end(&mut there).await.unwrap();
            server.write_all(&there).await.unwrap();
            client.read_to_end(&mut back).await.unwrap();
            (there, back)
        };
        let (passed, heard) = tokio::join!(passed, ends);
        assert_eq!(passed.unwrap(), (3, 3));
        assert_eq!(heard, (b"acc".to_vec(), b"ac".to_vec()));
    }
}
