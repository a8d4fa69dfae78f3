//! The walk: lists each directory, sorted by name, depth first, and goes on without waiting for what
//! the receiver makes of it, as far as its budget reaches.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rustix::io::Errno;
use volume::{
    Dir,
    device::BlockSource,
    filter::{Action, FilterRules},
    in_place::is_in_place,
    list::NameList,
    settled::{self, Moment, Since},
    stat::{self, DirectoryChange, DirectoryState, Inode},
};
use wire::{
    Entry, EntryId, FileKind, FilterAction, ListingBuilder, Metadata, Name, Timestamp, ToReceiver,
    frame,
};

use super::{
    entry::{Chunk, Done, FileRef, Held, Item, ListingEnd, Location, MOVED_AWAY},
    entry_reader::{EntryReader, Found},
    inline::InlineJob,
    links::Links,
    second_look::{Listed, SecondLook, Seen},
    small::SMALL,
    state::Shared,
};
use crate::{
    Error,
    control::{Stopped, frame_cost},
    memory_budget::MemoryReservation,
};

/// Entries of one listing frame.
const CHUNK_ENTRIES: usize = 512;
/// Bytes of one listing frame, with the content in it, before the next is begun.
const CHUNK_BYTES: u64 = 512 << 10;

/// What a directory that is still to be listed takes beside its name, in bytes.
const DIRECTORY: u64 = 320;

/// A directory that is still to be listed.
struct Pending {
    parent: Option<Dir>,
    name: Option<Name>,
    id: EntryId,
    /// The receiver has nothing of it.
    new: bool,
    /// The directory that it lies in, for a second look.
    above: Option<Listed>,
    /// As it was listed. `None` for the root, and where its inode says nothing.
    state: Option<DirectoryState>,
    /// The modification time of its entry.
    mtime: Timestamp,
}

impl Pending {
    /// Bytes of memory that it takes, with what is kept of it for the receiver's plan. The root takes none.
    fn memory(&self) -> u64 {
        self.name.as_ref().map_or(0, |name| name.len() as u64 + DIRECTORY)
    }
}

/// Lists the whole tree and says when that is done.
pub(super) fn walk(shared: &Arc<Shared>, root: &Dir) -> Result<(), Stopped> {
    let options = &shared.agreed.hello.options;
    let (root_meta, root_changed) = match stat::root(root, &shared.read_options) {
        Ok((meta, inode)) => (meta, inode.ctime),
        Err(error) => return fail(shared, error),
    };
    if root_meta.check().is_err() {
        // Without the root there is no end of the listing.
        return fail(shared, volume::Error::new("send metadata", root.display(), Errno::NOTSUP));
    }
    let filter = match filters(options) {
        Ok(filter) => filter,
        Err(error) => return fail(shared, error),
    };
    let mut meta = root_meta;
    meta.size = 0;
    if let Some(unknown) = shared.keep(root, None, &mut meta) {
        shared.problem(&root.display(), unknown.reason(), 23);
    }
    // The receiver closes its own root to all whom this one is closed to, before it takes in anything.
    shared.outbox()?.send(ToReceiver::Root(Box::new(meta.clone())).encode())?;
    settled::wait_for_tick();
    let began = Since::now(root).ok();
    let mut walker = Walker {
        shared,
        filter,
        links: Links::new(shared, began),
        second_look: SecondLook::default(),
        restless: false,
        memory: shared.reserve(0),
        root: (meta.clone(), root_changed),
        next_id: 1,
        stack: vec![Pending {
            parent: None,
            name: None,
            id: EntryId::ROOT,
            new: shared.agreed.welcome.fresh,
            above: None,
            state: None,
            mtime: meta.mtime,
        }],
    };
    while let Some(pending) = walker.stack.pop() {
        shared.control.check()?;
        walker.memory.shrink(pending.memory());
        walker.enter(root, pending)?;
    }
    walker.look_again(root)?;
    let meta = walker.root.0;
    // The content of listings goes out from other threads; the end must not overtake it.
    shared.all_inline_sent()?;
    shared.manifest.add(&crate::manifest::Record {
        parent: EntryId::ROOT,
        id: EntryId::ROOT,
        name: None,
        meta: &meta,
        target: &[],
        link: None,
        content: None,
    });
    shared.listed.store(true, Relaxed);
    shared.outbox()?.send(ToReceiver::EndOfListing(Box::new(meta)).encode())
}

/// A device is one entry that the receiver asks for by itself, perhaps before a thread here runs: it
/// must be known before the first frame is read.
pub(super) fn expect_device(shared: &Shared, device: &Arc<BlockSource>) {
    shared.context.progress.bytes_total.fetch_add(device.size(), Relaxed);
    shared.context.progress.entries_total.fetch_add(1, Relaxed);
    shared.remember_file(FileRef {
        id: EntryId(1),
        at: Location::Device(Arc::clone(device), device_entry(device.size())),
        parent: EntryId::ROOT,
        link: None,
        inode: None,
        tries: 0,
        held: Held::Device,
        done: Arc::new(Done::new(device.size())),
    });
}

/// There is nothing to list but the device itself.
pub(super) fn announce_device(shared: &Shared, device: &BlockSource) -> Result<(), Stopped> {
    shared.listed.store(true, Relaxed);
    let meta = device_entry(device.size()).meta;
    shared.outbox()?.send(ToReceiver::EndOfListing(Box::new(meta)).encode())
}

/// The entry that stands for a device of `size` bytes: only its content means something.
pub(crate) fn device_entry(size: u64) -> Entry {
    Entry {
        #[allow(clippy::expect_used, reason = "a constant that is a valid name")]
        name: Name::new(b"device").expect("a valid name"),
        meta: Metadata {
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            mtime: Timestamp::default(),
            rdev: (0, 0),
            attributes: wire::Attributes::default(),
            xattrs: Vec::new(),
        },
        target: Box::default(),
    }
}

/// The filter rules of the session, as both ends apply them.
pub(crate) fn filters(options: &wire::Options) -> volume::Result<FilterRules> {
    FilterRules::parse(options.filters.iter().map(|rule| {
        let action = match rule.action {
            FilterAction::Include => Action::Include,
            FilterAction::Exclude => Action::Exclude,
        };
        (action, &rule.pattern)
    }))
}

/// The root cannot be read: there is nothing to send.
fn fail(shared: &Shared, error: volume::Error) -> Result<(), Stopped> {
    shared.control.fail(Error::Volume(error));
    Err(Stopped)
}

struct Walker<'a> {
    shared: &'a Arc<Shared>,
    filter: FilterRules,
    links: Links<'a>,
    second_look: SecondLook,
    /// A directory never held still while it was listed.
    restless: bool,
    /// Of `stack`, `second_look` and the names of the directory that is listed.
    memory: MemoryReservation,
    /// The metadata of the root that belong to its listing, and the time of change that it had at first.
    root: (Metadata, Timestamp),
    next_id: u64,
    stack: Vec<Pending>,
}

/// A listing frame that grows.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: u64,
    content: u64,
}

impl Walker<'_> {
    fn enter(&mut self, root: &Dir, pending: Pending) -> Result<(), Stopped> {
        // In a dry run nothing is new for long enough to be worth sending.
        let told = self.shared.enter_directory(pending.id);
        let new = (pending.new || told) && !self.shared.agreed.hello.options.dry_run;
        let opened = match (&pending.parent, &pending.name) {
            (Some(parent), Some(name)) => parent.open_child(name),
            _ => Ok(root.clone()),
        };
        if let (Ok(dir), Some(state)) = (&opened, &pending.state) {
            match state.change(dir) {
                Ok(None) => {}
                Ok(Some(change)) => return self.changed_directory(dir, &pending, change),
                Err(error) => {
                    self.shared.volume_problem(&error);
                    return self.send_empty(&pending);
                }
            }
        }
        let listed = opened.and_then(|dir| Ok((NameList::read_settled(&dir)?, dir)));
        match listed {
            Ok(((names, moment), dir)) => {
                // What was made in it may be meant for the new mode or owner only.
                match self.has_its_metadata(&dir, &pending, moment) {
                    Ok(true) => {}
                    Ok(false) => {
                        return self.changed_directory(&dir, &pending, DirectoryChange::Access);
                    }
                    Err(error) => {
                        self.shared.volume_problem(&error);
                        return self.send_empty(&pending);
                    }
                }
                self.memory.grow(&self.shared.control, names.memory());
                self.restless |= names.failure().is_some_and(volume::Error::is_changed);
                self.list(&dir, (&names, moment), &pending, new)?;
                self.memory.shrink(names.memory());
                Ok(())
            }
            Err(error) if pending.id == EntryId::ROOT => fail(self.shared, error),
            Err(error) => {
                let gained =
                    |(parent, name): (&Dir, &Name)| self.second_look.may_have_gained(parent, name);
                // What cannot be listed may hold what was moved there.
                self.restless |=
                    pending.parent.as_ref().zip(pending.name.as_ref()).is_some_and(gained);
                let moved = || pending.parent.as_ref().is_some_and(|parent| !is_in_place(parent));
                if matches!(error.errno, Errno::NOTDIR | Errno::LOOP) {
                    self.shared.source_changed(&error.name, "was replaced during the transfer");
                } else if error.errno == Errno::ACCESS && moved() {
                    self.shared.source_changed(&error.name, MOVED_AWAY);
                } else {
                    self.shared.volume_problem(&error);
                }
                self.send_empty(&pending)
            }
        }
    }

    /// A directory that is not the one that was listed, or not as it was listed. What is in it now was never meant to be read
    /// under that entry: its mode and owner at the destination will be those of the listing.
    fn changed_directory(
        &mut self,
        dir: &Dir,
        pending: &Pending,
        change: DirectoryChange,
    ) -> Result<(), Stopped> {
        let what = match change {
            DirectoryChange::Replaced => {
                self.restless = true;
                "was replaced during the transfer"
            }
            DirectoryChange::Access => "its mode, owner or attributes changed after it was listed",
        };
        self.shared.source_changed(&dir.display(), what);
        self.send_empty(pending)
    }

    /// Looks at all directories again. Where an entry may have been moved past the walk, nothing may be removed at all: it
    /// may stand at the destination under its old name.
    fn look_again(&self, root: &Dir) -> Result<(), Stopped> {
        let shared = self.shared;
        let why = if shared.agreed.hello.options.delete {
            "changed after it was listed: entries moved into it may be missing, so this run deletes no extraneous entries"
        } else {
            "changed after it was listed: entries moved into it may be missing"
        };
        let seen = self.second_look.look_until_at_rest(
            root,
            &self.filter,
            || shared.control.check(),
            |seen| match seen {
                Seen::MovedIn(dir) => shared.source_changed(&dir.display(), why),
                Seen::Failed(error) => shared.volume_problem(&error),
            },
        )?;
        if seen || self.restless {
            shared.manifest.add_no_removals();
            shared.outbox()?.send(ToReceiver::NoRemovals.encode())?;
        }
        Ok(())
    }

    /// A directory that cannot be read: nothing of it is known, so nothing in it may be deleted.
    fn send_empty(&self, pending: &Pending) -> Result<(), Stopped> {
        self.shared.manifest.add_listing(pending.id, false);
        self.shared.manifest.add_directory_time(pending.id, pending.mtime);
        self.send_rest(pending.id, Some(ListingEnd { complete: false, mtime: None }))
    }

    /// True where a directory whose names were read has the metadata of its entry. The metadata of the root go out at the end of
    /// the listing: they are those that it has now.
    fn has_its_metadata(
        &mut self,
        dir: &Dir,
        pending: &Pending,
        moment: Moment,
    ) -> volume::Result<bool> {
        let (Some(times), options) = (moment.times, &self.shared.read_options) else {
            return Ok(true);
        };
        if pending.id != EntryId::ROOT {
            let state = pending.state.as_ref();
            return state
                .map_or(Ok(true), |state| state.has_its_metadata(dir, times.changed, options));
        }
        if times.changed != self.root.1 {
            let mut now = stat::root_entry(dir, options)?;
            (now.size, now.mtime) = (0, self.root.0.mtime);
            // What is not known of it was reported.
            let _ = self.shared.keep(dir, None, &mut now);
            if now.check().is_ok() {
                self.root.0 = now;
            }
        }
        Ok(true)
    }

    /// The time that belongs to the names of a directory, and what the receiver is to be told of it. A stub has a time of
    /// its own each time it is opened, and the root's comes with the end of the listing.
    fn time(&mut self, pending: &Pending, moment: Moment) -> (Timestamp, Option<Timestamp>) {
        let is_root = pending.id == EntryId::ROOT;
        let modified = moment.times.map(|times| times.modified);
        let at_rest = modified.filter(|_| is_root || pending.state.is_some());
        let mtime = at_rest.unwrap_or(pending.mtime);
        if is_root {
            self.root.0.mtime = mtime;
            return (mtime, None);
        }
        (mtime, (mtime != pending.mtime).then_some(mtime))
    }

    /// A frame without entries, which needs no plan.
    fn send_rest(&self, id: EntryId, end: Option<ListingEnd>) -> Result<(), Stopped> {
        let builder = ListingBuilder::new(id, EntryId(self.next_id), true, 8);
        self.shared.send_charged(0, ListingEnd::close(builder, end))
    }

    fn list(
        &mut self,
        dir: &Dir,
        (names, moment): (&NameList, Moment),
        pending: &Pending,
        new: bool,
    ) -> Result<(), Stopped> {
        let (id, since) = (pending.id, moment.since);
        let mut failure = names.failure().cloned();
        if let Some(error) = &failure {
            self.shared.volume_problem(error);
        }
        let prefix = if self.filter.is_empty() { Vec::new() } else { dir.components() };
        let mut children = Vec::new();
        let mut batch = Batch::default();
        let (mut any, mut excluded) = (false, 0);
        let mut alone = vec![false; names.len()];
        let inodes = self.second_look.memory_of_inodes();
        for (index, alone) in alone.iter_mut().enumerate() {
            let Some(name) = names.name(index) else { continue };
            if batch.items.len() == CHUNK_ENTRIES || batch.bytes + batch.content >= CHUNK_BYTES {
                self.emit(dir, id, new, std::mem::take(&mut batch), &mut children, None)?;
            }
            let reader = EntryReader { shared: self.shared, filter: &self.filter };
            match reader.read(dir, &prefix, &name, names.kind_hint(index)) {
                Ok(Found::Entry(entry, inode)) => {
                    any = true;
                    *alone = inode.nlink == 1;
                    match entry.check() {
                        Ok(()) => {
                            let has_all_names = self.add(dir, &mut batch, new, *entry, &inode);
                            // A file that is mounted over another has a number of another device.
                            if has_all_names && inode.dev == dir.root_device() {
                                self.second_look.add_listed(inode.ino, &since);
                            }
                        }
                        Err(why) => {
                            let name = dir.display_entry(&name);
                            self.shared.problem(&name, &format!("cannot be sent: {why}"), 23);
                            failure.get_or_insert(volume::Error::new("send", name, Errno::NOTSUP));
                        }
                    }
                }
                Ok(Found::Excluded) => excluded += 1,
                Ok(Found::NotCopied) => {}
                Err(error) => {
                    self.shared.volume_problem(&error);
                    // The entry is known to be gone only if its directory can still be reached.
                    if !(error.is_vanished() && dir.descriptor().is_ok()) {
                        failure.get_or_insert(error);
                    }
                }
            }
        }
        self.memory.grow(&self.shared.control, self.second_look.memory_of_inodes() - inodes);
        let complete = failure.is_none();
        if id == EntryId::ROOT && !any && !self.shared.agreed.hello.options.allow_empty {
            // What cannot be read only looks empty.
            self.shared.control.fail(match (failure, excluded) {
                (Some(error), _) => Error::Volume(error),
                (None, 0) => Error::EmptySource,
                (None, count) => Error::AllExcluded(count),
            });
            return Err(Stopped);
        }
        let (mtime, told) = self.time(pending, moment);
        self.shared.manifest.add_listing(id, complete);
        self.shared.manifest.add_directory_time(id, mtime);
        let end = ListingEnd { complete, mtime: told };
        self.emit(dir, id, new, batch, &mut children, Some(end))?;
        let listed = self.second_look.add(pending.above, dir, (names, &alone), since);
        if listed.is_some() {
            self.memory.grow(&self.shared.control, SecondLook::memory(dir.name(), names.len()));
        }
        // Popped from the end: reversed, so that the walk goes on in the order of names.
        let below = children.into_iter().rev();
        self.stack.extend(below.map(|child| Pending { above: listed, ..child }));
        Ok(())
    }

    /// Adds an entry to the frame. True for a file of which all names are listed now.
    fn add(
        &mut self,
        dir: &Dir,
        batch: &mut Batch,
        new: bool,
        mut entry: Entry,
        inode: &Inode,
    ) -> bool {
        let id = EntryId(self.next_id + batch.items.len() as u64);
        let is_dir = entry.meta.kind == FileKind::Directory;
        let directory = is_dir.then(|| DirectoryState::of(&entry.meta, inode)).flatten();
        if let Some(unknown) = self.shared.keep(dir, Some(&entry.name), &mut entry.meta) {
            self.shared.problem(&dir.display_entry(&entry.name), unknown.reason(), 23);
        }
        let first = (!is_dir && inode.nlink > 1)
            .then(|| self.links.first_name(id, &entry, inode, || dir.display_entry(&entry.name)));
        let link = first.map(|(first, _)| first);
        let has_all_names = first.map_or(!is_dir, |(_, all)| all);
        let progress = &self.shared.context.progress;
        progress.entries_total.fetch_add(1, Relaxed);
        // Names that follow the first one share its content and its attributes.
        let leads = link.is_none_or(|link| link == id);
        if !leads {
            entry.meta.xattrs = Vec::new();
        }
        if entry.meta.kind == FileKind::File && leads {
            progress.bytes_total.fetch_add(entry.meta.size, Relaxed);
        }
        batch.bytes += Item::wire_len(&entry);
        if new && leads && entry.meta.kind == FileKind::File && entry.meta.size <= SMALL {
            batch.content += entry.meta.size;
        }
        let mount = is_dir && inode.mount_root;
        // A frame that waits for no plan carries everything.
        let xattr_hash =
            if new { None } else { self.shared.xattr_hasher.listed(&entry.meta.xattrs) };
        batch.items.push(Item { entry, link, mount, inode: inode.into(), directory, xattr_hash });
        has_all_names
    }

    /// Sends a frame; the directory ends with it where there is an `end`.
    fn emit(
        &mut self,
        dir: &Dir,
        id: EntryId,
        new: bool,
        batch: Batch,
        children: &mut Vec<Pending>,
        end: Option<ListingEnd>,
    ) -> Result<(), Stopped> {
        if batch.items.is_empty() && !new {
            return self.send_rest(id, end);
        }
        let first = self.next_id;
        self.next_id += batch.items.len() as u64;
        for (index, item) in batch.items.iter().enumerate() {
            let child = EntryId(first + index as u64);
            if item.mount {
                self.shared.manifest.add_directory_time(child, item.entry.meta.mtime);
            } else if item.entry.meta.kind == FileKind::Directory {
                self.shared.expect_directory(child, new);
                let pending = Pending {
                    parent: Some(dir.clone()),
                    name: Some(item.entry.name.clone()),
                    id: child,
                    new,
                    above: None,
                    state: item.directory,
                    mtime: item.entry.meta.mtime,
                };
                self.memory.grow(&self.shared.control, pending.memory());
                children.push(pending);
            }
        }
        let weight = batch.bytes + 200 * batch.items.len() as u64;
        let weight = weight.min(super::state::MAX_CHUNK_WEIGHT);
        self.shared.walk_budget.acquire(weight)?;
        let chunk = Arc::new(Chunk {
            dir: dir.clone(),
            directory: id,
            first,
            items: batch.items,
            weight,
            budget: Arc::clone(&self.shared.walk_budget),
        });
        if new {
            // What the frame may take at most is reserved here, in the order of the walk: a frame of
            // a directory can then never wait for room that frames of its children hold.
            let reserved = frame_cost((batch.bytes + batch.content) as usize + 64);
            self.shared.take_credit(reserved)?;
            let ticket = self.shared.inline_begins();
            return self.shared.queue_inline(InlineJob { chunk, end, reserved, ticket });
        }
        self.shared.remember_chunk(&chunk);
        let mut builder = ListingBuilder::new(
            id,
            EntryId(first),
            false,
            chunk.items.iter().map(Item::listed_len).sum::<u64>() as usize + frame::HEADER_LEN,
        );
        for item in &chunk.items {
            match &item.xattr_hash {
                None => builder.push(&item.entry, item.link, item.mount),
                Some(hash) => builder.push_hashed(&item.entry, item.link, item.mount, hash),
            }
        }
        self.shared.send_charged(0, ListingEnd::close(builder, end))
    }
}
