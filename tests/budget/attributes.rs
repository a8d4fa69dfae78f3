//! What extended attributes cost: bytes on the wire of a run that changes none, and memory.

use testkit::{Mount, TempTree, assert_same};

use super::memory::peak;
use crate::support::{copy, report};

/// The longest value that Linux stores is 64 KiB.
const VALUE: usize = 60 << 10;
const FILES: usize = 100;

/// Memory of both ends in one process, where an entry has nearly 1 MiB of attributes and two names.
const PEAK: u64 = 200 << 20;

fn value(seed: usize) -> Vec<u8> {
    vec![u8::try_from(seed % 251).unwrap(); VALUE]
}

#[test]
fn a_second_run_sends_hashes_of_unchanged_attributes() {
    let Some(mount) = Mount::tmpfs("size=100m") else { return };
    let (source, destination) = (TempTree::below(mount.path()), TempTree::below(mount.path()));
    for n in 0..FILES {
        source.file(format!("{n}"), "content").xattr(format!("{n}"), "user.note", &value(n));
    }
    copy(source.path(), destination.path(), &[]).expect(0);
    let wire = || {
        let options = ["--compress", "never"];
        let report = report(copy(source.path(), destination.path(), &options).expect(0));
        assert_same(source.path(), destination.path());
        report["wire_sent"].as_u64().unwrap() + report["wire_received"].as_u64().unwrap()
    };
    let spent = wire();
    assert!(spent < 20 << 10, "{spent} bytes for hashes");

    source.xattr("7", "user.note", &value(8)).xattr("8", "user.more", b"more");
    let spent = wire();
    assert!(
        spent < 3 * VALUE as u64 + (20 << 10),
        "{spent} bytes for two entries with other attributes"
    );
}

#[test]
fn memory_does_not_follow_the_attributes_of_hard_links() {
    const INODES: usize = 400;
    let Some(mount) = Mount::tmpfs("size=2g") else { return };
    let (source, destination) = (TempTree::below(mount.path()), TempTree::below(mount.path()));
    for n in 0..INODES {
        source.file(format!("{n} a"), "");
        for attribute in 0..16 {
            source.xattr(format!("{n} a"), &format!("user.{attribute:02}"), &value(n));
        }
        std::fs::hard_link(source.at(format!("{n} a")), source.at(format!("{n} b"))).unwrap();
    }
    for run in ["first", "second"] {
        let peak = peak(source.path(), destination.path());
        assert!(peak < PEAK, "{peak} bytes in the {run} run");
    }
    assert_same(source.path(), destination.path());
}
