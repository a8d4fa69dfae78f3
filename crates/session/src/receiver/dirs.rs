//! Directories of the volume while a session works in them.
//!
//! A directory is finished, deepest first, when nothing in it is pending: its listing is merged, its
//! files have come, its children are finished, and nothing waits for the end of the session. Only
//! then it gets its name, where it was filled in the staging directory, and its metadata.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use volume::{
    Dir, create,
    create::ParentHints,
    metadata::{self, Applied, MetadataDiff},
    small,
    staging::Place,
};
use wire::{Entry, EntryId, Metadata, Name, Timestamp, Xattrs};

use super::state::Shared;
use crate::{
    control::Stopped,
    fault::Fault,
    manifest::Record,
    memory_budget::{self, MemoryReservation},
    no_owner,
};

/// A directory that the session works in.
pub(super) struct DirState {
    pub(super) id: EntryId,
    /// `None` for the root.
    pub(super) parent: Option<Arc<DirState>>,
    /// The final name; `None` for the root.
    pub(super) name: Option<Name>,
    /// `None` where it does not exist, in a dry run.
    pub(super) dir: Option<Dir>,
    /// Nobody sees it yet: it lies in the staging directory, or in such a directory.
    pub(super) unpublished: bool,
    /// It lies in the staging directory itself.
    pub(super) publish: bool,
    /// It was made by this session, so there is nothing in it.
    pub(super) new: bool,
    /// What it is to be; the root's comes with the end of the listing.
    pub(super) want: Mutex<Option<Metadata>>,
    /// What it was before.
    pub(super) have: Option<Metadata>,
    /// Something in it was made, renamed or removed, which moved its modification time.
    pub(super) touched: AtomicBool,
    pending: AtomicU64,
    memory: Mutex<Option<MemoryReservation>>,
    hints: Mutex<Option<ParentHints>>,
}

impl DirState {
    pub(super) fn root(dir: Option<Dir>, new: bool, have: Option<Metadata>) -> Self {
        Self {
            id: EntryId::ROOT,
            parent: None,
            name: None,
            dir,
            unpublished: false,
            publish: false,
            new,
            want: Mutex::new(None),
            have,
            touched: AtomicBool::new(false),
            // The listing, and the end of the session, which brings the root's metadata.
            pending: AtomicU64::new(2),
            memory: Mutex::default(),
            hints: Mutex::default(),
        }
    }

    /// A directory in `parent`, with its listing pending. `dir` lies in the staging directory where
    /// `publish` says so.
    pub(super) fn child(
        parent: &Arc<Self>,
        id: EntryId,
        name: &Name,
        dir: Option<Dir>,
        publish: bool,
        want: Metadata,
        have: Option<Metadata>,
    ) -> Self {
        parent.hold();
        Self {
            id,
            parent: Some(Arc::clone(parent)),
            name: Some(name.clone()),
            unpublished: publish || parent.unpublished,
            publish,
            new: have.is_none(),
            dir,
            want: Mutex::new(Some(want)),
            have,
            touched: AtomicBool::new(false),
            pending: AtomicU64::new(1),
            memory: Mutex::default(),
            hints: Mutex::default(),
        }
    }

    /// Holds its share of the memory for as long as it is worked in.
    pub(super) fn counted(mut self, memory: MemoryReservation) -> Self {
        self.memory = Mutex::new(Some(memory));
        self
    }

    /// Takes in the extended attributes that it is to have. They come while it is held for them.
    pub(super) fn attributes_came(&self, shared: &Shared, xattrs: Xattrs) {
        if let Some(memory) = &mut *self.memory.lock() {
            memory.grow(&shared.control, memory_budget::of_xattrs(&xattrs));
        }
        if let Some(want) = &mut *self.want.lock() {
            want.xattrs = xattrs;
        }
    }

    /// Takes in the modification time that it had when it was listed, later than it was read for its own entry.
    pub(super) fn listed_at(&self, mtime: Timestamp) {
        if let Some(want) = &mut *self.want.lock() {
            want.mtime = mtime;
        }
    }

    /// The directory on disk.
    pub(super) fn dir(&self) -> volume::Result<&Dir> {
        self.dir
            .as_ref()
            .ok_or_else(|| volume::Error::new("open", self.display(), rustix::io::Errno::NOENT))
    }

    /// What the directory gives to what is made in it.
    pub(super) fn hints(&self) -> volume::Result<ParentHints> {
        let mut hints = self.hints.lock();
        match *hints {
            Some(hints) => Ok(hints),
            None => Ok(*hints.insert(ParentHints::of(self.dir()?)?)),
        }
    }

    /// The place of an entry in it; `occupied` says that something bears the name.
    pub(super) fn place<'a>(
        &'a self,
        shared: &'a Shared,
        name: &'a Name,
        occupied: bool,
    ) -> volume::Result<Place<'a>> {
        let (staging, dir, hints) = (shared.staging()?, self.dir()?, self.hints()?);
        Ok(Place { staging, dir, name, occupied, hints })
    }

    /// Writes a small file into it; `occupied` says that something bears the name.
    pub(super) fn write_small(
        &self,
        shared: &Shared,
        entry: &Entry,
        content: &[u8],
        occupied: bool,
    ) -> volume::Result<Applied> {
        let Entry { name, meta, .. } = entry;
        if self.unpublished && !occupied {
            // Nobody sees it before the directory is published.
            let (dir, hints) = (self.dir()?, self.hints()?);
            return small::write_new(dir, name, meta, content, hints, shared.apply_options);
        }
        let place = self.place(shared, name, occupied)?;
        small::write_over(place, meta, content, shared.apply_options)
    }

    /// An error of the entry `name`.
    pub(super) fn error_of(
        &self,
        name: &Name,
        operation: &'static str,
        errno: rustix::io::Errno,
    ) -> volume::Error {
        let subvolume = self.dir().is_ok_and(Dir::in_subvolume);
        volume::Error {
            subvolume,
            ..volume::Error::new(operation, self.display_entry(name), errno)
        }
    }

    pub(super) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Keeps the directory open for something that is still to be done in it.
    pub(super) fn hold(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Names from the root down to this directory.
    pub(super) fn components(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(dir) = at {
            names.extend(dir.name.clone());
            at = dir.parent.as_deref();
        }
        names.reverse();
        names
    }

    /// The path below the root, escaped for display; `.` for the root.
    pub(super) fn display(&self) -> DisplayPath<'_> {
        DisplayPath { dir: Some(self), entry: None }
    }

    /// The path of an entry below the root, escaped for display.
    pub(super) fn display_entry<'a>(&'a self, name: &'a Name) -> DisplayPath<'a> {
        DisplayPath { dir: Some(self), entry: Some(name) }
    }
}

/// A path that is put together where it is shown, which of most entries it never is: in a deep tree that costs as much
/// as there are directories above.
#[derive(Clone, Copy)]
pub(super) struct DisplayPath<'a> {
    dir: Option<&'a DirState>,
    entry: Option<&'a Name>,
}

impl DisplayPath<'static> {
    /// A device, which has no path in a volume.
    pub(super) const DEVICE: Self = Self { dir: None, entry: None };
}

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&Name> = self.entry.into_iter().collect();
        let mut at = self.dir;
        if at.is_none() {
            return f.write_str("block device");
        }
        while let Some(dir) = at {
            names.extend(&dir.name);
            at = dir.parent.as_deref();
        }
        let Some(first) = names.pop() else { return f.write_str(".") };
        write!(f, "{first}")?;
        names.into_iter().rev().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl From<DisplayPath<'_>> for String {
    fn from(path: DisplayPath<'_>) -> Self {
        path.to_string()
    }
}

impl Drop for DirState {
    fn drop(&mut self) {
        // A chain of a million parents must not be dropped by recursion.
        let mut next = self.parent.take();
        while let Some(dir) = next {
            next = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// Something in `dir` is done; where it was the last, the directory is finished, and then perhaps
/// the one above.
pub(super) fn release(shared: &Shared, dir: &Arc<DirState>) -> Result<(), Stopped> {
    let mut at = Some(Arc::clone(dir));
    while let Some(dir) = at {
        if dir.pending.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        finish(shared, &dir)?;
        at = dir.parent.clone();
    }
    Ok(())
}

fn finish(shared: &Shared, dir: &DirState) -> Result<(), Stopped> {
    let want = dir.want.lock().take();
    let Some(want) = want else { return Ok(()) };
    let actual = match apply(shared, dir, want) {
        Ok(actual) => actual,
        // What it is now is not known, so it has no record: it was named.
        Err(fault) => return fault.settle(|error| shared.failed(error)),
    };
    shared.record(&Record {
        parent: dir.parent.as_ref().map_or(EntryId::ROOT, |parent| parent.id),
        id: dir.id,
        name: dir.name.as_ref(),
        meta: &actual,
        target: &[],
        link: None,
        content: None,
    });
    shared.manifest.add_directory_time(dir.id, actual.mtime);
    Ok(())
}

fn apply(shared: &Shared, state: &DirState, mut want: Metadata) -> Result<Metadata, Fault> {
    if shared.options().no_owner
        && state.parent.is_none()
        && let Some(have) = state.have.as_ref().filter(|have| no_owner::is_foreign_root(have.uid))
    {
        return Ok(have.clone());
    }
    let touched = state.touched.load(Ordering::Relaxed);
    let before = state.have.as_ref().filter(|_| !touched);
    if shared.options().no_owner {
        no_owner::drop_what_needs_it(&mut want);
        if let Some(have) = &state.have {
            (want.uid, want.gid) = (have.uid, have.gid);
        } else if let Some(parent) = &state.parent
            && parent.dir.is_some()
        {
            let hints = parent.hints()?;
            (want.uid, want.gid) = (hints.uid, hints.gid);
        }
    }
    if let Some(have) = before.filter(|have| MetadataDiff::between(&want, have).is_empty()) {
        // Nothing is to be set, but it may have been opened to work in it.
        return match &state.dir {
            Some(dir) if !shared.dry_run() => Ok(metadata::restore_dir(dir, have)?),
            _ => Ok(have.clone()),
        };
    }
    let differs = before.is_some()
        || state.have.as_ref().is_some_and(|have| {
            // The time moved because of what was done in it; that alone is no change to speak of.
            let diff = MetadataDiff { mtime: false, ..MetadataDiff::between(&want, have) };
            !diff.is_empty()
        });
    if differs {
        shared.action("metadata", &format_args!("{}/", state.display()))?;
    }
    let Some(dir) = state.dir.as_ref().filter(|_| !shared.dry_run()) else { return Ok(want) };
    if state.publish {
        shared.unpublished.lock().remove(&state.id);
        create::publish_directory(dir)?;
        if let Some(parent) = &state.parent {
            parent.touch();
        }
    }
    let applied = metadata::apply_dir(dir, &want, shared.apply_options)?;
    // Everything in it is done, so its descriptor can go to those that are still worked in.
    dir.release();
    shared.report(&state.display(), &applied)?;
    Ok(applied.actual)
}
