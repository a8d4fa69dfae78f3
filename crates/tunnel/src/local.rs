//! Listening on, and connecting to, an [`Endpoint`].
//!
//! [`LocalStream`] is made so that it fails towards the truth: dropped before it was shut down it resets the connection, so
//! that the process at its other end cannot take what it got for the whole. A Unix socket knows no reset; there the other
//! end sees end of file in both directions at once, and its writes fail.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::socket;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A plaintext connection on this machine.
#[derive(Debug)]
pub enum LocalStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl LocalStream {
    fn tcp(stream: TcpStream) -> io::Result<Self> {
        socket::tune(&stream)?;
        stream.set_zero_linger()?;
        Ok(Self::Tcp(stream))
    }

    /// Ready when reading would return without waiting.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                Poll::Ready(Ok(set_socket_linger(stream, None)?))
            }
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A listening plaintext socket. A Unix socket's file goes when the listener goes.
#[derive(Debug)]
pub struct LocalListener {
    socket: Socket,
    endpoint: Endpoint,
    _file: Option<RemoveOnDrop>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl LocalListener {
    /// Where it listens; the port is the one that the system chose where port 0 was asked for.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's; the listener stays usable.
    pub async fn accept(&self) -> io::Result<LocalStream> {
        match &self.socket {
            Socket::Tcp(listener) => LocalStream::tcp(listener.accept().await?.0),
            Socket::Unix(listener) => Ok(LocalStream::Unix(listener.accept().await?.0)),
        }
    }
}

impl Endpoint {
    /// Listens here. A Unix socket gets mode 0600 from its first moment; the file of one that nobody listens on any more
    /// is replaced.
    ///
    /// # Errors
    /// [`Error::NotLocal`] for an address beyond the loopback unless `allow_remote`; [`Error::Local`].
    pub async fn bind(&self, allow_remote: bool) -> Result<LocalListener, Error> {
        self.check_local(allow_remote)?;
        let listener = match self {
            Self::Tcp(address) => bind_tcp(*address).await,
            Self::Unix(path) => bind_unix(path).await,
        };
        listener.map_err(|source| self.error(source))
    }

    /// Connects to whoever listens here.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub async fn connect(&self) -> Result<LocalStream, Error> {
        let stream = match self {
            Self::Tcp(address) => TcpStream::connect(address).await.and_then(LocalStream::tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(LocalStream::Unix),
        };
        stream.map_err(|source| self.error(source))
    }

    pub(crate) fn check_local(&self, allow_remote: bool) -> Result<(), Error> {
        if allow_remote || self.is_local() { Ok(()) } else { Err(Error::NotLocal(self.clone())) }
    }

    pub(crate) fn error(&self, source: io::Error) -> Error {
        Error::Local { endpoint: self.clone(), source }
    }
}

async fn bind_tcp(address: std::net::SocketAddr) -> io::Result<LocalListener> {
    let listener = TcpListener::bind(address).await?;
    let endpoint = Endpoint::Tcp(listener.local_addr()?);
    Ok(LocalListener { socket: Socket::Tcp(listener), endpoint, _file: None })
}

async fn bind_unix(path: &Path) -> io::Result<LocalListener> {
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    // The kernel gives the file the mode that the socket has when it is bound: nobody else can slip in before a chmod.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    let file = Some(RemoveOnDrop(path.to_owned()));
    let listener = Socket::Unix(socket.listen(BACKLOG)?);
    Ok(LocalListener { socket: listener, endpoint: Endpoint::Unix(path.into()), _file: file })
}

/// Removes the file of a socket whose process is gone; anything else is left alone and is an error.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a socket"))
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::AddrInUse, "another process is listening on it"))
            }
        },
    }
}
