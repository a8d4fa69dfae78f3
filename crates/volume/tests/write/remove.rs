//! Removing trees.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use proptest::prelude::*;
use rustix::{io::Errno, thread::CapabilitySet};
use volume::{
    Dir, Error,
    remove::{Mode, Outcome, Removal, empty_dir, remove_tree},
};
use wire::Name;

use super::support::*;

/// Notes everything; permits so many removals; protects some names.
#[derive(Default)]
struct Log {
    removed: Vec<String>,
    failed: Vec<(String, Errno)>,
    limit: Option<usize>,
    protected: Vec<&'static str>,
}

impl Removal for Log {
    fn reserve(&mut self) -> bool {
        self.limit.is_none_or(|limit| self.removed.len() + self.failed.len() < limit)
    }

    fn protects(&mut self, _dir: &Dir, name: &Name, _is_dir: bool) -> bool {
        self.protected.iter().any(|protected| protected.as_bytes() == name.as_bytes())
    }

    fn removed(&mut self, dir: &Dir, name: &Name, is_dir: bool) {
        let slash = if is_dir { "/" } else { "" };
        self.removed.push(dir.display_entry(name) + slash);
    }

    fn failed(&mut self, error: Error) {
        self.failed.push((error.name, error.errno));
    }
}

fn remove(dir: &Dir, at: &str, mode: Mode, mut log: Log) -> (Outcome, Log) {
    (remove_tree(dir, &name(at), mode, &mut log), log)
}

fn tree(scratch: &Scratch) {
    fs::create_dir_all(scratch.at("t/a/b")).unwrap();
    fs::create_dir_all(scratch.at("t/empty")).unwrap();
    for file in ["t/a/1", "t/a/b/2", "t/a/b/3", "t/z"] {
        fs::write(scratch.at(file), file).unwrap();
    }
    std::os::unix::fs::symlink("/etc", scratch.at("t/link")).unwrap();
    assert!(run(&["mkfifo", scratch.at("t/fifo").to_str().unwrap()]));
}

const ALL: [&str; 10] =
    ["t/a/1", "t/a/b/2", "t/a/b/3", "t/a/b/", "t/a/", "t/empty/", "t/fifo", "t/link", "t/z", "t/"];

#[test]
fn a_tree_goes_bottom_up_and_pretending_says_just_that() {
    let scratch = Scratch::disk();
    tree(&scratch);
    fs::write(scratch.at("other"), b"").unwrap();
    for mode in [Mode::Pretend, Mode::Remove] {
        assert!(scratch.at("t/a/b/2").exists());
        let (outcome, log) = remove(&scratch.dir, "t", mode, Log::default());
        assert_eq!(outcome, Outcome::Gone);
        assert_eq!(log.removed, ALL);
        assert_eq!(log.failed, []);
    }
    assert_eq!(scratch.names(), ["other"]);
    let (outcome, log) = remove(&scratch.dir, "gone", Mode::Remove, Log::default());
    assert_eq!((outcome, log.removed.len() + log.failed.len()), (Outcome::Gone, 0));
    let (outcome, log) = remove(&scratch.dir, "other", Mode::Remove, Log::default());
    assert_eq!((outcome, log.removed), (Outcome::Gone, vec!["other".to_owned()]));
}

#[test]
fn a_limit_ends_it_at_the_same_entry_either_way() {
    for limit in 0..=ALL.len() {
        let scratch = Scratch::disk();
        tree(&scratch);
        for mode in [Mode::Pretend, Mode::Remove] {
            let log = Log { limit: Some(limit), ..Log::default() };
            let (outcome, log) = remove(&scratch.dir, "t", mode, log);
            let expected = if limit == ALL.len() { Outcome::Gone } else { Outcome::Stopped };
            assert_eq!(outcome, expected);
            assert_eq!(log.removed, ALL[..limit]);
        }
        for (i, path) in ALL.iter().enumerate() {
            let there = fs::symlink_metadata(scratch.at(path.trim_end_matches('/'))).is_ok();
            assert_eq!(there, i >= limit, "{path}");
        }
    }
}

#[test]
fn what_is_protected_stays_with_all_directories_above() {
    for mode in [Mode::Pretend, Mode::Remove] {
        let scratch = Scratch::disk();
        tree(&scratch);
        let log = Log { protected: vec!["3", "empty"], ..Log::default() };
        let (outcome, log) = remove(&scratch.dir, "t", mode, log);
        assert_eq!(outcome, Outcome::Kept);
        assert_eq!(log.failed, []);
        assert_eq!(log.removed, ["t/a/1", "t/a/b/2", "t/fifo", "t/link", "t/z"]);
        if mode == Mode::Remove {
            assert_eq!(names(&scratch.at("t")), ["a", "empty"]);
            assert_eq!(names(&scratch.at("t/a/b")), ["3"]);
        }
    }
}

#[test]
fn links_are_not_followed_and_mounts_are_not_entered() {
    let (scratch, outside) = (Scratch::disk(), Scratch::disk());
    fs::write(outside.at("f"), b"outside").unwrap();
    tree(&scratch);
    std::os::unix::fs::symlink(&outside.path, scratch.at("t/a/dir")).unwrap();
    // Of the same file system, so the device number says nothing.
    let Some(dir) = Bind::new(&outside.path, scratch.at("t/empty")) else { return };
    let Some(bound) = Bind::new(&outside.at("f"), scratch.at("t/z")) else { return };
    for mode in [Mode::Pretend, Mode::Remove] {
        let (outcome, log) = remove(&scratch.dir, "t", mode, Log::default());
        assert_eq!(outcome, Outcome::Kept);
        assert_eq!(
            log.failed,
            [("t/empty".to_owned(), Errno::BUSY), ("t/z".to_owned(), Errno::BUSY)]
        );
        let gone: BTreeSet<&str> = log.removed.iter().map(String::as_str).collect();
        let expected =
            ["t/a/", "t/a/1", "t/a/b/", "t/a/b/2", "t/a/b/3", "t/a/dir", "t/fifo", "t/link"];
        assert_eq!(gone, expected.into());
    }
    drop((dir, bound));
    assert_eq!(names(&scratch.at("t")), ["empty", "z"]);
    assert_eq!(fs::read(outside.at("f")).unwrap(), b"outside");
}

#[test]
fn an_owner_removes_what_he_closed_to_himself_and_the_rest_is_closed_again() {
    let scratch = Scratch::disk().of_user();
    tree(&scratch);
    fs::create_dir(scratch.at("t/a/foreign")).unwrap();
    fs::write(scratch.at("t/a/foreign/f"), b"").unwrap();
    let close = |at: &str, mode| {
        chown(scratch.at(at), Some(USER), Some(USER)).unwrap();
        fs::set_permissions(scratch.at(at), PermissionsExt::from_mode(mode)).unwrap();
    };
    for (at, mode) in [("t/a/b", 0o000), ("t/empty", 0o400), ("t/a", 0o500), ("t", 0o444)] {
        close(at, mode);
    }
    let (outcome, log) = as_user(|| remove(&scratch.dir, "t", Mode::Remove, Log::default()));
    assert_eq!(outcome, Outcome::Kept);
    assert_eq!(log.failed, [("t/a/foreign/f".to_owned(), Errno::ACCESS)]);
    let mode = |at: &str| fs::metadata(scratch.at(at)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("t"), mode("t/a"), mode("t/a/foreign")), (0o444, 0o500, 0o755));
    assert_eq!(names(&scratch.at("t")), ["a"]);
    assert_eq!(names(&scratch.at("t/a")), ["foreign"]);

    close("t/a/foreign", 0o000);
    close(".", 0o500);
    let (outcome, log) = as_user(|| remove(&scratch.dir, "t", Mode::Remove, Log::default()));
    assert_eq!((outcome, log.failed), (Outcome::Gone, vec![]));
    // The directory that the tree was in stays.
    assert_eq!(mode("."), 0o500);
}

#[test]
fn immutable_entries_go_where_that_is_permitted() {
    let scratch = Scratch::disk();
    tree(&scratch);
    for (flag, at) in
        [("+i", "t/a/b/2"), ("+a", "t/z"), ("+i", "t/empty"), ("+i", "t/a"), ("+a", "t")]
    {
        if !run(&["chattr", flag, scratch.at(at).to_str().unwrap()]) {
            return skip("no inode flags on /tmp");
        }
    }
    let (outcome, log) = without(CapabilitySet::LINUX_IMMUTABLE, || {
        remove(&scratch.dir, "t", Mode::Remove, Log::default())
    });
    assert_eq!(outcome, Outcome::Kept);
    assert!(log.failed.iter().all(|(_, errno)| *errno == Errno::PERM));
    assert!(log.failed.contains(&("t/a/b/2".to_owned(), Errno::PERM)));
    let log = Log { protected: vec!["1"], ..Log::default() };
    let (outcome, log) = remove(&scratch.dir, "t", Mode::Remove, log);
    assert_eq!((outcome, log.failed), (Outcome::Kept, vec![]));
    // What stays is as it was.
    assert!(fs::write(scratch.at("t/a/new"), b"").is_err());
    let (outcome, log) = remove(&scratch.dir, "t", Mode::Remove, Log::default());
    assert_eq!((outcome, log.failed), (Outcome::Gone, vec![]));
    assert!(scratch.names().is_empty());
}

#[test]
fn depth_is_no_limit() {
    const DEPTH: usize = 3000;
    let scratch = Scratch::memory();
    // Ten bytes per level: far longer than any path may be.
    let mut dir = scratch.dir.clone();
    let hints = volume::create::ParentHints::of(&dir).unwrap();
    for _ in 0..DEPTH {
        let next = volume::create::directory(&dir, &name("directory"), hints).unwrap();
        dir.release();
        dir = next;
    }
    drop(dir);
    for mode in [Mode::Pretend, Mode::Remove] {
        let mut count = Count(0);
        assert_eq!(remove_tree(&scratch.dir, &name("directory"), mode, &mut count), Outcome::Gone);
        assert_eq!(count.0, DEPTH);
    }
    assert!(scratch.names().is_empty());
}

struct Count(usize);

impl Removal for Count {
    fn removed(&mut self, _dir: &Dir, _name: &Name, _is_dir: bool) {
        self.0 += 1;
    }

    fn failed(&mut self, error: Error) {
        panic!("{error}");
    }
}

#[test]
fn a_directory_is_emptied_and_stays() {
    let scratch = Scratch::disk();
    tree(&scratch);
    let t = scratch.dir.open_child(&name("t")).unwrap();
    for mode in [Mode::Pretend, Mode::Remove] {
        let mut log = Log::default();
        assert_eq!(empty_dir(&t, mode, &mut log), Outcome::Gone);
        assert_eq!(log.removed, ALL[..ALL.len() - 1]);
    }
    assert!(names(&scratch.at("t")).is_empty());
}

fn grow(at: &Path, shape: &[u8]) {
    // Each byte goes down, up, or makes a file.
    let mut here = at.to_owned();
    fs::create_dir(&here).unwrap();
    for (i, byte) in shape.iter().enumerate() {
        match byte % 4 {
            0 => {
                here.push(format!("d{byte}"));
                let _ = fs::create_dir(&here);
            }
            1 if here != at => {
                here.pop();
            }
            _ => fs::write(here.join(format!("f{i}")), b"").unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn exactly_the_tree_goes(shape in prop::collection::vec(any::<u8>(), 0..80)) {
        let scratch = Scratch::memory();
        grow(&scratch.at("t"), &shape);
        grow(&scratch.at("u"), &shape);
        let count = walkdir::WalkDir::new(scratch.at("t")).into_iter().count();
        let (_, pretended) = remove(&scratch.dir, "t", Mode::Pretend, Log::default());
        let (outcome, removed) = remove(&scratch.dir, "t", Mode::Remove, Log::default());
        prop_assert_eq!(outcome, Outcome::Gone);
        prop_assert_eq!(&pretended.removed, &removed.removed);
        prop_assert_eq!(removed.removed.len(), count);
        prop_assert_eq!(scratch.names(), ["u"]);
        prop_assert_eq!(walkdir::WalkDir::new(scratch.at("u")).into_iter().count(), count);
    }
}
