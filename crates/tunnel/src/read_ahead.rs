//! A socket that is read in large pieces.
//!
//! TLS asks for one record at a time, 16 KiB. Taking so little from a socket costs a system call and an
//! acknowledgement each, which was a quarter of the CPU time of a fast connection.
//!
//! During the handshake it reads no further than it is asked to, and [`HANDSHAKE_BYTES`] in all: the peer has proved
//! nothing yet, and rustls alone would keep 64 KiB of a message that is never completed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::policy::HANDSHAKE_BYTES;
use crate::pool::Pool;

/// Shared by all connections, since each holds a buffer only for as long as it has something in it.
static POOL: Pool = Pool::new();

/// Reads ahead of whoever reads it; writing goes straight through.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    socket: TcpStream,
    buffer: Option<Box<[u8]>>,
    /// What of the buffer nobody has read yet.
    unread: std::ops::Range<usize>,
    /// What the peer may still send before the handshake is over; `None` after it.
    handshake: Option<usize>,
}

impl ReadAhead {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, buffer: None, unread: 0..0, handshake: Some(HANDSHAKE_BYTES) }
    }

    /// The peer is authenticated: reads become large, and the limit no longer applies.
    pub(crate) fn end_handshake(&mut self) {
        self.handshake = None;
    }

    /// Reads what is asked for and nothing ahead, out of the `left` bytes of the handshake.
    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: usize,
    ) -> Poll<io::Result<()>> {
        if left == 0 {
            return Poll::Ready(Err(Error::HandshakeTooLarge.into_io()));
        }
        let count = buf.remaining().min(left);
        let mut space = ReadBuf::new(buf.initialize_unfilled_to(count));
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        buf.advance(count);
        self.handshake = Some(left - count);
        Poll::Ready(Ok(()))
    }

    #[cfg(test)]
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Fills the buffer; ready with nothing in it at the end of the stream. Holds none while it waits.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_none() {
            ready!(self.socket.poll_read_ready(cx))?;
        }
        let mut buffer = self.buffer.take().unwrap_or_else(|| POOL.take());
        let mut space = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut space);
        self.unread = 0..space.filled().len();
        if self.unread.is_empty() {
            POOL.give_back(buffer);
        } else {
            self.buffer = Some(buffer);
        }
        polled
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            POOL.give_back(buffer);
        }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(left) = self.handshake {
            return self.poll_handshake(cx, buf, left);
        }
        if self.unread.is_empty() {
            ready!(self.poll_fill(cx))?;
        }
        let Self { buffer: Some(buffer), unread, .. } = &mut *self else {
            return Poll::Ready(Ok(()));
        };
        let count = unread.len().min(buf.remaining());
        buf.put_slice(&buffer[unread.start..unread.start + count]);
        unread.start += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_arrives_however_it_is_cut_and_nothing_is_held_in_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut near, mut far) = (near.unwrap(), ReadAhead::new(far.unwrap().0));
        far.end_handshake();
        let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n * 7 / 3) as u8).collect();
        let expected = sent.clone();
        tokio::spawn(async move {
            for piece in sent.chunks(70_001) {
                near.write_all(piece).await.unwrap();
            }
        });
        let mut received = Vec::new();
        let mut piece = [0; 4096];
        for len in [1, 4096, 3, 1000].into_iter().cycle() {
            match far.read(&mut piece[..len]).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&piece[..count]),
            }
        }
        assert!(received == expected);
        assert!(far.buffer.is_none());
    }

    #[tokio::test]
    async fn a_handshake_reads_what_it_asks_for_and_ends_at_its_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut near, mut far) = (near.unwrap(), ReadAhead::new(far.unwrap().0));
        near.write_all(&vec![7; HANDSHAKE_BYTES + 1]).await.unwrap();
        far.read_exact(&mut vec![0; HANDSHAKE_BYTES]).await.unwrap();
        assert!(far.buffer.is_none());
        let error = far.read(&mut [0; 16]).await.unwrap_err();
        assert!(matches!(Error::from_io(&error), Some(Error::HandshakeTooLarge)), "{error}");
        far.end_handshake();
        assert_eq!(far.read(&mut [0; 16]).await.unwrap(), 1);
    }
}
