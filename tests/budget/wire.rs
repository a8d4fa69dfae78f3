//! Bytes on the wire and round trips of each workload of `benches/versus`, at small scale.
//!
//! Compression is off: how well content compresses says nothing about the protocol. Nothing differs from run to run but
//! the times that the file system gives, which is a byte here and there.
//!
//! Round trips are as the program reports them: one for each kind of exchange that a run came to need. That shows a workload
//! that needs a further exchange, and not a wait that should not be within one.

use serde_json::Value;
use testkit::{Content, Rng, TempTree, assert_same};

use crate::support::{copy, report};

/// The opening messages, the root, credit, the end: what a run costs that moves nothing. An end that cannot keep
/// everything says so in a sentence or two of it.
const SESSION: u64 = 600;
/// An entry in a listing: its name, which is short here, and its metadata.
const ENTRY: u64 = 28;
/// The checksum of the content of a small file, by which spoilt content is never put in place.
const CHECKSUM: u64 = 8;
/// What the receiver says of a listing frame in which it wants nothing.
const PLAN: u64 = 12;
/// The messages around a file that is not sent with its listing or with other small ones.
const FILE: u64 = 100;
/// What stands before each piece of content.
const FRAME: u64 = 24;
/// The receiver's hash of each segment that it has.
const SEGMENT: u64 = 64 << 10;
const SEGMENT_HASH: u64 = 16;
/// Request and hashes of the leaves of one segment.
const LEAVES: u64 = 280;
/// The two hashes, with their share of a frame, of each block of a basis that is searched, at the block length for 16 MiB.
const BLOCK: u64 = 8 << 10;
const BLOCK_HASHES: u64 = 21;

/// The greeting, and the commit that answers the listing.
const ROUND_TRIPS: u64 = 2;
/// What travels depends on the hashes of what is there: one more.
const ROUND_TRIPS_SIGNATURE: u64 = 3;
/// The leaves of segments that differ: one more.
const ROUND_TRIPS_LEAVES: u64 = 4;
/// The blocks of what has moved: one more.
const ROUND_TRIPS_SEARCH: u64 = 5;

const MIB: usize = 1 << 20;

/// What a run may cost.
#[derive(Debug)]
struct Budget {
    sent: u64,
    received: u64,
    round_trips: u64,
}

/// Copies `source` to `destination` and holds the run against its budget.
#[track_caller]
fn within(budget: &Budget, source: &TempTree, destination: &TempTree, options: &[&str]) -> Value {
    let options = [&["--compress", "never"], options].concat();
    let report = report(copy(source.path(), destination.path(), &options).expect(0));
    assert_same(source.path(), destination.path());
    let spent = Budget {
        sent: report["wire_sent"].as_u64().unwrap(),
        received: report["wire_received"].as_u64().unwrap(),
        round_trips: report["round_trips"].as_u64().unwrap(),
    };
    assert!(
        spent.sent <= budget.sent
            && spent.received <= budget.received
            && spent.round_trips <= budget.round_trips,
        "{spent:?} is over {budget:?}: {report}"
    );
    report
}

#[test]
fn first_copy_of_small_files_and_a_second_run() {
    const DIRECTORIES: u64 = 20;
    const FILES: u64 = 100;
    const ENTRIES: u64 = DIRECTORIES * (FILES + 1);
    let (source, destination) = (TempTree::new(), TempTree::new());
    let mut content = 0;
    for d in 0..DIRECTORIES {
        for f in 0..FILES {
            let size = 100 + (d * FILES + f) * 7 % 8900;
            content += size;
            let size = usize::try_from(size).unwrap();
            source.file(format!("dir{d:02}/file{f:02}"), Content::random(d * FILES + f, size));
        }
    }
    let first = Budget {
        sent: content + ENTRIES * ENTRY + DIRECTORIES * FILES * CHECKSUM + SESSION,
        received: SESSION,
        round_trips: ROUND_TRIPS,
    };
    within(&first, &source, &destination, &["--delete"]);

    let again = Budget {
        sent: ENTRIES * ENTRY + SESSION,
        received: (DIRECTORIES + 1) * PLAN + SESSION,
        round_trips: ROUND_TRIPS,
    };
    within(&again, &source, &destination, &["--delete"]);
}

#[test]
fn rewritten_pages() {
    const SIZE: usize = 32 * MIB;
    const PAGE: usize = 8 << 10;
    const DIRTY: usize = SIZE / 100;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let mut content = Content::random(1, SIZE);
    destination.file("f", content.clone());
    let mut rng = Rng::new(2);
    // One page in each hundred, somewhere in it.
    for hundred in 0..DIRTY / PAGE {
        let page = hundred * 100 + usize::try_from(rng.below(100)).unwrap();
        content = content.overwrite(page * PAGE, &rng.bytes(PAGE));
    }
    source.file("f", content);
    let dirty = (DIRTY / PAGE * PAGE) as u64;
    let budget = Budget {
        // Pages lie on leaves, so that nothing clean goes along.
        sent: dirty * 21 / 20 + SESSION,
        received: SIZE as u64 / SEGMENT * SEGMENT_HASH + dirty / PAGE as u64 * LEAVES + SESSION,
        round_trips: ROUND_TRIPS_LEAVES,
    };
    within(&budget, &source, &destination, &[]);
}

#[test]
fn an_append() {
    const OLD: usize = 16 * MIB;
    const NEW: usize = MIB;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let content = Content::random(1, OLD);
    destination.file("f", content.clone());
    source.file("f", content.overwrite(OLD, &Rng::new(2).bytes(NEW)));
    let budget = Budget {
        sent: NEW as u64 + 16 * FRAME + FILE + SESSION,
        received: OLD as u64 / SEGMENT * SEGMENT_HASH + SESSION,
        round_trips: ROUND_TRIPS_SIGNATURE,
    };
    within(&budget, &source, &destination, &[]);
}

#[test]
fn insertions_that_move_everything_behind_them() {
    const SIZE: usize = 16 * MIB;
    const INSERTIONS: usize = 10;
    // The blocks around each, and its share of the segments that go before the search begins.
    const INSERTION: u64 = 22 << 10;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let mut content = Content::random(1, SIZE);
    destination.file("f", content.clone());
    let mut rng = Rng::new(2);
    for n in 0..INSERTIONS {
        content = content.insert(n * SIZE / INSERTIONS + 4321, &rng.bytes(100));
    }
    source.file("f", content);
    let basis = SIZE as u64;
    let budget = Budget {
        sent: INSERTIONS as u64 * INSERTION + SESSION,
        received: basis / SEGMENT * SEGMENT_HASH + basis / BLOCK * BLOCK_HASHES + SESSION,
        round_trips: ROUND_TRIPS_SEARCH,
    };
    within(&budget, &source, &destination, &[]);
}

#[test]
fn a_sparse_file() {
    const APPARENT: u64 = 1 << 30;
    const PIECES: u64 = 8;
    const PIECE: usize = 256 << 10;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let bytes = Rng::new(1).bytes(PIECE);
    let pieces: Vec<_> = (0..PIECES).map(|n| (n * (APPARENT / PIECES), &bytes[..])).collect();
    source.sparse("f", APPARENT, &pieces);
    let budget = Budget {
        sent: PIECES * (PIECE as u64 + FRAME) + FILE + SESSION,
        received: SESSION,
        round_trips: ROUND_TRIPS,
    };
    within(&budget, &source, &destination, &[]);
}

#[test]
fn a_renamed_directory_of_large_files() {
    const FILES: u64 = 8;
    const SIZE: usize = 4 * MIB;
    let (source, destination) = (TempTree::new(), TempTree::new());
    for n in 0..FILES {
        source.file(format!("before/file{n}"), Content::random(n, SIZE));
    }
    copy(source.path(), destination.path(), &[]).expect(0);
    source.rename("before", "after");
    let budget = Budget {
        sent: FILES * FILE + SESSION,
        // By these hashes the sender sees that they are the same files.
        received: FILES * (SIZE as u64 / SEGMENT * SEGMENT_HASH + FILE) + SESSION,
        round_trips: ROUND_TRIPS_SIGNATURE,
    };
    within(&budget, &source, &destination, &["--delete"]);
}
