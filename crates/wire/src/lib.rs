//! What travels between the two ends of a transfer, and nothing that does I/O.
//!
//! * [`Name`]: one component of a path. The wire has no paths: an entry is `(directory id, name)`.
//! * [`Metadata`], [`Entry`]: what a directory listing says of one entry.
//! * [`ToReceiver`], [`ToSender`]: the messages of the two directions; the sender holds the source,
//!   the receiver the volume that becomes like it.
//! * [`Frame`], [`OutFrame`]: how messages lie in a byte stream.
//!
//! docs/PROTOCOL.md describes the same from the outside. Every length, count and index is checked
//! against [`limits`] while it is read; a message that passes needs no second look at its shape.
#![forbid(unsafe_code)]

mod codec;
pub mod entry;
pub mod frame;
mod handshake;
pub mod limits;
mod listing;
mod message;
mod metadata;
pub mod name;
mod to_receiver;
mod to_sender;

pub use codec::{DecodeError, Decoder, Encoder};
pub use entry::{Attributes, Entry, FileKind, Metadata, Timestamp, Xattr, Xattrs};
pub use frame::{Frame, OutFrame};
pub use handshake::{
    FilterAction, FilterRule, Hello, Join, MAGIC, Opening, Options, Refusal, Reply, RootKind,
    VERSION, Welcome,
};
pub use listing::{Listed, Listing, ListingBuilder};
pub use message::{
    Content, ContentCheck, ContentDigest, EntryId, Hash, ManifestDigest, Want, WeakStrong,
};
pub use name::{Name, NameError};
pub use text::Text;
pub use to_receiver::{
    AttributesBuilder, Ended, Goodbye, SmallFile, SmallFilesBuilder, ToReceiver,
};
pub use to_sender::{Commit, Plan, Problem, ToSender};
