//! What a tree is, read entry by entry with walkdir, lstat and plain reads.

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    buffer::spare_capacity,
    fs::{
        AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, lgetxattr, llistxattr, openat,
        statx,
    },
    io::Errno,
};
use walkdir::WalkDir;

/// How many levels are walked by path before the walk starts again from a descriptor: below it no path
/// comes near the system's limit of 4096 bytes.
const LEVELS: usize = 8;

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last modification: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
    /// Last change of the inode, in the same form.
    pub ctime: (i64, i64),
    /// Device and inode number: in each subvolume of btrfs the numbers begin anew.
    pub inode: (u64, u64),
    /// Bytes of content; 0 of anything but a file.
    pub size: u64,
    /// Allocated blocks of 512 bytes; 0 of anything but a file.
    pub blocks: u64,
    /// The device that a device node stands for, else 0.
    pub rdev: u64,
    /// The text of a symbolic link.
    pub target: Option<OsString>,
    /// BLAKE3 of the content of a file.
    pub content: Option<[u8; 32]>,
    /// Extended attributes, ACLs among them, but not the label of SELinux, which the system sets by itself.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Whether it is immutable, and whether it only grows (`chattr +i`, `+a`).
    pub flags: (bool, bool),
    /// Every name in the tree of the same inode, sorted; empty where there is only this one.
    pub links: Vec<PathBuf>,
}

/// A tree at one moment: its entries by path below the root. The root itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<PathBuf, Node>);

impl Snapshot {
    /// Reads the tree at `root`. A mount point below it is an entry without content.
    ///
    /// # Panics
    /// Where anything in it cannot be read, or changes meanwhile.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let root = File::open(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let mut nodes = BTreeMap::new();
        descend(root.into(), Path::new(""), &mut nodes);
        link(&mut nodes);
        Self(nodes)
    }

    /// The entry at `path`.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn node(&self, path: impl AsRef<Path>) -> &Node {
        let path = path.as_ref();
        self.0.get(path).unwrap_or_else(|| panic!("no entry {path:?}"))
    }

    /// All paths below the root, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
    }

    /// The same without the entries called `name` directly below the root, and what is below them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|path, _| !path.starts_with(name));
        self
    }
}

/// Reads the directory `dir`, whose path below the root is `above`, into `nodes`.
fn descend(dir: OwnedFd, above: &Path, nodes: &mut BTreeMap<PathBuf, Node>) {
    // The dot makes it the directory itself and not the magic link to it.
    let base = PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    let mut walk = WalkDir::new(&base).max_depth(LEVELS).into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.unwrap();
        if entry.depth() > 0 && entry.file_type().is_dir() && is_mount_point(entry.path()) {
            walk.skip_current_dir();
        }
        let path = entry.path().strip_prefix(&base).unwrap();
        let full = if path == Path::new("") { above.to_owned() } else { above.join(path) };
        nodes.insert(full.clone(), node(entry.path()));
        if entry.depth() == LEVELS && entry.file_type().is_dir() && !is_mount_point(entry.path()) {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = openat(&dir, path, flags, Mode::empty()).unwrap();
            descend(below, &full, nodes);
        }
    }
}

fn node(path: &Path) -> Node {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = kind(&meta);
    let is_file = kind == Kind::File;
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    Node {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
        inode: (meta.dev(), meta.ino()),
        size: if is_file { meta.size() } else { 0 },
        blocks: if is_file { meta.blocks() } else { 0 },
        rdev: if is_device { meta.rdev() } else { 0 },
        target: (kind == Kind::Symlink).then(|| fs::read_link(path).unwrap().into_os_string()),
        content: is_file.then(|| digest(path)),
        xattrs: xattrs(path),
        flags: flags(path),
        links: Vec::new(),
    }
}

fn kind(meta: &Metadata) -> Kind {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => Kind::File,
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_symlink() => Kind::Symlink,
        () if kind.is_fifo() => Kind::Fifo,
        () if kind.is_socket() => Kind::Socket,
        () if kind.is_char_device() => Kind::CharacterDevice,
        () => Kind::BlockDevice,
    }
}

fn is_mount_point(path: &Path) -> bool {
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).unwrap();
    status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn flags(path: &Path) -> (bool, bool) {
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).unwrap();
    let has = |flag| status.stx_attributes.contains(flag);
    (has(StatxAttributes::IMMUTABLE), has(StatxAttributes::APPEND))
}

fn digest(path: &Path) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).unwrap();
    io::copy(&mut file, &mut hasher).unwrap();
    hasher.finalize().into()
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    match llistxattr(path, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return BTreeMap::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    }
    let mut found = BTreeMap::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        let name = CStr::from_bytes_with_nul(name).unwrap();
        if name == c"security.selinux" {
            continue;
        }
        let mut value = Vec::with_capacity(64 << 10);
        lgetxattr(path, name, spare_capacity(&mut value)).unwrap();
        found.insert(OsString::from_vec(name.to_bytes().to_vec()), value);
    }
    found
}

/// Gives every node the names that it shares its inode with. Directories have one name each.
fn link(nodes: &mut BTreeMap<PathBuf, Node>) {
    let mut groups: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    for (path, node) in nodes.iter().filter(|(_, node)| node.kind != Kind::Directory) {
        groups.entry(node.inode).or_default().push(path.clone());
    }
    for group in groups.into_values().filter(|group| group.len() > 1) {
        for path in &group {
            if let Some(node) = nodes.get_mut(path) {
                node.links.clone_from(&group);
            }
        }
    }
}

/// A name for a message: escaped, so that it stays on one line.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return ".".to_owned();
    }
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempTree;

    #[test]
    fn reads_every_kind_and_property() {
        let tree = TempTree::new();
        tree.file("a", "text")
            .hard_link("a", "d/b")
            .symlink("d/l", "nowhere")
            .fifo("p")
            .socket("s");
        tree.sparse("h", 1 << 20, &[(0, b"x")]).mode("a", 0o4751).mtime("a", 7, 123_456_789);
        let snapshot = Snapshot::of(tree.path());

        let paths: Vec<_> = snapshot.paths().collect();
        assert_eq!(paths, ["a", "d", "d/b", "d/l", "h", "p", "s"].map(Path::new));
        let a = snapshot.node("a");
        assert_eq!((a.kind, a.mode, a.size, a.mtime), (Kind::File, 0o4751, 4, (7, 123_456_789)));
        assert_eq!(a.content, Some(*blake3::hash(b"text").as_bytes()));
        assert_eq!(a.links, ["a", "d/b"].map(PathBuf::from));
        assert_eq!(snapshot.node("d/l").target, Some("nowhere".into()));
        assert_eq!(snapshot.node("p").kind, Kind::Fifo);
        assert_eq!(snapshot.node("s").kind, Kind::Socket);
        assert_eq!(snapshot.node("h").size, 1 << 20);
        assert!(snapshot.node("h").blocks < 100);
        assert_eq!(snapshot.node("").kind, Kind::Directory);
    }

    #[test]
    fn reads_beyond_the_longest_path() {
        let tree = TempTree::new();
        let name = "n".repeat(175);
        tree.deep(&name, 70);
        let snapshot = Snapshot::of(tree.path());
        assert_eq!(snapshot.paths().count(), 71);
        let (path, bottom) = snapshot.0.last_key_value().unwrap();
        assert!(path.as_os_str().len() > 12_000);
        assert_eq!(bottom.content, Some(*blake3::hash(b"a long way down").as_bytes()));
    }
}
