//! What an end keeps per entry comes out of its memory budget: over it the session ends with 22, whatever it is that piles up.

use std::{fs, os::unix::fs::symlink, path::Path};

use bytes::{Bytes, BytesMut};
use session::{Context, Error, Received, Result, Summary, handshake};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{EntryId, FileKind, FilterAction, FilterRule, Listed, Listing, Options, ToReceiver};

use super::{
    hostile_sender::{dir, end, file, hear, is_plan, listed, listing, play, root},
    support::*,
};

/// Little enough for some thousand entries to go beyond it.
const BUDGET: u64 = 256 << 10;
const MANY: u64 = 4000;

fn little() -> Context {
    Context { memory_budget: BUDGET, ..context(20) }
}

/// Plays `script` to a receiver with little memory.
fn receive_script(pair: &Pair, options: Options, script: Vec<ToReceiver>) -> Result<Received> {
    block_on(async {
        let (a, b) = tokio::io::duplex(1 << 20);
        tokio::join!(play(a, options, script), receive(b, pair.to.path(), little())).1
    })
}

/// A whole session of which one end has little memory.
fn sync_between(
    pair: &Pair,
    options: Options,
    near: Context,
    far: Context,
) -> (Result<Summary>, Result<Received>) {
    block_on(async {
        let (a, b) = tokio::io::duplex(256 << 10);
        let (from, to) = (pair.from.path(), pair.to.path());
        tokio::join!(send(a, from, options, near), receive(b, to, far))
    })
}

#[track_caller]
fn assert_over_budget<T>(result: Result<T>) {
    match result {
        Err(error @ Error::MemoryBudget(BUDGET)) => assert_eq!(error.exit_code(), 22),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("everything was kept"),
    }
}

#[track_caller]
fn assert_peer_hears_22<T>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Aborted(22, _))), "{:?}", result.err());
}

fn unsolicited(directory: u64, first: u64, entries: Vec<Listed>, last: bool) -> ToReceiver {
    let (directory, first) = (EntryId(directory), EntryId(first));
    ToReceiver::Listing(Listing {
        directory,
        first,
        last,
        complete: true,
        unasked: true,
        mtime: None,
        entries,
    })
}

fn many(kind: impl Fn(u64) -> Listed) -> Vec<Listed> {
    (0..MANY).map(kind).collect()
}

/// A directory that is a mount point here, in a volume that is empty but for it: the receiver passes over what is in it.
struct CannotBeMade<'a>(&'a Pair);

const MOUNT_POINT: &str = "lost+found";

impl<'a> CannotBeMade<'a> {
    fn new(pair: &'a Pair) -> Option<Self> {
        let point = pair.to.path().join(MOUNT_POINT);
        fs::create_dir(&point).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "none"]).arg(point).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(pair));
        }
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI mounts file systems");
        eprintln!("SKIPPED: may not mount tmpfs");
        None
    }

    fn listed(&self) -> Listed {
        dir(MOUNT_POINT)
    }
}

impl Drop for CannotBeMade<'_> {
    fn drop(&mut self) {
        let point = self.0.to.path().join(MOUNT_POINT);
        let _ = std::process::Command::new("umount").arg(point).status();
    }
}

#[test]
fn directories_below_one_that_cannot_be_made_are_charged() {
    let pair = Pair::new();
    let Some(above) = CannotBeMade::new(&pair) else { return };
    let script = vec![
        unsolicited(0, 1, vec![above.listed()], true),
        unsolicited(1, 2, many(|n| dir(&format!("{n:06}"))), true),
        end(),
    ];
    assert_over_budget(receive_script(&pair, Options::default(), script));
}

#[test]
fn files_below_a_directory_that_cannot_be_made_are_charged() {
    let pair = Pair::new();
    let Some(above) = CannotBeMade::new(&pair) else { return };
    let script = vec![
        unsolicited(0, 1, vec![above.listed()], true),
        unsolicited(1, 2, many(|n| file(&format!("{n:06}"), 1 << 20)), true),
        end(),
    ];
    assert_over_budget(receive_script(&pair, Options::default(), script));
}

#[test]
fn first_links_are_charged() {
    let pair = Pair::new();
    let first =
        |n| Listed { link: Some(EntryId(n + 1)), ..listed(&format!("{n:06}"), FileKind::Fifo, 0) };
    let script = vec![unsolicited(0, 1, many(first), true), end()];
    assert_over_budget(receive_script(&pair, Options::default(), script));
}

#[test]
fn names_to_be_removed_are_charged() {
    let pair = Pair::new();
    fill(pair.to.path());
    write(pair.from.path(), "kept", b"");
    let (sent, received) = sync_between(&pair, delete(), context(20), little());
    assert_over_budget(received);
    assert_peer_hears_22(sent);
    let is_left = |n: &u64| pair.to.path().join(format!("{n:06}")).exists();
    assert_eq!((0..MANY).filter(is_left).count() as u64, MANY, "none was removed");
}

#[test]
fn links_of_which_one_name_is_outside_are_charged_at_the_sender() {
    let pair = Pair::new();
    fill(pair.from.path());
    fs::create_dir(pair.from.path().join("left out")).unwrap();
    for n in 0..MANY {
        let at = |directory: &str| pair.from.path().join(directory).join(format!("{n:06}"));
        fs::hard_link(at(""), at("left out")).unwrap();
    }
    let rule = FilterRule { action: FilterAction::Exclude, pattern: "left out".into() };
    let options = Options { filters: vec![rule], ..Options::default() };
    let (sent, received) = sync_between(&pair, options, little(), context(20));
    assert_over_budget(sent);
    assert_peer_hears_22(received);
}

#[test]
fn directories_that_wait_for_the_walk_are_charged_at_the_sender() {
    let pair = Pair::new();
    for n in 0..MANY {
        fs::create_dir(pair.from.path().join(format!("{n:06}"))).unwrap();
    }
    let (sent, received) = sync_between(&pair, Options::default(), little(), context(20));
    assert_over_budget(sent);
    assert_peer_hears_22(received);
}

/// A receiver that says of every file that it may want it later.
#[test]
fn files_that_the_receiver_puts_off_are_charged_at_the_sender() {
    let pair = Pair::new();
    for n in 0..MANY {
        let file = fs::File::create(pair.from.path().join(format!("{n:06}"))).unwrap();
        file.set_len(1 << 20).unwrap();
    }
    write(pair.to.path(), "old", b"old");
    let (sent, received) = sync_between(&pair, delete(), little(), context(20));
    assert_over_budget(sent);
    assert_peer_hears_22(received);
}

/// What is kept for a while and given back does not add up.
#[test]
fn a_tree_of_any_size_passes_where_little_of_it_waits() {
    let pair = Pair::new();
    for directory in 0..40 {
        for n in 0..100 {
            write(pair.from.path(), &format!("{directory:02}/{n:02}"), b"content");
        }
        symlink("target", pair.from.path().join(format!("{directory:02}/link"))).unwrap();
    }
    for _ in 0..2 {
        let (sent, received) = sync_between(&pair, delete(), little(), little());
        assert_eq!(sent.unwrap().exit_code, 0);
        assert!(received.unwrap().acknowledged);
    }
    assert_eq!(pair.differences(), [""; 0]);
}

fn fill(root: &Path) {
    for n in 0..MANY {
        write(root, &format!("{n:06}"), b"");
    }
}

/// Sends `listing`, waits for its plan, sends `script` at once and drops the stream after the receiver's end.
fn receive_burst(pair: &Pair, listing: ToReceiver, script: Vec<ToReceiver>) -> Result<Received> {
    block_on(async {
        let (mut a, b) = tokio::io::duplex(8 << 20);
        let sender = async {
            handshake::open(&mut a, hello(Options::default(), 20)).await.unwrap();
            a.write_all(&root().encode().head).await.unwrap();
            a.write_all(&listing.encode().head).await.unwrap();
            hear(&mut a, &mut BytesMut::new(), is_plan).await;
            for message in script {
                let frame = message.encode();
                let bytes = [&frame.head[..], &frame.payload[..]].concat();
                if a.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = a.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(sender, receive(b, pair.to.path(), little())).1
    })
}

/// A piece here and there keeps a checksum for each stretch of the file.
#[test]
fn pieces_of_a_large_file_are_charged() {
    let pair = Pair::new();
    write(pair.to.path(), "old", b"old");
    let piece = |n| ToReceiver::Data(EntryId(1), n << 26, Bytes::from_static(b"x"));
    let listing = listing(0, 1, vec![file("new", 1 << 46)]);
    assert_over_budget(receive_burst(&pair, listing, (0..2 * MANY).map(piece).collect()));
}

/// Hashes of a basis are kept until the file ends, which a sender may put off.
#[test]
fn hashes_of_a_basis_are_charged() {
    let pair = Pair::new();
    let basis = fs::File::create(pair.to.path().join("large")).unwrap();
    basis.set_len(BUDGET / 16 * (64 << 10)).unwrap();
    let listing = listing(0, 1, vec![file("large", 1 << 20)]);
    assert_over_budget(receive_burst(&pair, listing, Vec::new()));
}

/// As for a basis, of what is written here and there.
#[test]
fn patches_here_and_there_are_charged() {
    let pair = Pair::new();
    write(pair.to.path(), "large", &noise(1, 2 << 20));
    let patch = |n: u64| ToReceiver::Patch(EntryId(1), (n << 20) + 1, Bytes::from_static(b"x"));
    let listing = listing(0, 1, vec![file("large", 1 << 40)]);
    assert_over_budget(receive_burst(&pair, listing, (0..2 * MANY).map(patch).collect()));
}
