//! Random trees and changes, against a second look that knows paths and compares whole listings.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;

/// What lies in a directory: inode numbers and names, and the inodes of files that have no other name.
#[derive(Default)]
struct Inside {
    names: BTreeSet<(u64, OsString)>,
    alone: BTreeSet<u64>,
}

/// What a directory was when it was listed: its inode number, and what lay in it.
type Listings = BTreeMap<PathBuf, (u64, Inside)>;

fn inside(dir: &Path) -> Inside {
    let mut inside = Inside::default();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        inside.names.insert((meta.ino(), entry.file_name()));
        if !meta.is_dir() && meta.nlink() == 1 {
            inside.alone.insert(meta.ino());
        }
    }
    inside
}

/// True where something is in `now` that was not there before, neither under this name nor as a file that had no other one.
fn exceeds(now: &Inside, before: &Inside) -> bool {
    let mut alone = before.alone.clone();
    let (same, others): (Vec<_>, Vec<_>) =
        now.names.iter().partition(|entry| before.names.contains(*entry));
    for (inode, _) in same {
        alone.remove(inode);
    }
    others.iter().any(|(inode, _)| !alone.remove(inode))
}

/// Lists `dir`, which is `path` below the root, and all directories below it, as the walk does.
fn list(
    look: &mut SecondLook,
    listings: &mut Listings,
    (root, path): (&Path, &Path),
    dir: &Dir,
    parent: Option<Listed>,
) {
    let (listed, since) = NameList::read_settled(dir).unwrap();
    assert!(listed.complete());
    let links = |name: &[u8]| {
        let name = OsStr::from_bytes(name);
        fs::symlink_metadata(root.join(path).join(name)).unwrap().nlink()
    };
    let alone: Vec<_> = listed.iter().map(|name| links(name) == 1).collect();
    let at = look.add(parent, dir, (&listed, &alone), since).unwrap();
    for name in listed.iter().map(OsStr::from_bytes) {
        if root.join(path).join(name).is_dir() {
            let child = wire::Name::new(name.as_encoded_bytes()).unwrap();
            let child = dir.open_child(&child).unwrap();
            list(look, listings, (root, &path.join(name)), &child, Some(at));
        }
    }
    let inode = fs::symlink_metadata(root.join(path)).unwrap().ino();
    listings.insert(path.to_owned(), (inode, inside(&root.join(path))));
}

/// The directories that are where they were, and hold what they did not hold. A directory that took the place of
/// another has gained all that is in it.
fn gained(root: &Path, listings: &Listings) -> BTreeSet<PathBuf> {
    let is_dir =
        |path: &&Path| fs::symlink_metadata(root.join(path)).is_ok_and(|meta| meta.is_dir());
    let gained = listings.iter().filter(|(path, (inode, before))| {
        let stands = path.ancestors().all(|above| is_dir(&above));
        stands
            && (fs::symlink_metadata(root.join(path)).unwrap().ino() != *inode
                || exceeds(&inside(&root.join(path)), before))
    });
    gained.map(|(path, _)| path.clone()).collect()
}

/// Paths of three levels, of which many are listed as directories.
fn any_path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d"]), 1..=4)
        .prop_map(|parts| parts.iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_directory_that_an_entry_was_moved_to_is_seen_whatever_else_is_gone(
        dirs in prop::collection::vec(any_path(), 1..16),
        files in prop::collection::vec(any_path(), 1..16),
        changes in prop::collection::vec((any_path(), any_path(), 0..3), 1..8),
    ) {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        for dir in &dirs {
            let _ = fs::create_dir_all(root.join(dir));
        }
        for file in &files {
            let _ = fs::write(root.join(file), "");
        }
        let dir = Dir::open_root(root).unwrap();
        let (mut look, mut listings) = (SecondLook::default(), Listings::new());
        settled::wait_for_tick();
        list(&mut look, &mut listings, (root, Path::new("")), &dir, None);
        // A change gets a later time than the listing.
        thread::sleep(Duration::from_millis(12));
        for (from, to, how) in &changes {
            let (from, to) = (root.join(from), root.join(to));
            let _ = match how {
                0 => fs::remove_dir_all(from),
                1 => fs::hard_link(from, to),
                _ => fs::rename(from, to),
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
        // What came with the directory that it lies in counts by that one.
        let mut missed = gained(root, &listings);
        prop_assert!(seen.is_subset(&missed), "seen: {seen:?}, gained: {missed:?}");
        missed.retain(|path| !path.ancestors().any(|above| seen.contains(above)));
        prop_assert!(missed.is_empty(), "not seen: {missed:?}, seen: {seen:?}");
    }
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
    let (mut look, mut listings) = (SecondLook::default(), Listings::new());
    settled::wait_for_tick();
    list(&mut look, &mut listings, (&root, Path::new("")), &dir, None);
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
