//! Compression of what is sent, frame by frame, with Zstandard.
//!
//! Each frame stands alone, so frames of several streams need no order among them. A compressed body
//! is the length of what it unpacks to, as a varint, and then one Zstandard frame of exactly that
//! content. Credit counts what a frame unpacks to, so that it bounds memory and not the wire.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use wire::{
    Decoder, Encoder, Frame, OutFrame,
    frame::{self, COMPRESSED, HEADER_LEN},
    limits::MAX_FRAME,
};

use crate::{Error, Result};

/// When frames with content are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Where a sample shows that it pays, the link is slower than the compressor, and there are
    /// processors left to do it.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always, as far as it makes a frame shorter.
    Always,
}

/// The fastest level that is still worth its name.
const LEVEL: i32 = 1;
/// Smaller frames gain nothing.
const MIN: usize = 512;
/// Waiting for the link that shows it to be slower than the compressor, per byte.
const SLOW: Duration = Duration::from_nanos(8);
/// Bytes that say something about the link. Who sends less has little to gain.
const ENOUGH: u64 = 16 << 20;
/// The part of all processors that this process may use and still have some left, in percent.
const BUSY: u128 = 70;
/// Frames compressed, or not, before the next sample.
const STRETCH: i64 = 64;

/// Decides for the frames of one session, from any thread.
pub(crate) struct Compressor {
    mode: Compression,
    /// Nanoseconds that senders waited, and bytes that they sent, of late.
    waited: AtomicU64,
    bytes: AtomicU64,
    /// Above zero: so many more frames are compressed unseen; below: so many are not.
    credit: AtomicI64,
    load: Mutex<Load>,
}

/// How busy this process kept the processors since the last time somebody asked.
struct Load {
    at: Instant,
    used: Duration,
}

impl Load {
    fn now() -> Self {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Self { at: Instant::now(), used: Duration::new(used.tv_sec as u64, used.tv_nsec as u32) }
    }

    fn is_high(&self, now: &Self) -> bool {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let had = now.at.duration_since(self.at).as_nanos() * processors as u128;
        now.used.saturating_sub(self.used).as_nanos() * 100 > had * BUSY
    }
}

impl Compressor {
    pub(crate) fn new(mode: Compression) -> Self {
        Self {
            mode,
            waited: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            credit: AtomicI64::new(0),
            load: Mutex::new(Load::now()),
        }
    }

    /// Runs `send` and takes note of how long the link makes it wait for `bytes`.
    pub(crate) fn watch<T>(&self, bytes: usize, send: impl FnOnce() -> T) -> T {
        if self.mode != Compression::Auto {
            return send();
        }
        let begun = Instant::now();
        let sent = send();
        let waited = begun.elapsed().as_nanos() as u64;
        if self.bytes.fetch_add(bytes as u64, Relaxed) > 64 << 20 {
            // The past counts half, so that a link that changes is noticed.
            self.bytes.store(self.bytes.load(Relaxed) / 2, Relaxed);
            self.waited.store(self.waited.load(Relaxed) / 2, Relaxed);
        }
        self.waited.fetch_add(waited, Relaxed);
        sent
    }

    /// `frame`, compressed where that pays.
    pub(crate) fn apply(&self, frame: OutFrame) -> OutFrame {
        let len = frame.wire_len() - HEADER_LEN;
        if len < MIN || !self.wanted() {
            return frame;
        }
        let decides = self.mode == Compression::Auto && self.credit.load(Relaxed) == 0;
        if decides && self.is_busy() {
            // The content would wait for the compressor instead of the link.
            self.credit.store(-STRETCH, Relaxed);
            return frame;
        }
        let packed = pack(&frame, len);
        if decides {
            let pays = packed.as_ref().is_some_and(|packed| packed.wire_len() * 10 < len * 9);
            self.credit.store(if pays { STRETCH } else { -4 * STRETCH }, Relaxed);
        }
        packed.unwrap_or(frame)
    }

    fn is_busy(&self) -> bool {
        let mut load = self.load.lock();
        let now = Load::now();
        let high = load.is_high(&now);
        *load = now;
        high
    }

    fn wanted(&self) -> bool {
        match self.mode {
            Compression::Never => false,
            Compression::Always => true,
            Compression::Auto => {
                let (waited, bytes) = (self.waited.load(Relaxed), self.bytes.load(Relaxed));
                if bytes < ENOUGH || Duration::from_nanos(waited / bytes.max(1)) < SLOW {
                    return false;
                }
                match self.credit.load(Relaxed) {
                    0 => true,
                    more if more > 0 => {
                        self.credit.fetch_sub(1, Relaxed);
                        true
                    }
                    _ => {
                        self.credit.fetch_add(1, Relaxed);
                        false
                    }
                }
            }
        }
    }
}

/// `None` where the frame does not get shorter.
fn pack(frame: &OutFrame, len: usize) -> Option<OutFrame> {
    let head = frame.head.get(HEADER_LEN..)?;
    let body = if frame.payload.is_empty() { None } else { Some([head, &frame.payload].concat()) };
    let body = body.as_deref().unwrap_or(head);
    let kind = frame.head.get(HEADER_LEN - 1)? | COMPRESSED;
    let mut packed = frame::open(kind, 8);
    Encoder(&mut packed).varint(len as u64);
    let content = zstd::bulk::compress(body, LEVEL).ok()?;
    if content.len() + 8 >= len {
        return None;
    }
    packed.put_slice(&content);
    Some(frame::close(packed, Bytes::new()))
}

/// `frame` as it was before it was compressed.
///
/// # Errors
/// [`Error::Decode`] where it claims to unpack to more than a frame may hold, [`Error::Protocol`]
/// where it unpacks to anything else than it claims. Never takes more memory than a frame.
pub(crate) fn unpack(frame: Frame) -> Result<Frame> {
    if !frame.compressed {
        return Ok(frame);
    }
    let mut decoder = Decoder::new(frame.body);
    let len = decoder.varint()?;
    if len > MAX_FRAME as u64 {
        return Err(wire::DecodeError::Limit("compressed frame").into());
    }
    let body = zstd::bulk::decompress(&decoder.rest(), len as usize)
        .map_err(|_| Error::Protocol("compressed frame that does not unpack"))?;
    if body.len() as u64 != len {
        return Err(Error::Protocol("compressed frame of another length"));
    }
    let body = BytesMut::from(&body[..]).freeze();
    Ok(Frame { kind: frame.kind, compressed: false, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{EntryId, ToReceiver};

    fn read(out: &OutFrame) -> Frame {
        let mut buffer = BytesMut::from(&[&out.head[..], &out.payload[..]].concat()[..]);
        Frame::take(&mut buffer, MAX_FRAME).unwrap().unwrap()
    }

    #[test]
    fn frames_come_back_and_get_shorter_or_stay() {
        let always = Compressor::new(Compression::Always);
        let text = Bytes::from(b"the same words again and ".repeat(1000));
        let mut noise = vec![0; 25_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let noise = Bytes::from(noise);
        for (content, shorter) in [(text, true), (noise, false)] {
            let plain = ToReceiver::Data(EntryId(7), 65_536, content).encode();
            let sent = always.apply(plain.clone());
            assert_eq!(sent.wire_len() < plain.wire_len() / 2, shorter);
            assert_eq!(unpack(read(&sent)).unwrap(), read(&plain));
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        for claim in [64 << 20, 1000, (MAX_FRAME + 1) as u64] {
            let mut body = BytesMut::new();
            Encoder(&mut body).varint(claim);
            body.put_slice(&bomb);
            let frame = Frame { kind: 19, compressed: true, body: body.freeze() };
            assert!(unpack(frame).is_err());
        }
    }

    #[test]
    fn a_fast_link_is_left_alone() {
        let auto = Compressor::new(Compression::Auto);
        let frame = ToReceiver::Data(EntryId(1), 0, vec![7; 10_000].into()).encode();
        auto.watch(100 << 20, || ());
        assert_eq!(auto.apply(frame.clone()), frame);
        auto.waited.store(u64::MAX / 2, Relaxed);
        // Where the processors are busy a stretch goes by uncompressed, and then the question is
        // asked again: here, of a time in which nothing was done.
        auto.load.lock().at -= Duration::from_secs(3600);
        assert!(auto.apply(frame.clone()).wire_len() < frame.wire_len());
        let busy = Load { at: Instant::now(), used: Duration::ZERO };
        let now = Load { at: busy.at + Duration::from_secs(1), used: Duration::from_secs(3600) };
        assert!(busy.is_high(&now) && !busy.is_high(&Load { used: Duration::ZERO, ..now }));
    }
}
