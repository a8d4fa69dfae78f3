//! Trees that hold one of everything, random trees, and random changes to them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::{Content, Rng, TempTree};

/// Sizes around every limit that a mover may have: pages, blocks, pieces, and none at all.
const SIZES: [usize; 12] =
    [0, 1, 17, 511, 4095, 4096, 4097, 16_384, 65_535, 65_537, 131_072, 300_000];

/// Names that have been trouble: spaces, line ends, escapes, dashes, other alphabets, no alphabet at all.
const NAMES: [&[u8]; 10] = [
    b"plain",
    b"two words",
    b"line\nend",
    b"\x1b[31mred\x07",
    b"-rf",
    b"*?[a]{b}",
    b"back\\slash",
    b"\xff\xfe not text",
    "Größe ≠ 尺寸".as_bytes(),
    b".hidden",
];

impl TempTree {
    /// Adds one of every kind of entry and property that an ordinary user can make, and as root also owners
    /// and device nodes, at the root and three levels down.
    pub fn everything(&self) -> &Self {
        for (folder, seed) in [(Path::new(""), 1), (Path::new("one/two/three"), 2)] {
            self.kinds(folder, seed);
            self.properties(folder);
        }
        self.hard_link("linked", "one/across").hard_link("linked", "one/two/three/across");
        for path in ["one/two/three", "one/two", "one", ""] {
            self.mtime(path, 1_000_000_000, 987_654_321);
        }
        self
    }

    fn kinds(&self, folder: &Path, seed: u64) {
        let at = |name: &str| folder.join(name);
        for name in NAMES.map(OsStr::from_bytes) {
            self.file(folder.join(name), Content::random(seed, 100));
        }
        for size in SIZES {
            self.file(at(&format!("size-{size}")), Content::random(seed + 10, size));
        }
        self.file(at(&"n".repeat(255)), "longest name")
            .file(at("linked"), "shared")
            .hard_link(at("linked"), at("linked too"))
            .sparse(at("sparse"), 8 << 20, &[(0, b"start"), (5 << 20, b"middle")])
            .sparse(at("all hole"), 1 << 20, &[])
            .dir(at("empty"))
            .fifo(at("fifo"))
            .socket(at("socket"))
            .symlink(at("to a file"), "linked")
            .symlink(at("to nothing"), "no such entry")
            .symlink(at("to the root"), "/")
            .symlink(at("to itself"), "to itself")
            .symlink(at("not text"), b"\xff\xfe")
            .symlink(at("long"), vec![b'l'; 1023]);
        if rustix::process::geteuid().is_root() {
            self.character_device(at("null"), 1, 3).block_device(at("disk"), 250, 70_000);
        }
    }

    fn properties(&self, folder: &Path) {
        let at = |name: &str| folder.join(name);
        for (index, mode) in
            [0o000, 0o400, 0o777, 0o1644, 0o2755, 0o4711, 0o6777].iter().enumerate()
        {
            let (file, dir) = (at(&format!("mode {mode:o}")), at(&format!("directory {mode:o}")));
            self.file(&file, "some text").dir(&dir);
            if rustix::process::geteuid().is_root() {
                let id = 3_000_000_000 + u32::try_from(index).unwrap();
                self.owner(&file, id, 0).owner(&dir, 0, id);
            } else if mode & 0o500 != 0o500 {
                continue; // its owner could not read it
            }
            self.mode(&file, *mode).mode(&dir, *mode);
        }
        self.file(at("before 1970"), "").mtime(at("before 1970"), -86_400, 1);
        self.file(at("after 2038"), "").mtime(at("after 2038"), 5_000_000_000, 999_999_999);
        self.file(at("marked"), "").xattr(at("marked"), "user.binary", &[0, 1, 255]);
        self.xattr(at("marked"), "user.empty", b"").xattr(at("empty"), "user.on.directory", b"1");
        for name in ["to a file", "fifo", "socket", "linked", "sparse", "plain"] {
            self.mtime(at(name), 1_234_567_890, 123_456_789);
        }
    }

    /// Adds `entries` random entries below random directories.
    pub fn populate(&self, seed: u64, entries: usize) -> &Self {
        let mut rng = Rng::new(seed);
        let mut folders = vec![PathBuf::new()];
        for index in 0..entries {
            let mut name = rng.pick(&NAMES).to_vec();
            name.extend(format!(" {index}").into_bytes());
            let path = rng.pick(&folders).join(OsStr::from_bytes(&name));
            match rng.below(10) {
                0 | 1 => {
                    folders.push(path.clone());
                    self.dir(&path)
                }
                2 => self.symlink(&path, rng.pick(&NAMES)),
                3 => self.fifo(&path),
                _ => self.file(&path, random_content(&mut rng)),
            };
            self.random_times(&mut rng, &path);
        }
        self
    }

    /// Makes `changes` random changes to the entries that are there, of every sort that people make. What is new
    /// gets a time of its own: the clock of a file system may stand still between two writes.
    pub fn mutate(&self, seed: u64, changes: usize) -> &Self {
        let mut rng = Rng::new(seed);
        for index in 0..changes {
            let entries = self.entries();
            if entries.is_empty() {
                self.populate(rng.next_u64(), 5);
                continue;
            }
            let path = rng.pick(&entries).clone();
            self.mutate_one(&mut rng, &path, index);
        }
        self
    }

    fn mutate_one(&self, rng: &mut Rng, path: &Path, index: usize) -> &Self {
        let kind = self.at(path).symlink_metadata().unwrap();
        match rng.below(8) {
            0 => self.remove(path),
            1 => {
                let inside = path.join("inside");
                self.remove(path).dir(path).file(&inside, random_content(rng));
                self.random_times(rng, &inside)
            }
            2 => self.remove(path).file(path, random_content(rng)).random_times(rng, path),
            3 => self.remove(path).symlink(path, "changed").random_times(rng, path),
            4 => self.rename(path, format!("renamed {index} {}", rng.below(1 << 20))),
            5 if !kind.is_symlink() => self.mode(path, 0o700 + (index as u32 % 64)),
            _ if kind.is_file() => {
                let content = Content::from(fs::read(self.at(path)).unwrap());
                let at = usize::try_from(rng.below(content.bytes().len() as u64 + 1)).unwrap();
                let piece = rng.bytes(10);
                let changed = if rng.below(2) == 0 {
                    content.overwrite(at, &piece)
                } else {
                    content.insert(at, &piece)
                };
                self.file(path, changed).random_times(rng, path)
            }
            _ => self.random_times(rng, path),
        }
    }

    fn random_times(&self, rng: &mut Rng, path: &Path) -> &Self {
        let seconds = i64::try_from(rng.below(2_000_000_000)).unwrap();
        self.mtime(path, seconds, u32::try_from(rng.below(1_000_000_000)).unwrap())
    }

    /// Paths of all entries, in an order that depends on names alone.
    fn entries(&self) -> Vec<PathBuf> {
        let walk = WalkDir::new(self.path()).min_depth(1).sort_by_file_name();
        let path =
            |entry: walkdir::DirEntry| entry.path().strip_prefix(self.path()).unwrap().into();
        walk.into_iter().map(|entry| path(entry.unwrap())).collect()
    }
}

fn random_content(rng: &mut Rng) -> Content {
    let size = *rng.pick(&SIZES);
    let size = size + usize::try_from(rng.below(3)).unwrap();
    match rng.below(4) {
        0 => Content::zeros(size),
        1 => Content::text(size),
        _ => Content::random(rng.next_u64(), size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Aspects, Snapshot, assert_same, differences};

    /// The tree with all times set: those of directories and changed entries depend on the moment.
    fn settled(tree: &TempTree) -> &TempTree {
        for path in tree.entries().iter().rev() {
            tree.mtime(path, 1, 1);
        }
        tree.mtime("", 1, 1)
    }

    #[test]
    fn a_seed_is_a_tree() {
        let [a, b, c] = [1, 1, 2].map(|seed| {
            let tree = TempTree::new();
            settled(tree.populate(seed, 60).mutate(seed, 60));
            tree
        });
        assert_same(a.path(), b.path());
        let (a, c) = (Snapshot::of(a.path()), Snapshot::of(c.path()));
        assert!(differences(&a, &c, Aspects::default()).len() > 20);
    }

    #[test]
    fn everything_is_there_twice() {
        let tree = TempTree::new();
        tree.everything();
        let snapshot = Snapshot::of(tree.path());
        for path in ["mode 4711", "one/two/three/mode 4711"] {
            assert_eq!(snapshot.node(path).mode, 0o4711);
        }
        assert_eq!(snapshot.node("linked").links.len(), 4);
        assert_eq!(snapshot.node("one").mtime, (1_000_000_000, 987_654_321));
    }
}
