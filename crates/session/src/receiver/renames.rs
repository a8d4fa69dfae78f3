//! Files that have another name at the source: they are looked for among what would be deleted, and moved.

use std::sync::Arc;

use wire::Want;

use super::{
    deletions::Candidates,
    file::{FileState, Here},
    state::Shared,
};
use crate::control::Stopped;

/// Files that were missing are looked for among what would be removed: by size and time first, the
/// content is then compared as that of any other basis.
pub(super) fn ask_for_postponed(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let postponed = std::mem::take(&mut *shared.postponed.lock());
    if postponed.is_empty() {
        return Ok(());
    }
    let mut candidates = Candidates::find(shared);
    let mut wants = Vec::new();
    let mut signatures = Vec::new();
    for file in postponed {
        let file = adopt(shared, &mut candidates, &file)?.unwrap_or(file);
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
