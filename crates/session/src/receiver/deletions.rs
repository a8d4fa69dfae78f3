//! Deletions: what the source does not have is removed at the end, in the order of names.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use volume::{
    Dir,
    remove::{self, Mode},
};
use wire::Name;

use super::{dirs, state::Shared};
use crate::control::Stopped;

/// Removes what the source does not have, in the order of names.
pub(super) fn delete(shared: &Arc<Shared>) -> Result<(), Stopped> {
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
    fn reserve(&mut self) -> bool {
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
