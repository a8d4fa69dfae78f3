//! The first frames of a stream: who speaks, which volume, under which rules.
//!
//! The first stream of a session opens with [`Hello`] and is answered by [`Reply`]. Each further
//! stream opens with [`Join`], which proves by the session's id that it belongs to it.

use bytes::{Bytes, BytesMut};
use text::Text;

use crate::{
    DecodeError, Decoder, Encoder, Frame, OutFrame, frame, limits,
    message::{clip, kind, text},
};

/// The first bytes of every stream's first body.
pub const MAGIC: [u8; 8] = *b"pvferry\n";
/// The version of the protocol that this code speaks.
pub const VERSION: u32 = 2;

const FLAGS: usize = 8;

/// What the root of a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKind {
    /// A directory tree.
    Tree,
    /// A block device of so many bytes.
    Device(u64),
}

/// What a filter rule does with the names it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterAction {
    /// Leave out, on both sides.
    Exclude,
    /// Keep.
    Include,
}

/// One filter rule; order decides, the first match wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// What to do.
    pub action: FilterAction,
    /// The pattern, with rsync's meaning.
    pub pattern: Vec<u8>,
}

/// What the sender asks of the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Delete entries at the destination that are not in the source.
    pub delete: bool,
    /// Remove no more than so many entries.
    pub max_delete: Option<u64>,
    /// Compare content, not size and time.
    pub checksum: bool,
    /// Write each changed file to a temporary file and rename it.
    pub atomic: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Name every change.
    pub itemize: bool,
    /// Compare the tree digests of both ends at the end.
    pub verify: bool,
    /// An empty source is allowed.
    pub allow_empty: bool,
    /// Owner and group are not wanted.
    pub no_owner: bool,
    /// Which names take part.
    pub filters: Vec<FilterRule>,
}

/// The first message of a session, from the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest version that the sender speaks.
    pub versions: (u32, u32),
    /// The sender's share of the session key.
    pub nonce: [u8; 32],
    /// The name of the volume at the receiver.
    pub volume: String,
    /// What the source is.
    pub root: RootKind,
    /// True where the sender only asks whether the volume can be reached.
    pub probe: bool,
    /// Bytes of signatures that the receiver may send ahead.
    pub window: u64,
    /// Streams that the sender would like.
    pub streams: u32,
    /// Seconds of silence after which the sender gives up.
    pub io_timeout: u32,
    /// Rules of the session.
    pub options: Options,
}

/// The receiver's consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u32,
    /// The receiver's share of the session key.
    pub nonce: [u8; 32],
    /// Names the session to its further streams.
    pub session: [u8; 16],
    /// The volume is empty: everything may be sent unasked.
    pub fresh: bool,
    /// Bytes of listings and content that the sender may send ahead.
    pub window: u64,
    /// Streams that the receiver grants, at least one.
    pub streams: u32,
    /// What this end cannot keep, one sentence each.
    pub losses: Vec<Text>,
}

/// Why a receiver refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No version in common.
    Version = 1,
    /// No volume of that name.
    UnknownVolume = 2,
    /// The certificate does not reach that volume.
    NotAuthorised = 3,
    /// Another session writes to the volume.
    Busy = 4,
    /// The target cannot take the source: a tree onto a device, a device that is too small.
    Unfit = 5,
    /// The volume cannot be opened.
    Unavailable = 6,
    /// The message was no hello.
    Protocol = 7,
    /// No session of that id.
    UnknownSession = 8,
}

/// A further stream of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The id from [`Welcome`].
    pub session: [u8; 16],
}

/// The first message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A new session.
    Hello(Box<Hello>),
    /// One more stream of a session.
    Join(Join),
}

/// The answer to an [`Opening`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Go on.
    Welcome(Box<Welcome>),
    /// No, for a reason that a program can act on and a sentence for a person.
    Refused(Refusal, Text),
}

impl Opening {
    /// Encodes into one frame.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        match self {
            Self::Hello(hello) => {
                let mut buffer = frame::open(kind::HELLO, 256);
                hello.write(&mut buffer);
                frame::close(buffer, Bytes::new())
            }
            Self::Join(join) => {
                let mut buffer = frame::open(kind::JOIN, 24);
                let mut e = Encoder(&mut buffer);
                e.raw(&MAGIC);
                e.raw(&join.session);
                frame::close(buffer, Bytes::new())
            }
        }
    }

    /// Decodes the first frame of a stream.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(frame.body);
        if frame.compressed || d.array()? != MAGIC {
            return Err(DecodeError::Invalid("magic"));
        }
        match frame.kind {
            kind::HELLO => Ok(Self::Hello(Box::new(Hello::read(d)?))),
            kind::JOIN => {
                let join = Join { session: d.array()? };
                d.finish()?;
                Ok(Self::Join(join))
            }
            other => Err(DecodeError::UnknownType(other)),
        }
    }
}

impl Hello {
    fn write(&self, buffer: &mut BytesMut) {
        let mut e = Encoder(buffer);
        e.raw(&MAGIC);
        e.varint(u64::from(self.versions.0));
        e.varint(u64::from(self.versions.1));
        e.raw(&self.nonce);
        e.bytes(self.volume.as_bytes());
        match self.root {
            RootKind::Tree => e.u8(0),
            RootKind::Device(size) => {
                e.u8(1);
                e.varint(size);
            }
        }
        e.u8(u8::from(self.probe));
        e.varint(self.window);
        e.varint(u64::from(self.streams));
        e.varint(u64::from(self.io_timeout));
        let o = &self.options;
        for flag in o.flags() {
            e.u8(u8::from(flag));
        }
        match o.max_delete {
            None => e.u8(0),
            Some(max) => {
                e.u8(1);
                e.varint(max);
            }
        }
        e.varint(o.filters.len() as u64);
        for rule in &o.filters {
            e.u8(u8::from(rule.action == FilterAction::Include));
            e.bytes(&rule.pattern);
        }
    }

    fn read(mut d: Decoder) -> Result<Self, DecodeError> {
        let versions = (d.u32("version")?, d.u32("version")?);
        let nonce = d.array()?;
        let volume = text(&mut d, 253, "volume name")?.into();
        let root = match d.u8()? {
            0 => RootKind::Tree,
            1 => RootKind::Device(d.varint()?),
            _ => return Err(DecodeError::Invalid("root kind")),
        };
        let probe = d.flag()?;
        let window = window(&mut d)?;
        let streams = d.u32("streams")?;
        let io_timeout = d.u32("timeout")?;
        let mut flags = [false; FLAGS];
        for flag in &mut flags {
            *flag = d.flag()?;
        }
        let max_delete = if d.flag()? { Some(d.varint()?) } else { None };
        let count = d.count(2, "filter count")?;
        if count > limits::MAX_FILTERS {
            return Err(DecodeError::Limit("filter count"));
        }
        let mut filters = Vec::with_capacity(count);
        for _ in 0..count {
            let action = if d.flag()? { FilterAction::Include } else { FilterAction::Exclude };
            filters.push(FilterRule {
                action,
                pattern: d.bytes(limits::MAX_PATTERN, "filter")?.to_vec(),
            });
        }
        d.finish()?;
        let options = Options::from_flags(flags, max_delete, filters);
        Ok(Self { versions, nonce, volume, root, probe, window, streams, io_timeout, options })
    }
}

impl Options {
    fn flags(&self) -> [bool; FLAGS] {
        [
            self.delete,
            self.checksum,
            self.atomic,
            self.dry_run,
            self.itemize,
            self.verify,
            self.allow_empty,
            self.no_owner,
        ]
    }

    fn from_flags(flags: [bool; FLAGS], max_delete: Option<u64>, filters: Vec<FilterRule>) -> Self {
        let [delete, checksum, atomic, dry_run, itemize, verify, allow_empty, no_owner] = flags;
        Self {
            delete,
            max_delete,
            checksum,
            atomic,
            dry_run,
            itemize,
            verify,
            allow_empty,
            no_owner,
            filters,
        }
    }
}

impl Reply {
    /// Encodes into one frame.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut buffer;
        match self {
            Self::Welcome(w) => {
                buffer = frame::open(kind::WELCOME, 128);
                let mut e = Encoder(&mut buffer);
                e.raw(&MAGIC);
                e.varint(u64::from(w.version));
                e.raw(&w.nonce);
                e.raw(&w.session);
                e.u8(u8::from(w.fresh));
                e.varint(w.window);
                e.varint(u64::from(w.streams));
                let losses = &w.losses[..w.losses.len().min(limits::MAX_LOSSES)];
                e.varint(losses.len() as u64);
                for loss in losses {
                    e.bytes(clip(loss).as_bytes());
                }
            }
            Self::Refused(refusal, why) => {
                buffer = frame::open(kind::REFUSED, 128);
                let mut e = Encoder(&mut buffer);
                e.raw(&MAGIC);
                e.u8(*refusal as u8);
                e.bytes(clip(why).as_bytes());
            }
        }
        frame::close(buffer, Bytes::new())
    }

    /// True where `frame` refuses a stream: what a further stream may meet in place of a session.
    #[must_use]
    pub fn is_refusal(frame: &Frame) -> bool {
        frame.kind == kind::REFUSED
    }

    /// Decodes the answer to an opening.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(frame.body);
        if frame.compressed || d.array()? != MAGIC {
            return Err(DecodeError::Invalid("magic"));
        }
        let reply = match frame.kind {
            kind::WELCOME => {
                let version = d.u32("version")?;
                let (nonce, session) = (d.array()?, d.array()?);
                let fresh = d.flag()?;
                let window = window(&mut d)?;
                let streams = d.u32("streams")?;
                if streams == 0 || streams as usize > limits::MAX_STREAMS {
                    return Err(DecodeError::Limit("streams"));
                }
                let count = d.count(1, "losses")?;
                if count > limits::MAX_LOSSES {
                    return Err(DecodeError::Limit("losses"));
                }
                let losses = (0..count)
                    .map(|_| text(&mut d, limits::MAX_TEXT, "loss"))
                    .collect::<Result<_, _>>()?;
                let welcome = Welcome { version, nonce, session, fresh, window, streams, losses };
                Self::Welcome(Box::new(welcome))
            }
            kind::REFUSED => {
                let refusal = match d.u8()? {
                    1 => Refusal::Version,
                    2 => Refusal::UnknownVolume,
                    3 => Refusal::NotAuthorised,
                    4 => Refusal::Busy,
                    5 => Refusal::Unfit,
                    6 => Refusal::Unavailable,
                    7 => Refusal::Protocol,
                    8 => Refusal::UnknownSession,
                    _ => return Err(DecodeError::Invalid("refusal")),
                };
                Self::Refused(refusal, text(&mut d, limits::MAX_TEXT, "refusal")?)
            }
            other => return Err(DecodeError::UnknownType(other)),
        };
        d.finish()?;
        Ok(reply)
    }
}

fn window(d: &mut Decoder) -> Result<u64, DecodeError> {
    let window = d.varint()?;
    if limits::WINDOW.contains(&window) { Ok(window) } else { Err(DecodeError::Limit("window")) }
}
