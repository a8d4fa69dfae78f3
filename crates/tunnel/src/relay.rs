//! Copies bytes between a plaintext connection and a TLS connection until both directions have ended.
//!
//! Two [`Flow`]s, one per direction, run in one task over streams that are never split, so there is no lock. A flow moves
//! through these states:
//!
//! ```text
//! Moving ──end of file──► Closing ──FIN or close_notify sent──► Done
//!    └──the sink broke──► Discarding ──end of file──► Failed
//! ```
//!
//! Invariants:
//! * A side is told "that was all" (FIN, close_notify) only by a flow that saw its source say so. Where a flow is not Done
//!   when the relay ends, its sink is dropped, which is a reset for a [`LocalStream`] and a cut for a [`TlsStream`].
//! * A side that can no longer be written to is still read to its end, for a limited time: it may have said last what
//!   matters most, and closing a socket with unread data resets it and takes along what was sent before.
//! * A connection on which nothing moves holds no buffer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::local::LocalStream;
use crate::pool::Pool;
use crate::stream::TlsStream;

/// How long a side that can no longer be written to is still read.
const LINGER: Duration = Duration::from_secs(10);

/// What has passed through a tunnel, counted as it passes.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) open: AtomicUsize,
    buffers: Pool,
}

impl Traffic {
    /// Plaintext bytes written to TLS connections.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Plaintext bytes read from TLS connections and delivered.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Connections that are open now, also those still being established.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Plaintext bytes written to the TLS connection.
    pub(crate) sent: u64,
    /// Plaintext bytes delivered from the TLS connection.
    pub(crate) received: u64,
    /// What broke, where the two sides did not both end of their own will.
    pub(crate) fault: Option<Error>,
}

/// Copies both ways until both directions have ended or one side broke. `endpoint` names the plaintext side in errors.
pub(crate) async fn relay(
    local: LocalStream,
    tls: TlsStream,
    endpoint: &Endpoint,
    traffic: &Traffic,
) -> Ended {
    let (up, down) = (Flow::new(&traffic.sent), Flow::new(&traffic.received));
    let mut relay =
        Relay { local, tls, up, down, traffic, fault: None, linger: None, down_first: false };
    let fault = std::future::poll_fn(|cx| relay.poll(cx)).await;
    let fault = fault.map(|fault| match fault {
        Fault::Local(source) => endpoint.error(source),
        Fault::Peer(source) => source.downcast().unwrap_or_else(Error::Io),
    });
    Ended { sent: relay.up.moved, received: relay.down.moved, fault }
}

struct Relay<'a> {
    local: LocalStream,
    tls: TlsStream,
    /// From the plaintext side to the TLS side.
    up: Flow<'a>,
    /// From the TLS side to the plaintext side.
    down: Flow<'a>,
    traffic: &'a Traffic,
    /// The first side that could no longer be written to.
    fault: Option<Fault>,
    linger: Option<Pin<Box<Sleep>>>,
    down_first: bool,
}

enum Fault {
    Local(io::Error),
    Peer(io::Error),
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Fault>> {
        // Both flows draw on one budget of operations; taking turns keeps a busy one from starving the other.
        self.down_first = !self.down_first;
        for down in [self.down_first, !self.down_first] {
            let fatal = if down { self.poll_down(cx) } else { self.poll_up(cx) };
            if fatal.is_some() {
                return Poll::Ready(fatal);
            }
        }
        if self.up.is_over() && self.down.is_over() {
            return Poll::Ready(self.fault.take());
        }
        if self.fault.is_some() {
            let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            ready!(linger.as_mut().poll(cx));
            return Poll::Ready(self.fault.take());
        }
        Poll::Pending
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<Fault> {
        match self.up.poll(cx, &mut self.local, &mut self.tls, self.traffic) {
            Poll::Ready(Err(Broken::Source(error))) => Some(Fault::Local(error)),
            Poll::Ready(Err(Broken::Sink(error))) => {
                // What is left to send has nowhere to go. What the peer sent before, perhaps the reason, still counts.
                self.fault.get_or_insert(Fault::Peer(error));
                self.up.state = State::Failed;
                None
            }
            Poll::Ready(Ok(())) | Poll::Pending => None,
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<Fault> {
        match self.down.poll(cx, &mut self.tls, &mut self.local, self.traffic) {
            Poll::Ready(Err(Broken::Source(error))) => Some(Fault::Peer(error)),
            Poll::Ready(Err(Broken::Sink(error))) => {
                self.fault.get_or_insert(Fault::Local(error));
                self.down.state = State::Discarding;
                cx.waker().wake_by_ref();
                None
            }
            Poll::Ready(Ok(())) | Poll::Pending => None,
        }
    }
}

/// A stream that can be waited for without a buffer.
trait Side: AsyncRead + AsyncWrite + Unpin {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Side for LocalStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_readable(self, cx)
    }
}

impl Side for TlsStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_readable(self, cx)
    }
}

/// One direction.
struct Flow<'a> {
    state: State,
    buffer: Option<Box<[u8]>>,
    /// What of the buffer is read and not yet written.
    unwritten: std::ops::Range<usize>,
    unflushed: bool,
    moved: u64,
    total: &'a AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Moving,
    Closing,
    Done,
    Discarding,
    Failed,
}

/// Which end of a flow broke.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

impl<'a> Flow<'a> {
    fn new(total: &'a AtomicU64) -> Self {
        Self {
            state: State::Moving,
            buffer: None,
            unwritten: 0..0,
            unflushed: false,
            moved: 0,
            total,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Failed)
    }

    fn poll<S: Side, D: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
        traffic: &Traffic,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self.state {
                State::Moving => {
                    ready!(self.poll_drain(cx, sink)).map_err(Broken::Sink)?;
                    match self.poll_fill(cx, source, traffic) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(Ok(false)) => self.state = State::Closing,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Source(error))),
                        Poll::Pending => {
                            return self.poll_flush(cx, sink).map_err(Broken::Sink);
                        }
                    }
                }
                State::Closing => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                    self.state = State::Done;
                }
                State::Discarding => {
                    if !ready!(self.poll_fill(cx, source, traffic)).map_err(Broken::Source)? {
                        self.state = State::Failed;
                    }
                }
                State::Done | State::Failed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what was read; ready when nothing is left.
    fn poll_drain<D: Side>(&mut self, cx: &mut Context<'_>, sink: &mut D) -> Poll<io::Result<()>> {
        while let (false, Some(buffer)) = (self.unwritten.is_empty(), &self.buffer) {
            let bytes = &buffer[self.unwritten.clone()];
            let written = ready!(Pin::new(&mut *sink).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.start += written;
            self.unflushed = true;
            self.moved += written as u64;
            self.total.fetch_add(written as u64, Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is, up to a buffer full; false at the end of the source. Holds no buffer while it waits.
    fn poll_fill<S: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        traffic: &Traffic,
    ) -> Poll<io::Result<bool>> {
        if self.buffer.is_none() {
            ready!(source.poll_readable(cx))?;
        }
        let mut buffer = self.buffer.take().unwrap_or_else(|| traffic.buffers.take());
        let mut space = ReadBuf::new(&mut buffer);
        let polled = Pin::new(source).poll_read(cx, &mut space);
        let filled = space.filled().len();
        if filled > 0 {
            self.unwritten = 0..filled;
            self.buffer = Some(buffer);
        } else {
            traffic.buffers.give_back(buffer);
        }
        polled.map_ok(|()| filled > 0)
    }

    /// Nothing is left to read for now: what was written goes out. Always pending, since the flow waits for its source.
    fn poll_flush<D: Side>(&mut self, cx: &mut Context<'_>, sink: &mut D) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::{Acceptor, Connector, IdentitySource, Target, pki};

    /// The two ends of a TLS connection: source, destination.
    async fn tls_pair() -> (TlsStream, TlsStream) {
        let pair = pki::ephemeral("m").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(listener.local_addr().unwrap());
        let connector = Connector::new(IdentitySource::fixed(pair.source));
        let acceptor = Acceptor::new(IdentitySource::fixed(pair.destination));
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream, Instant::now() + LINGER).await.unwrap().0
        };
        let (client, server) = tokio::join!(connector.connect(&target, None), accept);
        (client.unwrap(), server)
    }

    /// A plaintext connection: the tunnel's end, the process's end.
    async fn local_pair() -> (LocalStream, LocalStream, Endpoint) {
        let listener = "127.0.0.1:0".parse::<Endpoint>().unwrap().bind(false).await.unwrap();
        let near = listener.endpoint().connect().await.unwrap();
        (listener.accept().await.unwrap(), near, listener.endpoint().clone())
    }

    #[tokio::test]
    async fn the_last_words_of_a_peer_that_left_are_delivered() {
        let (client, mut server) = tls_pair().await;
        let (local, mut near, _) = local_pair().await;
        let traffic = Traffic::default();
        near.write_all(b"still talking").await.unwrap();
        server.write_all(b"no room").await.unwrap();
        server.shutdown().await.unwrap();
        server.socket().set_zero_linger().unwrap();
        drop(server);

        let (up, down) = (Flow::new(&traffic.sent), Flow::new(&traffic.received));
        let state = Relay {
            local,
            tls: client,
            up,
            down,
            traffic: &traffic,
            fault: None,
            linger: None,
            down_first: true,
        };
        let mut relay = state;
        // The direction that finds the peer gone comes first.
        let fault = std::future::poll_fn(|cx| relay.poll(cx)).await;
        assert!(matches!(fault, Some(Fault::Peer(_))));
        drop(relay);
        let mut words = [0; 7];
        near.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"no room");
    }

    /// As much as fits is under way when the process has gone; then the peer speaks, and after that it reads.
    #[tokio::test]
    async fn what_a_process_sent_before_it_left_arrives_whole() {
        let (client, mut server) = tls_pair().await;
        let (local, mut near) = tokio::net::UnixStream::pair().unwrap();
        let endpoint = Endpoint::Unix("pair".into());
        let relaying = tokio::spawn(async move {
            relay(LocalStream::Unix(local), client, &endpoint, &Traffic::default()).await
        });
        let mut sent = 0;
        let patience = Duration::from_millis(300);
        while let Ok(written) = tokio::time::timeout(patience, near.write(&[7; 1 << 16])).await {
            sent += written.unwrap();
        }
        drop(near);
        server.write_all(b"is anyone there?").await.unwrap();
        server.flush().await.unwrap();
        tokio::time::sleep(patience).await;

        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), sent);
        server.shutdown().await.unwrap();
        let ended = relaying.await.unwrap();
        assert!(matches!(ended.fault, Some(Error::Local { .. })));
    }

    /// The sender has filled every buffer on the way and falls silent; then the receiver begins to read.
    #[tokio::test]
    async fn what_was_taken_goes_out_though_nothing_follows() {
        let (client, mut server) = tls_pair().await;
        // A small socket buffer: what waits before it does not fit in one go.
        rustix::net::sockopt::set_socket_send_buffer_size(client.socket(), 1 << 15).unwrap();
        let (local, mut near) = tokio::net::UnixStream::pair().unwrap();
        let endpoint = Endpoint::Unix("pair".into());
        let traffic = std::sync::Arc::new(Traffic::default());
        let counts = std::sync::Arc::clone(&traffic);
        tokio::spawn(
            async move { relay(LocalStream::Unix(local), client, &endpoint, &counts).await },
        );
        let mut sent = 0;
        let patience = Duration::from_millis(300);
        let taken = async |sent| {
            while traffic.sent() < sent {
                tokio::task::yield_now().await;
            }
        };
        while tokio::time::timeout(patience, taken(sent)).await.is_ok() {
            near.write_all(&[7; 1 << 16]).await.unwrap();
            sent += 1 << 16;
        }
        let mut heard = vec![0; usize::try_from(sent).unwrap()];
        let whole = tokio::time::timeout(LINGER, server.read_exact(&mut heard)).await;
        assert!(whole.is_ok(), "the tail was held back");
    }

    #[tokio::test]
    async fn connections_at_rest_hold_no_buffer() {
        let (client, mut server) = tls_pair().await;
        let (local, mut near, endpoint) = local_pair().await;
        let traffic = std::sync::Arc::new(Traffic::default());
        let counts = std::sync::Arc::clone(&traffic);
        tokio::spawn(async move { relay(local, client, &endpoint, &counts).await });
        for _ in 0..3 {
            near.write_all(b"there").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            server.write_all(b"back").await.unwrap();
            near.read_exact(&mut [0; 4]).await.unwrap();
        }
        while traffic.received() < 12 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(traffic.buffers.spare(), 1, "one buffer served both directions in turn");
    }
}
