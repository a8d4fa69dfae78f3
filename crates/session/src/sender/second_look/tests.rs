//! Random trees and changes, against a second look that knows every inode and name.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use volume::settled::Moment;

use super::*;

/// What the listings hold, for somebody who knows inode numbers.
#[derive(Default)]
struct Listed {
    /// Each name, as the number of its directory and of the inode that it leads to.
    names: BTreeSet<(u64, OsString, u64)>,
    /// How many names were listed of each inode, and how many it had.
    counts: BTreeMap<u64, (u64, u64)>,
}

impl Listed {
    fn add(&mut self, dir: u64, name: &OsStr, meta: &fs::Metadata) {
        self.names.insert((dir, name.to_owned(), meta.ino()));
        let count = self.counts.entry(meta.ino()).or_default();
        *count = (count.0 + 1, meta.nlink());
    }

    fn has_all_names(&self, meta: &fs::Metadata) -> bool {
        self.counts.get(&meta.ino()).is_some_and(|(seen, had)| meta.is_dir() || seen == had)
    }
}

/// Lists `dir`, which is `path` below the root, and all directories below it, as the walk does.
fn list(
    look: &mut SecondLook,
    all: &mut Listed,
    (root, path): (&Path, &Path),
    dir: &Dir,
    parent: Option<super::Listed>,
) {
    let (listed, Moment { since, .. }) = NameList::read_settled(dir).unwrap();
    assert!(listed.complete());
    let inode = fs::symlink_metadata(root.join(path)).unwrap().ino();
    let mut alone = Vec::new();
    for name in listed.iter().map(OsStr::from_bytes) {
        let meta = fs::symlink_metadata(root.join(path).join(name)).unwrap();
        alone.push(!meta.is_dir() && meta.nlink() == 1);
        all.add(inode, name, &meta);
        if !meta.is_dir() && all.has_all_names(&meta) {
            look.add_listed(meta.ino(), &since);
        }
    }
    let at = look.add(parent, dir, (&listed, &alone), since).unwrap();
    for name in listed.iter().map(OsStr::from_bytes) {
        if root.join(path).join(name).is_dir() {
            let child = wire::Name::new(name.as_encoded_bytes()).unwrap();
            let child = dir.open_child(&child).unwrap();
            list(look, all, (root, &path.join(name)), &child, Some(at));
        }
    }
}

/// What a tree holds that was not made during the run and is in no listing.
#[derive(Default)]
struct Missed {
    entries: BTreeSet<PathBuf>,
    /// Names of files of which not all names were listed, in directories that are not at their places.
    undecided: bool,
}

impl Missed {
    fn find(&mut self, root: &Path, path: &Path, listed: &Listed, old: &BTreeSet<u64>) {
        let inode = fs::symlink_metadata(root.join(path)).unwrap().ino();
        for entry in fs::read_dir(root.join(path)).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let is_new = !old.contains(&meta.ino());
            let is_named = listed.names.contains(&(inode, entry.file_name(), meta.ino()));
            if !is_new && !is_named && !listed.has_all_names(&meta) {
                self.entries.insert(path.join(entry.file_name()));
            }
            self.undecided |= is_named && !listed.has_all_names(&meta);
            if meta.is_dir() {
                self.find(root, &path.join(entry.file_name()), listed, old);
            }
        }
    }
}

/// Paths of three levels, of which many are listed as directories.
fn any_path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d"]), 1..=4)
        .prop_map(|parts| parts.iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_existed_and_is_in_no_listing_is_seen_and_nothing_else_is(
        dirs in prop::collection::vec(any_path(), 1..16),
        files in prop::collection::vec(any_path(), 1..16),
        links in prop::collection::vec((any_path(), any_path()), 0..4),
        changes in prop::collection::vec((any_path(), any_path(), 0..7), 1..8),
    ) {
        // Births and inode numbers are those of a local file system there.
        let temporary = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (root, outside) = (&temporary.path().join("root"), &temporary.path().join("outside"));
        for place in [root, outside] {
            fs::create_dir(place).unwrap();
            for dir in &dirs {
                let _ = fs::create_dir_all(place.join(dir));
            }
            for file in &files {
                let _ = fs::write(place.join(file), "");
            }
        }
        for (index, (from, to)) in links.iter().enumerate() {
            let place = if index == 0 { outside } else { root };
            let _ = fs::hard_link(root.join(from), place.join(to));
        }
        let old = all_inodes(temporary.path());
        let dir = Dir::open_root(root).unwrap();
        let (mut look, mut listed) = (SecondLook::default(), Listed::default());
        settled::wait_for_tick();
        list(&mut look, &mut listed, (root, Path::new("")), &dir, None);
        // A change gets a later time than the listing.
        thread::sleep(Duration::from_millis(12));
        let keep = temporary.path().join("removed");
        fs::create_dir(&keep).unwrap();
        for (index, (from, to, how)) in changes.iter().enumerate() {
            let to = root.join(to);
            let _ = match how {
                // The number of what is gone shall not be given to what is new.
                0 => fs::rename(root.join(from), keep.join(index.to_string())),
                1 => fs::hard_link(root.join(from), to),
                2 | 3 => fs::rename(root.join(from), to),
                4 => fs::rename(outside.join(from), to),
                5 => fs::hard_link(outside.join(from), to),
                _ if index % 2 == 0 => fs::write(to, "").and_then(|()| fs::rename(root.join(from), outside.join(from))),
                _ => fs::create_dir(to),
            };
        }

        let mut seen = BTreeSet::new();
        let ended: Result<bool, Infallible> = look.look(&dir, None, &FilterRules::default(), || Ok(()), |what| match what {
            Seen::MovedIn(dir) => {
                let path = dir.display();
                seen.insert(if path == "." { PathBuf::new() } else { PathBuf::from(path) });
            }
            Seen::Failed(error) => panic!("{error}"),
        });
        let Ok(_) = ended;
        let mut missed = Missed::default();
        missed.find(root, Path::new(""), &listed, &old);
        // What came with the directory that it lies in counts by that one.
        let is_seen = |path: &PathBuf| path.ancestors().any(|above| seen.contains(above));
        prop_assert!(missed.entries.iter().all(is_seen), "missed: {:?}, seen: {seen:?}", missed.entries);
        let holds_missed = |path: &PathBuf| missed.entries.iter().any(|entry| entry.starts_with(path));
        prop_assert!(
            missed.undecided || !births_are_kept(root) || seen.iter().all(holds_missed),
            "missed: {:?}, seen: {seen:?}", missed.entries
        );
    }
}

fn births_are_kept(dir: &Path) -> bool {
    fs::metadata(dir).unwrap().created().is_ok()
}

fn all_inodes(dir: &Path) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::from([fs::metadata(dir).unwrap().ino()]);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        inodes.insert(entry.ino());
        if entry.file_type().unwrap().is_dir() {
            inodes.append(&mut all_inodes(&entry.path()));
        }
    }
    inodes
}

#[test]
fn a_directory_that_moves_during_a_look_to_where_the_look_was_is_seen_in_the_next_one() {
    let temporary = tempfile::tempdir().unwrap();
    let (root, outside) = (temporary.path().join("root"), temporary.path().join("f"));
    for dir in ["a", "c/d", "z"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(&outside, "").unwrap();
    let dir = Dir::open_root(&root).unwrap();
    let (mut look, mut listed) = (SecondLook::default(), Listed::default());
    settled::wait_for_tick();
    list(&mut look, &mut listed, (&root, Path::new("")), &dir, None);
    thread::sleep(Duration::from_millis(12));
    fs::rename(&outside, root.join("c/d/f")).unwrap();

    let start = Since::now(&dir).unwrap();
    thread::sleep(Duration::from_millis(12));
    let seen = std::cell::RefCell::new(Vec::new());
    let see = |what: Seen| {
        if let Seen::MovedIn(dir) = what {
            seen.borrow_mut().push(dir.display());
        }
    };
    let mut asked = 0;
    let look_at_c = || -> Result<(), Infallible> {
        asked += 1;
        // The root and `a` were looked at.
        if asked == 3 {
            fs::rename(root.join("c/d"), root.join("a/d2")).unwrap();
        }
        Ok(())
    };
    let Ok(at_rest) = look.look(&dir, None, &FilterRules::default(), look_at_c, see);
    assert_eq!((at_rest, seen.borrow().len()), (false, 0));
    let Ok(_) =
        look.look(&dir, Some(&start), &FilterRules::default(), || Ok::<_, Infallible>(()), see);
    assert_eq!(*seen.borrow(), ["a"]);
}
