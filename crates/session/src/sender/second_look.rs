//! A second look at the directories, when all of them are listed: has an entry been moved past the walk?
//!
//! The walk lists one directory after the other. An entry that is moved from a directory that is not listed yet to one
//! that is stands in neither listing: it would not arrive, and with `--delete` the receiver would remove it under its old
//! name, although the source has it at every moment. The directory that it came to shows that: it has changed since it
//! was listed, and holds a name that came by a move and was not made meanwhile. Nothing is missed where that name leads to
//! a file of which every name stands in a listing, or to a directory that was listed and holds nothing else.

mod inodes;

use std::{cell::Cell, collections::HashMap, hash::RandomState, ops::Range};

use rustix::io::Errno;
use volume::{
    Dir,
    filter::{FilterRules, Verdict},
    list::NameList,
    settled::{self, Listings, Since},
};
use wire::{FileKind, Name};

use inodes::Inodes;

/// Directories that are looked at again. What is listed beyond them is trusted: the memory of a session is bounded.
const MAX_DIRECTORIES: usize = 1 << 22;
/// How often all directories are looked at again, at most, while some of them change.
const LOOKS: usize = 4;
/// Names that are kept, as four bytes each. Of directories beyond them only a sum is kept, so that old entries that are
/// written to count like moved ones where names came or went.
const MAX_NAMES: usize = 1 << 24;

/// A directory that was listed, by its place in [`SecondLook`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed(u32);

/// What is kept of each directory, parents before their children.
#[derive(Default)]
pub(super) struct SecondLook {
    key: RandomState,
    nodes: Vec<Node>,
    names: Vec<u8>,
    marks: Vec<u32>,
    /// Files of which every name was listed, and directories: where they are found at another place, nothing is missed.
    listed: Inodes,
}

struct Node {
    parent: Option<Listed>,
    /// Where its own name ends in `names`.
    name_end: u32,
    inode: u64,
    since: Since,
    /// Of all that it listed, in any order.
    sum: u64,
    /// What it listed, in `marks`.
    marks: Option<Range<u32>>,
}

/// What a second look found.
pub(super) enum Seen {
    /// An entry may have been moved into this directory.
    MovedIn(Dir),
    /// It cannot be looked at.
    Failed(volume::Error),
}

impl SecondLook {
    /// Bytes of memory that a directory of this name with so many entries takes.
    pub(super) fn memory(name: Option<&wire::Name>, entries: usize) -> u64 {
        (size_of::<Node>() + name.map_or(0, |name| name.len()) + 4 * entries) as u64
    }

    /// Keeps `dir`, which lies in `parent` and was listed as `names`. A file that is `alone`, with no other name, is known
    /// again under a new name in the same directory. Of a file with several names, or that nobody looked at, another name
    /// may have come. `None` where there are too many directories, or the parent is not kept.
    pub(super) fn add(
        &mut self,
        parent: Option<Listed>,
        dir: &Dir,
        (names, alone): (&NameList, &[bool]),
        since: Since,
    ) -> Option<Listed> {
        let is_root = self.nodes.is_empty();
        if self.nodes.len() == MAX_DIRECTORIES || (parent.is_none() && !is_root) {
            return None;
        }
        let listed = Listed(u32::try_from(self.nodes.len()).ok()?);
        let name = dir.name().map_or(&[][..], |name| name.as_bytes());
        let name_end = u32::try_from(self.names.len() + name.len()).ok()?;
        self.names.extend_from_slice(name);
        let start = self.marks.len();
        let kept = names.marks(&self.key).zip(alone);
        self.marks
            .extend(kept.map(|(mark, alone)| mark.inode.filter(|_| *alone).unwrap_or(mark.named)));
        let sum = sum(names, &self.key);
        let marks = (self.marks.len() <= MAX_NAMES).then(|| {
            self.marks[start..].sort_unstable();
            start as u32..self.marks.len() as u32
        });
        if marks.is_none() {
            self.marks.truncate(start);
        }
        let inode = dir.identity().1;
        self.add_listed(inode, &since);
        self.nodes.push(Node { parent, name_end, inode, since, sum, marks });
        Some(listed)
    }

    /// Every name of the inode stands in a listing by now; the last one is of a directory that was listed `since`. Subvolumes
    /// and file systems whose clock is another one have numbers that say nothing.
    pub(super) fn add_listed(&mut self, inode: u64, since: &Since) {
        if matches!(since, Since::Clock(_)) {
            self.listed.insert(inode);
        }
    }

    /// Bytes of memory that the numbers of inodes take.
    pub(super) fn memory_of_inodes(&self) -> u64 {
        self.listed.memory()
    }

    fn has_gained(&self, node: &Node, dir: &Dir, run: &mut Listings<'_>) -> volume::Result<bool> {
        if dir.identity().1 != node.inode {
            // What was mounted over a directory hides what came into it.
            return Ok(settled::is_mounted(dir)? || node.since.is_moved_in(dir, run)?);
        }
        let names = NameList::read(dir)?;
        if sum(&names, &self.key) == node.sum {
            return Ok(false);
        }
        // As often as each was listed.
        let mut known: HashMap<u32, u32> = HashMap::new();
        for mark in node.marks.iter().flat_map(|at| &self.marks[at.start as usize..at.end as usize])
        {
            *known.entry(*mark).or_default() += 1;
        }
        let mut is_known = |mark| match known.get_mut(&mark) {
            Some(left @ 1..) => {
                *left -= 1;
                true
            }
            _ => false,
        };
        let gained: Vec<_> = names
            .marks(&self.key)
            .enumerate()
            .filter(|(_, mark)| !(is_known(mark.named) || mark.inode.is_some_and(&mut is_known)))
            .filter_map(|(index, _)| Some((names.name(index)?, names.kind_hint(index))))
            .collect();
        // Where the directory does not record the kind of an entry, the entry counts.
        let is_excluded = |name: &Name, kind: Option<FileKind>| {
            kind.is_some_and(|kind| (run.excludes)(dir, name, kind == FileKind::Directory))
        };
        let gained: Vec<_> =
            gained.into_iter().filter(|(name, kind)| !is_excluded(name, *kind)).collect();
        let names = gained.into_iter().map(|(name, _)| name);
        node.since.moved_in(dir, names, node.marks.is_some(), run)
    }

    /// True where the entry `name` of `parent`, which could not be listed, may have gained something meanwhile.
    pub(super) fn may_have_gained(&self, parent: &Dir, name: &wire::Name) -> bool {
        let began = self.nodes.first().map(|node| node.since);
        began.is_none_or(|began| began.may_have_changed(parent, name).unwrap_or(true))
    }

    /// Looks at all directories below `root` again until none has changed during a look, and passes on what it sees. `go_on`
    /// is asked before each directory. True where something was seen.
    pub(super) fn look_until_at_rest<E>(
        &self,
        root: &Dir,
        filter: &FilterRules,
        mut go_on: impl FnMut() -> Result<(), E>,
        mut see: impl FnMut(Seen),
    ) -> Result<bool, E> {
        let (mut previous, mut seen) = (None, false);
        // Something may move during a look, from where it is still to come to where it was.
        for _ in 0..LOOKS {
            let start = Since::now(root).ok();
            let at_rest = self.look(root, previous.as_ref(), filter, &mut go_on, |what| {
                seen = true;
                see(what);
            })?;
            if at_rest || seen {
                break;
            }
            previous = start;
        }
        Ok(seen)
    }

    /// One look. True where no directory has changed since it was listed, or since the `previous` look began.
    fn look<E>(
        &self,
        root: &Dir,
        previous: Option<&Since>,
        filter: &FilterRules,
        mut go_on: impl FnMut() -> Result<(), E>,
        mut see: impl FnMut(Seen),
    ) -> Result<bool, E> {
        let Some(began) = self.nodes.first().map(|node| node.since) else { return Ok(true) };
        let all_at_rest = Cell::new(true);
        let mut rests_since_previous = |dir: &Dir| {
            let rests = previous.is_some_and(|since| since.surely_at_rest(dir).unwrap_or(false));
            all_at_rest.set(all_at_rest.get() && rests);
        };
        let has = |inode| self.listed.contains(inode);
        let excludes = |dir: &Dir, name: &Name, is_dir| {
            !filter.is_empty()
                && filter.matches(&dir.components(), name, is_dir) == Verdict::Excluded
        };
        // The directories on the way to the next one; `None` where it is gone from its place, with all that was below it.
        let mut above: Vec<(Listed, Option<Dir>)> = Vec::new();
        let (mut at, mut name_from) = (0, 0);
        for node in &self.nodes {
            go_on()?;
            let name = &self.names[name_from..node.name_end as usize];
            let listed = Listed(at);
            (at, name_from) = (at + 1, node.name_end as usize);
            while above.last().is_some_and(|(last, _)| Some(*last) != node.parent) {
                above.pop();
            }
            let dir = match above.last() {
                Some((_, Some(parent))) => open(parent, name, &mut see),
                Some((_, None)) => None,
                None => Some(root.clone()),
            };
            if let Some(dir) = &dir {
                // The number alone says nothing: some file systems do not keep it. A rename changes the time of change.
                let seen = node.since.surely_at_rest(dir).and_then(|unchanged| {
                    if unchanged {
                        // What was mounted over a directory hides what came into it.
                        return Ok(dir.identity().1 != node.inode && settled::is_mounted(dir)?);
                    }
                    rests_since_previous(dir);
                    let enters = &mut rests_since_previous;
                    let mut run = Listings { began, has: &has, excludes: &excludes, enters };
                    self.has_gained(node, dir, &mut run)
                });
                match seen {
                    Ok(false) => {}
                    Ok(true) => see(Seen::MovedIn(dir.clone())),
                    Err(error) => see(Seen::Failed(error)),
                }
            }
            above.push((listed, dir));
        }
        Ok(all_at_rest.get())
    }
}

/// The directory `name` of `parent`; `None` where it is gone from its place. What else keeps it from being opened is seen.
fn open(parent: &Dir, name: &[u8], see: &mut impl FnMut(Seen)) -> Option<Dir> {
    let name = wire::Name::new(name).ok()?;
    match parent.open_child(&name) {
        Ok(dir) => return Some(dir),
        Err(error) if is_elsewhere(&error) => {}
        Err(error) => see(Seen::Failed(error)),
    }
    None
}

/// A hash of all entries, in any order.
fn sum(names: &NameList, key: &RandomState) -> u64 {
    names.marks(key).map(|mark| u64::from(mark.named)).fold(0, u64::wrapping_add)
}

/// True where a directory is gone from its place. If it was moved, the directory that it came to has changed.
fn is_elsewhere(error: &volume::Error) -> bool {
    error.is_vanished() || matches!(error.errno, Errno::NOTDIR | Errno::LOOP)
}

#[cfg(test)]
mod tests;
