//! The byte tunnel: takes plaintext connections on this machine and carries each over a TLS connection of its own.
//!
//! [`Tunnel`] stands at the source, [`Terminator`] is its mirror image at the destination. Neither looks at the bytes, so
//! stock programs can use them, with a stock TLS proxy at the other end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::accept::Acceptor;
use crate::connect::Connector;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::event::{ConnectionId, Event};
use crate::identity::IdentitySource;
use crate::local::LocalStream;
use crate::relay::{Ended, Traffic, relay};
use crate::serve::serve;
use crate::target::Target;

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Plaintext in, TLS out.
#[derive(Debug)]
pub struct Tunnel {
    listen: Endpoint,
    connect: Target,
    connector: Connector,
    server_name: Option<String>,
    allow_remote: bool,
    traffic: Arc<Traffic>,
}

impl Tunnel {
    /// From `listen` to the TLS server at `connect`, as the source that `identity` speaks for.
    #[must_use]
    pub fn new(listen: Endpoint, connect: Target, identity: IdentitySource) -> Self {
        Self {
            listen,
            connect,
            connector: Connector::new(identity),
            server_name: None,
            allow_remote: false,
            traffic: Arc::default(),
        }
    }

    /// The name to ask for in the handshake (SNI), where it is not the host to connect to.
    #[must_use]
    pub fn server_name(mut self, name: Option<String>) -> Self {
        self.server_name = name;
        self
    }

    /// Whether plaintext connections may come from beyond this machine.
    #[must_use]
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// How long connecting may take, and the same again for the handshake.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.connector = self.connector.timeout(timeout);
        self
    }

    /// The counters, which can be read while the tunnel runs.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Runs until `shutdown` is ready; connections that are open then are given a few seconds to end.
    ///
    /// `events` is called from within the tasks of the connections and must not block.
    ///
    /// # Errors
    /// Where it cannot listen. Failures of single connections are events.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let listener = self.listen.bind(self.allow_remote).await?;
        let address = listener.endpoint().clone();
        events(Event::Listening { address: address.to_string() });
        let tunnel = Arc::new(self);
        let (traffic, events) = (tunnel.traffic(), Arc::new(events));
        let report = |event| events(event);
        serve(listener, shutdown, &traffic, report, |id, local| {
            let (tunnel, events, address) = (tunnel.clone(), events.clone(), address.clone());
            async move { tunnel.carry(id, local, &address, &*events).await }
        })
        .await;
        Ok(())
    }

    async fn carry(
        &self,
        id: ConnectionId,
        local: LocalStream,
        address: &Endpoint,
        events: &(impl Fn(Event) + Send + Sync),
    ) {
        match self.connector.connect(&self.connect, self.server_name.as_deref()).await {
            Ok(tls) => {
                events(Event::Connected { id, peer: None });
                events(end(id, relay(local, tls, address, &self.traffic).await));
            }
            Err(error) => events(Event::Failed { id, error }),
        }
    }
}

/// TLS in, plaintext out.
#[derive(Debug)]
pub struct Terminator {
    listen: String,
    forward: Endpoint,
    acceptor: Acceptor,
    allow_remote: bool,
    traffic: Arc<Traffic>,
}

impl Terminator {
    /// From TLS connections to `listen` (`HOST:PORT`) to `forward`, as the destination that `identity` speaks for.
    /// Any source of its migration is let in, one confined to a volume too: the bytes are not looked at.
    #[must_use]
    pub fn new(listen: &str, forward: Endpoint, identity: IdentitySource) -> Self {
        Self {
            listen: listen.to_owned(),
            forward,
            acceptor: Acceptor::new(identity),
            allow_remote: false,
            traffic: Arc::default(),
        }
    }

    /// Whether plaintext may be sent beyond this machine.
    #[must_use]
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// The counters, which can be read while it runs.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Runs until `shutdown` is ready; connections that are open then are given a few seconds to end.
    ///
    /// `events` is called from within the tasks of the connections and must not block.
    ///
    /// # Errors
    /// Where it cannot listen. Failures of single connections are events.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.forward.check_local(self.allow_remote)?;
        let fail = |source| Error::Listen { address: self.listen.clone(), source };
        let listener = TcpListener::bind(&self.listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        events(Event::Listening { address: address.to_string() });
        let terminator = Arc::new(self);
        let (traffic, events) = (terminator.traffic(), Arc::new(events));
        let report = |event| events(event);
        serve(listener, shutdown, &traffic, report, |id, stream| {
            let (terminator, events) = (terminator.clone(), events.clone());
            async move { terminator.carry(id, stream, &*events).await }
        })
        .await;
        Ok(())
    }

    async fn carry(
        &self,
        id: ConnectionId,
        stream: TcpStream,
        events: &(impl Fn(Event) + Send + Sync),
    ) {
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let (tls, peer) = match self.acceptor.accept(stream, deadline).await {
            Ok(accepted) => accepted,
            Err(error) => return events(Event::Failed { id, error }),
        };
        match self.forward.connect().await {
            Ok(local) => {
                events(Event::Connected { id, peer: Some(peer) });
                events(end(id, relay(local, tls, &self.forward, &self.traffic).await));
            }
            Err(error) => events(Event::Failed { id, error }),
        }
    }
}

/// A server that refuses our certificate says so only after the handshake: that is a connection that came to nothing.
fn end(id: ConnectionId, ended: Ended) -> Event {
    let Ended { sent, received, fault } = ended;
    match fault {
        Some(error @ Error::Refused(_)) if received == 0 => Event::Failed { id, error },
        error => Event::Closed { id, sent, received, error },
    }
}
