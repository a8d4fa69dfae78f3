use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use volume::{Dir, list::NameList, source::SourceFile};

use super::support::{Chain, name, root};

/// Opens `depth` directories down and returns the last; all above stay referenced by it.
fn descend(chain: &Chain, component: &[u8], depth: usize) -> Dir {
    let mut at = root(&chain.path());
    for _ in 0..depth {
        at = at.open_child(&name(component)).unwrap();
    }
    at
}

#[test]
fn trees_deeper_than_descriptors_and_paths_are_reached() {
    let long = [b'x'; 175];
    let chain = Chain::new(&long, 40);
    let bottom = descend(&chain, &long, 40);
    assert!(bottom.display().len() > 4096);
    assert_eq!(NameList::read(&bottom).unwrap().iter().collect::<Vec<_>>(), [b"leaf"]);

    let chain = Chain::new(b"d", 1500);
    let bottom = descend(&chain, b"d", 1500);
    let mut buffer = [0; 8];
    let leaf = SourceFile::open(&bottom, &name("leaf")).unwrap();
    assert_eq!(leaf.read_at(0, &mut buffer).unwrap(), 4);
    assert_eq!(bottom.components().len(), 1500);
}

#[test]
fn a_released_directory_opens_again_and_only_as_itself() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("a/b/c")).unwrap();
    let dirs: Vec<Dir> = ["a", "b", "c"]
        .iter()
        .scan(root(tmp.path()), |at, component| {
            *at = at.open_child(&name(component)).unwrap();
            Some(at.clone())
        })
        .collect();
    let release = || dirs.iter().rev().for_each(Dir::release);
    release();
    assert!(dirs[2].descriptor().is_ok());

    // The directory above is opened by way of the one that is closed.
    dirs[1].release();
    dirs[2].release();
    let open = ["a/b", "a", ""].map(|path| tmp.path().join(path));
    assert_eq!(open_below(tmp.path()), open);

    release();
    fs::rename(tmp.path().join("a/b"), tmp.path().join("a/old")).unwrap();
    fs::create_dir_all(tmp.path().join("a/b/c")).unwrap();
    let swapped = dirs[2].descriptor().err().unwrap();
    assert_eq!((swapped.errno, swapped.name.as_str()), (Errno::STALE, "a/b"));
    assert!(!swapped.is_vanished(), "its entries may well exist");

    release();
    fs::remove_dir_all(tmp.path().join("a/b")).unwrap();
    symlink("old", tmp.path().join("a/b")).unwrap();
    assert!(dirs[2].descriptor().is_err());
    assert_eq!(dirs[2].display_entry(&name("x\n")), "a/b/c/x\\x0a");
}

/// The directories at and below `top` that this process holds open, the deepest first.
fn open_below(top: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut open: Vec<_> = links.filter(|link| link.starts_with(top)).collect();
    open.sort_by(|a, b| b.cmp(a));
    open
}

#[test]
fn links_and_other_kinds_are_no_directories() {
    let tmp = tempfile::tempdir().unwrap();
    symlink("/", tmp.path().join("link")).unwrap();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let dir = root(tmp.path());
    for (entry, errnos) in [
        ("link", [Errno::LOOP, Errno::NOTDIR]),
        ("file", [Errno::NOTDIR; 2]),
        ("none", [Errno::NOENT; 2]),
    ] {
        let error = dir.open_child(&name(entry)).err().unwrap();
        assert!(errnos.contains(&error.errno), "{error}");
        assert_eq!(error.name, entry);
    }
}

#[test]
fn a_chain_of_many_parents_is_dropped_without_recursion() {
    let chain = Chain::new(b"d", 3000);
    let small_stack = std::thread::Builder::new().stack_size(64 * 1024);
    small_stack.spawn(move || drop(descend(&chain, b"d", 3000))).unwrap().join().unwrap();
}
