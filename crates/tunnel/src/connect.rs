//! The client's side of a handshake: look up, connect, prove, and check who answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::identity::IdentitySource;
use crate::read_ahead::ReadAhead;
use crate::spiffe::Role;
use crate::stream::TlsStream;
use crate::target::Target;
use crate::{policy, socket};

/// How long connecting may take, unless told otherwise; the same again for the handshake.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens TLS connections as the source of a migration.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: IdentitySource,
    timeout: Duration,
}

impl Connector {
    /// Connects by the identity that `identity` has at the time of each handshake.
    #[must_use]
    pub fn new(identity: IdentitySource) -> Self {
        Self { identity, timeout: DEFAULT_TIMEOUT }
    }

    /// How long looking up and connecting may take together, and after that how long the handshake may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects to `target` and checks that it is the destination of our migration.
    ///
    /// `server_name` is what is asked for in the handshake (SNI), for proxies that route by it; the host of `target`
    /// where it is `None`. It has no part in the check of the peer.
    ///
    /// # Errors
    /// By phase: [`Error::Identity`], [`Error::Resolve`], [`Error::Connect`], [`Error::ConnectTimeout`],
    /// [`Error::HandshakeTimeout`], [`Error::HandshakeClosed`], [`Error::Tls`], [`Error::Peer`], [`Error::Refused`].
    /// The server may also refuse us after this returned: then the first read fails with [`Error::Refused`].
    pub async fn connect(
        &self,
        target: &Target,
        server_name: Option<&str>,
    ) -> Result<TlsStream, Error> {
        let identity = self.identity.current()?;
        let config = Arc::clone(identity.client()?);
        let asked_for = server_name.unwrap_or(target.host());
        let name = ServerName::try_from(asked_for.to_owned()).map_err(|_| Error::Resolve {
            target: target.clone(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "not a valid server name"),
        })?;

        let stream = self.reach(target).await?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let handshake =
            connector.connect_with(name, ReadAhead::new(stream), |tls: &mut ClientConnection| {
                tls.set_buffer_limit(Some(policy::WRITE_BUFFER));
            });
        match timeout_at(Instant::now() + self.timeout, handshake).await {
            Ok(Ok(tls)) => Ok(TlsStream::new(tls.into())),
            Ok(Err(error)) => {
                let whose = self.identity.whose(format!("the server {target}"));
                Err(handshake_error(error, Role::Destination).of_handshake_with(&whose))
            }
            Err(_) => Err(Error::HandshakeTimeout),
        }
    }

    /// A TCP connection to the first address of `target` that takes one. Each address gets an even share of the time left.
    async fn reach(&self, target: &Target) -> Result<TcpStream, Error> {
        let deadline = Instant::now() + self.timeout;
        let late = || Error::ConnectTimeout { target: target.clone(), after: self.timeout };
        let addresses = match timeout_at(deadline, resolve(target)).await {
            Ok(found) => found?,
            Err(_) => return Err(late()),
        };
        let mut last = late();
        for (tried, address) in addresses.iter().enumerate() {
            let now = Instant::now();
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(now) / left;
            match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    return socket::tune(&stream).map(|()| stream).map_err(Error::Io);
                }
                Ok(Err(source)) if source.kind() == io::ErrorKind::TimedOut => last = late(),
                Ok(Err(source)) => last = Error::Connect { target: target.clone(), source },
                Err(_) => last = late(),
            }
        }
        Err(last)
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let fail = |source| Error::Resolve { target: target.clone(), source };
    let found = lookup_host((target.host(), target.port())).await.map_err(fail)?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        return Err(fail(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses)
}

/// A cut during the handshake is no truncation of data: it has a name of its own.
pub(crate) fn handshake_error(error: io::Error, peer: Role) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(own) => return own,
        Err(error) => error,
    };
    let cut = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    if cut { Error::HandshakeClosed } else { Error::from_tls(error, peer) }
}
