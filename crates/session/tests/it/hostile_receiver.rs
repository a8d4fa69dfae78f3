//! A real sender against receivers that break the rules: it ends with a clean error, in time.

use std::time::Duration;

use session::{Context, Error, Result, Summary, handshake};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use wire::{
    Commit, EntryId, Opening, Options, Plan, Reply, ToReceiver, ToSender, VERSION, Want,
    WeakStrong, Welcome,
};

use super::support::*;

/// Agrees to a session, answers the first listing with `script`, and reads on.
async fn play(mut stream: DuplexStream, script: Vec<ToSender>) {
    act(&mut stream, script).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await;
}

async fn act(stream: &mut DuplexStream, script: Vec<ToSender>) {
    act_after(stream, || {}, script).await;
}

/// As [`act`]; `meanwhile` is called before the script begins.
async fn act_after(stream: &mut DuplexStream, meanwhile: impl FnOnce(), script: Vec<ToSender>) {
    let Opening::Hello(_) = handshake::read_opening(stream).await.unwrap() else { return };
    let welcome = Welcome {
        version: VERSION,
        nonce: [0; 32],
        session: [0; 16],
        fresh: false,
        window: 4 << 20,
        streams: 1,
        losses: Vec::new(),
    };
    handshake::reply(stream, &Reply::Welcome(Box::new(welcome))).await.unwrap();
    let mut input = bytes::BytesMut::new();
    // Both listings and their end, or whatever comes first.
    let listed = async {
        while stream.read_buf(&mut input).await.unwrap_or(0) > 0 {
            while let Ok(Some(frame)) = wire::Frame::take(&mut input, 1 << 21) {
                if matches!(ToReceiver::decode(frame), Ok(ToReceiver::EndOfListing(_))) {
                    return;
                }
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), listed).await;
    meanwhile();
    for message in script {
        let frame = message.encode();
        if stream.write_all(&frame.head).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Sends a file `large` (id 1) and a directory `sub` (id 2) with `inner` (id 3) in it.
fn against(script: Vec<ToSender>) -> Result<Summary> {
    let pair = Pair::new();
    write(pair.from.path(), "large", &noise(1, 2 << 20));
    let long = [7; 1000];
    let path = pair.from.path().join("large");
    rustix::fs::setxattr(path, "user.note", &long, rustix::fs::XattrFlags::empty()).unwrap();
    write(pair.from.path(), "sub/inner", b"inner");
    block_on(async {
        let (a, b) = tokio::io::duplex(1 << 20);
        let near = send(a, pair.from.path(), Options::default(), context(2));
        tokio::join!(near, play(b, script)).0
    })
}

fn breaks(script: Vec<ToSender>) {
    let shown = format!("{script:?}").chars().take(200).collect::<String>();
    match against(script) {
        Err(Error::Protocol(why)) => assert!(!why.contains("internal"), "{shown}: {why}"),
        Err(Error::Decode(_) | Error::Timeout(_) | Error::Delta(_)) => {}
        other => panic!("{shown}: {other:?}"),
    }
}

fn plan(first: u64, wants: Vec<(u32, Want)>) -> ToSender {
    ToSender::Plan(Plan { first, wants, ..Plan::default() })
}

const DELTA: Want = Want::Delta { basis_len: 2 << 20, segment_log2: 16 };

#[test]
fn plans_that_make_no_sense() {
    breaks(vec![plan(99, vec![])]);
    breaks(vec![plan(1, vec![]), plan(1, vec![])]);
    breaks(vec![plan(1, vec![(7, Want::Whole)])]);
    breaks(vec![plan(1, vec![(u32::MAX, Want::Whole)])]);
    breaks(vec![plan(1, vec![(1, Want::Whole)])]);
    breaks(vec![plan(1, vec![(0, Want::Whole), (0, DELTA)])]);
    breaks(vec![ToSender::Plan(Plan { first: 1, new_directories: vec![0], ..Plan::default() })]);
    breaks(vec![ToSender::Plan(Plan { first: 1, later: vec![0, 0], ..Plan::default() })]);
    // A hash stands for the attributes of entry 0 alone.
    for attributes in [vec![0, 0], vec![1], vec![7], vec![u32::MAX]] {
        breaks(vec![ToSender::Plan(Plan { first: 1, attributes, ..Plan::default() })]);
    }
    let wants = vec![(0, Want::Whole)];
    let both = Plan { first: 1, wants, attributes: vec![0], ..Plan::default() };
    breaks(vec![ToSender::Plan(both)]);
}

#[test]
fn wants_that_make_no_sense() {
    breaks(vec![ToSender::Wanted(vec![(EntryId(1), Want::Whole)])]);
    let long = Want::Delta { basis_len: 2 << 20, segment_log2: 30 };
    breaks(vec![plan(1, vec![(0, long)])]);
    let huge = Want::Delta { basis_len: 1 << 62, segment_log2: 30 };
    breaks(vec![plan(1, vec![(0, huge)])]);
}

#[test]
fn answers_that_nobody_asked_for() {
    let begun = || vec![plan(1, vec![(0, DELTA)]), plan(3, vec![])];
    for (first, hashes, last) in [(5, 3, false), (0, 0, false), (0, 33, true)] {
        let mut script = begun();
        script.push(ToSender::Signature(EntryId(1), first, vec![[0; 16]; hashes], last));
        breaks(script);
    }
    for answer in [
        ToSender::Leaves(EntryId(1), 3, vec![[0; 16]; 16]),
        ToSender::Blocks(EntryId(1), vec![WeakStrong { weak: 0, strong: [0; 16] }; 100], true),
    ] {
        let mut script = begun();
        script.push(answer);
        breaks(script);
    }
}

#[test]
fn a_search_that_is_answered_with_too_much_or_too_little() {
    for count in [8000, 1] {
        let mut script = vec![plan(1, vec![(0, DELTA)]), plan(3, vec![])];
        script.push(ToSender::Signature(EntryId(1), 0, vec![[0; 16]; 32], true));
        script.extend((0..8).map(|n| ToSender::Leaves(EntryId(1), n, Vec::new())));
        let block = WeakStrong { weak: 0, strong: [0; 16] };
        script.push(ToSender::Blocks(EntryId(1), vec![block; count], true));
        breaks(script);
    }
}

#[test]
fn more_signatures_than_the_window() {
    let signature = ToSender::Signature(EntryId(50), 0, vec![[0; 16]; 30_000], false);
    let script = vec![signature; 40];
    // Those of an unknown file are given back, so this is only bounded, not refused.
    assert!(against(script).is_err());
}

#[test]
fn a_commit_too_early_is_an_error() {
    breaks(vec![ToSender::Commit(Commit::default())]);
    breaks(vec![plan(1, vec![]), ToSender::Commit(Commit::default())]);
    breaks(vec![plan(1, vec![(0, DELTA)]), plan(3, vec![]), ToSender::Commit(Commit::default())]);
}

#[test]
fn a_commit_of_something_else_is_no_success() {
    let summary =
        against(vec![plan(1, vec![]), plan(3, vec![]), ToSender::Commit(Commit::default())])
            .unwrap();
    assert_eq!(summary.exit_code, 23);
    assert_eq!(
        summary.problems[0].what,
        "the manifests of source and destination differ: run again with --checksum"
    );
}

/// The summary where `large` vanishes once it is listed, and is asked for.
fn against_with_vanished_file(commit: Commit) -> Summary {
    let pair = Pair::new();
    write(pair.from.path(), "large", &noise(1, 2 << 20));
    write(pair.from.path(), "sub/inner", b"inner");
    let script = vec![plan(1, vec![(0, Want::Whole)]), plan(3, vec![]), ToSender::Commit(commit)];
    let remove = || std::fs::remove_file(pair.from.path().join("large")).unwrap();
    let sent = block_on(async {
        let (a, mut b) = tokio::io::duplex(1 << 20);
        let near = send(a, pair.from.path(), Options::default(), context(2));
        let far = async {
            act_after(&mut b, remove, script).await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(8), b.read_to_end(&mut rest)).await;
        };
        tokio::join!(near, far).0
    });
    sent.unwrap()
}

#[test]
fn a_vanished_file_does_not_hide_that_the_manifests_differ() {
    let summary = against_with_vanished_file(Commit::default());
    let told: Vec<_> = summary.problems.iter().map(|p| (&*p.name, p.exit_code)).collect();
    assert_eq!((summary.exit_code, told), (23, vec![("large", 24), (".", 23)]));
}

#[test]
fn a_receiver_cannot_say_that_the_source_changed() {
    let (name, what) = ("large".into(), "changed".into());
    let problem = ToSender::Problem(wire::Problem { name, what, exit_code: 24 });
    let commit = ToSender::Commit(Commit { problems: 1, ..Commit::default() });
    let summary = against(vec![plan(1, vec![]), plan(3, vec![]), problem, commit]).unwrap();
    assert_eq!(summary.exit_code, 23);
    assert!(summary.problems[1].what.contains("without listing them"), "{:?}", summary.problems);
}

/// Whether a sender is gone while the receiver still has its side open, and heard the goodbye.
fn leaves_first(relayed: bool) -> bool {
    let pair = Pair::new();
    write(pair.from.path(), "large", &noise(1, 2 << 20));
    write(pair.from.path(), "sub/inner", b"inner");
    let context = Context { relayed, ..context(2) };
    block_on(async {
        let (a, mut b) = tokio::io::duplex(1 << 20);
        let sent = tokio::spawn({
            let from = pair.from.path().to_owned();
            async move { send(a, &from, Options::default(), context).await }
        });
        let script = vec![plan(1, vec![]), plan(3, vec![]), ToSender::Commit(Commit::default())];
        act(&mut b, script).await;
        let mut last = Vec::new();
        b.read_to_end(&mut last).await.unwrap();
        let goodbye = ToReceiver::Goodbye(wire::Goodbye { exit_code: 23, differs: true }).encode();
        assert!(last.ends_with(&goodbye.head));
        // Less than the patience of a sender whose receiver never closes.
        let gone = tokio::time::timeout(Duration::from_secs(2), sent).await;
        gone.is_ok_and(|sent| sent.unwrap().is_ok())
    })
}

#[test]
fn only_a_sender_behind_a_relay_leaves_first() {
    assert!(leaves_first(true));
    assert!(!leaves_first(false));
}

#[test]
fn a_receiver_that_gives_up_is_heard() {
    let error = against(vec![ToSender::Abort(11, "no room for it".into())]).unwrap_err();
    assert_eq!(error.exit_code(), 11);
    assert!(error.to_string().contains("no room for it"));
}

#[test]
fn a_receiver_that_closes_is_never_a_success() {
    let pair = Pair::new();
    write(pair.from.path(), "a", b"a");
    let sent = block_on(async {
        let (a, mut b) = tokio::io::duplex(1 << 20);
        let far = async {
            let _ = handshake::read_opening(&mut b).await;
            drop(b);
        };
        tokio::join!(send(a, pair.from.path(), Options::default(), context(2)), far).0
    });
    assert!(matches!(sent, Err(Error::Eof | Error::Stream(_))));
}
