use std::{
    collections::HashSet,
    fs::{self, File},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::io::Errno;
use volume::{
    digest::{DigestOptions, tree_digest},
    filter::{Action, FilterRules},
    stat::ReadOptions,
    xattr::{self, MAX_VALUE, XattrTarget},
};

use super::{
    sample::{Sample, another_time, spoils},
    support::{Chain, Mount, digest, digest_with, in_memory, name, root, run},
};

/// The digest of the sample: an encoding that changes gets a context of its own.
const GOLDEN: &str = "f1a258aef23abdd3685b3758ce31de9d8a9d1de12e3933e8f5cbba4ff6832f32";

#[test]
fn a_copy_has_the_same_digest_and_every_spoil_another() {
    let a = Sample::new();
    let original = digest(a.path());
    assert_eq!(blake3::Hash::from(original).to_hex().as_str(), GOLDEN);
    let mut seen = HashSet::from([original]);
    for spoil in spoils() {
        let b = a.copy();
        assert_eq!(digest(b.path()), original);
        spoil.apply(b.path());
        assert!(seen.insert(digest(b.path())), "{}", spoil.what);
    }
    let b = a.copy();
    run("chattr", &["+a"], &b.path().join("file"));
    let flagged = digest(b.path());
    run("chattr", &["-a"], &b.path().join("file"));
    assert!(seen.insert(flagged));
}

#[test]
fn names_outside_the_tree_do_not_count() {
    let a = Sample::new();
    let original = digest(a.path());
    let outside = tempfile::tempdir().unwrap();
    fs::hard_link(a.path().join("file"), outside.path().join("also")).unwrap();
    assert_eq!(digest(a.path()), original);
}

#[test]
fn any_number_of_threads_counts_the_same_and_tells_its_progress() {
    let a = Sample::new();
    for i in 0..6000 {
        fs::write(a.path().join(format!("empty/{i}")), format!("{i}")).unwrap();
    }
    let none = FilterRules::default();
    let one = digest_with(a.path(), 1, &none);
    assert_eq!((one.files, one.dirs, one.failed), (6000 + 12, 5, 0));
    assert_eq!(one, digest_with(a.path(), 4, &none));
    assert_eq!(one, digest_with(a.path(), 0, &none));

    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let read = ReadOptions::default();
    let options = DigestOptions {
        read,
        known_only: true,
        left_out: None,
        filter: &none,
        threads: 2,
        progress: Some(&progress),
    };
    assert_eq!(tree_digest(&root(a.path()), &options).unwrap(), one);
    assert_eq!(told.into_inner(), one.bytes);
}

#[test]
fn what_is_filtered_does_not_count() {
    let a = Sample::new();
    let rules = |pattern| FilterRules::parse([(Action::Exclude, pattern)]).unwrap();
    let full = digest(a.path());
    for excluded in ["/dir/deep/er/", "/dir/deep/**", "x*"] {
        let b = a.copy();
        let time = another_time();
        let left = digest_with(a.path(), 2, &rules(excluded));
        assert_ne!(left.digest, full);
        // What is left out may change as it likes.
        fs::write(b.path().join("dir/deep/er/more"), b"").unwrap();
        File::open(b.path().join("dir/deep/er")).unwrap().set_modified(time).unwrap();
        let same = digest_with(b.path(), 2, &rules(excluded)).digest == left.digest;
        assert_eq!(same, excluded.starts_with('/'), "{excluded}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let tmp = in_memory();
    for file in ["a", "b"] {
        fs::write(tmp.path().join(file), b"1234").unwrap();
    }
    let (dir, file) = (root(tmp.path()), name("a"));
    for i in 0..17 {
        let name = format!("trusted.{i}");
        xattr::set(XattrTarget::At(&dir, &file), name.as_bytes(), &[0; MAX_VALUE]).unwrap();
    }
    let found = digest_with(tmp.path(), 2, &FilterRules::default());
    assert_eq!((found.failed, found.files, found.bytes), (1, 1, 4));
    assert_eq!((found.errors[0].name.as_str(), found.errors[0].errno), ("a", Errno::TOOBIG));
}

#[test]
fn deep_trees_have_a_digest() {
    let chain = Chain::new(b"d", 1100);
    let found = digest_with(&chain.path(), 2, &FilterRules::default());
    assert_eq!((found.dirs, found.files, found.bytes, found.failed), (1101, 1, 4, 0));
    let chain = Chain::new(&[b'x'; 175], 70);
    assert_eq!(digest_with(&chain.path(), 2, &FilterRules::default()).dirs, 71);
}

#[test]
fn mounts_and_lost_and_found_are_left_out() {
    let a = Sample::new();
    let original = digest(a.path());
    let time = a.path().metadata().unwrap().modified().unwrap();
    fs::create_dir_all(a.path().join("lost+found/something")).unwrap();
    File::open(a.path()).unwrap().set_modified(time).unwrap();
    assert_eq!(digest(a.path()), original);

    let at = a.path().join("empty");
    let Some(_mount) = Mount::new("tmpfs", &at) else { return };
    let mounted = digest(a.path());
    fs::write(at.join("inside"), b"").unwrap();
    let time = another_time();
    File::open(&at).unwrap().set_modified(time).unwrap();
    let later = digest(a.path());
    fs::remove_file(at.join("inside")).unwrap();
    File::open(&at).unwrap().set_modified(time).unwrap();
    assert_eq!(digest(a.path()), later);
    assert_ne!(mounted, original);
}

#[test]
fn a_root_that_is_none_is_an_error() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let none = FilterRules::default();
    let read = ReadOptions::default();
    let options = DigestOptions {
        read,
        known_only: true,
        left_out: None,
        filter: &none,
        threads: 1,
        progress: None,
    };
    let errno = |path: &str| {
        volume::digest::digest(&tmp.path().join(path), &options).map(|_| ()).map_err(|e| e.errno)
    };
    assert_eq!(errno("file"), Err(Errno::NOTDIR));
    assert_eq!(errno("none"), Err(Errno::NOENT));
}
