//! Block devices, on loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use common::{Repo, loop_device::Loop};
use testkit::{Content, TempTree};

const SIZE: usize = 40 << 20;

/// Random bytes around zeros, and zeros at the end.
fn content() -> Content {
    Content::random(1, SIZE)
        .overwrite(9 << 20, &vec![0; 16 << 20])
        .overwrite(SIZE - (3 << 20), &vec![0; 3 << 20])
}

#[test]
fn device_is_restored_onto_an_equal_and_a_larger_device() {
    let content = content();
    let larger = Content::random(2, SIZE + (1 << 20));
    let (Some(source), Some(equal), Some(large)) =
        (Loop::new(&content), Loop::new(&Content::random(3, SIZE)), Loop::new(&larger))
    else {
        return;
    };
    let repo = Repo::local();
    let backup = repo.backup(source.path(), 0);
    assert_eq!(backup["outcome"], "completed");
    assert_eq!((&backup["entries"], &backup["bytes_total"]), (&1.into(), &SIZE.into()));
    let restored = repo.restore(equal.path(), 0);
    assert_eq!(restored["bytes_total"], SIZE);
    assert!(equal.content() == content.bytes(), "the devices differ");
    repo.restore(large.path(), 0);
    assert!(large.content()[..SIZE] == *content.bytes(), "the devices differ");
    assert!(large.content()[SIZE..] == larger.bytes()[SIZE..], "the rest was changed");
}

#[test]
fn unchanged_device_is_read_again_and_stored_once() {
    let (Some(source), repo) = (Loop::new(&content()), Repo::local()) else { return };
    let first = repo.backup(source.path(), 0);
    // Zeros are stored once: less than the bytes that are not zeros, and a little.
    assert!(first["wire_sent"].as_u64().unwrap() < 23 << 20, "{first}");
    let second = repo.backup(source.path(), 0);
    assert_eq!(second["bytes_literal"], SIZE);
    assert!(second["wire_sent"].as_u64().unwrap() < 1 << 20, "{second}");
}

#[test]
fn smaller_device_is_refused_and_not_written() {
    let before = Content::random(4, SIZE - 4096);
    let (Some(source), Some(small)) = (Loop::new(&content()), Loop::new(&before)) else { return };
    let repo = Repo::local();
    repo.backup(source.path(), 0);
    let refused = repo.restore(small.path(), 3);
    assert!(refused["reason"].as_str().unwrap().contains("too small"), "{refused}");
    assert!(small.content() == before.bytes(), "the device was written");
}

#[test]
fn device_that_is_in_use_is_refused_as_source_and_as_destination() {
    use std::os::unix::fs::OpenOptionsExt as _;
    const O_EXCL: i32 = 0o200;
    let (Some(source), Some(busy)) = (Loop::new(&content()), Loop::new(&content())) else { return };
    let repo = Repo::local();
    repo.backup(source.path(), 0);
    // As a mount does.
    let user = File::options().read(true).custom_flags(O_EXCL).open(busy.path()).unwrap();
    for refused in [repo.restore(busy.path(), 3), repo.backup(busy.path(), 3)] {
        assert!(refused["reason"].as_str().unwrap().contains("in use"), "{refused}");
    }
    drop(user);
    repo.restore(busy.path(), 0);
}

#[test]
fn device_into_a_directory_and_directory_onto_a_device_are_refused() {
    let Some(device) = Loop::new(&content()) else { return };
    let (repo, source, destination) = (Repo::local(), TempTree::new(), TempTree::new());
    source.file("d/image", Content::random(5, 1 << 20));
    repo.backup(source.path(), 0);
    let refused = repo.restore(device.path(), 3);
    assert!(refused["reason"].as_str().unwrap().contains("is not a file"), "{refused}");
    assert!(device.content() == content().bytes(), "the device was written");
    repo.backup(device.path(), 0);
    let refused = repo.restore(destination.path(), 3);
    assert!(refused["reason"].as_str().unwrap().contains("is not a directory"), "{refused}");
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0);
    // A directory under the path of a device is stored as one.
    repo.backup(source.path(), 0);
    repo.restore(destination.path(), 0);
    assert!(destination.at("d/image").exists());
}

#[test]
fn file_of_a_directory_is_restored_onto_a_device() {
    let image = Content::random(5, 5 << 20);
    let Some(device) = Loop::new(&Content::random(6, 5 << 20)) else { return };
    let (repo, source) = (Repo::local(), TempTree::new());
    source.file("d/image", image.clone());
    repo.backup(source.path(), 0);
    let path = device.path().to_str().unwrap();
    repo.mover(["restore", "latest:/data/d/image", path]).expect(0);
    assert!(device.content() == image.bytes(), "the device differs");
}

#[test]
fn device_that_cannot_be_read_to_its_end_leaves_no_snapshot() {
    let Some(source) = Loop::new(&content()) else { return };
    let repo = Repo::local();
    source.cut(30 << 20);
    let failed = repo.backup(source.path(), 11);
    assert!(failed["reason"].as_str().unwrap().contains("read"), "{failed}");
    assert_eq!(repo.mover(["snapshots", "--json"]).expect(0).stdout.trim(), "[]");
}

#[test]
fn device_with_a_damaged_blob_is_partial_and_the_rest_is_restored() {
    let content = content();
    let (Some(source), Some(target)) = (Loop::new(&content), Loop::new(&Content::random(3, SIZE)))
    else {
        return;
    };
    let repo = Repo::local();
    repo.backup(source.path(), 0);
    let list = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let packs = list(repo.path().join("data")).flat_map(list);
    let damaged = packs.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[5000] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let restored = repo.restore(target.path(), 23);
    let what = restored["errors"][0]["what"].as_str().unwrap();
    assert!(what.contains("from byte"), "{restored}");
    let (have, want) = (target.content(), content.bytes());
    let equal = have.chunks(1 << 20).zip(want.chunks(1 << 20)).filter(|(a, b)| a == b).count();
    assert!((20..40).contains(&equal), "{equal} of 40 MiB are equal");
}

#[test]
fn device_that_does_not_keep_what_was_written_is_reported() {
    let (Some(source), Some(target)) =
        (Loop::new(&content()), Loop::new(&Content::random(3, SIZE)))
    else {
        return;
    };
    let repo = Repo::local();
    repo.backup(source.path(), 0);
    let (image, over) = (target.image(), AtomicBool::new(false));
    let restored = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                image.write_all_at(&[7; 4096], 2 << 20).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let restored = repo.mover(["restore", "latest", target.path().to_str().unwrap(), "--json"]);
        over.store(true, Relaxed);
        common::report(restored.expect(23))
    });
    assert!(restored["reason"].as_str().unwrap().contains("other content"), "{restored}");
}

#[test]
fn exclude_is_refused_for_a_device() {
    let Some(source) = Loop::new(&content()) else { return };
    let repo = Repo::local();
    let path = source.path().to_str().unwrap();
    let arguments = ["backup", path, "--host", "h", "--path", "/data", "--exclude", "a"];
    let refused = repo.mover(arguments);
    assert!(refused.expect(1).stderr.contains("--exclude"), "{refused:?}");
}
