//! Extended attributes that are too long for a listing: a hash stands for them, and the values travel where it differs.

use std::{
    fs,
    os::unix::fs::{self as unix, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use session::{Error, handshake};
use tokio::io::AsyncWriteExt as _;
use wire::{EntryId, FileKind, Hash, Listed, Options, ToReceiver, Xattr, Xattrs};

use super::{
    hostile_sender::{against, breaks, dir, end, file, hear, is_plan, listed, listing, root},
    support::*,
};

/// Sets an attribute that every kind of entry can have.
fn set(root: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(root.join(name), "trusted.note", value, XattrFlags::empty()).unwrap();
}

fn unset(root: &Path, name: &str) {
    rustix::fs::lremovexattr(root.join(name), "trusted.note").unwrap();
}

fn long(byte: u8) -> Vec<u8> {
    vec![byte; 1000]
}

/// One entry of each kind, and two names of one inode.
const KINDS: [&str; 8] =
    ["dir", "dir/inner", "empty", "fifo", "large", "link", "shared a", "small"];

fn every_kind(root: &Path) {
    fs::create_dir_all(root.join("dir/inner")).unwrap();
    write(root, "dir/inner/file", b"content");
    write(root, "empty", b"");
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    write(root, "large", &noise(1, 1 << 20));
    unix::symlink("target", root.join("link")).unwrap();
    write(root, "shared a", b"shared");
    fs::hard_link(root.join("shared a"), root.join("shared b")).unwrap();
    write(root, "small", b"small");
}

#[test]
fn changed_attributes_of_every_kind_arrive_without_content() {
    let pair = Pair::new();
    let root = pair.from.path();
    every_kind(root);
    KINDS.iter().for_each(|name| set(root, name, &long(1)));
    pair.converge_twice(delete());
    type Change = fn(&Path, &str);
    let changes: [(&str, Change); 4] = [
        ("changed", |root, name| set(root, name, &long(2))),
        ("shortened", |root, name| set(root, name, b"short")),
        ("lengthened", |root, name| set(root, name, &long(3))),
        ("removed", unset),
    ];
    for (what, change) in changes {
        KINDS.iter().for_each(|name| change(root, name));
        let outcome = pair.converge_twice(delete());
        let summary = outcome.summary();
        assert_eq!((summary.files_written, summary.bytes_literal), (0, 0), "{what}");
    }
}

#[test]
fn new_entries_with_attributes_arrive_in_a_directory_that_exists() {
    let pair = Pair::new();
    write(pair.from.path(), "old", b"old");
    pair.converge(delete());
    every_kind(pair.from.path());
    KINDS.iter().for_each(|name| set(pair.from.path(), name, &long(1)));
    pair.converge_twice(delete());
}

#[test]
fn entries_of_another_kind_make_way_for_entries_with_attributes() {
    let pair = Pair::new();
    every_kind(pair.from.path());
    for name in KINDS.iter().filter(|name| !name.contains('/')) {
        set(pair.from.path(), name, &long(1));
        let at = pair.to.path().join(name);
        if *name == "dir" { fs::write(at, "file").unwrap() } else { fs::create_dir(at).unwrap() }
    }
    pair.converge_twice(delete());
}

#[test]
fn attributes_arrive_with_content_that_is_compared() {
    let pair = Pair::new();
    every_kind(pair.from.path());
    KINDS.iter().for_each(|name| set(pair.from.path(), name, &long(1)));
    pair.converge(Options::default());
    KINDS.iter().for_each(|name| set(pair.from.path(), name, &long(2)));
    write(pair.from.path(), "small", b"other");
    pair.converge_twice(Options { checksum: true, ..delete() });
}

/// The names that a dry run announces are those of the run after it.
#[test]
fn a_dry_run_names_entries_whose_attributes_differ_and_changes_nothing() {
    let pair = Pair::new();
    let root = pair.from.path();
    every_kind(root);
    KINDS.iter().filter(|name| **name != "fifo").for_each(|name| set(root, name, &long(1)));
    pair.converge(delete());
    KINDS.iter().for_each(|name| set(root, name, &long(2)));
    fs::remove_file(root.join("empty")).unwrap();
    write(root, "new", b"");
    set(root, "new", &long(1));
    let before = pair.differences();
    let dry = pair.sync(Options { dry_run: true, ..delete() });
    assert_eq!(dry.exit_code(), 0);
    assert_eq!(pair.differences(), before);
    let mut announced = dry.actions;
    let mut done = pair.converge(Options { itemize: true, ..delete() }).actions;
    announced.sort();
    done.sort();
    assert_eq!(announced, done);
    assert!(announced.iter().any(|line| line == "metadata fifo"), "{announced:?}");
}

fn hashed(listed: Listed) -> Listed {
    Listed { xattr_hash: Some(Hash::default()), ..listed }
}

fn note() -> Xattrs {
    vec![Xattr { name: (*b"user.note").into(), value: long(7).into() }]
}

fn attributes(id: u64) -> ToReceiver {
    ToReceiver::Attributes(vec![(EntryId(id), note())])
}

#[test]
fn attributes_that_were_not_asked_for_end_the_session() {
    let unasked = |result| {
        assert!(matches!(result, Err(Error::Protocol("attributes that were not requested"))));
    };
    let asked = || listing(0, 1, vec![hashed(listed("fifo", FileKind::Fifo, 0)), file("new", 5)]);
    unasked(against(delete(), vec![attributes(1), asked(), end()]).1);
    unasked(against(delete(), vec![asked(), attributes(2), end()]).1);
    unasked(against(delete(), vec![asked(), attributes(1), attributes(1), end()]).1);
    let twice = ToReceiver::Attributes(vec![(EntryId(1), note()), (EntryId(1), note())]);
    unasked(against(delete(), vec![asked(), twice, end()]).1);
}

#[test]
fn attributes_that_never_come_keep_the_session_from_its_commit() {
    breaks(vec![listing(0, 1, vec![hashed(listed("fifo", FileKind::Fifo, 0))]), end()]);
    let script = vec![listing(0, 1, vec![hashed(dir("sub"))]), listing(1, 2, vec![]), end()];
    breaks(script);
}

/// An ACL that is not known yet may shut out whom the old one lets in.
#[test]
fn a_directory_is_closed_while_its_attributes_are_on_their_way() {
    let pair = Pair::new();
    let sub = pair.to.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o755)).unwrap();
    let mode = block_on(async {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let sender = async {
            handshake::open(&mut a, hello(delete(), 20)).await.unwrap();
            a.write_all(&root().encode().head).await.unwrap();
            let listing = listing(0, 1, vec![hashed(dir("sub"))]).encode();
            a.write_all(&listing.head).await.unwrap();
            hear(&mut a, &mut bytes::BytesMut::new(), is_plan).await;
            let mode = fs::metadata(&sub).unwrap().permissions().mode() & 0o7777;
            drop(a);
            mode
        };
        let (mode, received) = tokio::join!(sender, receive(b, pair.to.path(), context(20)));
        assert!(received.is_err());
        mode
    });
    assert_eq!(mode, 0o700);
}
