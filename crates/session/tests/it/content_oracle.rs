//! A receiver that compares nothing (`serve --no-delta`) says nothing about the content of its volume: two volumes of
//! equal metadata and different content give a sender, whatever it asks, the same messages.

use std::{
    fs::File,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use session::{Policy, Target, handshake::Agreed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use wire::{
    ContentCheck, Ended, EntryId, FileKind, Listed, Options, Timestamp, ToReceiver, ToSender,
};

use super::{
    hostile_sender::{end, file, listing, meta, root},
    support::*,
};

const SMALL: usize = 1000;
const LARGE: usize = 2 << 20;
/// The modification time of every file of a volume.
const TIME: i64 = 1_700_000_000;

/// A volume whose content is of `seed`, and nothing else.
fn volume(seed: u64) -> TempDir {
    let volume = TempDir::new().unwrap();
    for (name, len) in [("gone", LARGE), ("large", LARGE), ("small", SMALL)] {
        write(volume.path(), name, &noise(seed, len));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(TIME as u64);
        File::options()
            .write(true)
            .open(volume.path().join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    volume
}

/// For an answer that must come.
const LONG: Duration = Duration::from_secs(20);
/// For answers that may come.
const QUIET: Duration = Duration::from_millis(700);

struct Link {
    stream: DuplexStream,
    bytes: BytesMut,
    heard: Vec<String>,
}

impl Link {
    /// Takes in messages up to one that is `last`, or `limit` without any.
    async fn listen(&mut self, limit: Duration, last: impl Fn(&ToSender) -> bool) {
        loop {
            while let Ok(Some(frame)) = wire::Frame::take(&mut self.bytes, 1 << 21) {
                match ToSender::decode(frame).unwrap() {
                    ToSender::Credit(_) | ToSender::Ping => {}
                    message => {
                        self.heard.push(format!("{message:?}"));
                        if last(&message) {
                            return;
                        }
                    }
                }
            }
            let read = self.stream.read_buf(&mut self.bytes);
            if !matches!(tokio::time::timeout(limit, read).await, Ok(Ok(1..))) {
                return;
            }
        }
    }
}

/// Everything that a receiver into `volume` answers to `script`, but for credit, in an order of its own.
async fn answers(
    volume: &Path,
    policy: Policy,
    options: &Options,
    script: &[ToReceiver],
    complete: bool,
) -> Vec<String> {
    let hello = wire::Hello { nonce: [1; 32], ..hello(options.clone(), 20) };
    let target = Target::open(volume, &hello).unwrap();
    let welcome = wire::Welcome { nonce: [2; 32], session: [3; 16], ..welcome(&target) };
    let agreed = Agreed::new(hello, welcome).under(policy);
    let (near, far) = tokio::io::duplex(1 << 22);
    let (_keep, joining) = tokio::sync::mpsc::channel(1);
    let receiver = session::receive(far, joining, agreed, target, context(20));
    let sender = async {
        let mut link = Link { stream: near, bytes: BytesMut::new(), heard: Vec::new() };
        for message in script {
            let frame = message.encode();
            let bytes = [&frame.head[..], &frame.payload[..]].concat();
            let _ = link.stream.write_all(&bytes).await;
            if matches!(message, ToReceiver::Listing(_)) {
                link.listen(LONG, |heard| matches!(heard, ToSender::Plan(_))).await;
            }
        }
        let last = |heard: &ToSender| matches!(heard, ToSender::Commit(_) | ToSender::Abort(..));
        // Only a source that is unchanged comes to its end without content.
        link.listen(if complete { LONG } else { QUIET }, last).await;
        link.heard.sort();
        link.heard
    };
    tokio::join!(receiver, sender).1
}

fn at(time: i64, listed: Listed) -> Listed {
    let mut listed = listed;
    listed.entry.meta.mtime = Timestamp { secs: time, nanos: 0 };
    listed.entry.meta.mode = 0o644;
    listed
}

fn scripts() -> Vec<(&'static str, Options, Vec<ToReceiver>)> {
    let delete = || Options { delete: true, ..Options::default() };
    let changed = |time| {
        listing(
            0,
            1,
            vec![at(time, file("large", LARGE as u64)), at(time, file("small", SMALL as u64))],
        )
    };
    let large = EntryId(1);
    let guess = noise(1, 4096);
    let digest = || {
        let meta = Box::new(meta(FileKind::File, LARGE as u64));
        ToReceiver::EndOfFile(large, 1, Ended::Whole(meta, ContentCheck::Digest([0; 32])))
    };
    vec![
        ("unchanged", Options::default(), vec![root(), changed(TIME), end()]),
        (
            "compared",
            Options { checksum: true, ..Options::default() },
            vec![root(), changed(TIME), end()],
        ),
        ("changed", Options::default(), vec![root(), changed(7), end()]),
        (
            "leaves",
            Options::default(),
            vec![root(), changed(7), ToReceiver::LeafRequest(large, 0), end()],
        ),
        (
            "blocks",
            Options::default(),
            vec![root(), changed(7), ToReceiver::BlockRequest(large, 0, 65_536, 1024), end()],
        ),
        (
            "patched with a guess",
            Options::default(),
            vec![
                root(),
                changed(7),
                ToReceiver::Patch(large, 0, Bytes::from(guess)),
                digest(),
                end(),
            ],
        ),
        (
            "built from a copy",
            Options::default(),
            vec![root(), changed(7), ToReceiver::Copy(large, 0, 0, LARGE as u64), digest(), end()],
        ),
        (
            "renamed",
            delete(),
            vec![root(), listing(0, 1, vec![at(TIME, file("new", LARGE as u64))]), end()],
        ),
        (
            "dry run",
            Options { dry_run: true, itemize: true, ..Options::default() },
            vec![root(), changed(7), end()],
        ),
    ]
}

/// The scripts whose answers tell two contents apart.
fn told_apart(policy: Policy) -> Vec<&'static str> {
    let mut apart = Vec::new();
    for (case, options, script) in scripts() {
        let heard = [1, 2].map(|seed| {
            let volume = volume(seed);
            block_on(answers(volume.path(), policy, &options, &script, case == "unchanged"))
        });
        if heard[0] != heard[1] {
            println!("{case}: {heard:#?}");
            apart.push(case);
        }
    }
    apart
}

#[test]
fn with_a_policy_without_delta_no_answer_depends_on_existing_content() {
    let policy = Policy { delta: false, ..Policy::UNRESTRICTED };
    assert_eq!(told_apart(policy), [""; 0]);
    // The test would notice.
    let apart = told_apart(Policy::UNRESTRICTED);
    for case in ["compared", "changed", "leaves", "blocks", "renamed"] {
        assert!(apart.contains(&case), "{case} is not in {apart:?}");
    }
}
