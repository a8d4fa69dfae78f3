//! Random trees. The same seed gives the same tree.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use testkit::{Content, Kind, Rng, Snapshot, TempTree};

use crate::attributes::{acl, capability};

/// A user without privileges.
pub(crate) const NOBODY: u32 = 65_534;

/// Which properties a tree may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Powers {
    /// All that root can make.
    Root,
    /// What an ordinary user can make and keep; everything belongs to him.
    User,
}

/// Sizes around the limits that a mover may have: blocks, pages, frames, pieces.
const SIZES: [usize; 18] = [
    0, 1, 2, 17, 511, 4095, 4096, 4097, 5000, 16_384, 65_535, 65_536, 65_537, 131_072, 131_073,
    262_143, 300_000, 1_048_577,
];

/// Few names, so that trees have much in common; odd bytes; names with a meaning to somebody. The temporary names are
/// those of `a` in two forms, and of what was never there.
const NAMES: [&[u8]; 30] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"A",
    b"B",
    b"data",
    b"x.keep",
    b"y.keep",
    b"keep",
    b"two words",
    b"line\nend",
    b"-n",
    b"*",
    b"?[a]",
    b"back\\slash",
    b"\xff\xfe",
    b"\x1b[31m",
    "Größe".as_bytes(),
    b".hidden",
    b"lost+found",
    b".pvferry-17762fddd969a453.part",
    b".pvferry-17762fddd969a453.new",
    b".pvferry-0123456789abcdef.part",
    b".pvferry-1f-0123456789abcdef",
    b".pvferry-0123456789abcdef",
    b"..data",
    b"...",
];

/// Adds up to `entries` random entries, and gives everything random properties.
pub(crate) fn grow(tree: &TempTree, seed: u64, entries: u64, powers: Powers) {
    let mut rng = Rng::new(seed);
    let mut folders = vec![PathBuf::new()];
    let mut others: Vec<PathBuf> = Vec::new();
    for _ in 0..entries {
        let path = new_path(&mut rng, &folders);
        if path.as_os_str() == "lost+found" || tree.at(&path).symlink_metadata().is_ok() {
            continue;
        }
        if rng.below(100) < 24 {
            tree.dir(&path);
            folders.push(path);
            continue;
        }
        match others.last() {
            Some(_) if rng.below(8) == 0 => {
                tree.hard_link(rng.pick(&others), &path);
            }
            _ => one(tree, &mut rng, &path, powers),
        }
        others.push(path);
    }
    dress_all(tree, &mut rng, powers);
}

/// A path below one of `folders`.
pub(crate) fn new_path(rng: &mut Rng, folders: &[PathBuf]) -> PathBuf {
    let folder = rng.pick(folders).clone();
    if rng.below(60) == 0 {
        return folder.join("n".repeat(255));
    }
    folder.join(OsStr::from_bytes(rng.pick::<&[u8]>(&NAMES)))
}

/// Makes one entry that is not a directory.
pub(crate) fn one(tree: &TempTree, rng: &mut Rng, path: &Path, powers: Powers) {
    match rng.below(20) {
        0 | 1 => tree.symlink(path, rng.pick::<&[u8]>(&NAMES)),
        2 => tree.fifo(path),
        3 => tree.socket(path),
        4 if powers == Powers::Root => tree.character_device(path, 1, 3),
        5 if powers == Powers::Root => tree.block_device(path, 250, 70_000),
        6 | 7 => sparse(tree, rng, path),
        _ => tree.file(path, content(rng)),
    };
}

fn sparse<'a>(tree: &'a TempTree, rng: &mut Rng, path: &Path) -> &'a TempTree {
    let size = *rng.pick(&[4096, 65_536, 200_000, 1 << 20, (4 << 20) + 1]);
    let mut pieces = Vec::new();
    for _ in 0..rng.below(3) {
        pieces.push((rng.below(size), rng.bytes(100)));
    }
    let pieces: Vec<_> = pieces.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    tree.sparse(path, size, &pieces)
}

pub(crate) fn content(rng: &mut Rng) -> Content {
    let size = *rng.pick(&SIZES);
    match rng.below(5) {
        0 => Content::zeros(size),
        1 => Content::text(size),
        _ => Content::random(rng.below(40), size),
    }
}

/// Gives every entry random properties, directories after what is in them, and the root last.
pub(crate) fn dress_all(tree: &TempTree, rng: &mut Rng, powers: Powers) {
    let snapshot = Snapshot::of(tree.path());
    for (path, node) in snapshot.0.iter().rev() {
        dress(tree, rng, path, node.kind, powers);
    }
}

/// Gives one entry random properties.
pub(crate) fn dress(tree: &TempTree, rng: &mut Rng, path: &Path, kind: Kind, powers: Powers) {
    own(tree, rng, path, powers);
    if kind != Kind::Symlink {
        mode(tree, rng, path, kind, powers);
    }
    if rng.below(5) == 0 {
        attribute(tree, rng, path, kind, powers);
    }
    time(tree, rng, path);
}

pub(crate) fn own(tree: &TempTree, rng: &mut Rng, path: &Path, powers: Powers) {
    let owners = [(0, 0), (0, 0), (1000, 1000), (NOBODY, NOBODY), (0, 70_000), (3_000_000_000, 5)];
    let (uid, gid) = match powers {
        Powers::Root => *rng.pick(&owners),
        Powers::User => (NOBODY, NOBODY),
    };
    tree.owner(path, uid, gid);
}

pub(crate) fn mode(tree: &TempTree, rng: &mut Rng, path: &Path, kind: Kind, powers: Powers) {
    let modes: &[u32] = match (kind, powers) {
        (Kind::Directory, Powers::Root) => {
            &[0o755, 0o755, 0o755, 0o700, 0o500, 0o000, 0o1777, 0o2775, 0o300, 0o555]
        }
        (Kind::Directory, Powers::User) => &[0o755, 0o755, 0o700, 0o500, 0o1777, 0o555, 0o750],
        (_, Powers::Root) => &[
            0o644, 0o644, 0o600, 0o755, 0o000, 0o400, 0o4755, 0o2711, 0o6777, 0o666, 0o1644, 0o040,
        ],
        (_, Powers::User) => &[0o644, 0o644, 0o600, 0o755, 0o400, 0o4755, 0o666, 0o440],
    };
    tree.mode(path, *rng.pick(modes));
}

/// Sets an extended attribute or a list.
pub(crate) fn attribute(tree: &TempTree, rng: &mut Rng, path: &Path, kind: Kind, powers: Powers) {
    let plain = matches!(kind, Kind::File | Kind::Directory);
    let length = usize::try_from(*rng.pick(&[0, 1, 30, 200])).unwrap();
    match rng.below(6) {
        0 if plain => tree.xattr(path, "user.one", &rng.bytes(length)),
        1 if plain => tree.xattr(path, "user.two", &rng.bytes(length)),
        2 if powers == Powers::Root => tree.xattr(path, "trusted.three", &rng.bytes(length)),
        3 if kind == Kind::File && powers == Powers::Root => {
            tree.xattr(path, "security.capability", &capability(rng))
        }
        4 if kind == Kind::Directory => list(tree, path, "system.posix_acl_default", &acl(rng)),
        5 if kind != Kind::Symlink && powers == Powers::Root => {
            list(tree, path, "system.posix_acl_access", &acl(rng))
        }
        _ => tree,
    };
}

/// Sets an access control list, where the file system has such things.
fn list<'a>(tree: &'a TempTree, path: &Path, name: &str, value: &[u8]) -> &'a TempTree {
    let set = rustix::fs::lsetxattr(tree.at(path), name, value, rustix::fs::XattrFlags::empty());
    assert!(matches!(set, Ok(()) | Err(testkit::Errno::NOTSUP)), "{set:?}");
    tree
}

pub(crate) fn time(tree: &TempTree, rng: &mut Rng, path: &Path) {
    let seconds = i64::try_from(rng.below(2_000_000_000)).unwrap();
    let nanoseconds = u32::try_from(rng.below(1_000_000_000)).unwrap();
    let (seconds, nanoseconds) = *rng.pick(&[
        (seconds, nanoseconds),
        (seconds, 0),
        (1_700_000_000, 5),
        (-86_400, 1),
        (0, 1),
        (0, 0),
    ]);
    tree.mtime(path, seconds, nanoseconds);
}
