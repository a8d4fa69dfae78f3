//! The server's side of a handshake: who does not prove within the deadline to be a source of our migration is closed.
//!
//! The acceptor does not listen and sets no limit on how many handshakes run at once; that is the caller's, who also owns
//! the deadline, so that one deadline can span the handshake and the first message after it.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connect::handshake_error;
use crate::error::{Error, PeerError};
use crate::identity::IdentitySource;
use crate::read_ahead::ReadAhead;
use crate::spiffe::{Role, Spiffe};
use crate::stream::TlsStream;
use crate::{policy, socket, verify};

/// How long a client whose certificate was refused is given to fetch the alert that says so.
const ALERT_LINGER: Duration = Duration::from_secs(2);

/// Accepts TLS connections as the destination of a migration.
#[derive(Clone, Debug)]
pub struct Acceptor {
    identity: IdentitySource,
}

impl Acceptor {
    /// Accepts by the identity that `identity` has at the time of each handshake.
    #[must_use]
    pub fn new(identity: IdentitySource) -> Self {
        Self { identity }
    }

    /// Makes the handshake on `stream` and returns the connection together with who is at its other end.
    ///
    /// Whatever is not TLS 1.3 is closed at the first bytes, and whoever has not finished at `deadline` is closed then.
    ///
    /// # Errors
    /// [`Error::Identity`] (ours), [`Error::HandshakeTimeout`], [`Error::HandshakeClosed`],
    /// [`Error::HandshakeTooLarge`], [`Error::Tls`], [`Error::Peer`], [`Error::Refused`].
    pub async fn accept(
        &self,
        stream: TcpStream,
        deadline: Instant,
    ) -> Result<(TlsStream, Spiffe), Error> {
        let identity = self.identity.current()?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(identity.server()?));
        socket::tune(&stream).map_err(Error::Io)?;
        let handshake = acceptor
            .accept_with(ReadAhead::new(stream), |tls: &mut ServerConnection| {
                tls.set_buffer_limit(Some(policy::WRITE_BUFFER));
            })
            .into_fallible();
        match timeout_at(deadline, handshake).await {
            Ok(Ok(tls)) => {
                let peer = peer_name(tls.get_ref().1)?;
                Ok((TlsStream::new(tls.into()), peer))
            }
            Ok(Err((error, stream))) => {
                let whose = self.identity.whose("the client");
                let error = handshake_error(error, Role::Source).of_handshake_with(&whose);
                if matches!(error, Error::Peer { .. }) {
                    // Dropping the socket now would reset it, and the client would fail in writing before it reads why.
                    let _ = timeout(ALERT_LINGER, drain(stream)).await;
                }
                Err(error)
            }
            Err(_) => Err(Error::HandshakeTimeout),
        }
    }
}

/// The name in the certificate that the handshake has already checked.
fn peer_name(tls: &ServerConnection) -> Result<Spiffe, Error> {
    match tls.peer_certificates() {
        Some([leaf, ..]) => verify::name(leaf).map_err(|error| error.by(Role::Source)),
        _ => Err(PeerError::NoCertificate.by(Role::Source)),
    }
}

async fn drain(mut stream: ReadAhead) -> std::io::Result<()> {
    // Bytes that arrive from now on are dropped. They take no memory.
    stream.end_handshake();
    stream.shutdown().await?;
    let mut scrap = [0; 4096];
    while stream.read(&mut scrap).await? != 0 {}
    Ok(())
}
