//! What an entry of the source is, and whether it takes part in the transfer.

use volume::{
    Dir,
    filter::{FilterRules, Verdict},
    is_lost_and_found,
    list::NameList,
    source,
    staging::is_staging,
    stat::{self, Inode},
};
use wire::{Entry, FileKind, Name};

use super::state::Shared;

/// What a name of the source leads to.
pub(super) enum Found {
    Entry(Box<Entry>, Inode),
    /// A filter leaves it out.
    Excluded,
    /// It is not the user's: `lost+found`, or the staging directory of a transfer.
    NotCopied,
}

/// Reads entries as the rules of the session want them.
pub(super) struct EntryReader<'a> {
    pub(super) shared: &'a Shared,
    pub(super) filter: &'a FilterRules,
}

impl EntryReader<'_> {
    /// Reads an entry. The filter decides first: an excluded entry is not read, so nothing
    /// about it can fail.
    pub(super) fn read(
        &self,
        dir: &Dir,
        prefix: &[Name],
        name: &Name,
        hint: Option<FileKind>,
    ) -> volume::Result<Found> {
        let excluded = |is_dir| self.filter.matches(prefix, name, is_dir) == Verdict::Excluded;
        let mut expected = None;
        if !self.filter.is_empty() {
            let kind = hint.map_or_else(|| stat::kind(dir, name), Ok)?;
            expected = Some(kind == FileKind::Directory);
            if expected.is_some_and(excluded) {
                return Ok(Found::Excluded);
            }
        }
        let (entry, inode) = stat::read_entry(dir, name, &self.shared.read_options)?;
        let is_dir = entry.meta.kind == FileKind::Directory;
        // It was replaced since the directory was listed.
        if expected.is_some_and(|expected| expected != is_dir) && excluded(is_dir) {
            return Ok(Found::Excluded);
        }
        if entry.meta.kind == FileKind::File && entry.meta.size == 0 {
            // The receiver does not ask for the content of an empty file, so nothing else looks at it.
            source::confirm_empty(dir, name, &inode)?;
        }
        if is_dir && is_lost_and_found(dir, name) {
            if !is_untouched_since_mkfs(dir, &entry) {
                let why = "belongs to the file system and is not copied";
                self.shared.skipped(&dir.display_entry(name), why);
            }
            return Ok(Found::NotCopied);
        }
        if is_staging(dir, name, &entry.meta, &inode) {
            let why = "staging directory of an interrupted transfer into this volume: its files may be incomplete; \
                       the directory is not copied";
            self.shared.skipped(&dir.display_entry(name), why);
            return Ok(Found::NotCopied);
        }
        if inode.subvolume_stub {
            let why = "subvolume in a Btrfs snapshot, which does not contain it: an empty directory is copied";
            self.shared.skipped(&dir.display_entry(name), why);
        }
        if is_dir && inode.mount_root {
            let why = "mount point: its content is not copied";
            self.shared.skipped(&dir.display_entry(name), why);
        }
        Ok(Found::Entry(Box::new(entry), inode))
    }
}

/// True for a `lost+found` that is as `mkfs` makes it: empty and open to root alone. To leave it out loses nothing, so
/// it is not worth a report in each run.
fn is_untouched_since_mkfs(dir: &Dir, entry: &Entry) -> bool {
    let meta = &entry.meta;
    (meta.uid, meta.mode) == (0, 0o700)
        && dir
            .open_child(&entry.name)
            .and_then(|inside| NameList::read(&inside))
            .is_ok_and(|names| names.is_empty() && names.complete())
}
