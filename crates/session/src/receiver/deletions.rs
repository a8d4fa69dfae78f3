//! The one owner of the question which entries of the destination may vanish.
//!
//! An entry vanishes when it is extraneous and removed at the end, when it is renamed away because the source has it
//! under another name, or when it makes way for an entry of another kind. All of that happens here and nowhere else,
//! so that what protects an entry holds on every path:
//!
//! * a filter that excludes the entry, or an entry below it: the directories above it stay too;
//! * `lost+found` at the root, and mount points;
//! * `--max-delete`: each removal is reserved before it is done, so the limit holds on all threads together.
//!
//! A dry run asks the same questions and removes nothing.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::AtFlags;
use volume::{
    Dir, create,
    filter::{FilterRules, Verdict},
    list::NameList,
    remove::{self, Mode, Outcome},
    stat::{self, ReadOptions},
};
use wire::{Entry, FileKind, Name, Timestamp};

use super::{
    dirs::{self, DirState},
    kept::Kept,
    place::{Standing, Way},
    room::Takes,
    state::Shared,
};
use crate::{
    control::Stopped,
    fault::Fault,
    memory_budget::{self, MemoryReservation},
    summary::ONLY_AT_DESTINATION,
};

/// Entries looked at in search of renamed files.
const MAX_CANDIDATES: usize = 2_000_000;

/// The exit code of an entry that is not as at the source, and of the limit on deletions.
const PARTIAL: u8 = 23;
const LIMIT_REACHED: u8 = 25;

/// What is to be removed at the end, and how much may be removed at all.
pub(super) struct Deletions {
    extraneous: Mutex<Vec<Extraneous>>,
    limit: Limit,
    /// The source may have them under another name: none is removed.
    suspended: AtomicBool,
    kept: Mutex<Kept>,
}

/// Entries of one directory that the source does not have.
struct Extraneous {
    dir: Arc<DirState>,
    names: Vec<Name>,
    _memory: MemoryReservation,
}

impl Deletions {
    /// None removed yet; `own` where the limit is this end's and not the sender's.
    pub(super) fn new(max_delete: Option<u64>, own: bool) -> Self {
        let kept = Mutex::default();
        let suspended = AtomicBool::new(false);
        Self { extraneous: Mutex::default(), limit: Limit::new(max_delete, own), suspended, kept }
    }

    /// From now on nothing that is extraneous is removed or renamed away. True where that held already.
    pub(super) fn suspend(&self) -> bool {
        self.suspended.swap(true, Relaxed)
    }

    /// What stays although the source does not have it.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    pub(super) fn are_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }

    /// Lets go of the directories in which nothing was removed yet.
    fn take(&self) -> Vec<Extraneous> {
        std::mem::take(&mut *self.extraneous.lock())
    }
}

/// How many entries may still be removed.
struct Limit {
    max: Option<u64>,
    own: bool,
    /// Removals that are done or about to be done.
    reserved: AtomicU64,
    reported: AtomicBool,
}

impl Limit {
    fn new(max: Option<u64>, own: bool) -> Self {
        Self { max, own, reserved: AtomicU64::new(0), reported: AtomicBool::new(false) }
    }

    /// Reserves one removal; false if the limit is reached.
    fn reserve(&self) -> bool {
        let Some(max) = self.max else { return true };
        let next = |reserved| (reserved < max).then_some(reserved + 1);
        self.reserved.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Returns a reservation that was not used.
    fn release(&self) {
        if self.max.is_some() {
            self.reserved.fetch_sub(1, Relaxed);
        }
    }
}

/// Keeps in mind what the source does not have in `dir`, as far as it may vanish. The kind is that which the
/// directory records: an excluded entry is not read.
pub(super) fn add_extraneous(
    shared: &Shared,
    dir: &Arc<DirState>,
    names: impl Iterator<Item = (Name, Option<FileKind>)>,
) -> Result<(), Stopped> {
    let found = unprotected(shared, dir, names)?;
    if !found.is_empty() {
        dir.hold();
        let _memory = shared.reserve(memory_budget::of_names(&found));
        let extraneous = Extraneous { dir: Arc::clone(dir), names: found, _memory };
        shared.deletions.extraneous.lock().push(extraneous);
    }
    Ok(())
}

/// Takes note of what the source does not have in `dir` and nothing removes.
pub(super) fn note_kept(
    shared: &Shared,
    dir: &DirState,
    names: impl Iterator<Item = (Name, Option<FileKind>)>,
) -> Result<(), Stopped> {
    let found = unprotected(shared, dir, names)?;
    keep(shared, dir, found);
    Ok(())
}

/// Only a verification needs to know their names.
fn keep(shared: &Shared, dir: &DirState, names: Vec<Name>) {
    if names.is_empty() {
        return;
    }
    shared.crash_marker.pass_over();
    if !shared.options().verify {
        return;
    }
    let memory = shared.reserve(memory_budget::of_names(&names));
    shared.deletions.kept.lock().add(dir.components(), names, memory);
}

/// Leaves out of a verification what is in a directory that is a mount point at the source: it is neither compared nor deleted.
pub(super) fn leave_out_content(shared: &Shared, dir: &DirState) {
    if shared.options().verify {
        let names = dir.components();
        let memory = shared.reserve(memory_budget::of_names(&names));
        shared.deletions.kept.lock().close(names, memory);
    }
    let is_empty =
        |dir| NameList::read(dir).is_ok_and(|names| names.complete() && names.is_empty());
    if shared.crash_marker.untrusted_reason().is_some() && !dir.dir().is_ok_and(is_empty) {
        shared.crash_marker.pass_over();
    }
}

/// Reports what only the destination has, where the digests of both trees are to be equal.
pub(super) fn report_kept(shared: &Shared) -> Result<(), Stopped> {
    let kept = shared.deletions.kept.lock().count();
    if kept == 0 || shared.options().delete {
        // Why each of them is still there was said.
        return Ok(());
    }
    let entries = if kept == 1 { "entry exists" } else { "entries exist" };
    let what = format!(
        "{kept} {entries} {ONLY_AT_DESTINATION}: run again with --verify --delete to delete them"
    );
    shared.problem(".", &what, PARTIAL)
}

/// Reports a directory that stays because a filter protects something in it.
fn report_protected(shared: &Shared, dir: &DirState, name: &Name) -> Result<(), Stopped> {
    let (path, why) =
        (dir.display_entry(name), "not deleted, because it contains excluded entries");
    if shared.options().verify {
        return shared.problem(&path, &format!("exists {ONLY_AT_DESTINATION}; {why}"), PARTIAL);
    }
    shared.note(&format!("{path}: {why}"))
}

/// Those of `names` in `dir` that no filter excludes.
fn unprotected(
    shared: &Shared,
    dir: &DirState,
    names: impl Iterator<Item = (Name, Option<FileKind>)>,
) -> Result<Vec<Name>, Stopped> {
    let Some(on_disk) = &dir.dir else { return Ok(Vec::new()) };
    let mut protection = Protection::new(&shared.filter);
    let mut found = Vec::new();
    for (name, hint) in names {
        match protection.protects_listed(on_disk, &name, hint) {
            Ok(true) => {}
            Ok(false) => found.push(name),
            Err(error) if error.is_vanished() => {}
            // What cannot be looked at may be protected: it stays.
            Err(error) => shared.failed(&error)?,
        }
    }
    Ok(found)
}

/// What is free once everything is removed that is still to be; `None` where `--max-delete` forbids a part of that.
pub(super) fn would_free(shared: &Shared) -> Option<Takes> {
    let Limit { max, reserved, .. } = &shared.deletions.limit;
    let left = max.map(|max| max.saturating_sub(reserved.load(Relaxed)));
    let protection = Protection::new(&shared.filter);
    let mut count = Count { protection, left, freed: Takes::default() };
    for deletion in shared.deletions.extraneous.lock().iter() {
        let Some(dir) = &deletion.dir.dir else { continue };
        for name in &deletion.names {
            if remove::remove_tree(dir, name, Mode::Pretend, &mut count) == Outcome::Stopped {
                return None;
            }
        }
    }
    Some(count.freed)
}

/// Removes what the source does not have, in the order of names. False where there is nothing to remove.
pub(super) fn delete(shared: &Shared) -> Result<bool, Stopped> {
    let mut deletions = shared.deletions.take();
    let some = !deletions.is_empty();
    deletions.sort_by_cached_key(|deletion| deletion.dir.components());
    for deletion in deletions {
        if shared.deletions.are_suspended() {
            keep(shared, &deletion.dir, deletion.names);
        } else if let Some(dir) = &deletion.dir.dir {
            for name in &deletion.names {
                shared.control.check()?;
                deletion.dir.touch();
                let mut remover = Remover::new(shared);
                let outcome = remove::remove_tree(dir, name, remover.mode(), &mut remover);
                if outcome == Outcome::Kept && remover.protected {
                    keep(shared, &deletion.dir, vec![name.clone()]);
                    report_protected(shared, &deletion.dir, name)?;
                }
                remover.result()?;
            }
        }
        dirs::release(shared, &deletion.dir)?;
    }
    Ok(some)
}

/// Removes what is of another kind than `entry`, if it is in the way of it. What must stay is reported and blocks the
/// entry.
pub(super) fn make_way(
    shared: &Shared,
    state: &DirState,
    entry: &Entry,
    standing: Standing,
) -> Result<Way, Fault> {
    let Some((have, inode)) = standing else { return Ok(Way::Free(None)) };
    let name = &entry.name;
    let blocked = |what: &str, exit_code| -> Result<Way, Fault> {
        shared.problem(&state.display_entry(name), what, exit_code)?;
        Ok(Way::Blocked)
    };
    if inode.mount_root {
        return blocked("is a mount point at the destination and is not entered", PARTIAL);
    }
    let is_dir = have.meta.kind == FileKind::Directory;
    if is_dir == (entry.meta.kind == FileKind::Directory) {
        return Ok(Way::Free(Some((have, inode))));
    }
    let dir = state.dir()?;
    if is_dir && !shared.options().delete {
        let inside = NameList::read(&dir.open_child(name)?)?;
        // What cannot be read only looks empty.
        if let Some(error) = inside.failure() {
            return Err(error.clone().into());
        }
        if !inside.is_empty() {
            let what = "a directory that is not empty exists at the destination: use --delete to replace it";
            return blocked(what, PARTIAL);
        }
    }
    state.touch();
    let mut remover = Remover::new(shared);
    let outcome = remove::remove_tree(dir, name, remover.mode(), &mut remover);
    let protected = remover.protected;
    remover.result()?;
    match outcome {
        Outcome::Gone => Ok(Way::Free(None)),
        Outcome::Kept if protected => {
            let what = if is_dir {
                "cannot replace a directory that contains excluded or reserved entries"
            } else {
                "cannot replace an excluded entry of another type"
            };
            blocked(what, PARTIAL)
        }
        // The reason is reported with the entry below that stays.
        Outcome::Kept => Ok(Way::Blocked),
        Outcome::Stopped => blocked(
            "cannot replace the existing entry: limit of --max-delete reached",
            LIMIT_REACHED,
        ),
    }
}

/// Files that are to be removed, by size and modification time: each may be a file that was renamed at the source.
pub(super) struct Candidates(HashMap<(u64, Timestamp), Vec<(Dir, Name)>>);

impl Candidates {
    /// Looks for them below everything that is to be removed.
    pub(super) fn find(shared: &Shared) -> Self {
        let mut found = Self(HashMap::new());
        if shared.deletions.are_suspended() {
            return found;
        }
        let mut protection = Protection::new(&shared.filter);
        let mut stack: Vec<(Dir, Name)> = Vec::new();
        for deletion in shared.deletions.extraneous.lock().iter() {
            if let Some(dir) = &deletion.dir.dir {
                stack.extend(deletion.names.iter().map(|name| (dir.clone(), name.clone())));
            }
        }
        let mut seen = 0;
        while let Some((dir, name)) = stack.pop() {
            seen += 1;
            if seen > MAX_CANDIDATES {
                break;
            }
            found.look_at(&mut protection, &mut stack, dir, name);
        }
        found
    }

    /// Adds the entry, or what is in it, unless it must stay.
    fn look_at(
        &mut self,
        protection: &mut Protection<'_>,
        stack: &mut Vec<(Dir, Name)>,
        dir: Dir,
        name: Name,
    ) {
        let plain = ReadOptions { xattrs: false, selinux: false };
        let Ok((entry, inode)) = stat::read_entry(&dir, &name, &plain) else { return };
        let is_dir = entry.meta.kind == FileKind::Directory;
        if inode.mount_root || protection.protects(&dir, &name, is_dir) {
            return;
        }
        if is_dir {
            let Ok(child) = dir.open_child(&name) else { return };
            let Ok(names) = NameList::read(&child) else { return };
            stack.extend((0..names.len()).filter_map(|i| Some((child.clone(), names.name(i)?))));
        } else if entry.meta.kind == FileKind::File && inode.nlink == 1 {
            let key = (entry.meta.size, entry.meta.mtime);
            self.0.entry(key).or_default().push((dir, name));
        }
    }

    /// Moves a file of this size and time to the staged name of `name` in `to`, where it is the basis of that file.
    /// False if there is none, or it cannot be moved: it stays where it is then.
    pub(super) fn rename_away(
        &mut self,
        shared: &Shared,
        key: (u64, Timestamp),
        to: &DirState,
        name: &Name,
    ) -> Result<bool, Stopped> {
        let Some((from, old)) = self.0.get_mut(&key).and_then(Vec::pop) else { return Ok(false) };
        if !shared.deletions.limit.reserve() {
            return Ok(false);
        }
        let place = to.place(shared, name, false);
        if place.and_then(|place| create::adopt(&from, &old, place)).is_err() {
            shared.deletions.limit.release();
            return Ok(false);
        }
        to.touch();
        shared.context.progress.files_deleted.fetch_add(1, Relaxed);
        shared.action("delete", &from.display_entry(&old))?;
        Ok(true)
    }
}

/// What must stay, whatever the source has.
struct Protection<'a> {
    filter: &'a FilterRules,
    /// The directory that was asked about last, and the names that lead to it.
    last: Option<((u64, u64), Vec<Name>)>,
}

impl<'a> Protection<'a> {
    fn new(filter: &'a FilterRules) -> Self {
        Self { filter, last: None }
    }

    /// True for an entry that must stay, and with it the directories above.
    fn protects(&mut self, dir: &Dir, name: &Name, is_dir: bool) -> bool {
        if is_dir && volume::is_lost_and_found(dir, name) {
            return true;
        }
        if self.filter.is_empty() {
            return false;
        }
        let identity = dir.identity();
        let parent = match &mut self.last {
            Some((last, parent)) if *last == identity => parent,
            last => &mut last.insert((identity, dir.components())).1,
        };
        self.filter.matches(parent, name, is_dir) == Verdict::Excluded
    }

    /// The same for an entry whose kind the directory records, or does not.
    fn protects_listed(
        &mut self,
        dir: &Dir,
        name: &Name,
        hint: Option<FileKind>,
    ) -> volume::Result<bool> {
        if self.filter.is_empty() && !volume::is_lost_and_found(dir, name) {
            return Ok(false);
        }
        let kind = hint.map_or_else(|| stat::kind(dir, name), Ok)?;
        Ok(self.protects(dir, name, kind == FileKind::Directory))
    }
}

/// Decides about each removal, counts it and reports it.
struct Remover<'a> {
    shared: &'a Shared,
    protection: Protection<'a>,
    /// Something stayed because it is protected.
    protected: bool,
    stopped: Option<Stopped>,
}

impl<'a> Remover<'a> {
    fn new(shared: &'a Shared) -> Self {
        let protection = Protection::new(&shared.filter);
        Self { shared, protection, protected: false, stopped: None }
    }

    fn mode(&self) -> Mode {
        if self.shared.dry_run() { Mode::Pretend } else { Mode::Remove }
    }

    fn result(self) -> Result<(), Stopped> {
        self.stopped.map_or(Ok(()), Err)
    }

    fn keep(&mut self, outcome: Result<(), Stopped>) {
        if let Err(stopped) = outcome {
            self.stopped = Some(stopped);
        }
    }
}

impl remove::Removal for Remover<'_> {
    fn reserve(&mut self) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        let limit = &self.shared.deletions.limit;
        if limit.reserve() {
            return true;
        }
        if let Some(max) = limit.max
            && !limit.reported.swap(true, Relaxed)
        {
            let of_serve = if limit.own { " of serve" } else { "" };
            let what = format!(
                "stopped deleting: --max-delete {max}{of_serve} is reached, and more entries are not in the source: list them with --dry-run and without --max-delete"
            );
            let told = self.shared.problem(".", &what, LIMIT_REACHED);
            self.keep(told);
        }
        false
    }

    fn release(&mut self) {
        self.shared.deletions.limit.release();
    }

    fn protects(&mut self, dir: &Dir, name: &Name, is_dir: bool) -> bool {
        let protects = self.protection.protects(dir, name, is_dir);
        self.protected |= protects;
        protects
    }

    fn removed(&mut self, dir: &Dir, name: &Name, is_dir: bool) {
        self.shared.context.progress.files_deleted.fetch_add(1, Relaxed);
        let slash = if is_dir { "/" } else { "" };
        let told = self
            .shared
            .action("delete", &fmt::from_fn(|f| write!(f, "{}{slash}", dir.display_entry(name))));
        self.keep(told);
    }

    fn failed(&mut self, error: volume::Error) {
        let told = self.shared.failed(&error);
        self.keep(told);
    }
}

/// Counts what would be removed, up to a limit.
struct Count<'a> {
    protection: Protection<'a>,
    left: Option<u64>,
    freed: Takes,
}

impl remove::Removal for Count<'_> {
    fn reserve(&mut self) -> bool {
        let some = self.left != Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        some
    }

    fn release(&mut self) {
        self.left = self.left.map(|left| left + 1);
    }

    fn protects(&mut self, dir: &Dir, name: &Name, is_dir: bool) -> bool {
        self.protection.protects(dir, name, is_dir)
    }

    fn removed(&mut self, dir: &Dir, name: &Name, is_dir: bool) {
        let stat = dir.descriptor().ok().and_then(|fd| {
            rustix::fs::statat(&fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).ok()
        });
        // Another name of the inode may stay.
        if let Some(stat) = stat.filter(|stat| is_dir || stat.st_nlink == 1) {
            self.freed.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            self.freed.inodes += 1;
        }
    }

    fn failed(&mut self, _error: volume::Error) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_together_reserve_no_more_than_the_limit() {
        for max in [0, 1, 100] {
            let limit = Limit::new(Some(max), false);
            let reserved = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for turn in 0..10_000 {
                            if limit.reserve() {
                                if turn % 3 == 0 {
                                    limit.release();
                                } else {
                                    reserved.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    });
                }
            });
            assert_eq!(reserved.into_inner(), max);
        }
    }

    #[test]
    fn without_a_limit_everything_is_reserved() {
        let limit = Limit::new(None, false);
        assert!((0..10).all(|_| limit.reserve()));
    }
}
