//! What waits for the end: renames, further names of inodes, removals, the flush, the commit.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustix::io::Errno;
use volume::{
    Dir, create, digest, flush,
    list::NameList,
    remove::{self, Mode},
    stat::{self, ReadOptions},
};
use wire::{Commit, EntryId, FileKind, Metadata, Name, Timestamp, ToSender, Want};

use super::{
    Received,
    dirs::{self, DirState},
    file::FileState,
    merge::{self, Follower, LinkGroup, Settled},
    state::{Known, Shared, TargetKindRef},
};
use crate::{Phase, control::Stopped};

/// Entries looked at in search of renamed files.
const MAX_CANDIDATES: usize = 2_000_000;

/// Runs the session from its first listing to the sender's goodbye.
pub(super) fn drive(shared: &Arc<Shared>) -> Result<Received, Stopped> {
    match shared.target_kind() {
        TargetKindRef::Device(_) => drive_device(shared)?,
        TargetKindRef::Tree(root) => drive_tree(shared, root)?,
    }
    shared.context.monitor.phase(Phase::Flush);
    flush(shared)?;
    let tree = tree_digest(shared)?;
    let (manifest, entries) = shared.manifest.digest();
    let progress = shared.context.progress.snapshot();
    let problems = shared.problems.lock().count;
    shared.commit(Commit {
        manifest,
        entries,
        files_written: progress.files_written,
        files_deleted: progress.files_deleted,
        problems,
        tree,
    })?;
    let goodbye = shared.wait_goodbye();
    Ok(shared.received(tree.unwrap_or(manifest), goodbye))
}

fn drive_tree(shared: &Arc<Shared>, root: Option<&Dir>) -> Result<(), Stopped> {
    let have = match root.map(|root| stat::root_entry(root, &shared.read_options)).transpose() {
        Ok(have) => have,
        Err(error) => {
            shared.control.fail(crate::Error::Volume(error));
            return Err(Stopped);
        }
    };
    let fresh = root.is_none();
    let state = Arc::new(DirState::root(root.cloned(), fresh, have));
    if shared.journal.is_suspect() {
        let what = "the machine went down in the middle of an earlier transfer, or the volume was mounted anew: \
                    everything is compared by content";
        shared.context.monitor.action(what);
        shared.send(&ToSender::Action(what.into()))?;
    }
    shared.register_directory(EntryId::ROOT, Known::Ready(Arc::clone(&state)));
    shared.wait_settled(false)?;
    ask_for_postponed(shared)?;
    let root_meta = shared.wait_settled(true)?;
    shared.context.monitor.phase(Phase::Finish);
    link_groups(shared)?;
    delete(shared)?;
    *state.want.lock() = Some(*root_meta);
    // The journal has moved its time.
    state.touch();
    dirs::release(shared, &state)
}

fn drive_device(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let wire::RootKind::Device(size) = shared.agreed.hello.root else { return Ok(()) };
    let id = EntryId(1);
    let Some(file) = FileState::device(shared, id, crate::sender::device_entry(size)) else {
        return Ok(());
    };
    let file = Arc::new(file);
    shared.context.progress.bytes_total.store(size, Relaxed);
    shared.register_file(&file, false);
    shared.ask(vec![(id, file.want())])?;
    shared.queue_signature(&file);
    shared.wait_settled(true).map(drop)
}

fn flush(shared: &Shared) -> Result<(), Stopped> {
    if shared.dry_run() {
        return Ok(());
    }
    let flushed = match shared.target_kind() {
        TargetKindRef::Tree(Some(root)) => flush::file_system(root).and_then(|()| {
            // What was not compared, because of some problem, is still in doubt.
            let in_doubt = shared.journal.is_suspect() && shared.problems.lock().count > 0;
            if in_doubt { Ok(()) } else { shared.journal.end(root) }
        }),
        TargetKindRef::Tree(None) => Ok(()),
        TargetKindRef::Device(device) => device.flush(),
    };
    flushed.map_err(|error| {
        shared.control.fail(crate::Error::Volume(error));
        Stopped
    })
}

fn tree_digest(shared: &Shared) -> Result<Option<[u8; 32]>, Stopped> {
    if !shared.options().verify || shared.dry_run() {
        return Ok(None);
    }
    shared.context.monitor.phase(Phase::Verify);
    let digest = match shared.target_kind() {
        TargetKindRef::Tree(Some(root)) => {
            crate::verify::tree(root, shared.options(), shared.context.workers)
        }
        TargetKindRef::Tree(None) => return Ok(None),
        TargetKindRef::Device(device) => {
            let wire::RootKind::Device(size) = shared.agreed.hello.root else { return Ok(None) };
            digest::content_digest(size, |at, buffer| device.read_at(at, buffer))
        }
    };
    match digest {
        Ok(digest) => Ok(Some(digest)),
        Err(error) => shared.failed(&error).map(|()| None),
    }
}

/// Files that were missing are looked for among what would be removed: by size and time first, the
/// content is then compared as that of any other basis.
fn ask_for_postponed(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let postponed = std::mem::take(&mut *shared.postponed.lock());
    if postponed.is_empty() {
        return Ok(());
    }
    let mut candidates = candidates(shared);
    let mut wants = Vec::new();
    let mut signatures = Vec::new();
    for file in postponed {
        let listed = file.listed();
        let found = candidates.get_mut(&(listed.size, listed.mtime)).and_then(Vec::pop);
        let file = match found {
            Some((dir, name)) => adopt(shared, &file, &dir, &name)?.unwrap_or(file),
            None => file,
        };
        let want = file.want();
        shared.register_file(&file, false);
        wants.push((file.id, want));
        if matches!(want, Want::Delta { .. }) {
            signatures.push(file);
        }
        if wants.len() == 1024 {
            shared.ask(std::mem::take(&mut wants))?;
            signatures.drain(..).for_each(|file| shared.queue_signature(&file));
        }
    }
    shared.ask(wants)?;
    signatures.iter().for_each(|file| shared.queue_signature(file));
    Ok(())
}

/// Moves the candidate to the temporary name of `file`, whose basis it becomes.
fn adopt(
    shared: &Arc<Shared>,
    file: &FileState,
    from: &Dir,
    name: &Name,
) -> Result<Option<Arc<FileState>>, Stopped> {
    let Some(dir) = file.dir() else { return Ok(None) };
    let moved = dir.dir().and_then(|to| create::adopt(from, name, to, &file.entry().name));
    if moved.is_err() {
        // It stays where it is, and the file is sent instead.
        return Ok(None);
    }
    dir.touch();
    shared.context.progress.files_deleted.fetch_add(1, Relaxed);
    shared.action("delete", &from.display_entry(name))?;
    match FileState::new(shared, dir, file.id, file.entry(), file.link(), None, true) {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(error) => shared.failed(&error).map(|()| None),
    }
}

type Candidates = HashMap<(u64, Timestamp), Vec<(Dir, Name)>>;

fn candidates(shared: &Shared) -> Candidates {
    let mut found = Candidates::new();
    let mut seen = 0;
    let plain = ReadOptions { xattrs: false, selinux: false };
    let mut stack: Vec<(Dir, Name)> = Vec::new();
    for deletion in shared.deletions.lock().iter() {
        if let Some(dir) = &deletion.dir.dir {
            stack.extend(deletion.names.iter().map(|name| (dir.clone(), name.clone())));
        }
    }
    while let Some((dir, name)) = stack.pop() {
        seen += 1;
        if seen > MAX_CANDIDATES {
            break;
        }
        let Ok((entry, inode)) = stat::read_entry(&dir, &name, &plain) else { continue };
        match entry.meta.kind {
            FileKind::File if inode.nlink == 1 => {
                found.entry((entry.meta.size, entry.meta.mtime)).or_default().push((dir, name));
            }
            FileKind::Directory if !inode.mount_root => {
                let Ok(child) = dir.open_child(&name) else { continue };
                let Ok(names) = NameList::read(&child) else { continue };
                stack
                    .extend((0..names.len()).filter_map(|i| Some((child.clone(), names.name(i)?))));
            }
            _ => {}
        }
    }
    found
}

/// Gives every inode its further names.
fn link_groups(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let groups = std::mem::take(&mut *shared.links.lock());
    for (leader_id, group) in groups {
        let LinkGroup { leader, followers } = group;
        for follower in followers {
            shared.control.check()?;
            match &leader {
                Some((dir, name, meta)) => link(shared, leader_id, (dir, name, meta), &follower)?,
                None if shared.dry_run() => {
                    shared.count_written();
                    let verb = if follower.exists { "update" } else { "create" };
                    shared.action(verb, &follower.dir.display_entry(&follower.entry.name))?;
                }
                None => {
                    let shown = follower.dir.display_entry(&follower.entry.name);
                    let what = "is a further name of a file that was not transferred";
                    shared.problem(&shown, what, 23)?;
                }
            }
            dirs::release(shared, &follower.dir)?;
        }
    }
    Ok(())
}

fn link(
    shared: &Shared,
    leader_id: EntryId,
    (leader_dir, leader, meta): (&Arc<DirState>, &Name, &Metadata),
    follower: &Follower,
) -> Result<(), Stopped> {
    let name = &follower.entry.name;
    let shown = follower.dir.display_entry(name);
    let linked = (|| {
        let (Some(from), Some(to)) = (&leader_dir.dir, &follower.dir.dir) else { return Ok(true) };
        let plain = ReadOptions { xattrs: false, selinux: false };
        let (_, first) = stat::read_entry(from, leader, &plain)?;
        if follower.exists {
            match stat::read_entry(to, name, &plain) {
                Ok((_, own)) if (own.dev, own.ino) == (first.dev, first.ino) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => return Err(error),
            }
        }
        follower.dir.touch();
        if !shared.dry_run() {
            create::link(from, leader, to, name)?;
        }
        Ok(true)
    })();
    match linked {
        Ok(made) => {
            if made {
                shared.count_written();
                shared.action(if follower.exists { "update" } else { "create" }, &shown)?;
            }
            let entry = wire::Entry { meta: meta.clone(), ..follower.entry.clone() };
            let link = Some(leader_id);
            let settled = Settled {
                entry: &entry,
                listed: 0,
                id: follower.id,
                link,
                actual: meta,
                content: None,
            };
            merge::settle(shared, &follower.dir, &settled);
            Ok(())
        }
        Err(error) => shared.failed(&error),
    }
}

/// Removes what the source does not have, in the order of names.
fn delete(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let mut deletions = std::mem::take(&mut *shared.deletions.lock());
    deletions.sort_by_cached_key(|deletion| deletion.dir.components());
    for deletion in deletions {
        if let Some(dir) = &deletion.dir.dir {
            for name in &deletion.names {
                shared.control.check()?;
                deletion.dir.touch();
                let mut remover = Remover::new(shared, false);
                let _ = remove::remove_tree(dir, name, remover.mode(), &mut remover);
                remover.result()?;
            }
        }
        dirs::release(shared, &deletion.dir)?;
    }
    Ok(())
}

/// Counts, limits and names removals.
pub(super) struct Remover<'a> {
    shared: &'a Shared,
    /// Something else is to take the place; a limit on deletions still counts it.
    replaced: bool,
    stopped: Option<Stopped>,
}

impl<'a> Remover<'a> {
    pub(super) fn new(shared: &'a Shared, replaced: bool) -> Self {
        Self { shared, replaced, stopped: None }
    }

    pub(super) fn mode(&self) -> Mode {
        if self.shared.dry_run() { Mode::Pretend } else { Mode::Remove }
    }

    pub(super) fn result(self) -> Result<(), Stopped> {
        self.stopped.map_or(Ok(()), Err)
    }

    fn keep(&mut self, outcome: Result<(), Stopped>) {
        if let Err(stopped) = outcome {
            self.stopped = Some(stopped);
        }
    }
}

impl remove::Removal for Remover<'_> {
    fn permit(&mut self) -> bool {
        let Some(limit) = self.shared.options().max_delete else { return self.stopped.is_none() };
        if self.shared.deleted.load(Relaxed) < limit {
            return self.stopped.is_none();
        }
        if !self.shared.limit_hit.swap(true, Relaxed) {
            let what = format!("more would be removed than --max-delete {limit} permits");
            let told = self.shared.problem(".", &what, 25);
            self.keep(told);
        }
        false
    }

    fn protects(&mut self, dir: &Dir, name: &Name, is_dir: bool) -> bool {
        let filter = &self.shared.filter;
        !filter.is_empty()
            && !self.replaced
            && filter.matches(&dir.components(), name, is_dir) == volume::filter::Verdict::Excluded
    }

    fn removed(&mut self, dir: &Dir, name: &Name, is_dir: bool) {
        self.shared.deleted.fetch_add(1, Relaxed);
        self.shared.context.progress.files_deleted.fetch_add(1, Relaxed);
        let slash = if is_dir { "/" } else { "" };
        let told = self.shared.action("delete", &format!("{}{slash}", dir.display_entry(name)));
        self.keep(told);
    }

    fn failed(&mut self, error: volume::Error) {
        let told = self.shared.failed(&error);
        self.keep(told);
    }
}
