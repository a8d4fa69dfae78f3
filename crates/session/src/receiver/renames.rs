//! Files that have another name at the source: they are looked for among what would be deleted, and moved.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use volume::{
    Dir, create,
    list::NameList,
    stat::{self, ReadOptions},
};
use wire::{FileKind, Name, Timestamp, Want};

use super::{file::FileState, state::Shared};
use crate::control::Stopped;

/// Entries looked at in search of renamed files.
const MAX_CANDIDATES: usize = 2_000_000;

/// Files that were missing are looked for among what would be removed: by size and time first, the
/// content is then compared as that of any other basis.
pub(super) fn ask_for_postponed(shared: &Arc<Shared>) -> Result<(), Stopped> {
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
