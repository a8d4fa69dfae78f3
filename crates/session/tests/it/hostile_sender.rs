//! A real receiver against senders that break the rules: it ends with a clean error, in time.

use std::{fs, time::Duration};

use bytes::Bytes;
use session::{Error, Received, Result, handshake};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use wire::{
    Attributes, Content, ContentCheck, Ended, Entry, EntryId, FileKind, Goodbye, Listed, Listing,
    Metadata, Name, Options, SmallFile, Timestamp, ToReceiver,
};

use super::support::*;

/// Seconds of silence that neither end bears; far more than anything here takes.
const PATIENCE: u32 = 20;

pub(crate) fn meta(kind: FileKind, size: u64) -> Metadata {
    Metadata {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size,
        mtime: Timestamp { secs: 5, nanos: 5 },
        rdev: (0, 0),
        attributes: Attributes::default(),
        xattrs: Vec::new(),
    }
}

pub(crate) fn listed(name: &str, kind: FileKind, size: u64) -> Listed {
    let name = Name::new(name.as_bytes()).unwrap();
    let entry = Entry { name, meta: meta(kind, size), target: Box::default() };
    Listed { entry, link: None, mount: false, xattr_hash: None, content: None }
}

pub(crate) fn file(name: &str, size: u64) -> Listed {
    listed(name, FileKind::File, size)
}

pub(crate) fn dir(name: &str) -> Listed {
    listed(name, FileKind::Directory, 0)
}

pub(crate) fn listing(directory: u64, first: u64, entries: Vec<Listed>) -> ToReceiver {
    let (directory, first) = (EntryId(directory), EntryId(first));
    let listing = Listing {
        directory,
        first,
        last: true,
        complete: true,
        unasked: false,
        mtime: None,
        entries,
    };
    ToReceiver::Listing(listing)
}

pub(crate) fn root() -> ToReceiver {
    ToReceiver::Root(Box::new(meta(FileKind::Directory, 0)))
}

pub(crate) fn end() -> ToReceiver {
    ToReceiver::EndOfListing(Box::new(meta(FileKind::Directory, 0)))
}

fn whole(id: u64, frames: u64, size: u64) -> ToReceiver {
    let check = ContentCheck::Checksum(0);
    let ended = Ended::Whole(Box::new(meta(FileKind::File, size)), check);
    ToReceiver::EndOfFile(EntryId(id), frames, ended)
}

/// The end of a file that is made from a basis.
fn patched(id: u64, frames: u64, size: u64) -> ToReceiver {
    let check = ContentCheck::Digest([0; 32]);
    let ended = Ended::Whole(Box::new(meta(FileKind::File, size)), check);
    ToReceiver::EndOfFile(EntryId(id), frames, ended)
}

fn data(id: u64, offset: u64, len: usize) -> ToReceiver {
    ToReceiver::Data(EntryId(id), offset, Bytes::from(vec![1; len]))
}

fn patch(id: u64, offset: u64, len: usize) -> ToReceiver {
    ToReceiver::Patch(EntryId(id), offset, Bytes::from(vec![1; len]))
}

pub(crate) async fn play(mut stream: DuplexStream, options: Options, script: Vec<ToReceiver>) {
    handshake::open(&mut stream, hello(options, PATIENCE)).await.unwrap();
    let mut answers = bytes::BytesMut::new();
    for message in std::iter::once(root()).chain(script) {
        let frame = message.encode();
        let bytes = [&frame.head[..], &frame.payload[..]].concat();
        if stream.write_all(&bytes).await.is_err() {
            break;
        }
        // Room for the receiver to come to each message by itself: content of a file that it has not come to is refused.
        tokio::time::sleep(Duration::from_millis(3)).await;
        if matches!(message, ToReceiver::Listing(_)) {
            let planned = hear(&mut stream, &mut answers, is_plan);
            let _ = tokio::time::timeout(Duration::from_millis(100), planned).await;
        }
    }
    // Up to its commit record or its end.
    let verdict = hear(&mut stream, &mut answers, is_commit);
    let _ = tokio::time::timeout(Duration::from_secs(PATIENCE.into()), verdict).await;
}

pub(crate) fn is_plan(message: &wire::ToSender) -> bool {
    matches!(message, wire::ToSender::Plan(_))
}

fn is_commit(message: &wire::ToSender) -> bool {
    matches!(message, wire::ToSender::Commit(_))
}

/// Listens up to a message of a kind, or to the end; `answers` holds what was heard beyond.
pub(crate) async fn hear(
    stream: &mut DuplexStream,
    answers: &mut bytes::BytesMut,
    wanted: fn(&wire::ToSender) -> bool,
) {
    loop {
        while let Ok(Some(frame)) = wire::Frame::take(answers, 1 << 21) {
            if wire::ToSender::decode(frame).is_ok_and(|message| wanted(&message)) {
                return;
            }
        }
        if stream.read_buf(answers).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// Plays `script` to a receiver whose volume holds the file `old`, the large file `large` and the
/// directory `sub`.
pub(crate) fn against(options: Options, script: Vec<ToReceiver>) -> (Pair, Result<Received>) {
    against_for(PATIENCE, options, script)
}

/// As [`against`], with a receiver that bears `seconds` of silence.
fn against_for(
    seconds: u32,
    options: Options,
    script: Vec<ToReceiver>,
) -> (Pair, Result<Received>) {
    let pair = Pair::new();
    write(pair.to.path(), "old", b"old");
    write(pair.to.path(), "large", &noise(1, 2 << 20));
    write(pair.to.path(), "sub/inner", b"inner");
    let received = block_on(async {
        let (a, b) = tokio::io::duplex(1 << 20);
        let receiver = receive(b, pair.to.path(), context(seconds));
        tokio::join!(play(a, options, script), receiver).1
    });
    (pair, received)
}

/// As [`against`], for scripts with content, which do not wait until the receiver asks for it: where the content came before
/// that, they are played again.
fn against_asked(options: &Options, script: &[ToReceiver]) -> (Pair, Received) {
    for _ in 0..50 {
        match against(options.clone(), script.to_vec()) {
            (_, Err(Error::Protocol("content that was not requested"))) => {}
            (pair, received) => return (pair, received.unwrap()),
        }
    }
    panic!("the content is never asked for");
}

pub(crate) fn breaks(script: Vec<ToReceiver>) {
    let shown: Vec<_> =
        script.iter().map(|m| format!("{m:?}").chars().take(80).collect::<String>()).collect();
    // Some of these leave the receiver waiting for what never comes.
    let (_, received) = against_for(2, Options { allow_empty: true, ..delete() }, script);
    match received {
        Err(Error::Protocol(why)) => assert!(!why.contains("internal"), "{shown:?}: {why}"),
        Err(Error::Decode(_) | Error::Timeout(_)) => {}
        other => panic!("{shown:?}: {:?}", other.map(|r| r.acknowledged)),
    }
}

#[test]
fn listings_that_make_no_sense() {
    breaks(vec![listing(0, 1, vec![file("b", 1), file("a", 1)]), end()]);
    breaks(vec![listing(0, 1, vec![file("a", 1), file("a", 1)]), end()]);
    breaks(vec![listing(7, 1, vec![file("a", 1)]), end()]);
    breaks(vec![end()]);
    breaks(vec![listing(0, 1, vec![dir("d")]), end()]);
    breaks(vec![end(), end()]);
    breaks(vec![root(), listing(0, 1, vec![]), end()]);
    breaks(vec![listing(0, 1, vec![]), listing(0, 1, vec![file("a", 0)]), end()]);
    breaks(vec![listing(0, 1, vec![file("huge", i64::MAX as u64)]), end()]);
    let far = Listed { link: Some(EntryId(99)), ..file("a", 1) };
    breaks(vec![listing(0, 1, vec![far]), end()]);
}

#[test]
fn no_end_of_the_listing() {
    breaks(vec![listing(0, 1, vec![file("old", 3)])]);
}

#[test]
fn ids_that_are_used_twice() {
    breaks(vec![
        listing(0, 1, vec![dir("d")]),
        listing(1, 1, vec![dir("e")]),
        listing(1, 2, vec![]),
        end(),
    ]);
    breaks(vec![
        listing(0, 0x7fff, vec![file("a", 100_000), file("b", 100_000)]),
        listing(0, 0x7fff, vec![]),
        end(),
    ]);
    breaks(vec![
        listing(0, 1, vec![dir("d"), file("large", 1 << 20)]),
        listing(1, 2, vec![file("x", 100_000)]),
        end(),
        whole(2, 0, 0),
        whole(2, 0, 0),
    ]);
}

#[test]
fn content_that_nobody_asked_for() {
    breaks(vec![data(9, 0, 10), listing(0, 1, vec![]), end()]);
    breaks(vec![listing(0, 1, vec![file("new", 5)]), whole(1, 0, 5), whole(1, 0, 5), end()]);
    let small = SmallFile {
        entry: EntryId(3),
        meta: meta(FileKind::File, 1),
        content: Content { bytes: Bytes::from_static(b"x"), checksum: 0 },
    };
    breaks(vec![ToReceiver::SmallFiles(vec![small]), listing(0, 1, vec![]), end()]);
    breaks(vec![ToReceiver::Goodbye(Goodbye { exit_code: 0, differs: false })]);
}

/// It does not have the receiver wait for ever for what was asked for.
#[test]
fn content_of_an_entry_that_there_is_not_beside_content_that_is_to_come() {
    let script = vec![listing(0, 1, vec![file("new", 5)]), data(9, 0, 10), end()];
    let (_, received) = against(delete(), script);
    assert!(matches!(received, Err(Error::Protocol("content that was not requested"))));
}

/// A byte now and then is no sign of life.
#[test]
fn a_frame_that_drips_is_silence() {
    let pair = Pair::new();
    let drip = async |mut stream: DuplexStream| {
        handshake::open(&mut stream, hello(Options::default(), 1)).await.unwrap();
        stream.write_all(&[0, 0, 16, 0, 19]).await.unwrap();
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let received = block_on(async {
        let (a, b) = tokio::io::duplex(1 << 20);
        let receiver =
            tokio::time::timeout(Duration::from_secs(10), receive(b, pair.to.path(), context(1)));
        tokio::select! { received = receiver => received, () = drip(a) => unreachable!() }
    });
    assert!(matches!(received, Ok(Err(Error::Timeout(1)))), "{:?}", received.map(Result::err));
}

#[test]
fn content_of_the_wrong_kind_or_place() {
    let asked = || listing(0, 1, vec![file("large", 3 << 20), file("new", 200_000)]);
    for message in [
        data(1, 0, 10),
        patch(2, 0, 10),
        ToReceiver::Rebuild(EntryId(1), 1 << 40),
        ToReceiver::Rebuild(EntryId(2), 0),
        ToReceiver::Copy(EntryId(1), 0, 0, 10),
        ToReceiver::LeafRequest(EntryId(1), u32::MAX),
        ToReceiver::LeafRequest(EntryId(2), 0),
        ToReceiver::BlockRequest(EntryId(1), 1 << 40, 1 << 20, 4096),
        ToReceiver::BlockRequest(EntryId(2), 0, 4096, 4096),
        data(2, (64 << 20) - 65536, 1 << 20),
    ] {
        breaks(vec![asked(), message, end()]);
    }
    breaks(vec![asked(), data(2, 65536, 10), data(2, 0, 10), end()]);
    breaks(vec![asked(), data(2, 0, 10), data(2, 9, 10), end()]);
    let rebuild = || ToReceiver::Rebuild(EntryId(1), 1 << 20);
    breaks(vec![asked(), rebuild(), rebuild(), end()]);
    breaks(vec![asked(), rebuild(), ToReceiver::Copy(EntryId(1), 0, 1 << 40, 10), end()]);
    // Pieces follow each other, and none takes long to hash.
    let copy = |at, from, len| ToReceiver::Copy(EntryId(1), at, from, len);
    breaks(vec![asked(), rebuild(), copy(2 << 20, 1 << 20, 65536), end()]);
    breaks(vec![asked(), rebuild(), copy(1 << 20, (1 << 20) + 1, (256 << 10) + 1), end()]);
    breaks(vec![asked(), ToReceiver::Rebuild(EntryId(1), 1000), end()]);
    breaks(vec![asked(), copy(0, 0, 65536), end()]);
    breaks(vec![asked(), data(2, 0, 10), data(2, 65536, 10), whole(2, 1, 200_000), end()]);
    // What comes whole has a checksum, and what is made from a basis a digest.
    breaks(vec![asked(), whole(1, 0, 3 << 20), end()]);
    breaks(vec![asked(), data(2, 0, 10), patched(2, 1, 10), end()]);
}

/// The file is named as wrong, and what stood there stays or is marked.
#[test]
fn content_that_is_not_what_its_digest_says() {
    let scripts = [
        vec![data(1, 0, 100_000), whole(1, 1, 100_000)],
        vec![data(1, 0, 100_000), whole(1, 1, 50_000)],
        vec![data(1, 1 << 40, 100), whole(1, 1, 100_000)],
        vec![whole(1, 0, 1 << 46)],
    ];
    for mut script in scripts {
        script.insert(0, listing(0, 1, vec![file("new", 100_000)]));
        script.push(end());
        let (pair, received) = against_asked(&Options::default(), &script);
        assert!(!received.acknowledged);
        assert_eq!(received.summary.exit_code, 23);
        assert!(!pair.to.path().join("new").exists());
        assert_eq!(fs::read_dir(pair.to.path()).unwrap().count(), 3, "no temporary file is left");
    }
}

#[test]
fn a_patch_that_is_not_what_its_digest_says_leaves_the_file_suspect() {
    let script = vec![
        listing(0, 1, vec![file("large", 2 << 20)]),
        patch(1, 4096, 4096),
        patched(1, 1, 2 << 20),
        end(),
    ];
    let (pair, received) = against_asked(&Options::default(), &script);
    assert_eq!(received.summary.exit_code, 23);
    let large = fs::metadata(pair.to.path().join("large")).unwrap();
    // Its content and its inode changed together, and the crash marker says that this counts.
    use std::os::unix::fs::MetadataExt;
    assert_eq!((large.mtime(), large.mtime_nsec()), (large.ctime(), large.ctime_nsec()));
    assert_eq!(fs::read_dir(pair.to.path()).unwrap().count(), 4, "the staging directory stays");
}

/// To hash what nobody sent would take hours, and to make it long would leave that to the next run.
#[test]
fn a_length_that_nobody_sent_is_not_believed() {
    let far = (1 << 46) - 4096;
    for sent in [vec![], vec![patch(1, far, 4096)], vec![ToReceiver::Hole(EntryId(1), far, 4096)]] {
        let frames = sent.len() as u64;
        let mut script = vec![listing(0, 1, vec![file("large", 1 << 46)])];
        script.extend(sent);
        script.extend([patched(1, frames, 1 << 46), end()]);
        let begun = std::time::Instant::now();
        let (_, received) = against(Options::default(), script);
        assert_eq!(received.unwrap().summary.exit_code, 23);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let (pair, _) = against(
        Options::default(),
        vec![listing(0, 1, vec![file("large", 1 << 46)]), patched(1, 0, 1 << 46), end()],
    );
    assert_eq!(fs::metadata(pair.to.path().join("large")).unwrap().len(), 2 << 20);
}

#[test]
fn holes_of_the_largest_size_take_no_time() {
    let hole = |at, end| ToReceiver::Hole(EntryId(1), at, end - at);
    let rebuild = ToReceiver::Rebuild(EntryId(1), 1 << 20);
    let scripts = [
        vec![hole(0, 1 << 46)],
        vec![
            hole(5, 1 << 45),
            patch(1, 1 << 40, 1),
            hole(1 << 40, (1 << 46) - 1),
            patch(1, (1 << 46) - 1, 1),
        ],
        vec![rebuild, hole(1 << 20, 1 << 46)],
    ];
    for sent in scripts {
        let frames = sent.len() as u64;
        let mut script = vec![listing(0, 1, vec![file("large", 1 << 46)])];
        script.extend(sent);
        script.extend([patched(1, frames, 1 << 46), end()]);
        let begun = std::time::Instant::now();
        let (_, received) = against(Options::default(), script);
        assert_eq!(received.unwrap().summary.exit_code, 23);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

/// A small file of 5 bytes whose checksum is that of `checked` as the content of the entry `id`.
fn small(checked: &[u8], id: u64) -> (Metadata, Content) {
    let bytes = Bytes::from_static(b"whole");
    let checksum = delta::Checksum::of(checked).crc() ^ id;
    (meta(FileKind::File, 5), Content { bytes, checksum })
}

#[test]
fn small_content_that_is_not_what_its_checksum_says_is_not_put_in_place() {
    // (as the content of the entry, right)
    for (checked, id, right) in [(b"whole", 1, true), (b"whale", 1, false), (b"whole", 2, false)] {
        let (meta, content) = small(checked, id);
        let asked = vec![
            listing(0, 1, vec![file("new", 5)]),
            ToReceiver::SmallFiles(vec![SmallFile {
                entry: EntryId(1),
                meta,
                content: content.clone(),
            }]),
        ];
        let mut entry = file("new", 5);
        entry.content = Some(content);
        let ToReceiver::Listing(inline) = listing(0, 1, vec![entry]) else { return };
        let inline = vec![ToReceiver::Listing(Listing { unasked: true, ..inline })];
        for mut script in [asked, inline] {
            script.push(end());
            let (pair, received) = against(Options::default(), script);
            let summary = received.unwrap().summary;
            assert_eq!(summary.exit_code, if right { 0 } else { 23 });
            assert_eq!(
                summary.problems.iter().filter(|problem| problem.name == "new").count(),
                usize::from(!right)
            );
            assert_eq!(pair.to.path().join("new").exists(), right);
        }
    }
}

#[test]
fn a_link_to_content_that_was_not_put_in_place_is_reported() {
    let (_, content) = small(b"whale", 1);
    let mut first = file("new", 5);
    (first.content, first.link) = (Some(content), Some(EntryId(1)));
    let further = Listed { link: Some(EntryId(1)), ..file("new2", 5) };
    let ToReceiver::Listing(inline) = listing(0, 1, vec![first, further]) else { return };
    let script = vec![ToReceiver::Listing(Listing { unasked: true, ..inline }), end()];
    let (pair, received) = against(Options::default(), script);
    let summary = received.unwrap().summary;
    assert_eq!((summary.exit_code, summary.problem_count), (23, 2));
    assert!(!pair.to.path().join("new2").exists());
}

fn incomplete(directory: u64, first: u64, entries: Vec<Listed>) -> ToReceiver {
    match listing(directory, first, entries) {
        ToReceiver::Listing(listing) => ToReceiver::Listing(Listing { complete: false, ..listing }),
        other => other,
    }
}

/// Whether the next session trusts size and time after the sender's judgement of what `script` did: its exit code, and
/// whether the manifests differ for no reason.
fn is_trusted_after(script: Vec<ToReceiver>, (code, differs): (u8, bool)) -> bool {
    let pair = Pair::new();
    write(pair.to.path(), "old", b"old");
    let received = block_on(async {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let sender = async {
            handshake::open(&mut a, hello(Options::default(), PATIENCE)).await.unwrap();
            let mut answers = bytes::BytesMut::new();
            for message in std::iter::once(root()).chain(script).chain([end()]) {
                a.write_all(&message.encode().head).await.unwrap();
                if matches!(&message, ToReceiver::Listing(listing) if !listing.entries.is_empty()) {
                    hear(&mut a, &mut answers, is_plan).await;
                }
            }
            hear(&mut a, &mut answers, is_commit).await;
            let goodbye = ToReceiver::Goodbye(Goodbye { exit_code: code, differs }).encode();
            a.write_all(&goodbye.head).await.unwrap();
            a.shutdown().await.unwrap();
            let _ = a.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(sender, receive(b, pair.to.path(), context(PATIENCE))).1
    });
    assert_eq!(received.unwrap().summary.exit_code, code);
    crash_marker(pair.to.path()).is_none()
}

/// What one end has named is no reason to read everything again.
#[test]
fn manifests_that_differ_for_no_reason_cast_doubt_on_everything() {
    let same = || vec![listing(0, 1, vec![file("empty", 0)])];
    assert!(is_trusted_after(same(), (0, false)));
    assert!(is_trusted_after(same(), (24, false)));
    assert!(is_trusted_after(same(), (23, false)), "named by the sender");
    assert!(!is_trusted_after(same(), (23, true)));
    let unreadable = ToReceiver::EndOfFile(EntryId(1), 0, Ended::Failed);
    assert!(is_trusted_after(vec![listing(0, 1, vec![file("new", 1)]), unreadable], (23, false)));
    assert!(is_trusted_after(vec![incomplete(0, 1, vec![])], (23, false)));
    let wrong = vec![listing(0, 1, vec![file("new", 100_000)]), whole(1, 0, 100_000)];
    assert!(is_trusted_after(wrong, (23, false)), "named by the receiver");
}

#[test]
fn an_incomplete_listing_deletes_nothing() {
    let script = vec![incomplete(0, 1, vec![dir("sub")]), incomplete(1, 2, vec![]), end()];
    let (pair, received) = against(delete(), script);
    assert_eq!(received.unwrap().summary.files_deleted, 0);
    assert!(pair.to.path().join("sub/inner").exists());
}

#[test]
fn after_no_removals_nothing_is_deleted_and_it_comes_once_and_before_the_end() {
    let listed = || listing(0, 1, vec![file("other", 0)]);
    let (pair, received) = against(delete(), vec![listed(), ToReceiver::NoRemovals, end()]);
    assert_eq!(received.unwrap().summary.files_deleted, 0);
    assert!(pair.to.path().join("sub/inner").exists());

    let twice = vec![listed(), ToReceiver::NoRemovals, ToReceiver::NoRemovals, end()];
    let late = vec![listed(), end(), ToReceiver::NoRemovals];
    for script in [twice, late] {
        let (_, received) = against(delete(), script);
        assert!(matches!(received, Err(Error::Protocol(_))), "{received:?}");
    }
}

#[test]
fn an_empty_listing_of_the_root_ends_the_session_unless_meant() {
    for options in [delete(), Options::default()] {
        let (pair, received) = against(options, vec![listing(0, 1, vec![]), end()]);
        assert!(matches!(received, Err(Error::EmptySource)), "{received:?}");
        assert!(pair.to.path().join("sub/inner").exists());
    }
}

#[test]
fn more_than_the_window_is_an_error() {
    let script = (0..40).map(|n| data(77, n << 20, 1 << 20)).collect();
    let (_, received) = against(Options::default(), script);
    assert!(matches!(received, Err(Error::Protocol("more than the window permits"))));
}

#[test]
fn small_frames_count_for_what_they_cost() {
    let script = vec![ToReceiver::Hole(EntryId(77), 0, 1); 20_000];
    let mut bytes = Vec::new();
    script.iter().for_each(|m| bytes.extend_from_slice(&m.encode().head));
    let pair = Pair::new();
    let received = block_on(async {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let flood = async {
            handshake::open(&mut a, hello(Options::default(), 2)).await.unwrap();
            let _ = a.write_all(&bytes).await;
            let mut answers = Vec::new();
            let _ = a.read_to_end(&mut answers).await;
        };
        tokio::join!(flood, receive(b, pair.to.path(), context(2))).1
    });
    assert!(matches!(received, Err(Error::Protocol("more than the window permits"))));
}

#[test]
fn the_reason_reaches_the_sender() {
    let pair = Pair::new();
    let aborted = block_on(async {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let script = async {
            handshake::open(&mut a, hello(Options::default(), 2)).await.unwrap();
            let _ = a.write_all(&[255; 100]).await;
            let mut answers = bytes::BytesMut::new();
            while a.read_buf(&mut answers).await.unwrap() > 0 {}
            let frame = wire::Frame::take(&mut answers, 1 << 20).unwrap().unwrap();
            wire::ToSender::decode(frame).unwrap()
        };
        tokio::join!(script, receive(b, pair.to.path(), context(2))).0
    });
    assert!(matches!(aborted, wire::ToSender::Abort(2, _)), "{aborted:?}");
}
