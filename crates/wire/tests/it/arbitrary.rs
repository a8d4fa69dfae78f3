//! Strategies for every message that the protocol allows.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::{
    array::{uniform16, uniform32},
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use wire::{
    Attributes, Commit, Content, ContentCheck, Ended, Entry, EntryId, FileKind, FilterAction,
    FilterRule, Goodbye, Hello, Join, Listed, Listing, Metadata, Name, Opening, Options, Plan,
    Problem, Refusal, Reply, RootKind, SmallFile, Text, Timestamp, ToReceiver, ToSender, Want,
    WeakStrong, Welcome, Xattr, Xattrs, limits,
};

use crate::support::Message;

const END: u64 = wire::limits::MAX_FILE;

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        2 => opening().prop_map(Message::Opening),
        2 => reply().prop_map(Message::Reply),
        6 => to_receiver().prop_map(Message::ToReceiver),
        6 => to_sender().prop_map(Message::ToSender),
    ]
}

fn opening() -> impl Strategy<Value = Opening> {
    prop_oneof![
        3 => hello().prop_map(|hello| Opening::Hello(Box::new(hello))),
        1 => uniform16(any::<u8>()).prop_map(|session| Opening::Join(Join { session })),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let who = (any::<(u32, u32)>(), uniform32(any::<u8>()), "[a-zA-Z0-9._-]{0,253}");
    let root = prop_oneof![Just(RootKind::Tree), any::<u64>().prop_map(RootKind::Device)];
    let rates = (limits::WINDOW, any::<u32>(), any::<u32>());
    (who, root, any::<bool>(), rates, options()).prop_map(
        |((versions, nonce, volume), root, probe, (window, streams, io_timeout), options)| Hello {
            versions,
            nonce,
            volume,
            root,
            probe,
            window,
            streams,
            io_timeout,
            options,
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let action = select(vec![FilterAction::Include, FilterAction::Exclude]);
    let rule = (action, vec(any::<u8>(), 0..40))
        .prop_map(|(action, pattern)| FilterRule { action, pattern });
    (any::<[bool; 8]>(), any::<Option<u64>>(), vec(rule, 0..8)).prop_map(
        |(flags, max_delete, filters)| {
            let [delete, checksum, atomic, dry_run, itemize, verify, allow_empty, no_owner] = flags;
            Options {
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
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    let nonces = (uniform32(any::<u8>()), uniform16(any::<u8>()));
    let rest = (limits::WINDOW, 1..=limits::MAX_STREAMS as u32, vec(text(), 0..5));
    let welcome = (any::<u32>(), nonces, any::<bool>(), rest).prop_map(
        |(version, (nonce, session), fresh, (window, streams, losses))| Welcome {
            version,
            nonce,
            session,
            fresh,
            window,
            streams,
            losses,
        },
    );
    let refusal = select(vec![
        Refusal::Version,
        Refusal::UnknownVolume,
        Refusal::NotAuthorised,
        Refusal::Busy,
        Refusal::Unfit,
        Refusal::Unavailable,
        Refusal::Protocol,
        Refusal::UnknownSession,
    ]);
    prop_oneof![
        welcome.prop_map(|welcome| Reply::Welcome(Box::new(welcome))),
        (refusal, text()).prop_map(|(why, text)| Reply::Refused(why, text)),
    ]
}

fn to_receiver() -> impl Strategy<Value = ToReceiver> {
    prop_oneof![
        4 => listing().prop_map(ToReceiver::Listing),
        1 => metadata().prop_map(|meta| ToReceiver::Root(Box::new(meta))),
        1 => metadata().prop_map(|meta| ToReceiver::EndOfListing(Box::new(meta))),
        3 => vec(small_file(), 0..6).prop_map(ToReceiver::SmallFiles),
        1 => vec((id(), xattrs()), 0..6).prop_map(ToReceiver::Attributes),
        2 => piece().prop_map(|(id, at, data)| ToReceiver::Data(id, at, data)),
        2 => piece().prop_map(|(id, at, data)| ToReceiver::Patch(id, at, data)),
        1 => (id(), stretch()).prop_map(|(id, (at, len))| ToReceiver::Hole(id, at, len)),
        1 => (id(), 0..=END).prop_map(|(id, keep)| ToReceiver::Rebuild(id, keep)),
        1 => (id(), stretch(), 0..=END).prop_map(|(id, (at, len), from)| {
            ToReceiver::Copy(id, at, from.min(END - len), len)
        }),
        2 => (id(), any::<u64>(), ended()).prop_map(|(id, n, how)| ToReceiver::EndOfFile(id, n, how)),
        1 => (id(), any::<u32>()).prop_map(|(id, segment)| ToReceiver::LeafRequest(id, segment)),
        1 => (id(), stretch(), (9..=20u32).prop_map(|log2| 1 << log2))
            .prop_map(|(id, (at, len), block)| ToReceiver::BlockRequest(id, at, len, block)),
        1 => any::<u64>().prop_map(ToReceiver::Credit),
        1 => Just(ToReceiver::Blocked),
        1 => Just(ToReceiver::NoRemovals),
        1 => Just(ToReceiver::Ping),
        1 => (1..=u8::MAX, text()).prop_map(|(code, why)| ToReceiver::Abort(code, why)),
        1 => any::<(u8, bool)>().prop_map(|(exit_code, differs)| {
            ToReceiver::Goodbye(Goodbye { exit_code, differs })
        }),
    ]
}

fn to_sender() -> impl Strategy<Value = ToSender> {
    let hashes = || vec(uniform16(any::<u8>()), 0..40);
    let block = (any::<u32>(), uniform16(any::<u8>()))
        .prop_map(|(weak, strong)| WeakStrong { weak, strong });
    let problem = (text(), text(), 1..=u8::MAX).prop_map(|(name, what, exit_code)| Problem {
        name,
        what,
        exit_code,
    });
    prop_oneof![
        4 => plan().prop_map(ToSender::Plan),
        2 => vec((id(), want()), 0..40).prop_map(ToSender::Wanted),
        2 => (id(), any::<u32>(), hashes(), any::<bool>())
            .prop_map(|(id, first, hashes, last)| ToSender::Signature(id, first, hashes, last)),
        1 => (id(), any::<u32>(), hashes())
            .prop_map(|(id, segment, hashes)| ToSender::Leaves(id, segment, hashes)),
        2 => (id(), vec(block, 0..40), any::<bool>())
            .prop_map(|(id, blocks, last)| ToSender::Blocks(id, blocks, last)),
        1 => problem.prop_map(ToSender::Problem),
        1 => text().prop_map(ToSender::Action),
        1 => any::<u64>().prop_map(ToSender::Credit),
        1 => Just(ToSender::Ping),
        1 => (1..=u8::MAX, text()).prop_map(|(code, why)| ToSender::Abort(code, why)),
        2 => commit().prop_map(ToSender::Commit),
    ]
}

fn listing() -> impl Strategy<Value = Listing> {
    let ids = (id(), 1..=u64::MAX / 2);
    let mtime = option::of((any::<i64>(), 0..1_000_000_000_u32));
    (ids, any::<[bool; 3]>(), mtime, vec(listed(), 0..12)).prop_map(
        |((directory, first), flags, mtime, entries)| {
            let [last, complete, unasked] = flags;
            let hashed = entries.iter().any(|listed| listed.xattr_hash.is_some());
            let unasked = unasked && !hashed;
            let mtime = mtime.filter(|_| last && directory != EntryId::ROOT);
            let mtime = mtime.map(|(secs, nanos)| Timestamp { secs, nanos });
            Listing { directory, first: EntryId(first), last, complete, unasked, mtime, entries }
        },
    )
}

fn listed() -> impl Strategy<Value = Listed> {
    let target = vec(1u8.., 1..100);
    let content = option::of(content());
    let hash = option::of(uniform16(any::<u8>()));
    (name(), metadata(), target, option::of(id()), any::<bool>(), content, hash).prop_map(
        |(name, mut meta, target, link, mount, content, hash)| {
            let is_dir = meta.kind == FileKind::Directory;
            let content = content.filter(|_| meta.kind == FileKind::File);
            if let Some(content) = &content {
                meta.size = content.bytes.len() as u64;
            }
            let target = if meta.kind == FileKind::Symlink { target } else { Vec::new() };
            let link = link.filter(|_| !is_dir);
            let xattr_hash = hash.filter(|_| content.is_none());
            if xattr_hash.is_some() {
                meta.xattrs = Xattrs::new();
            }
            let entry = Entry { name, meta, target: target.into() };
            Listed { entry, link, mount: mount && is_dir, xattr_hash, content }
        },
    )
}

fn small_file() -> impl Strategy<Value = SmallFile> {
    (id(), metadata_of(FileKind::File), content()).prop_map(|(entry, mut meta, content)| {
        meta.size = content.bytes.len() as u64;
        SmallFile { entry, meta, content }
    })
}

fn content() -> impl Strategy<Value = Content> {
    (vec(any::<u8>(), 0..300), any::<u64>())
        .prop_map(|(bytes, checksum)| Content { bytes: bytes.into(), checksum })
}

fn ended() -> impl Strategy<Value = Ended> {
    prop_oneof![
        (metadata_of(FileKind::File), check())
            .prop_map(|(meta, check)| Ended::Whole(Box::new(meta), check)),
        Just(Ended::Changed),
        Just(Ended::Failed),
    ]
}

fn check() -> impl Strategy<Value = ContentCheck> {
    prop_oneof![
        any::<u64>().prop_map(ContentCheck::Checksum),
        uniform32(any::<u8>()).prop_map(ContentCheck::Digest),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let indices = || vec(any::<u32>(), 0..40);
    let wants = vec((any::<u32>(), want()), 0..40);
    (any::<u64>(), indices(), wants, indices(), indices()).prop_map(
        |(first, new_directories, wants, later, attributes)| Plan {
            first,
            new_directories,
            wants,
            later,
            attributes,
        },
    )
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        Just(Want::Whole),
        (0..=END, limits::SEGMENT_LOG2)
            .prop_map(|(basis_len, segment_log2)| Want::Delta { basis_len, segment_log2 }),
    ]
}

fn commit() -> impl Strategy<Value = Commit> {
    let digests = (uniform32(any::<u8>()), option::of(uniform32(any::<u8>())));
    (digests, any::<[u64; 5]>()).prop_map(
        |((manifest, tree), [entries, files_written, files_deleted, bytes_matched, problems])| {
            Commit {
                manifest,
                entries,
                files_written,
                files_deleted,
                bytes_matched,
                problems,
                tree,
            }
        },
    )
}

fn name() -> impl Strategy<Value = Name> {
    let byte = any::<u8>().prop_filter("no separator", |byte| !matches!(byte, 0 | b'/'));
    vec(byte, 1..=255).prop_filter_map("a name", |bytes| Name::new(&bytes).ok())
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    let kinds = [
        FileKind::File,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice,
        FileKind::BlockDevice,
    ];
    select(kinds.to_vec()).prop_flat_map(metadata_of)
}

fn metadata_of(kind: FileKind) -> impl Strategy<Value = Metadata> {
    let owner = (0..u32::MAX, 0..u32::MAX);
    let mtime = (any::<i64>(), 0..1_000_000_000u32);
    let rest = (0..=END, any::<(u32, u32)>(), any::<(bool, bool)>());
    (0..=0o7777u16, owner, mtime, rest, xattrs()).prop_map(
        move |(mode, (uid, gid), (secs, nanos), (size, rdev, flags), xattrs)| {
            let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
            Metadata {
                kind,
                mode,
                uid,
                gid,
                size: if kind == FileKind::File { size } else { 0 },
                mtime: Timestamp { secs, nanos },
                rdev: if device { rdev } else { (0, 0) },
                attributes: Attributes { immutable: flags.0, append_only: flags.1 },
                xattrs,
            }
        },
    )
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let all = btree_map(vec(1u8.., 1..30), vec(any::<u8>(), 0..60), 0..4);
    let to_list = |all: BTreeMap<Vec<u8>, Vec<u8>>| {
        let all = all.into_iter();
        all.map(|(name, value)| Xattr { name: name.into(), value: value.into() }).collect()
    };
    prop_oneof![3 => Just(Xattrs::new()), 2 => all.prop_map(to_list)]
}

fn id() -> impl Strategy<Value = EntryId> {
    any::<u64>().prop_map(EntryId)
}

fn piece() -> impl Strategy<Value = (EntryId, u64, Bytes)> {
    (id(), 0..=END - 400, vec(any::<u8>(), 1..400)).prop_map(|(id, at, data)| (id, at, data.into()))
}

/// An offset and a length that end within a file.
fn stretch() -> impl Strategy<Value = (u64, u64)> {
    (0..=END, 0..=END).prop_map(|(at, len)| (at, len.min(END - at)))
}

/// Text as it arrives: control characters were taken out of it.
fn text() -> impl Strategy<Value = Text> {
    r"[\PC\n\u{202e}\u{2028}\\]{0,60}".prop_map(Text::from)
}
