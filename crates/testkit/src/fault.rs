//! A stream that misbehaves on command.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// What goes wrong in one direction. Positions count bytes from the beginning of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The connection is reset once this many bytes have passed.
    pub cut: Option<u64>,
    /// The stream ends as if in good order once this many bytes have passed; what is written beyond is lost.
    pub end: Option<u64>,
    /// Nothing moves any more once this many bytes have passed.
    pub stall: Option<u64>,
    /// Once so many bytes have passed, nothing moves for so long.
    pub pause: Option<(u64, Duration)>,
    /// The byte at this position arrives with one bit changed: the lowest, unless [`Faults::bit`] names another.
    pub flip: Option<u64>,
    /// Which bit of the byte is changed, counted from the lowest, 0 to 7.
    pub bit: u8,
    /// No more than this many bytes at a time. 0 is taken for 1.
    pub chunk: Option<usize>,
    /// Every read or write takes this long.
    pub delay: Option<Duration>,
}

impl Faults {
    /// Resets the connection after `bytes`.
    #[must_use]
    pub fn cut(bytes: u64) -> Self {
        Self { cut: Some(bytes), ..Self::default() }
    }

    /// Ends the stream after `bytes`.
    #[must_use]
    pub fn end(bytes: u64) -> Self {
        Self { end: Some(bytes), ..Self::default() }
    }

    /// Stalls after `bytes`.
    #[must_use]
    pub fn stall(bytes: u64) -> Self {
        Self { stall: Some(bytes), ..Self::default() }
    }

    /// Changes the byte at `position`.
    #[must_use]
    pub fn flip(position: u64) -> Self {
        Self { flip: Some(position), ..Self::default() }
    }

    /// Changes bit `bit`, 0 to 7, of the byte at `position`.
    #[must_use]
    pub fn flip_bit(position: u64, bit: u8) -> Self {
        Self { bit, ..Self::flip(position) }
    }

    /// Lets no more than `bytes` pass at a time.
    #[must_use]
    pub fn chunk(bytes: usize) -> Self {
        Self { chunk: Some(bytes), ..Self::default() }
    }
}

/// Wraps a stream; what is read and what is written have faults of their own.
#[derive(Debug)]
pub struct FaultyStream<S> {
    inner: S,
    read: Direction,
    write: Direction,
}

impl<S> FaultyStream<S> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: S, read: Faults, write: Faults) -> Self {
        Self { inner, read: Direction::new(read), write: Direction::new(write) }
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.passed
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.write.passed
    }
}

/// One direction of a stream: its faults, and how far it has come.
#[derive(Debug)]
struct Direction {
    faults: Faults,
    passed: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What the next operation may do.
enum Permit {
    /// Move up to this many bytes.
    Bytes(usize),
    End,
}

impl Direction {
    fn new(faults: Faults) -> Self {
        Self { faults, passed: 0, sleep: None }
    }

    fn poll_permit(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<Permit>> {
        let pause = self.faults.pause.filter(|(at, _)| self.passed >= *at);
        if let Some((_, long)) = pause {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(long)));
            ready!(sleep.as_mut().poll(cx));
            (self.faults.pause, self.sleep) = (None, None);
        }
        if let Some(delay) = self.faults.delay {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            ready!(sleep.as_mut().poll(cx));
        }
        let (cut, end, stall) = (self.faults.cut, self.faults.end, self.faults.stall);
        let reached = |limit: Option<u64>| limit.is_some_and(|limit| self.passed >= limit);
        if reached(cut) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if reached(end) {
            return Poll::Ready(Ok(Permit::End));
        }
        if reached(stall) {
            return Poll::Pending; // and nobody wakes the task
        }
        let pause = self.faults.pause.map(|(at, _)| at);
        let left = [cut, end, stall, pause].into_iter().flatten().min().map(|at| at - self.passed);
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let chunk = self.faults.chunk.map_or(usize::MAX, |chunk| chunk.max(1));
        Poll::Ready(Ok(Permit::Bytes(wanted.min(left).min(chunk))))
    }

    fn is_stalled(&self) -> bool {
        self.faults.stall.is_some_and(|stall| self.passed >= stall)
    }

    /// Spoils `bytes`, which are the next to pass.
    fn spoil(&self, bytes: &mut [u8]) {
        let at = self.faults.flip.and_then(|at| at.checked_sub(self.passed));
        let byte = at.and_then(|at| bytes.get_mut(usize::try_from(at).ok()?));
        if let Some(byte) = byte {
            *byte ^= 1 << (self.faults.bit % 8);
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.passed += bytes as u64;
        self.sleep = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultyStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Permit::Bytes(limit) = ready!(this.read.poll_permit(cx, buf.remaining()))? else {
            return Poll::Ready(Ok(()));
        };
        let mut bytes = vec![0; limit];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        this.read.spoil(part.filled_mut());
        this.read.advance(part.filled().len());
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultyStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Permit::Bytes(limit) = ready!(this.write.poll_permit(cx, buf.len()))? else {
            return Poll::Ready(Ok(buf.len()));
        };
        let mut bytes = buf[..limit].to_vec();
        this.write.spoil(&mut bytes);
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes))?;
        this.write.advance(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write.is_stalled() {
            return Poll::Pending; // the end is as silent as what came before
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const NONE: Faults = Faults {
        cut: None,
        end: None,
        stall: None,
        pause: None,
        flip: None,
        bit: 0,
        chunk: None,
        delay: None,
    };

    /// What arrives of `0123456789` through a stream that reads with these faults, and how it ends.
    async fn read(faults: Faults) -> (Vec<u8>, io::Result<()>) {
        let mut stream = FaultyStream::new(&b"0123456789"[..], faults, NONE);
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).await.map(drop);
        (bytes, end)
    }

    #[tokio::test]
    async fn reading() {
        for chunk in [None, Some(1), Some(3)] {
            let with = |faults| Faults { chunk, ..faults };
            assert_eq!(read(with(NONE)).await.0, b"0123456789");
            let (bytes, end) = read(with(Faults::cut(4))).await;
            assert_eq!(bytes, b"0123");
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            let (bytes, end) = read(with(Faults::end(4))).await;
            assert_eq!((bytes, end.is_ok()), (b"0123".to_vec(), true));
            assert_eq!(read(with(Faults::flip(5))).await.0, b"0123446789");
            assert_eq!(read(with(Faults::flip_bit(5, 6))).await.0, b"01234u6789");
        }
    }

    #[tokio::test]
    async fn writing() {
        for (faults, expected) in [
            (NONE, &b"0123456789"[..]),
            (Faults::chunk(3), b"0123456789"),
            (Faults::end(4), b"0123"),
            (Faults::cut(4), b"0123"),
            (Faults::flip(0), b"1123456789"),
        ] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut stream = FaultyStream::new(near, NONE, faults);
            let result = stream.write_all(b"0123456789").await;
            assert_eq!(result.is_err(), faults.cut.is_some());
            assert_eq!(stream.bytes_written(), expected.len() as u64);
            drop(stream);
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stalls_and_delays() {
        let patience = Duration::from_secs(60);
        let stalled = tokio::time::timeout(patience, read(Faults::stall(4))).await;
        assert!(stalled.is_err());
        let slow = Faults { delay: Some(Duration::from_secs(10)), ..Faults::chunk(5) };
        assert!(tokio::time::timeout(Duration::from_secs(15), read(slow)).await.is_err());
        assert_eq!(tokio::time::timeout(patience, read(slow)).await.unwrap().0, b"0123456789");
        let pause = Faults { pause: Some((4, Duration::from_secs(20))), ..Faults::default() };
        assert!(tokio::time::timeout(Duration::from_secs(15), read(pause)).await.is_err());
        assert_eq!(tokio::time::timeout(patience, read(pause)).await.unwrap().0, b"0123456789");
    }
}
