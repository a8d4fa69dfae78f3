//! Accepts connections, runs one task for each, and ends them in order.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::event::{ConnectionId, Event};
use crate::local::{LocalListener, LocalStream};
use crate::relay::Traffic;

/// Connections at one time, established or not. Far above what a transfer needs, far below what exhausts a pod.
const MAX_CONNECTIONS: usize = 8192;

/// How long to wait after the system could not hand out a connection, so that a shortage does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open connections may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// What connections come from.
pub(crate) trait Listener {
    /// A connection.
    type Stream;

    /// The next connection. Dropping the future loses none.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for LocalListener {
    type Stream = LocalStream;

    async fn next(&self) -> io::Result<LocalStream> {
        self.accept().await
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Calls `handle` for each connection of `listener` until `shutdown`, then gives those that are open a little time.
pub(crate) async fn serve<L: Listener, H>(
    listener: L,
    shutdown: impl Future<Output = ()>,
    traffic: &Traffic,
    events: impl Fn(Event),
    handle: impl Fn(ConnectionId, L::Stream) -> H,
) where
    H: Future<Output = ()> + Send + 'static,
{
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let mut next: ConnectionId = 0;
    loop {
        traffic.open.store(connections.len(), Relaxed);
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of a connection failed");
                }
            }
            accepted = listener.next() => match accepted {
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {
                    let error = Error::TooMany { limit: MAX_CONNECTIONS };
                    events(Event::Failed { id: next, error });
                    next += 1;
                }
                Ok(stream) => {
                    connections.spawn(handle(next, stream));
                    next += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    traffic.open.store(0, Relaxed);
}
