//! One fixed message for every variant, and the guard that says so.
//!
//! A sample never changes once a version of the protocol is out: its bytes are in `golden/`. A new
//! variant does not compile until it has a label here, and fails until a sample bears that label.

use bytes::Bytes;
use wire::{
    Attributes, Commit, Content, ContentCheck, Ended, Entry, EntryId, FileKind, FilterAction,
    FilterRule, Goodbye, Hello, Join, Listed, Listing, Metadata, Name, Opening, Options, Plan,
    Problem, Refusal, Reply, RootKind, SmallFile, Timestamp, ToReceiver, ToSender, Want,
    WeakStrong, Welcome, Xattr,
};

use crate::support::Message;

/// Gives each variant of an enum a label, and lists the labels.
macro_rules! labels {
    ($function:ident, $list:ident, $type:ty { $($pattern:pat => $label:literal),* $(,)? }) => {
        const $list: &[&str] = &[$($label),*];
        fn $function(value: &$type) -> &'static str {
            match value { $($pattern => $label),* }
        }
    };
}

labels!(opening, OPENINGS, Opening { Opening::Hello(_) => "hello", Opening::Join(_) => "join" });
labels!(reply, REPLIES, Reply {
    Reply::Welcome(_) => "welcome",
    Reply::Refused(..) => "refused",
});
labels!(to_receiver, TO_RECEIVER, ToReceiver {
    ToReceiver::Root(_) => "root",
    ToReceiver::Listing(_) => "listing",
    ToReceiver::NoRemovals => "no removals",
    ToReceiver::EndOfListing(_) => "end of listing",
    ToReceiver::SmallFiles(_) => "small files",
    ToReceiver::Data(..) => "data",
    ToReceiver::Patch(..) => "patch",
    ToReceiver::Hole(..) => "hole",
    ToReceiver::Rebuild(..) => "rebuild",
    ToReceiver::Copy(..) => "copy",
    ToReceiver::EndOfFile(..) => "end of file",
    ToReceiver::LeafRequest(..) => "leaf request",
    ToReceiver::BlockRequest(..) => "block request",
    ToReceiver::Credit(_) => "credit to receiver",
    ToReceiver::Attributes(_) => "attributes",
    ToReceiver::Blocked => "blocked",
    ToReceiver::Ping => "ping to receiver",
    ToReceiver::Abort(..) => "abort to receiver",
    ToReceiver::Goodbye(_) => "goodbye",
});
labels!(to_sender, TO_SENDER, ToSender {
    ToSender::Plan(_) => "plan",
    ToSender::Wanted(_) => "wanted",
    ToSender::Signature(..) => "signature",
    ToSender::Leaves(..) => "leaves",
    ToSender::Blocks(..) => "blocks",
    ToSender::Problem(_) => "problem",
    ToSender::Action(_) => "action",
    ToSender::Credit(_) => "credit to sender",
    ToSender::Ping => "ping to sender",
    ToSender::Abort(..) => "abort to sender",
    ToSender::Commit(_) => "commit",
});
labels!(want, WANTS, Want { Want::Whole => "want whole", Want::Delta { .. } => "want delta" });
labels!(ended, ENDED, Ended {
    Ended::Whole(_, ContentCheck::Checksum(_)) => "ended whole",
    Ended::Whole(_, ContentCheck::Digest(_)) => "ended whole from a basis",
    Ended::Changed => "ended changed",
    Ended::Failed => "ended failed",
});
labels!(root, ROOTS, RootKind {
    RootKind::Tree => "root tree",
    RootKind::Device(_) => "root device",
});
labels!(filter, FILTERS, FilterAction {
    FilterAction::Exclude => "filter exclude",
    FilterAction::Include => "filter include",
});
labels!(refusal, REFUSALS, Refusal {
    Refusal::Version => "refusal version",
    Refusal::UnknownVolume => "refusal unknown volume",
    Refusal::NotAuthorised => "refusal not authorised",
    Refusal::Busy => "refusal busy",
    Refusal::Unfit => "refusal unfit",
    Refusal::Unavailable => "refusal unavailable",
    Refusal::Protocol => "refusal protocol",
    Refusal::UnknownSession => "refusal unknown session",
});
labels!(kind, KINDS, FileKind {
    FileKind::File => "kind file",
    FileKind::Directory => "kind directory",
    FileKind::Symlink => "kind symlink",
    FileKind::Fifo => "kind fifo",
    FileKind::Socket => "kind socket",
    FileKind::CharDevice => "kind char device",
    FileKind::BlockDevice => "kind block device",
});

/// Every label there is.
pub(crate) fn all_labels() -> Vec<&'static str> {
    let lists =
        [OPENINGS, REPLIES, TO_RECEIVER, TO_SENDER, WANTS, ENDED, ROOTS, FILTERS, REFUSALS, KINDS];
    lists.concat()
}

/// The labels of a message and of the enums within it.
pub(crate) fn labels_of(message: &Message) -> Vec<&'static str> {
    match message {
        Message::Opening(m) => {
            let mut labels = vec![opening(m)];
            if let Opening::Hello(hello) = m {
                labels.push(root(&hello.root));
                labels.extend(hello.options.filters.iter().map(|rule| filter(&rule.action)));
            }
            labels
        }
        Message::Reply(m) => match m {
            Reply::Welcome(_) => vec![reply(m)],
            Reply::Refused(why, _) => vec![reply(m), refusal(why)],
        },
        Message::ToReceiver(m) => {
            let mut labels = vec![to_receiver(m)];
            match m {
                ToReceiver::Listing(listing) => {
                    labels.extend(listing.entries.iter().map(|l| kind(&l.entry.meta.kind)));
                }
                ToReceiver::EndOfFile(_, _, how) => labels.push(ended(how)),
                _ => {}
            }
            labels
        }
        Message::ToSender(m) => {
            let mut labels = vec![to_sender(m)];
            if let ToSender::Plan(plan) = m {
                labels.extend(plan.wants.iter().map(|(_, w)| want(w)));
            }
            labels
        }
    }
}

/// The messages whose bytes are kept, each under the name of its line in `golden/`.
pub(crate) fn samples() -> Vec<(String, Message)> {
    let mut all = openings();
    all.extend(from_sender());
    all.extend(from_receiver());
    all.into_iter().map(|(name, message)| (name.replace(' ', "-"), message)).collect()
}

fn openings() -> Vec<(String, Message)> {
    let hello = Hello {
        versions: (1, 3),
        nonce: pattern(),
        volume: "data-0".into(),
        root: RootKind::Tree,
        probe: false,
        window: 64 << 20,
        streams: 4,
        io_timeout: 60,
        options: Options {
            delete: true,
            max_delete: Some(1000),
            verify: true,
            filters: vec![
                FilterRule { action: FilterAction::Include, pattern: b"keep/".to_vec() },
                FilterRule { action: FilterAction::Exclude, pattern: b"*.tmp".to_vec() },
            ],
            ..Options::default()
        },
    };
    let device =
        Hello { root: RootKind::Device(1 << 40), probe: true, ..with(&hello, Options::default()) };
    let welcome = Welcome {
        version: 2,
        nonce: pattern(),
        session: pattern(),
        fresh: true,
        window: 32 << 20,
        streams: 2,
        losses: vec!["owners are lost: CAP_CHOWN is missing".into()],
    };
    let mut all = vec![
        ("hello".into(), Message::Opening(Opening::Hello(Box::new(hello.clone())))),
        ("hello-device".into(), Message::Opening(Opening::Hello(Box::new(device)))),
        ("join".into(), Message::Opening(Opening::Join(Join { session: pattern() }))),
        ("welcome".into(), Message::Reply(Reply::Welcome(Box::new(welcome)))),
    ];
    for (name, options) in each_option() {
        let message = Message::Opening(Opening::Hello(Box::new(with(&hello, options))));
        all.push((format!("hello {name}"), message));
    }
    let refusals = [
        Refusal::Version,
        Refusal::UnknownVolume,
        Refusal::NotAuthorised,
        Refusal::Busy,
        Refusal::Unfit,
        Refusal::Unavailable,
        Refusal::Protocol,
        Refusal::UnknownSession,
    ];
    for why in refusals {
        let message = Message::Reply(Reply::Refused(why, "no: naïve".into()));
        all.push((refusal(&why).into(), message));
    }
    all
}

fn with(hello: &Hello, options: Options) -> Hello {
    Hello { options, ..hello.clone() }
}

/// Each flag alone, so that no two can change places.
fn each_option() -> [(&'static str, Options); 8] {
    let none = Options::default;
    [
        ("delete", Options { delete: true, ..none() }),
        ("checksum", Options { checksum: true, ..none() }),
        ("atomic", Options { atomic: true, ..none() }),
        ("dry run", Options { dry_run: true, ..none() }),
        ("itemize", Options { itemize: true, ..none() }),
        ("verify", Options { verify: true, ..none() }),
        ("allow empty", Options { allow_empty: true, ..none() }),
        ("no owner", Options { no_owner: true, ..none() }),
    ]
}

fn from_sender() -> Vec<(String, Message)> {
    let id = EntryId(300);
    let content = Bytes::from_static(b"content");
    let small = |entry, content: &'static [u8]| SmallFile {
        entry: EntryId(entry),
        meta: Metadata { size: content.len() as u64, ..meta(FileKind::File) },
        content: Content { bytes: Bytes::from_static(content), checksum: 0x0102_0304_0506_0708 },
    };
    let ended = |check| Ended::Whole(Box::new(Metadata { size: 7, ..meta(FileKind::File) }), check);
    let whole = ended(ContentCheck::Checksum(0x1112_1314_1516_1718));
    let rebuilt = ended(ContentCheck::Digest(pattern()));
    let all = [
        ("listing", ToReceiver::Listing(listing())),
        ("listing-of-hashes", ToReceiver::Listing(listing_of_hashes())),
        ("listing-unasked", ToReceiver::Listing(listing_unasked())),
        ("listing-of-nothing", ToReceiver::Listing(listing_of_nothing())),
        ("listing-with-time", ToReceiver::Listing(listing_with_time())),
        ("root", ToReceiver::Root(Box::new(meta(FileKind::Directory)))),
        ("end-of-listing", ToReceiver::EndOfListing(Box::new(meta(FileKind::Directory)))),
        ("small-files", ToReceiver::SmallFiles(vec![small(7, b"one"), small(8, b"")])),
        ("attributes", ToReceiver::Attributes(vec![(id, note()), (EntryId(301), Vec::new())])),
        ("data", ToReceiver::Data(id, 1 << 33, content.clone())),
        ("patch", ToReceiver::Patch(id, 4096, content)),
        ("hole", ToReceiver::Hole(id, 65536, 1 << 20)),
        ("rebuild", ToReceiver::Rebuild(id, 131_072)),
        ("copy", ToReceiver::Copy(id, 131_072, 196_608, 65536)),
        ("ended-whole", ToReceiver::EndOfFile(id, 12, whole)),
        ("ended-whole-from-a-basis", ToReceiver::EndOfFile(id, 12, rebuilt)),
        ("ended-changed", ToReceiver::EndOfFile(id, 12, Ended::Changed)),
        ("ended-failed", ToReceiver::EndOfFile(id, 0, Ended::Failed)),
        ("leaf-request", ToReceiver::LeafRequest(id, 129)),
        ("block-request", ToReceiver::BlockRequest(id, 131_072, 1 << 20, 2048)),
        ("credit-to-receiver", ToReceiver::Credit(123_456)),
        ("blocked", ToReceiver::Blocked),
        ("no-removals", ToReceiver::NoRemovals),
        ("ping-to-receiver", ToReceiver::Ping),
        ("abort-to-receiver", ToReceiver::Abort(20, "ended by a signal".into())),
        ("goodbye", ToReceiver::Goodbye(Goodbye { exit_code: 23, differs: true })),
    ];
    all.map(|(name, message)| (name.into(), Message::ToReceiver(message))).into()
}

fn from_receiver() -> Vec<(String, Message)> {
    let id = EntryId(300);
    let delta = Want::Delta { basis_len: 1 << 34, segment_log2: 16 };
    let plan = Plan {
        first: 257,
        new_directories: vec![0, 200],
        wants: vec![(1, Want::Whole), (3, delta)],
        later: vec![2],
        attributes: vec![0, 4],
    };
    let commit = Commit {
        manifest: pattern(),
        entries: 1001,
        files_written: 17,
        files_deleted: 3,
        bytes_matched: 1 << 33,
        problems: 0,
        tree: None,
    };
    let problem = Problem { name: "a/b\\x0a".into(), what: "open: denied".into(), exit_code: 23 };
    let block = WeakStrong { weak: 0x0102_0304, strong: pattern() };
    let all = [
        ("plan", ToSender::Plan(plan)),
        ("plan-of-nothing", ToSender::Plan(Plan { first: 1, ..Plan::default() })),
        ("wanted", ToSender::Wanted(vec![(id, Want::Whole), (EntryId(301), delta)])),
        ("signature", ToSender::Signature(id, 1024, vec![pattern(), [0; 16]], true)),
        ("leaves", ToSender::Leaves(id, 129, vec![pattern()])),
        ("blocks", ToSender::Blocks(id, vec![block], false)),
        ("problem", ToSender::Problem(problem)),
        ("action", ToSender::Action("create dir/".into())),
        ("credit-to-sender", ToSender::Credit(1 << 20)),
        ("ping-to-sender", ToSender::Ping),
        ("abort-to-sender", ToSender::Abort(11, "no space left".into())),
        ("commit", ToSender::Commit(commit)),
        ("commit-verified", ToSender::Commit(Commit { tree: Some(pattern()), ..commit })),
    ];
    all.map(|(name, message)| (name.into(), Message::ToSender(message))).into()
}

/// An entry of every kind, with every optional field.
fn listing() -> Listing {
    let mut flagged = meta(FileKind::File);
    flagged.size = 1 << 40;
    flagged.attributes = Attributes { immutable: true, append_only: true };
    flagged.xattrs = vec![
        Xattr { name: (*b"security.capability").into(), value: pattern::<20>().into() },
        Xattr { name: (*b"user.note").into(), value: Box::default() },
    ];
    flagged.mtime = Timestamp { secs: -1, nanos: 999_999_999 };
    let device = |kind| Metadata { rdev: (8, 65536), ..meta(kind) };
    let mut entries = vec![
        listed(b"block", device(FileKind::BlockDevice)),
        listed(b"char", device(FileKind::CharDevice)),
        listed(b"dir", meta(FileKind::Directory)),
        listed(b"fifo", meta(FileKind::Fifo)),
        listed(b"file", flagged),
        Listed { mount: true, ..listed(b"mount", meta(FileKind::Directory)) },
        Listed { link: Some(EntryId(257)), ..listed(b"socket", meta(FileKind::Socket)) },
        listed(b"symlink\xff", meta(FileKind::Symlink)),
    ];
    entries[2].entry.meta.attributes.immutable = true;
    entries[3].entry.meta.attributes.append_only = true;
    entries[7].entry.target = (*b"../target").into();
    Listing {
        directory: EntryId::ROOT,
        first: EntryId(257),
        last: true,
        complete: false,
        unasked: false,
        mtime: None,
        entries,
    }
}

/// Hashes stand for the extended attributes.
fn listing_of_hashes() -> Listing {
    let hashed = |name, kind| Listed { xattr_hash: Some(pattern()), ..listed(name, meta(kind)) };
    let mut entries = vec![hashed(b"dir", FileKind::Directory), hashed(b"link", FileKind::Symlink)];
    entries[1].entry.target = (*b"target").into();
    entries[1].link = Some(EntryId(3));
    Listing {
        directory: EntryId(1),
        first: EntryId(2),
        last: true,
        complete: true,
        unasked: false,
        mtime: None,
        entries,
    }
}

fn note() -> Vec<Xattr> {
    vec![Xattr { name: (*b"user.note").into(), value: (*b"value").into() }]
}

fn listing_unasked() -> Listing {
    let mut file = listed(b"f", Metadata { size: 3, ..meta(FileKind::File) });
    let bytes = Bytes::from_static(b"abc");
    file.content = Some(Content { bytes, checksum: 0x2122_2324_2526_2728 });
    file.link = Some(EntryId(2));
    Listing {
        directory: EntryId(1),
        first: EntryId(2),
        last: false,
        complete: true,
        unasked: true,
        mtime: None,
        entries: vec![file],
    }
}

fn listing_of_nothing() -> Listing {
    Listing {
        directory: EntryId(1 << 20),
        first: EntryId(1 << 21),
        last: true,
        complete: false,
        unasked: true,
        mtime: None,
        entries: Vec::new(),
    }
}

fn listing_with_time() -> Listing {
    let mtime = Some(Timestamp { secs: -2, nanos: 1 });
    let entries = vec![listed(b"f", meta(FileKind::File))];
    Listing { mtime, entries, ..listing_of_nothing() }
}

fn listed(name: &[u8], meta: Metadata) -> Listed {
    let entry = Entry { name: Name::new(name).unwrap(), meta, target: Box::default() };
    Listed { entry, link: None, mount: false, xattr_hash: None, content: None }
}

pub(crate) fn meta(kind: FileKind) -> Metadata {
    Metadata {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        size: 0,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 123_456_789 },
        rdev: (0, 0),
        attributes: Attributes::default(),
        xattrs: Vec::new(),
    }
}

fn pattern<const N: usize>() -> [u8; N] {
    std::array::from_fn(|i| i as u8 * 7 + 1)
}
