//! A regular file of a listing: unchanged, at hand with the listing, or to be asked for.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use delta::Checksum;
use volume::{basis::BasisFile, stat::Inode};
use wire::{ContentCheck, Entry, EntryId, FileKind, Listed, Metadata, Want};

use super::{
    dirs::DisplayPath,
    file::{Existing, FileState, Here, NOT_WHAT_WAS_SENT},
    links,
    place::{Attributes, Placing, Standing, comes},
    renames,
    room::{self, Takes},
};
use crate::{fault::Fault, manifest, sender::SMALL};

/// Files that may be put off until the listing is complete, to be looked for there.
const MAX_POSTPONED: usize = 50_000;
/// The same where they may have no room before deletions.
const MAX_WAITING: usize = 200_000;

impl Placing<'_> {
    pub(super) fn file(
        &mut self,
        listed: &Listed,
        id: EntryId,
        index: u32,
        standing: Standing,
        attributes: Attributes,
    ) -> Result<(), Fault> {
        let shared = self.shared;
        let mut entry = listed.entry.clone();
        self.adjust_owner(&mut entry.meta, standing.as_ref().map(|(have, _)| &have.meta))?;
        let name = &entry.name;
        let shown = self.dir.display_entry(name);
        let regular = standing.as_ref().filter(|(have, _)| have.meta.kind == FileKind::File);
        let fits = |(have, inode): &&(Entry, Inode)| {
            have.meta.size == entry.meta.size
                && (have.meta.mtime == entry.meta.mtime || entry.meta.size == 0)
                && !self.shared_wrongly(listed.link, inode)
        };
        let unchanged = regular.filter(fits);
        // An earlier run may not have finished it, whatever the source's own time is. Small files are not patched.
        let suspect = shared.crash_marker.was_left()
            && regular.is_some_and(|(have, inode)| {
                have.meta.size > SMALL && inode.changed_with(have.meta.mtime)
            });
        let by_content = shared.by_content() || suspect;
        if let Some((have, _)) = unchanged
            && listed.content.is_none()
            && (!by_content || entry.meta.size == 0)
        {
            if attributes == Attributes::ToCome {
                self.defer(listed, id, index, standing.is_some());
                return Ok(());
            }
            let actual = self.fix(&entry, &have.meta, &shown)?;
            shared.count_matched(entry.meta.size);
            self.settle(&entry, id, listed.link, actual, None);
            return Ok(());
        }
        let content = match &listed.content {
            Some(content) => Some((&content.bytes[..], Some(content.checksum))),
            // There is nothing to ask for.
            None if entry.meta.size == 0 && !self.unasked => Some((&[][..], None)),
            None => None,
        };
        if content.is_some() && attributes == Attributes::ToCome {
            self.defer(listed, id, index, standing.is_some());
            return Ok(());
        }
        if let Some((content, expected)) = content {
            let checksum = || manifest::checksum(id, Checksum::of(content));
            if expected.is_some_and(|expected| checksum() != expected) {
                return Ok(shared.problem(&shown, NOT_WHAT_WAS_SENT, 23)?);
            }
            let actual = self.write_small(&entry, content, standing.is_some(), &shown)?;
            self.settle(&entry, id, listed.link, actual, expected.map(ContentCheck::Checksum));
            links::would_make_anew(shared, listed.link, id);
            return Ok(());
        }
        if attributes == Attributes::Came {
            // Its content was right when the attributes were asked for.
            shared.problem(&shown, "changed at the destination during the transfer", 23)?;
            return Ok(());
        }
        let existing = regular.map(|(have, inode)| Existing {
            identity: (inode.dev, inode.ino),
            alone: inode.nlink == 1,
            detach: self.shared_wrongly(listed.link, inode),
            meta: have.meta.clone(),
        });
        // The run asks for the hashes of a large file whatever its time, and may find that nothing has to be written.
        let may_compare = shared.may_compare();
        let compared = existing.as_ref().filter(|_| may_compare).is_some_and(|existing| {
            existing.meta.size == entry.meta.size
                && (by_content || entry.meta.size > SMALL && self.can_read(&entry, existing))
        });
        let occupied = standing.is_some();
        if shared.dry_run() && !compared {
            let here = Here { existing, occupied, part: false };
            let file = FileState::announced(shared, self.dir, id, &entry, listed.link, here);
            self.want(file, index, !occupied);
            return Ok(());
        }
        // A small file comes whole: what an earlier run left of it is stale.
        let part = may_compare
            && entry.meta.size > SMALL
            && match (shared.staging(), &self.dir.dir) {
                (Ok(staging), Some(dir)) => staging.left_part(dir, name),
                _ => false,
            };
        let here = Here { existing, occupied, part };
        let file = FileState::new(shared, self.dir, id, &entry, listed.link, here)?;
        self.want(file, index, !occupied && !part);
        Ok(())
    }

    /// Whether what stands under the name can be compared. Where it cannot, the run writes it anew.
    fn can_read(&self, entry: &Entry, existing: &Existing) -> bool {
        let open = |dir| BasisFile::open(dir, &entry.name, existing.identity);
        self.dir.dir().and_then(open).is_ok()
    }

    /// Asks for the content of a file, at once or when the listing is complete.
    fn want(&mut self, file: FileState, index: u32, missing: bool) {
        let shared = self.shared;
        let want = file.want();
        let file = Arc::new(file);
        self.dir.hold();
        let follows = comes(shared, self.unasked);
        let options = shared.options();
        let have = file.existing().map_or(0, |existing| existing.meta.size);
        let takes =
            Takes { bytes: file.listed().size.saturating_sub(have), inodes: u64::from(missing) };
        let fits = shared.room.claim(takes);
        // Where that cannot be sent, the session is over.
        let _ = room::expect(shared, takes.bytes);
        if missing && !follows && options.delete && !shared.dry_run() {
            let max = if fits { MAX_POSTPONED } else { MAX_WAITING };
            let waits = !fits || renames::may_be_renamed(shared, &file);
            let mut postponed = shared.postponed.lock();
            if waits && postponed.len() < max {
                postponed.push(file);
                if !self.unasked {
                    self.plan.later.push(index);
                }
                return;
            }
        }
        shared.register_file(&file, follows);
        if follows {
            return;
        }
        if self.unasked {
            self.wanted.push((file.id, want));
        } else {
            self.plan.wants.push((index, want));
        }
        if matches!(want, Want::Delta { .. }) {
            self.signatures.push(file);
        }
    }

    fn write_small(
        &self,
        entry: &Entry,
        content: &[u8],
        exists: bool,
        shown: &DisplayPath<'_>,
    ) -> Result<Metadata, Fault> {
        let shared = self.shared;
        let verb = if exists { "update" } else { "create" };
        self.dir.touch();
        if shared.dry_run() {
            shared.count_written();
            shared.action(verb, shown)?;
            return Ok(entry.meta.clone());
        }
        if !exists {
            shared.room.claim(Takes { bytes: entry.meta.size, inodes: 1 });
            room::expect(shared, entry.meta.size)?;
        }
        let applied = room::with_room(shared, || {
            shared.before_content()?;
            self.dir.write_small(shared, entry, content, exists)
        })?;
        let literal = &shared.context.progress.bytes_literal;
        literal.fetch_add(content.len() as u64, Relaxed);
        shared.count_written();
        shared.action(verb, shown)?;
        shared.report(shown, &applied)?;
        Ok(applied.actual)
    }
}
