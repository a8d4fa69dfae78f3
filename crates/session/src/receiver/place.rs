//! One entry of a listing put in its place: what stands there makes way, directories, links and special
//! files are made at once, and regular files go on to [`super::place_file`].

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rustix::io::Errno;
use volume::{
    create,
    metadata::{self, MetadataDiff},
    narrow, staging,
    stat::{self, Inode},
    unlock,
};
use wire::{ContentCheck, Entry, EntryId, FileKind, Listed, Metadata, Name, Plan, ToSender, Want};

use super::{
    awaiting::{Awaiting, Deferred},
    deletions,
    dirs::{self, DirState, DisplayPath},
    file::FileState,
    links,
    merge::{Follower, Settled, settle},
    room::Takes,
    state::{Known, Shared},
};
use crate::{control::Stopped, fault::Fault, memory_budget, no_owner, xattr_hash};

/// Puts the entries of one frame in their places.
pub(super) struct Placing<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) dir: &'a Arc<DirState>,
    pub(super) unasked: bool,
    pub(super) plan: Plan,
    /// What is asked for beside the plan, where the sender waits for none.
    pub(super) wanted: Vec<(EntryId, Want)>,
    pub(super) signatures: Vec<Arc<FileState>>,
    pub(super) entries: usize,
}

/// Whether the extended attributes of an entry are known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    /// The listing had them, or they are the same here.
    Known,
    /// They have to be asked for.
    ToCome,
    /// They were asked for and came.
    Came,
}

/// What stands where an entry belongs.
pub(super) type Standing = Option<(Entry, Inode)>;

impl<'a> Placing<'a> {
    /// Tells the sender what becomes of the frame. Signatures follow, never precede.
    pub(super) fn answer(self) -> Result<(), Stopped> {
        if self.unasked {
            self.shared.ask(self.wanted)?;
        } else if self.entries > 0 {
            self.shared.send(&ToSender::Plan(self.plan))?;
        }
        for file in &self.signatures {
            self.shared.queue_signature(file);
        }
        Ok(())
    }

    pub(super) fn place(
        &mut self,
        mut listed: Listed,
        id: EntryId,
        index: u32,
        exists: bool,
    ) -> Result<(), Stopped> {
        let shared = self.shared;
        let progress = &shared.context.progress;
        progress.entries_total.fetch_add(1, Relaxed);
        let follows = listed.link.filter(|&link| link != id);
        if listed.entry.meta.kind == FileKind::File && follows.is_none() {
            progress.bytes_total.fetch_add(listed.entry.meta.size, Relaxed);
        }
        self.try_place(&mut listed, id, index, exists).or_else(|fault| {
            let shown = self.dir.display_entry(&listed.entry.name);
            fault.settle(|error| shared.failed_on(&shown, error))?;
            self.lost(&listed, id);
            Ok(())
        })
    }

    fn try_place(
        &mut self,
        listed: &mut Listed,
        id: EntryId,
        index: u32,
        exists: bool,
    ) -> Result<(), Fault> {
        let shared = self.shared;
        let standing = self.standing(&listed.entry.name, exists)?;
        if self.is_staging(&listed.entry.name, standing.as_ref()) {
            let what = "its name is reserved for the staging directory of this volume";
            shared.problem(&self.dir.display_entry(&listed.entry.name), what, 23)?;
            self.lost(listed, id);
            return Ok(());
        }
        let standing = match deletions::make_way(shared, self.dir, &listed.entry, standing)? {
            Way::Free(standing) => standing,
            Way::Blocked => {
                self.lost(listed, id);
                return Ok(());
            }
        };
        let attributes = self.resolve_attributes(listed, standing.as_ref());
        match (listed.link.filter(|&link| link != id), listed.entry.meta.kind) {
            (Some(leader), _) => {
                Ok(self.follow(leader, listed.entry.clone(), id, standing.is_some())?)
            }
            (None, FileKind::Directory) => self.directory(listed, id, index, standing, attributes),
            (None, FileKind::File) => self.file(listed, id, index, standing, attributes),
            (None, _) if attributes == Attributes::ToCome => {
                self.defer(listed, id, index, standing.is_some());
                Ok(())
            }
            (None, _) => self.node(listed, id, standing),
        }
    }

    /// True where `standing` is, or could be taken for, a staging directory.
    fn is_staging(&self, name: &Name, standing: Option<&(Entry, Inode)>) -> bool {
        self.dir.parent.is_none()
            && standing.is_some_and(|(have, inode)| {
                have.meta.kind == FileKind::Directory
                    && staging::inode_number(name) == Some(inode.ino)
            })
    }

    /// Puts the attributes that a hash stands for in their place, where they are known without asking. Where they are not,
    /// the entry is taken for one whose attributes, its access ACL among them, differ from any.
    fn resolve_attributes(
        &self,
        listed: &mut Listed,
        standing: Option<&(Entry, Inode)>,
    ) -> Attributes {
        let Some(hash) = listed.xattr_hash else { return Attributes::Known };
        let entry = &mut listed.entry;
        let same = standing.filter(|(have, _)| {
            have.meta.kind == entry.meta.kind
                && self.shared.xattr_hasher.hash(&have.meta.xattrs) == hash
        });
        match same {
            Some((have, _)) => entry.meta.xattrs.clone_from(&have.meta.xattrs),
            None => {
                entry.meta.xattrs = xattr_hash::unlike_any();
                // That they differ is all that a dry run has to know.
                if !self.shared.dry_run() {
                    return Attributes::ToCome;
                }
            }
        }
        Attributes::Known
    }

    /// Asks for the attributes of an entry, which is put in place when they come.
    pub(super) fn defer(&mut self, listed: &Listed, id: EntryId, index: u32, exists: bool) {
        self.dir.hold();
        self.plan.attributes.push(index);
        let deferred = Deferred {
            dir: Arc::clone(self.dir),
            listed: listed.clone(),
            exists,
            _memory: self.shared.reserve(memory_budget::of_entry(&listed.entry)),
        };
        self.shared.await_attributes(id, Awaiting::Entry(Box::new(deferred)));
    }

    /// Places single entries of `dir` whose listing was answered before.
    pub(super) fn late(shared: &'a Arc<Shared>, dir: &'a Arc<DirState>) -> Self {
        Self {
            shared,
            dir,
            unasked: false,
            plan: Plan::default(),
            wanted: Vec::new(),
            signatures: Vec::new(),
            entries: 0,
        }
    }

    /// Puts an entry in place whose attributes have come.
    pub(super) fn place_late(
        mut self,
        listed: &Listed,
        id: EntryId,
        exists: bool,
    ) -> Result<(), Stopped> {
        let shared = self.shared;
        let placed = (|| {
            let entry = &listed.entry;
            let standing = self.standing(&entry.name, exists)?;
            let way = deletions::make_way(shared, self.dir, entry, standing)?;
            let Way::Free(standing) = way else { return Ok(()) };
            if entry.meta.kind == FileKind::File {
                self.file(listed, id, 0, standing, Attributes::Came)
            } else {
                self.node(listed, id, standing)
            }
        })();
        placed.or_else(|fault: Fault| fault.settle(|error| shared.failed(error)))
    }

    /// The entry cannot be made: what the sender says of it later is passed over.
    pub(super) fn lost(&self, listed: &Listed, id: EntryId) {
        match listed.entry.meta.kind {
            FileKind::Directory if !listed.mount => {
                self.shared.register_directory(id, self.shared.lost_directory());
            }
            FileKind::File
                if self.unasked && self.shared.target.fresh && listed.content.is_none() =>
            {
                self.shared.register_file(&FileState::lost(self.shared, id), true);
            }
            _ => {}
        }
    }

    pub(super) fn standing(&self, name: &Name, exists: bool) -> volume::Result<Standing> {
        if !exists {
            return Ok(None);
        }
        let (dir, options) = (self.dir.dir()?, &self.shared.read_options);
        let read = if self.shared.dry_run() { stat::read_entry } else { unlock::read_entry };
        match read(dir, name, options) {
            Ok(standing) => Ok(Some(standing)),
            Err(error) if error.errno == Errno::NOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A further name of an inode: linked at the end, when the first is what it should be.
    pub(super) fn follow(
        &self,
        leader: EntryId,
        mut entry: Entry,
        id: EntryId,
        exists: bool,
    ) -> Result<(), Stopped> {
        // The inode has those of the first name, and names may wait in great numbers.
        entry.meta.xattrs = Vec::new();
        if entry.meta.kind == FileKind::Directory || leader > id {
            return self.shared.broken("link to an unknown entry");
        }
        self.dir.hold();
        let memory = self.shared.reserve(memory_budget::of_entry(&entry));
        let follower = Follower { dir: Arc::clone(self.dir), id, entry, exists, _memory: memory };
        self.shared.links.lock().entry(leader).or_default().followers.push(follower);
        Ok(())
    }

    pub(super) fn directory(
        &mut self,
        listed: &Listed,
        id: EntryId,
        index: u32,
        standing: Standing,
        attributes: Attributes,
    ) -> Result<(), Fault> {
        let shared = self.shared;
        let name = &listed.entry.name;
        let mut have = standing.map(|(entry, _)| entry.meta);
        let mut publish = false;
        let dir = match (&self.dir.dir, &have) {
            (Some(parent), Some(_)) if shared.dry_run() => Some(parent.open_child(name)?),
            (Some(parent), Some(_)) => Some(unlock::open_dir(parent, name)?),
            _ if shared.dry_run() => None,
            (Some(parent), None) => {
                let place = self.dir.place(shared, name, false)?;
                let left = create::left_directory(place)?;
                if let Some(left) = &left {
                    have = Some(stat::root_entry(left, &shared.read_options)?);
                }
                publish = left.is_some()
                    || (!self.dir.unpublished
                        && create::can_stage_directories(parent, place.hints)?);
                Some(match left {
                    Some(left) => left,
                    None if publish => create::staged_directory(place)?,
                    None => create::directory(parent, name, place.hints)?,
                })
            }
            (None, _) => None,
        };
        let made = have.is_none();
        let mut want = listed.entry.meta.clone();
        self.adjust_owner(&mut want, have.as_ref())?;
        if let (Some(dir), Some(have), false) = (&dir, &have, publish || shared.dry_run()) {
            // Where that fails, so does setting its metadata in the end, and that is reported.
            let _ = narrow::directory(dir, have, &want);
        }
        if made {
            shared.room.claim(Takes { bytes: 0, inodes: 1 });
        }
        if made || publish {
            self.dir.touch();
            shared.count_written();
            shared.action("create", &format_args!("{}/", self.dir.display_entry(name)))?;
        }
        // What is in a new directory comes unasked, and could not wait for room.
        if made && !shared.dry_run() && !shared.room.is_short() {
            self.plan.new_directories.push(index);
        }
        let of_have = have.as_ref().map_or(0, memory_budget::of_metadata);
        let memory = shared.reserve(memory_budget::of_metadata(&want) + of_have);
        let state = DirState::child(self.dir, id, name, dir, publish, want, have);
        let state = Arc::new(state.counted(memory));
        if attributes == Attributes::ToCome {
            state.hold();
            self.plan.attributes.push(index);
            shared.await_attributes(id, Awaiting::Directory(Arc::clone(&state)));
        }
        if listed.mount {
            // Nothing is said of what is in it, so it is complete as it is.
            deletions::leave_out_content(shared, &state);
            return Ok(dirs::release(shared, &state)?);
        }
        if publish {
            shared.unpublished.lock().insert(id, Arc::clone(&state));
        }
        shared.register_directory(id, Known::Ready(state));
        Ok(())
    }

    /// A symbolic link, FIFO, socket or device node.
    pub(super) fn node(
        &mut self,
        listed: &Listed,
        id: EntryId,
        standing: Standing,
    ) -> Result<(), Fault> {
        let shared = self.shared;
        let mut entry = listed.entry.clone();
        self.adjust_owner(&mut entry.meta, standing.as_ref().map(|(have, _)| &have.meta))?;
        let same = standing.as_ref().filter(|(have, inode)| {
            have.meta.kind == entry.meta.kind
                && have.target == entry.target
                && have.meta.rdev == entry.meta.rdev
                && !self.shared_wrongly(listed.link, inode)
        });
        let shown = self.dir.display_entry(&entry.name);
        let actual = match same {
            Some((have, _)) => self.fix(&entry, &have.meta, &shown)?,
            None => {
                let verb = if standing.is_some() { "update" } else { "create" };
                self.dir.touch();
                links::would_make_anew(shared, listed.link, id);
                let is_device =
                    matches!(entry.meta.kind, FileKind::CharDevice | FileKind::BlockDevice);
                if is_device && shared.target.would_fail.devices {
                    return Err(self.dir.error_of(&entry.name, "create", Errno::PERM).into());
                }
                if shared.dry_run() {
                    shared.count_written();
                    return Ok(shared.action(verb, &shown)?);
                }
                let dir = self.dir.dir()?;
                let applied = if standing.is_some() {
                    let place = self.dir.place(shared, &entry.name, true)?;
                    create::replace_node(place, &entry, shared.apply_options)?
                } else {
                    create::node(dir, &entry, shared.apply_options)?
                };
                shared.count_written();
                shared.action(verb, &shown)?;
                shared.report(&shown, &applied)?;
                applied.actual
            }
        };
        self.settle(&entry, id, listed.link, actual, None);
        Ok(())
    }

    /// Sets what differs of the metadata of an entry whose content is right.
    pub(super) fn fix(
        &self,
        want: &Entry,
        have: &Metadata,
        shown: &DisplayPath<'_>,
    ) -> Result<Metadata, Fault> {
        let shared = self.shared;
        if MetadataDiff::between(&want.meta, have).is_empty() {
            return Ok(have.clone());
        }
        shared.action("metadata", shown)?;
        if shared.dry_run() {
            return Ok(want.meta.clone());
        }
        let applied =
            metadata::apply_at(self.dir.dir()?, &want.name, &want.meta, shared.apply_options)?;
        shared.report(shown, &applied)?;
        Ok(applied.actual)
    }

    pub(super) fn adjust_owner(
        &self,
        want: &mut Metadata,
        have: Option<&Metadata>,
    ) -> volume::Result<()> {
        if self.shared.options().no_owner {
            no_owner::drop_what_needs_it(want);
            (want.uid, want.gid) = match have {
                Some(have) => (have.uid, have.gid),
                None if self.dir.dir.is_some() => {
                    let hints = self.dir.hints()?;
                    (hints.uid, hints.gid)
                }
                None => (want.uid, want.gid),
            };
        }
        Ok(())
    }

    /// True where an inode here has further names that the source's has not: to change it would
    /// change them too.
    pub(super) fn shared_wrongly(&self, link: Option<EntryId>, inode: &Inode) -> bool {
        if inode.nlink < 2 {
            return false;
        }
        let Some(leader) = link else { return true };
        !self.shared.claim((inode.dev, inode.ino), leader)
    }

    /// An entry is as it should be.
    pub(super) fn settle(
        &self,
        entry: &Entry,
        id: EntryId,
        link: Option<EntryId>,
        actual: Metadata,
        content: Option<ContentCheck>,
    ) {
        let listed = entry.meta.size;
        let settled = Settled { entry, listed, id, link, actual: &actual, content };
        settle(self.shared, self.dir, &settled);
    }
}

/// Large files come without being asked for: the whole volume was empty.
pub(super) fn comes(shared: &Shared, unasked: bool) -> bool {
    unasked && shared.target.fresh
}

/// Whether there is room for an entry.
pub(super) enum Way {
    Free(Standing),
    /// Something stays there, and was named.
    Blocked,
}
