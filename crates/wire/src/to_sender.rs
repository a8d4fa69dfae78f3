//! The messages from the receiver to the sender: what it wants, what it has, how it ended.

use bytes::Bytes;
use text::Text;

use crate::{
    DecodeError, Decoder, Encoder, EntryId, Frame, Hash, ManifestDigest, OutFrame, Want,
    WeakStrong, frame, limits,
    message::{
        abort, clip, credit, failure_code, kind, put, put_want, take_count, take_hashes, take_want,
        text,
    },
};

/// What the receiver makes of one listing frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The id of the first entry of the frame.
    pub first: u64,
    /// Directories of the frame that the receiver did not have, by index.
    pub new_directories: Vec<u32>,
    /// Files that it wants, by index.
    pub wants: Vec<(u32, Want)>,
    /// Files that it may want later, by index: the sender remembers them.
    pub later: Vec<u32>,
    /// Entries whose extended attributes it wants, by index.
    pub attributes: Vec<u32>,
}

/// What the receiver holds, proved by its manifest and flushed to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commit {
    /// Fold of one record for each entry.
    pub manifest: ManifestDigest,
    /// Records in the fold.
    pub entries: u64,
    /// Files whose content was written, and other entries made.
    pub files_written: u64,
    /// Entries removed.
    pub files_deleted: u64,
    /// Bytes of content that were here before the session.
    pub bytes_matched: u64,
    /// Problems named.
    pub problems: u64,
    /// Digest of the whole tree, where one was asked for.
    pub tree: Option<ManifestDigest>,
}

/// Something that the receiver could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which entry, escaped for display.
    pub name: Text,
    /// What happened.
    pub what: Text,
    /// The exit code that this alone would give, never 0.
    pub exit_code: u8,
}

/// Messages from the receiver to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSender {
    /// What becomes of a listing frame.
    Plan(Plan),
    /// Wants beside a plan: files that were put off, and second tries.
    Wanted(Vec<(EntryId, Want)>),
    /// Segment hashes of a basis from a segment on; true in the last frame of the file.
    Signature(EntryId, u32, Vec<Hash>, bool),
    /// Leaf hashes of a segment.
    Leaves(EntryId, u32, Vec<Hash>),
    /// Block hashes of a basis; true in the last frame.
    Blocks(EntryId, Vec<WeakStrong>, bool),
    /// Something could not be done.
    Problem(Problem),
    /// Something was done, or would be: a line for people.
    Action(Text),
    /// Listings and content were taken in: so many bytes more may come.
    Credit(u64),
    /// Still here.
    Ping,
    /// The session is over, and why: an exit code, never 0, and a sentence.
    Abort(u8, Text),
    /// Everything is applied and flushed.
    Commit(Commit),
}

impl ToSender {
    /// Encodes into one frame.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut b;
        match self {
            Self::Plan(plan) => {
                b = frame::open(kind::PLAN, 32 + plan.wants.len() * 8);
                let mut e = Encoder(&mut b);
                e.varint(plan.first);
                put_indexes(&mut e, &plan.new_directories);
                put_indexes(&mut e, &plan.later);
                e.varint(plan.wants.len() as u64);
                for (index, want) in &plan.wants {
                    e.varint(u64::from(*index));
                    put_want(&mut e, *want);
                }
                put_indexes(&mut e, &plan.attributes);
            }
            Self::Wanted(wants) => {
                b = frame::open(kind::WANTED, wants.len() * 12);
                let mut e = Encoder(&mut b);
                e.varint(wants.len() as u64);
                for (entry, want) in wants {
                    e.varint(entry.0);
                    put_want(&mut e, *want);
                }
            }
            Self::Signature(entry, first, hashes, last) => {
                b = frame::open(kind::SIGNATURE, 24 + hashes.len() * 16);
                put(&mut b, &[entry.0, u64::from(*first), u64::from(*last)]);
                hashes.iter().for_each(|h| Encoder(&mut b).raw(h));
            }
            Self::Leaves(entry, segment, hashes) => {
                b = frame::open(kind::LEAVES, 16 + hashes.len() * 16);
                put(&mut b, &[entry.0, u64::from(*segment)]);
                hashes.iter().for_each(|h| Encoder(&mut b).raw(h));
            }
            Self::Blocks(entry, blocks, last) => {
                b = frame::open(kind::BLOCKS, 16 + blocks.len() * 20);
                put(&mut b, &[entry.0, u64::from(*last)]);
                for block in blocks {
                    Encoder(&mut b).raw(&block.weak.to_le_bytes());
                    Encoder(&mut b).raw(&block.strong);
                }
            }
            Self::Problem(problem) => {
                b = frame::open(kind::PROBLEM, 128);
                let mut e = Encoder(&mut b);
                e.u8(problem.exit_code);
                e.bytes(clip(&problem.name).as_bytes());
                e.bytes(clip(&problem.what).as_bytes());
            }
            Self::Action(line) => {
                b = frame::open(kind::ACTION, line.len() + 2);
                Encoder(&mut b).bytes(clip(line).as_bytes());
            }
            Self::Credit(bytes) => return credit(*bytes),
            Self::Ping => return frame::close(frame::open(kind::PING, 0), Bytes::new()),
            Self::Abort(code, why) => return abort(*code, why),
            Self::Commit(commit) => {
                b = frame::open(kind::COMMIT, 96);
                let mut e = Encoder(&mut b);
                e.raw(&commit.manifest);
                let c = commit;
                for n in [c.entries, c.files_written, c.files_deleted, c.bytes_matched, c.problems]
                {
                    e.varint(n);
                }
                e.u8(u8::from(commit.tree.is_some()));
                if let Some(tree) = &commit.tree {
                    e.raw(tree);
                }
            }
        }
        frame::close(b, Bytes::new())
    }

    /// Decodes a frame of this direction.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let mut d = Decoder::new(frame.body);
        let message = match frame.kind {
            kind::PLAN => {
                let first = d.varint()?;
                let new_directories = take_indexes(&mut d)?;
                let later = take_indexes(&mut d)?;
                let mut wants = Vec::new();
                for _ in 0..take_count(&mut d, 2, "plan")? {
                    wants.push((d.u32("plan index")?, take_want(&mut d)?));
                }
                let attributes = take_indexes(&mut d)?;
                Self::Plan(Plan { first, new_directories, wants, later, attributes })
            }
            kind::WANTED => {
                let mut wants = Vec::new();
                for _ in 0..take_count(&mut d, 2, "wants")? {
                    wants.push((EntryId(d.varint()?), take_want(&mut d)?));
                }
                Self::Wanted(wants)
            }
            kind::SIGNATURE => {
                let (entry, first) = (EntryId(d.varint()?), d.u32("segment")?);
                let last = d.flag()?;
                Self::Signature(entry, first, take_hashes(&mut d)?, last)
            }
            kind::LEAVES => {
                let (entry, segment) = (EntryId(d.varint()?), d.u32("segment")?);
                Self::Leaves(entry, segment, take_hashes(&mut d)?)
            }
            kind::BLOCKS => {
                let entry = EntryId(d.varint()?);
                let last = d.flag()?;
                if d.remaining() / 20 > limits::MAX_HASHES {
                    return Err(DecodeError::Limit("blocks"));
                }
                let mut blocks = Vec::with_capacity(d.remaining() / 20);
                while d.remaining() > 0 {
                    let weak = u32::from_le_bytes(d.array()?);
                    blocks.push(WeakStrong { weak, strong: d.array()? });
                }
                Self::Blocks(entry, blocks, last)
            }
            kind::PROBLEM => {
                let exit_code = failure_code(&mut d)?;
                let name = text(&mut d, limits::MAX_TEXT, "problem")?;
                Self::Problem(Problem {
                    name,
                    what: text(&mut d, limits::MAX_TEXT, "problem")?,
                    exit_code,
                })
            }
            kind::ACTION => Self::Action(text(&mut d, limits::MAX_TEXT, "action")?),
            kind::CREDIT => Self::Credit(d.varint()?),
            kind::PING => Self::Ping,
            kind::ABORT => {
                let code = failure_code(&mut d)?;
                Self::Abort(code, text(&mut d, limits::MAX_TEXT, "abort")?)
            }
            kind::COMMIT => {
                let manifest = d.array()?;
                let [entries, files_written, files_deleted, bytes_matched, problems] =
                    [d.varint()?, d.varint()?, d.varint()?, d.varint()?, d.varint()?];
                let tree = if d.flag()? { Some(d.array()?) } else { None };
                Self::Commit(Commit {
                    manifest,
                    entries,
                    files_written,
                    files_deleted,
                    bytes_matched,
                    problems,
                    tree,
                })
            }
            other => return Err(DecodeError::UnknownType(other)),
        };
        d.finish()?;
        Ok(message)
    }
}

fn put_indexes(e: &mut Encoder<'_>, list: &[u32]) {
    e.varint(list.len() as u64);
    list.iter().for_each(|&index| e.varint(u64::from(index)));
}

fn take_indexes(d: &mut Decoder) -> Result<Vec<u32>, DecodeError> {
    (0..take_count(d, 1, "plan")?).map(|_| d.u32("plan index")).collect()
}
