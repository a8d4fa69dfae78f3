//! Every way in which two trees differ.

use std::{collections::BTreeMap, ffi::OsString, fmt::Debug, path::Path};

use crate::snapshot::{Kind, Node, Snapshot, shown};

/// What is compared. [`Aspects::default`] is all that a copy must keep.
#[derive(Clone, Copy, Debug)]
pub struct Aspects {
    /// Mode, owner, group, and the immutable and append-only flags.
    pub permissions: bool,
    /// Times of last modification, in nanoseconds.
    pub mtime: bool,
    /// Extended attributes and ACLs.
    pub xattrs: bool,
    /// Which names share an inode.
    pub links: bool,
    /// That a file occupies no more than the one on the left, by more than one block of 4 KiB for each of
    /// this many extents. `None` compares no allocation.
    pub extents: Option<u64>,
    /// Inode numbers and times of last change: that nothing at all was written. Only for one tree at two moments.
    pub untouched: bool,
}

impl Default for Aspects {
    fn default() -> Self {
        Self {
            permissions: true,
            mtime: true,
            xattrs: true,
            links: true,
            extents: None,
            untouched: false,
        }
    }
}

/// Fails unless the trees at `left` and `right` are equal in all that a copy must keep.
///
/// # Panics
/// Where they differ, with every difference.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let found = differences(&Snapshot::of(left), &Snapshot::of(right), Aspects::default());
    assert!(found.is_empty(), "the trees differ:\n  {}", found.join("\n  "));
}

/// The differences, one line each: `path: what left right`.
#[must_use]
pub fn differences(left: &Snapshot, right: &Snapshot, aspects: Aspects) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in &left.0 {
        match right.0.get(path) {
            Some(other) => compare(path, node, other, aspects, &mut found),
            None => found.push(format!("{}: only on the left", shown(path))),
        }
    }
    for path in right.0.keys().filter(|path| !left.0.contains_key(*path)) {
        found.push(format!("{}: only on the right", shown(path)));
    }
    found
}

fn compare(path: &Path, left: &Node, right: &Node, aspects: Aspects, found: &mut Vec<String>) {
    let mut check = Check { path, found };
    check.same("kind", &left.kind, &right.kind);
    if left.kind != right.kind {
        return;
    }
    check.same("size", &left.size, &right.size);
    check.same("device", &left.rdev, &right.rdev);
    check.same("target", &left.target, &right.target);
    if left.content != right.content {
        check.report("content");
    }
    if aspects.permissions {
        // The system gives every symbolic link the same mode.
        if left.kind != Kind::Symlink {
            check.same("mode", &format!("{:o}", left.mode), &format!("{:o}", right.mode));
        }
        check.same("uid", &left.uid, &right.uid);
        check.same("gid", &left.gid, &right.gid);
        check.same("flags", &left.flags, &right.flags);
    }
    if aspects.mtime {
        check.same("mtime", &left.mtime, &right.mtime);
    }
    if aspects.xattrs {
        check.xattrs(&left.xattrs, &right.xattrs);
    }
    if aspects.links {
        check.same("links", &left.links, &right.links);
    }
    if let Some(extents) = aspects.extents
        && right.blocks > left.blocks + extents * 8
    {
        check.report(&format!("blocks {} {}", left.blocks, right.blocks));
    }
    if aspects.untouched {
        check.same("inode", &left.inode, &right.inode);
        check.same("ctime", &left.ctime, &right.ctime);
    }
}

struct Check<'a> {
    path: &'a Path,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn report(&mut self, what: &str) {
        self.found.push(format!("{}: {what}", shown(self.path)));
    }

    fn same<T: PartialEq + Debug>(&mut self, what: &str, left: &T, right: &T) {
        if left != right {
            self.report(&format!("{what} {left:?} {right:?}"));
        }
    }

    fn xattrs(&mut self, left: &BTreeMap<OsString, Vec<u8>>, right: &BTreeMap<OsString, Vec<u8>>) {
        for (name, value) in left {
            match right.get(name) {
                Some(other) if other == value => {}
                Some(_) => self.report(&format!("value of xattr {name:?}")),
                None => self.report(&format!("xattr {name:?} only on the left")),
            }
        }
        for name in right.keys().filter(|name| !left.contains_key(*name)) {
            self.report(&format!("xattr {name:?} only on the right"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, TempTree, skip};

    fn found_after(change: impl FnOnce(&TempTree) -> &TempTree) -> Vec<String> {
        let (left, right) = (sample(), sample());
        assert_same(left.path(), right.path());
        change(&right);
        let (left, right) = (Snapshot::of(left.path()), Snapshot::of(right.path()));
        differences(&left, &right, Aspects::default())
    }

    fn sample() -> TempTree {
        let tree = TempTree::new();
        tree.file("f", Content::random(1, 5000)).hard_link("f", "g").file("h", "text").dir("d");
        tree.symlink("l", "there").fifo("p").mtime("f", 1, 2).mtime("h", 1, 2);
        for path in ["l", "p", "d", ""] {
            tree.mtime(path, 3, 4);
        }
        tree
    }

    #[test]
    fn each_difference_is_seen() {
        type Change = fn(&TempTree) -> &TempTree;
        let changes: [(&str, Change); 11] = [
            ("h: content", |t| t.file("h", "tExt").mtime("h", 1, 2)),
            ("h: size 4 5", |t| t.file("h", "text+").mtime("h", 1, 2)),
            ("h: mode \"644\" \"640\"", |t| t.mode("h", 0o640)),
            ("h: mtime (1, 2) (1, 3)", |t| t.mtime("h", 1, 3)),
            (": mtime (3, 4) (3, 5)", |t| t.mtime("", 3, 5)),
            ("p: mtime (3, 4) (4, 0)", |t| t.mtime("p", 4, 0)),
            ("l: target Some(\"there\") Some(\"here\")", |t| {
                t.remove("l").symlink("l", "here").mtime("l", 3, 4).mtime("", 3, 4)
            }),
            ("d: kind Directory File", |t| t.remove("d").file("d", "").mtime("", 3, 4)),
            ("d: only on the left", |t| t.remove("d").mtime("", 3, 4)),
            ("z: only on the right", |t| t.file("z", "").mtime("", 3, 4)),
            ("g: links [\"f\", \"g\"] []", |t| {
                t.remove("g").file("g", Content::random(1, 5000)).mtime("g", 1, 2).mtime("", 3, 4)
            }),
        ];
        for (expected, change) in changes {
            let found = found_after(change);
            let expected = expected.strip_prefix(':').map_or(expected.into(), |r| format!(".:{r}"));
            assert!(found.contains(&expected), "{expected} is not in {found:?}");
            assert!(found.len() <= 2, "{found:?}");
        }
    }

    #[test]
    fn owners_and_devices() {
        if !skip::root() {
            return;
        }
        assert_eq!(found_after(|t| t.owner("l", 0, 70_000)), ["l: gid 0 70000"]);
        let (left, right) = (TempTree::new(), TempTree::new());
        left.character_device("c", 1, 3).mtime("c", 1, 1).mtime("", 1, 1);
        right.character_device("c", 1, 5).mtime("c", 1, 1).mtime("", 1, 1);
        let found = differences(
            &Snapshot::of(left.path()),
            &Snapshot::of(right.path()),
            Aspects::default(),
        );
        assert_eq!(found, ["c: device 259 261"]);
    }

    #[test]
    fn attributes() {
        let found = found_after(|t| t.xattr("h", "user.x", &[0, 255]));
        assert_eq!(found, ["h: xattr \"user.x\" only on the right"]);
        if skip::commands(&["setfacl"]) {
            let found = found_after(|t| t.acl("d", "d:u:1000:rwx"));
            assert_eq!(found, ["d: xattr \"system.posix_acl_default\" only on the right"]);
        }
    }

    #[test]
    fn a_write_that_changes_nothing_is_seen() {
        let tree = sample();
        let before = Snapshot::of(tree.path());
        let aspects = Aspects { untouched: true, ..Aspects::default() };
        assert!(differences(&before, &Snapshot::of(tree.path()), aspects).is_empty());
        tree.mtime("h", 1, 2);
        let found = differences(&before, &Snapshot::of(tree.path()), aspects);
        assert!(matches!(&found[..], [one] if one.starts_with("h: ctime")), "{found:?}");
    }

    #[test]
    fn a_filled_hole_is_seen() {
        let (left, right) = (TempTree::new(), TempTree::new());
        left.sparse("f", 1 << 20, &[(4096, b"x")]).mtime("f", 1, 1).mtime("", 1, 1);
        let whole = Content::zeros(1 << 20).overwrite(4096, b"x");
        right.file("f", whole).mtime("f", 1, 1).mtime("", 1, 1);
        assert_same(left.path(), right.path());
        let aspects = Aspects { extents: Some(1), ..Aspects::default() };
        let (left, right) = (Snapshot::of(left.path()), Snapshot::of(right.path()));
        assert_eq!(differences(&left, &left, aspects), [""; 0]);
        assert_eq!(differences(&left, &right, aspects).len(), 1);
    }
}
