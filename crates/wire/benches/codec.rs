//! Both sides of the codec: what it costs to encode the messages that a transfer consists of, and to
//! decode them from a frame. `cargo bench -p pvferry-wire`.
//!
//! Content is neither copied nor looked at by either side, so the figure for data is the cost of a
//! frame, whatever its length.

#![allow(missing_docs, reason = "criterion_group makes a public function")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wire::{
    Attributes, Entry, EntryId, FileKind, Frame, Listed, Listing, Metadata, Name, OutFrame, Plan,
    Timestamp, ToReceiver, ToSender, Want, limits::MAX_FRAME,
};

const ENTRIES: u32 = 1000;
const DATA: usize = 256 << 10;

/// A directory as volumes have them: names that resemble each other, owners and times that differ little.
fn listing() -> ToReceiver {
    let entries = (0..ENTRIES).map(|n| Listed {
        entry: Entry {
            name: Name::new(format!("segment-{n:06}.dat").as_bytes()).unwrap(),
            meta: Metadata {
                kind: FileKind::File,
                mode: 0o640,
                uid: 1001,
                gid: 1001,
                size: u64::from(n) * 37,
                mtime: Timestamp { secs: 1_700_000_000 + i64::from(n), nanos: n * 12_345 },
                rdev: (0, 0),
                attributes: Attributes::default(),
                xattrs: Vec::new(),
            },
            target: Box::default(),
        },
        link: None,
        mount: false,
        xattr_hash: None,
        content: None,
    });
    ToReceiver::Listing(Listing {
        directory: EntryId(7),
        first: EntryId(100_000),
        last: true,
        complete: true,
        unasked: false,
        mtime: None,
        entries: entries.collect(),
    })
}

/// Every fourth file is new, every fourth has changed, the others are as they were.
fn plan() -> ToSender {
    let wants = (0..ENTRIES).filter_map(|n| match n % 4 {
        0 => Some((n, Want::Whole)),
        1 => Some((n, Want::Delta { basis_len: u64::from(n) << 20, segment_log2: 16 })),
        _ => None,
    });
    let (new_directories, later) = (Vec::new(), Vec::new());
    ToSender::Plan(Plan {
        first: 100_000,
        new_directories,
        wants: wants.collect(),
        later,
        attributes: Vec::new(),
    })
}

/// The frame as the other end takes it from its stream.
fn received(frame: &OutFrame) -> Frame {
    let mut stream = BytesMut::from(&[&frame.head[..], &frame.payload[..]].concat()[..]);
    Frame::take(&mut stream, MAX_FRAME).unwrap().unwrap()
}

/// One group: `encode` and `decode` of a message, which must be each other's inverse.
fn both<M: PartialEq + std::fmt::Debug>(
    c: &mut Criterion,
    name: &str,
    throughput: Throughput,
    message: &M,
    encode: impl Fn(&M) -> OutFrame,
    decode: impl Fn(Frame) -> M,
) {
    let frame = received(&encode(message));
    assert_eq!(&decode(frame.clone()), message);

    let mut group = c.benchmark_group(name);
    group.throughput(throughput);
    group.bench_function("encode", |b| b.iter(|| encode(black_box(message))));
    group.bench_function("decode", |b| b.iter(|| decode(black_box(&frame).clone())));
    group.finish();
}

fn codec(c: &mut Criterion) {
    let entries = Throughput::Elements(ENTRIES.into());
    let to_receiver = |frame| ToReceiver::decode(frame).unwrap();
    let to_sender = |frame| ToSender::decode(frame).unwrap();
    let data = ToReceiver::Data(EntryId(7), 5 << 30, Bytes::from(vec![0x5a; DATA]));

    both(
        c,
        "listing of 1000 entries",
        entries.clone(),
        &listing(),
        ToReceiver::encode,
        to_receiver,
    );
    both(c, "data of 256 KiB", Throughput::Elements(1), &data, ToReceiver::encode, to_receiver);
    both(c, "plan for 1000 entries", entries, &plan(), ToSender::encode, to_sender);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    targets = codec
}
criterion_main!(benches);
