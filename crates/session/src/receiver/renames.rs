//! Files that have another name at the source: they are looked for among what would be deleted, and moved.

use std::sync::Arc;

use wire::Want;

use super::{
    deletions::Candidates,
    file::{FileState, Here},
    room,
    state::Shared,
};
use crate::control::Stopped;

/// Smallest file that is looked for among what would be removed, in bytes.
const RENAME_MIN: u64 = 64 << 10;

/// Files that were missing are looked for among what would be removed: by size and time first, the
/// content is then compared as that of any other basis. Those that waited for room have it then.
pub(super) fn ask_for_postponed(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let mut postponed = std::mem::take(&mut *shared.postponed.lock());
    if postponed.iter().any(|file| may_be_renamed(shared, file)) {
        let mut candidates = Candidates::find(shared);
        for file in &mut postponed {
            if may_be_renamed(shared, file)
                && let Some(renamed) = adopt(shared, &mut candidates, file)?
            {
                *file = renamed;
            }
        }
    }
    room::all_listed(shared)?;
    for files in postponed.chunks(1024) {
        let wants = files.iter().map(|file| (file.id, file.want()));
        files.iter().for_each(|file| shared.register_file(file, false));
        shared.ask(wants.collect())?;
        let deltas = files.iter().filter(|file| matches!(file.want(), Want::Delta { .. }));
        deltas.for_each(|file| shared.queue_signature(file));
    }
    Ok(())
}

/// True for a missing file that is looked for. A limit on deletions counts names that go, and a rename lets one go.
pub(super) fn may_be_renamed(shared: &Shared, file: &FileState) -> bool {
    file.listed().size >= RENAME_MIN
        && shared.options().max_delete.is_none()
        && shared.may_compare()
}

/// Moves a candidate to the staged name of `file`, whose basis it becomes. `None` if there is none: the file is
/// sent instead.
fn adopt(
    shared: &Arc<Shared>,
    candidates: &mut Candidates,
    file: &FileState,
) -> Result<Option<Arc<FileState>>, Stopped> {
    let Some(dir) = file.dir() else { return Ok(None) };
    let listed = file.listed();
    let key = (listed.size, listed.mtime);
    if !candidates.rename_away(shared, key, dir, &file.entry().name)? {
        return Ok(None);
    }
    let here = Here { existing: None, occupied: false, part: true };
    match FileState::new(shared, dir, file.id, file.entry(), file.link(), here) {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(error) => shared.failed(&error).map(|()| None),
    }
}
