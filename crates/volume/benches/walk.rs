//! The listing and stat walk of a tree, in the order of names, against walkdir with `symlink_metadata`.
//! `cargo bench -p pvferry-volume`; throughput is in entries.
//!
//! The sides do not promise the same: ours sorts each directory and opens every one beneath its
//! parent without following links, walkdir walks by path and does not sort. Only the last line of
//! ours also asks for extended attributes, which has no counterpart in walkdir.

#![allow(missing_docs, reason = "criterion_group makes a public function")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{fs, hint::black_box, path::Path, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use volume::{
    Dir,
    list::NameList,
    stat::{ReadOptions, read_entry},
};
use walkdir::WalkDir;
use wire::FileKind;

const DIRECTORIES: u64 = 200;
const FILES: u64 = 99;
const ENTRIES: u64 = DIRECTORIES * (FILES + 1);

/// Entries of a tree and the bytes of its files: both sides must find the same.
type Found = (u64, u64);

/// A tree in memory where the machine has such a place: a disk would be measured in place of the walk.
fn tree() -> TempDir {
    let tree = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for d in 0..DIRECTORIES {
        let dir = tree.path().join(format!("directory-{d:03}"));
        fs::create_dir(&dir).unwrap();
        for f in 0..FILES {
            fs::write(dir.join(format!("file-{f:02}.dat")), "content").unwrap();
        }
    }
    tree
}

fn ours(root: &Path, options: &ReadOptions) -> Found {
    let mut found = (0, 0);
    let mut pending = vec![Dir::open_root(root).unwrap()];
    while let Some(dir) = pending.pop() {
        let names = NameList::read(&dir).unwrap();
        for index in 0..names.len() {
            let name = names.name(index).unwrap();
            let (entry, inode) = read_entry(&dir, &name, options).unwrap();
            found.0 += 1;
            match entry.meta.kind {
                FileKind::Directory => pending.push(dir.open_child(&name).unwrap()),
                _ => found.1 += inode.size,
            }
        }
    }
    found
}

fn reference(root: &Path) -> Found {
    let mut found = (0, 0);
    for entry in WalkDir::new(root).min_depth(1) {
        let metadata = fs::symlink_metadata(entry.unwrap().path()).unwrap();
        found.0 += 1;
        if !metadata.is_dir() {
            found.1 += metadata.len();
        }
    }
    found
}

fn compare(c: &mut Criterion) {
    let tree = tree();
    let plain = ReadOptions { xattrs: false, ..ReadOptions::default() };
    let expected = (ENTRIES, DIRECTORIES * FILES * "content".len() as u64);
    assert_eq!(ours(tree.path(), &plain), expected);
    assert_eq!(reference(tree.path()), expected);

    let mut group = c.benchmark_group("list and stat");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("ours", |b| b.iter(|| ours(black_box(tree.path()), &plain)));
    group.bench_function("walkdir", |b| b.iter(|| reference(black_box(tree.path()))));
    group.bench_function("ours, with extended attributes", |b| {
        b.iter(|| ours(black_box(tree.path()), &ReadOptions::default()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5))
        .warm_up_time(Duration::from_secs(1));
    targets = compare
}
criterion_main!(benches);
