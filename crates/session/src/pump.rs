//! One task a stream: frames in, frames out, silence noticed.
//!
//! Reading and writing share one task because a TLS stream is one object: splitting it would put a
//! lock around every call.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::IoSlice,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};
use wire::{Frame, OutFrame, limits::MAX_FRAME};

use crate::{Error, Result, pace::Turn};

/// Bytes read at once.
const READ_AHEAD: usize = 512 << 10;
/// Frames taken from the queue before they are written.
const WRITE_AHEAD: usize = 1 << 20;
/// Buffers handed to one vectored write.
const MAX_SLICES: usize = 64;
/// Reads or writes in one poll before the task lets others run.
const TURNS: usize = 32;
/// Bytes of a frame that end silence though it is not whole: a line so slow that it brings less within the limit is
/// none, and a peer that drips does not live for ever.
pub(crate) const PROGRESS: usize = 1024;
/// Silence of our own after which a ping goes out.
const PING_AFTER: Duration = Duration::from_secs(5);

/// What a pump needs to know beside its stream.
pub(crate) struct PumpConfig<'a> {
    /// Longest silence of the peer.
    pub(crate) io_timeout: u32,
    /// The place of this stream among those that share a rate.
    pub(crate) pace: Option<Turn>,
    pub(crate) sent: &'a AtomicU64,
    pub(crate) received: &'a AtomicU64,
    /// The frame that keeps an idle stream alive.
    pub(crate) ping: OutFrame,
    /// Takes what the peer did wrong. The stream stays open for what is said of it.
    pub(crate) fail: &'a (dyn Fn(Error) + Sync),
    /// Once the peer may close, this end need not wait until it does.
    pub(crate) leaves_first: bool,
    /// Takes in that the peer has closed its side; true where it may.
    pub(crate) on_end: &'a (dyn Fn() -> bool + Sync),
}

/// Moves frames until the queue is closed and written out and the peer has closed too.
///
/// `on_frame` must not block; after its first error what the peer says is passed over. EOF is an
/// error while the queue is open and nobody said that the peer may close.
///
/// # Errors
/// [`Error::Eof`], [`Error::Timeout`], [`Error::Stream`].
pub(crate) async fn run<S>(
    stream: S,
    queue: mpsc::Receiver<OutFrame>,
    config: PumpConfig<'_>,
    mut on_frame: impl FnMut(Frame) -> Result<()>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let silence = Duration::from_secs(u64::from(config.io_timeout));
    let mut pump = Pump {
        stream,
        queue,
        input: BytesMut::with_capacity(READ_AHEAD),
        output: VecDeque::new(),
        output_len: 0,
        queue_closed: false,
        shut_down: false,
        deaf: false,
        ended: false,
        heard: now,
        dripped: 0,
        spoke: now,
        silence,
        timer: Box::pin(sleep_until(now + PING_AFTER.min(silence))),
        turn_at: None,
        unflushed: false,
        config,
    };
    poll_fn(|cx| pump.poll(cx, &mut on_frame)).await
}

struct Pump<'a, S> {
    stream: S,
    queue: mpsc::Receiver<OutFrame>,
    input: BytesMut,
    output: VecDeque<Bytes>,
    output_len: usize,
    queue_closed: bool,
    shut_down: bool,
    /// The peer broke the protocol or gave up: what it says counts no more.
    deaf: bool,
    /// The peer has closed its side.
    ended: bool,
    unflushed: bool,
    heard: Instant,
    /// Bytes that came since, of a frame that is not whole.
    dripped: usize,
    spoke: Instant,
    silence: Duration,
    timer: Pin<Box<Sleep>>,
    /// When its turn begins, where this stream is the next.
    turn_at: Option<Instant>,
    config: PumpConfig<'a>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<'_, S> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        on_frame: &mut impl FnMut(Frame) -> Result<()>,
    ) -> Poll<Result<()>> {
        for _ in 0..TURNS {
            self.fill_output(cx);
            let wrote = match self.poll_write(cx) {
                Ok(wrote) => wrote,
                Err(error) => {
                    self.read_last_words(cx, on_frame);
                    return Poll::Ready(Err(error));
                }
            };
            let read = match self.poll_read(cx, on_frame)? {
                Read::Some => true,
                Read::Pending => false,
                Read::Eof if (self.config.on_end)() || self.queue_closed || self.deaf => {
                    self.ended = true;
                    false
                }
                Read::Eof => return Poll::Ready(Err(Error::Eof)),
            };
            if self.shut_down
                && (self.ended || (self.config.leaves_first && (self.config.on_end)()))
            {
                return Poll::Ready(Ok(()));
            }
            if !wrote && !read {
                return self.poll_timer(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn fill_output(&mut self, cx: &mut Context<'_>) {
        while self.output_len < WRITE_AHEAD && !self.queue_closed {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(frame)) => self.put(frame),
                Poll::Ready(None) => self.queue_closed = true,
                Poll::Pending => break,
            }
        }
    }

    fn put(&mut self, frame: OutFrame) {
        self.output_len += frame.wire_len();
        for part in [frame.head, frame.payload] {
            if !part.is_empty() {
                self.output.push_back(part);
            }
        }
    }

    /// True where something was written and more may follow at once.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        if self.output.is_empty() {
            if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            if self.queue_closed && !self.shut_down && !self.unflushed {
                self.shut_down = Pin::new(&mut self.stream).poll_shutdown(cx)?.is_ready();
            }
            return Ok(false);
        }
        let now = Instant::now();
        self.turn_at = None;
        let mut allowed = match self.config.pace.as_ref().map(|turn| turn.poll(now, cx)) {
            None => usize::MAX,
            Some(Poll::Ready(Ok(allowed))) => allowed,
            Some(Poll::Ready(Err(at))) => {
                self.turn_at = Some(at);
                return Ok(false);
            }
            Some(Poll::Pending) => return Ok(false),
        };
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.output) {
            let part = &part[..part.len().min(allowed)];
            *slice = IoSlice::new(part);
            count += 1;
            allowed -= part.len();
            if allowed == 0 {
                break;
            }
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]);
        if let Some(turn) = &self.config.pace {
            turn.end(now, if let Poll::Ready(Ok(written)) = polled { written } else { 0 });
        }
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(0)) => Err(Error::Eof),
            Poll::Ready(Ok(written)) => {
                self.spoke = now;
                self.unflushed = true;
                self.config.sent.fetch_add(written as u64, Ordering::Relaxed);
                self.consume(written);
                Ok(true)
            }
        }
    }

    /// A peer that gave up says why before it closes; that says more than a broken pipe.
    fn read_last_words(
        &mut self,
        cx: &mut Context<'_>,
        on_frame: &mut impl FnMut(Frame) -> Result<()>,
    ) {
        while !self.deaf && matches!(self.poll_read(cx, on_frame), Ok(Read::Some)) {}
    }

    fn consume(&mut self, mut written: usize) {
        self.output_len -= written;
        while let Some(front) = self.output.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.output.pop_front();
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_frame: &mut impl FnMut(Frame) -> Result<()>,
    ) -> Result<Read> {
        if self.ended {
            return Ok(Read::Pending);
        }
        self.reserve_input();
        let polled = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        let count = match polled {
            Poll::Pending => return Ok(Read::Pending),
            Poll::Ready(count) => count?,
        };
        if count == 0 {
            return Ok(Read::Eof);
        }
        self.dripped += count;
        if self.deaf || self.dripped >= PROGRESS {
            self.hear();
        }
        self.config.received.fetch_add(count as u64, Ordering::Relaxed);
        while !self.deaf {
            let taken = match Frame::take(&mut self.input, MAX_FRAME) {
                Ok(Some(frame)) => {
                    self.hear();
                    on_frame(frame)
                }
                Ok(None) => return Ok(Read::Some),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken {
                self.deaf = true;
                (self.config.fail)(error);
            }
        }
        self.input.clear();
        Ok(Read::Some)
    }

    /// The peer is not silent.
    fn hear(&mut self) {
        self.heard = Instant::now();
        self.dripped = 0;
    }

    /// Room for the rest of the frame that is on its way, so that it is gathered in one piece.
    fn reserve_input(&mut self) {
        let wanted = match self.input.first_chunk::<4>() {
            Some(header) => u32::from_le_bytes(*header) as usize + wire::frame::HEADER_LEN,
            None => 0,
        };
        let missing = wanted.min(MAX_FRAME).saturating_sub(self.input.len());
        let room = self.input.capacity() - self.input.len();
        if room < missing.max(16 << 10) {
            self.input.reserve(missing.max(READ_AHEAD));
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let now = Instant::now();
            if now >= self.heard + self.silence {
                let timeout = Error::Timeout(self.config.io_timeout);
                if self.deaf {
                    return Poll::Ready(Err(timeout));
                }
                // The other direction may still work: the peer is told before the stream closes.
                self.deaf = true;
                self.heard = now;
                (self.config.fail)(timeout);
            }
            let ping_at = self.spoke + PING_AFTER.min(self.silence / 3);
            if now >= ping_at && self.output.is_empty() && !self.queue_closed {
                self.spoke = now;
                let ping = self.config.ping.clone();
                self.put(ping);
                cx.waker().wake_by_ref();
            }
            let mut next = self.heard + self.silence;
            if self.output.is_empty() && !self.queue_closed {
                next = next.min(self.spoke + PING_AFTER.min(self.silence / 3));
            }
            if let Some(turn_at) = self.turn_at
                && !self.output.is_empty()
            {
                next = next.min(turn_at);
            }
            self.timer.as_mut().reset(next);
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.config.pace.is_some() && !self.output.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

enum Read {
    Some,
    Pending,
    Eof,
}
