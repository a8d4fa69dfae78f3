//! An established connection with a verified peer.
//!
//! [`TlsStream`] reads and writes plaintext. Its errors carry an [`Error`] (see [`Error::from_io`]): a refusal by the peer
//! arrives here and not from the handshake, since a TLS 1.3 client is done before the server has seen its certificate.
//!
//! Invariants: end of file is reported only after the peer's close_notify; without it reading fails with
//! [`Error::Truncated`]. [`tokio::io::AsyncWriteExt::shutdown`] sends close_notify and then FIN, and leaves reading as it is.
//! Dropping a stream that was not shut down sends no close_notify, so the peer sees a cut.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{
    AsyncBufRead as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf,
};

use crate::error::Error;
use crate::read_ahead::ReadAhead;
use crate::spiffe::Role;

/// A TLS connection whose peer has proved its identity. Both directions close on their own.
#[derive(Debug)]
pub struct TlsStream {
    inner: tokio_rustls::TlsStream<ReadAhead>,
    peer: Role,
}

impl TlsStream {
    pub(crate) fn new(mut inner: tokio_rustls::TlsStream<ReadAhead>) -> Self {
        inner.get_mut().0.end_handshake();
        let peer = match &inner {
            tokio_rustls::TlsStream::Client(_) => Role::Destination,
            tokio_rustls::TlsStream::Server(_) => Role::Source,
        };
        Self { inner, peer }
    }

    /// Says that nothing more will be sent, then reads and drops what the peer still sends, until it closes too.
    ///
    /// Dropping a socket that holds unread data resets the connection, and the reset may overtake the last bytes written.
    ///
    /// # Errors
    /// Whatever reading or writing fails with; a peer that closes without close_notify is [`Error::Truncated`].
    pub async fn finish(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        let mut scrap = [0; 4096];
        while self.read(&mut scrap).await? != 0 {}
        Ok(())
    }

    /// The socket below, for tests that bring it into trouble.
    #[cfg(test)]
    pub(crate) fn socket(&self) -> &tokio::net::TcpStream {
        self.inner.get_ref().0.socket()
    }

    /// Ready when reading would return without waiting. Needs no buffer, so that idle connections hold none.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_fill_buf(cx).map_ok(|_| ());
        polled.map_err(|error| to_io(error, self.peer))
    }
}

fn to_io(error: io::Error, peer: Role) -> io::Error {
    Error::from_tls(error, peer).after_handshake().into_io()
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        Poll::Ready(polled.map_err(|error| to_io(error, self.peer)))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        Poll::Ready(polled.map_err(|error| to_io(error, self.peer)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs));
        Poll::Ready(polled.map_err(|error| to_io(error, self.peer)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(polled.map_err(|error| to_io(error, self.peer)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        Poll::Ready(polled.map_err(|error| to_io(error, self.peer)))
    }
}

#[cfg(test)]
mod tests {
    use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
    use tokio::net::TcpListener;
    use tokio::time::Instant;
    use tokio_rustls::TlsStream::Client;

    use super::*;
    use crate::{Acceptor, Connector, IdentitySource, Target, pki};

    #[tokio::test]
    async fn each_connection_is_negotiated_in_full_by_the_policy() {
        let pair = pki::ephemeral("m").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(listener.local_addr().unwrap());
        let connector = Connector::new(IdentitySource::fixed(pair.source));
        let acceptor = Acceptor::new(IdentitySource::fixed(pair.destination));
        for _ in 0..2 {
            let accept = async {
                let (stream, _) = listener.accept().await.unwrap();
                let deadline = Instant::now() + std::time::Duration::from_secs(30);
                let (mut server, _) = acceptor.accept(stream, deadline).await.unwrap();
                server.write_all(b"x").await.unwrap();
                server
            };
            let (client, _server) = tokio::join!(connector.connect(&target, None), accept);
            let mut client = client.unwrap();
            client.read_u8().await.unwrap(); // by now tickets would have come
            let Client(inner) = &client.inner else { panic!("not a client") };
            let tls = inner.get_ref().1;
            let group =
                tls.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
            assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
            assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(tls.tls13_tickets_received(), 0);
        }
    }
}
