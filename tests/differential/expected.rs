//! What a run must leave, said without the engine: from the source, the destination before, and the options.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use testkit::{Kind, Node, Snapshot};

use crate::options::Options;

/// How many extents the generator gives a sparse file at most, with the ends of its holes.
const EXTENTS: u64 = 8;
/// A file of at most 64 KiB travels whole, without its holes: so many blocks of 512 bytes.
const WHOLE: u64 = 128;

/// A run: both trees before it, and its options.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) source: &'a Snapshot,
    pub(crate) before: &'a Snapshot,
    pub(crate) options: &'a Options,
}

impl<'a> Expected<'a> {
    /// Entries of the source that take part.
    pub(crate) fn arriving(&self) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let options = self.options;
        let takes_part = move |(path, node): &(&PathBuf, &Node)| {
            !path.starts_with("lost+found")
                && !options.leave_out(path, node.kind == Kind::Directory)
        };
        self.source.0.iter().filter(takes_part)
    }

    fn arrives(&self, path: &Path) -> Option<&'a Node> {
        let node = self.source.0.get(path)?;
        let out = path.starts_with("lost+found")
            || self.options.leave_out(path, node.kind == Kind::Directory);
        (!out).then_some(node)
    }

    /// Whether an entry that the destination alone has must stay.
    fn stays(&self, path: &Path) -> bool {
        let node = &self.before.0[path];
        let protected = |path: &Path, node: &Node| {
            !self.options.delete
                || path.starts_with("lost+found")
                || self.options.leave_out(path, node.kind == Kind::Directory)
        };
        protected(path, node)
            || self.before.0.iter().any(|(below, node)| {
                below != path && below.starts_with(path) && protected(below, node)
            })
    }

    /// Entries that only the destination has and that must stay.
    fn staying(&self) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        let this = *self;
        self.before
            .0
            .iter()
            .filter(move |(path, _)| this.arrives(path).is_none() && this.stays(path))
    }

    /// What cannot be done: something that is no directory belongs where a directory must stay.
    pub(crate) fn conflicts(&self) -> bool {
        let blocked = |path: &Path| {
            path.ancestors()
                .any(|above| self.arrives(above).is_some_and(|node| node.kind != Kind::Directory))
        };
        self.staying().any(|(path, _)| blocked(path))
            // Left out as what it is here, and not as what it is there.
            || self.before.0.iter().any(|(path, node)| {
                self.options.leave_out(path, node.kind == Kind::Directory)
                    && self.arrives(path).is_some()
            })
    }

    /// Whether only a comparison by content can see all that differs.
    pub(crate) fn has_secrets(&self) -> bool {
        self.arriving().any(|(path, node)| self.is_secret(path, node))
    }

    fn is_secret(&self, path: &Path, node: &Node) -> bool {
        self.before.0.get(path).is_some_and(|old| {
            old.kind == Kind::File
                && node.kind == Kind::File
                && (old.size, old.mtime) == (node.size, node.mtime)
                && old.content != node.content
        })
    }

    /// Whether `now` has the content that the destination had before under a name of the same inode, where size and time
    /// do not tell it from the source's.
    fn keeps_other_content(&self, path: &Path, want: &Node, now: &Node) -> bool {
        let names = want.links.iter().map(PathBuf::as_path).chain([path]);
        let mut old =
            names.filter(|name| self.is_secret(name, want)).map(|name| &self.before.0[name]);
        old.any(|old| old.content == now.content)
    }

    /// Whether anything is left out or stays, so that the trees are not equal after a success.
    pub(crate) fn is_partial(&self) -> bool {
        self.arriving().count() != self.source.0.len() || self.staying().next().is_some()
    }

    /// Every way in which `after` is not what must be there.
    pub(crate) fn differences(&self, after: &Snapshot) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let arriving: BTreeSet<&PathBuf> = self.arriving().map(|(path, _)| path).collect();
        for (path, node) in self.arriving() {
            match after.0.get(path) {
                Some(now) => {
                    let wrong = self.unlike(path, node, now, &arriving);
                    found.extend(wrong.into_iter().map(|what| (path.clone(), what)));
                }
                None => found.push((path.clone(), "is missing".into())),
            }
        }
        found.extend(self.wrong_beside(after, &arriving));
        found
    }

    /// What is wrong with entries that the source does not have.
    pub(crate) fn wrong_beside(
        &self,
        after: &Snapshot,
        arriving: &BTreeSet<&PathBuf>,
    ) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let staying: BTreeSet<&PathBuf> = self.staying().map(|(path, _)| path).collect();
        for path in after.0.keys() {
            if !arriving.contains(path) && !staying.contains(path) {
                let what = if self.before.0.contains_key(path) {
                    "is still there"
                } else {
                    "is nothing that was there or that was sent"
                };
                found.push((path.clone(), what.into()));
            }
        }
        found.extend(self.lost(after));
        found
    }

    /// What had to stay and did not, or not as it was.
    pub(crate) fn lost(&self, after: &Snapshot) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for (path, old) in self.staying() {
            let Some(now) = after.0.get(path) else {
                found.push((path.clone(), "had to stay and is gone".into()));
                continue;
            };
            let content =
                (now.kind, now.content, &now.target) == (old.kind, old.content, &old.target);
            let metadata = (now.mode, now.uid, now.gid, now.flags, &now.xattrs)
                == (old.mode, old.uid, old.gid, old.flags, &old.xattrs)
                && (now.kind == Kind::Directory || now.mtime == old.mtime);
            // A name of the same inode may have arrived; metadata belongs to the inode, as with rsync.
            let shared = old.links.iter().any(|link| self.arrives(link).is_some());
            let same = content && (metadata || shared);
            if !same {
                found.push((path.clone(), format!("had to stay as it was: {old:?} {now:?}")));
            }
        }
        found
    }

    fn unlike(
        &self,
        path: &Path,
        want: &Node,
        now: &Node,
        arriving: &BTreeSet<&PathBuf>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        if want.kind != now.kind {
            return vec![format!("is {:?} and not {:?}", now.kind, want.kind)];
        }
        let mut check = |what: &str, right: bool, values: &dyn std::fmt::Debug| {
            if !right {
                found.push(format!("{what} {values:?}"));
            }
        };
        let old = self.before.0.get(path);
        let kept_secret = !self.options.checksum
            && !self.options.verify
            && self.keeps_other_content(path, want, now);
        check("size", want.size == now.size, &(want.size, now.size));
        check("content", want.content == now.content || kept_secret, &());
        check("target", want.target == now.target, &(&want.target, &now.target));
        check("device", want.rdev == now.rdev, &(want.rdev, now.rdev));
        check("mtime", want.mtime == now.mtime, &(want.mtime, now.mtime));
        check("flags", want.flags == now.flags, &(want.flags, now.flags));
        check("mode", self.right_mode(want, now), &format!("{:o} {:o}", want.mode, now.mode));
        let owners = ((want.uid, want.gid), (now.uid, now.gid));
        check("owner", self.options.no_owner || owners.0 == owners.1, &owners);
        check("xattrs", self.right_xattrs(want, now), &(want.xattrs.keys(), now.xattrs.keys()));
        let among = |node: &Node| -> Vec<PathBuf> {
            let links = node.links.iter().filter(|link| arriving.contains(link)).cloned();
            let links: Vec<_> = links.collect();
            if links.len() > 1 { links } else { Vec::new() }
        };
        check("links", among(want) == among(now), &(among(want), among(now)));
        // What is found in an old file is copied, and fills holes of the new one: a cost, and no difference.
        let new = old.is_none_or(|old| old.kind != Kind::File);
        let holes_kept = !new
            || want.links.len() > 1
            || now.blocks <= want.blocks + EXTENTS * 8
            || (want.size <= 65_536 && now.blocks <= WHOLE);
        check("blocks", holes_kept, &(want.blocks, now.blocks));
        found
    }

    fn right_mode(&self, want: &Node, now: &Node) -> bool {
        if want.kind == Kind::Symlink || want.mode == now.mode {
            return self.privileges_belong(want, now);
        }
        self.options.no_owner
            && want.mode & 0o1777 == now.mode & 0o1777
            && self.privileges_belong(want, now)
    }

    /// Set-id bits are for one owner and group only.
    fn privileges_belong(&self, want: &Node, now: &Node) -> bool {
        want.kind != Kind::File
            || (want.uid, want.gid) == (now.uid, now.gid)
            || now.mode & 0o6000 == 0
    }

    fn right_xattrs(&self, want: &Node, now: &Node) -> bool {
        let (wanted, found) = (kept(want), kept(now));
        if wanted == found {
            return !self.options.no_owner
                || (want.uid, want.gid) == (now.uid, now.gid)
                || !found.contains_key(OsStr::new(CAPABILITY));
        }
        let mut without = wanted;
        without.remove(OsStr::new(CAPABILITY));
        self.options.no_owner && without == found
    }
}

const CAPABILITY: &str = "security.capability";

/// The attributes of a node. XFS shows root its lists a second time, in a form of its own.
fn kept(node: &Node) -> BTreeMap<OsString, Vec<u8>> {
    let mut kept = node.xattrs.clone();
    kept.retain(|name, _| !name.as_encoded_bytes().starts_with(b"trusted.SGI_ACL_"));
    kept
}
