//! A faulty network between two processes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
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
            // Refused: the near end is dropped, which is what it would see of a refusal through a tunnel.
            let Ok(far) = TcpStream::connect(target).await else { return };
            let ((near_read, near_write), (far_read, far_write)) =
                (near.into_split(), far.into_split());
            let result = tokio::try_join!(
                pass(near_read, far_write, forward, &counts.forward),
                pass(far_read, near_write, backward, &counts.backward),
            );
            // After a cut both connections are dropped here, whatever is still on its way.
            drop(result);
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    faults: Faults,
    count: &AtomicU64,
) -> std::io::Result<()> {
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
        assert_eq!(echo(&relay, &server), (b"0123".to_vec(), b"".to_vec()));
    }
}
