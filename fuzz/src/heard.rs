//! The other end of a session, played by a target: what it hears, and how long it waits to hear more.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use wire::{Frame, OutFrame, limits::MAX_FRAME};

/// How long a script waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_millis(5);

/// The stream of a script.
pub(crate) struct Line {
    write: WriteHalf<DuplexStream>,
    frames: UnboundedReceiver<Frame>,
    /// The other end reads no more.
    pub(crate) is_over: bool,
}

/// Reads all that comes, so that the other end never waits, to the end of the stream.
pub(crate) struct Ear {
    read: ReadHalf<DuplexStream>,
    frames: UnboundedSender<Frame>,
}

/// Splits a stream whose handshake is over.
pub(crate) fn line(stream: DuplexStream) -> (Line, Ear) {
    let (read, write) = tokio::io::split(stream);
    let (sender, frames) = unbounded_channel();
    (Line { write, frames, is_over: false }, Ear { read, frames: sender })
}

impl Ear {
    /// What was heard, byte by byte.
    pub(crate) async fn listen(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = BytesMut::new();
        while self.read.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
            let before = buffer.clone();
            while let Ok(Some(frame)) = Frame::take(&mut buffer, MAX_FRAME) {
                let _ = self.frames.send(frame);
            }
            all.extend_from_slice(&before[..before.len() - buffer.len()]);
        }
        all
    }
}

impl Line {
    pub(crate) async fn say(&mut self, frame: &OutFrame) {
        self.say_bytes(&frame.head).await;
        self.say_bytes(&frame.payload).await;
    }

    /// A frame of any type and body.
    pub(crate) async fn say_raw(&mut self, kind: u8, body: &[u8]) {
        let out = wire::frame::close(wire::frame::open(kind, 0), Bytes::copy_from_slice(body));
        self.say(&out).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.is_over |= self.write.write_all(bytes).await.is_err();
    }

    /// What came and was not looked at.
    pub(crate) fn next_now(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }

    /// The next frame, if it comes soon; `times` as soon is waited for.
    pub(crate) async fn next(&mut self, times: u32) -> Option<Frame> {
        if self.is_over {
            return None;
        }
        match tokio::time::timeout(times * PATIENCE, self.frames.recv()).await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => {
                self.is_over = true;
                None
            }
            Err(_) => None,
        }
    }

    /// Says no more.
    pub(crate) async fn hang_up(mut self) {
        let _ = self.write.shutdown().await;
    }
}
