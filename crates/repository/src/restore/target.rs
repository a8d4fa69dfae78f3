//! The volume that is written: its directories, and what became of its entries.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use volume::{
    Dir,
    create::{self, ParentHints},
    metadata::{self, Applied, ApplyOptions},
    narrow,
    staging::Staging,
    stat::{self, ReadOptions},
};
use wire::{Entry, Metadata};

use crate::{Error, Result, error::Kind, problems::Problems};

/// One restore, shared by its threads.
pub(super) struct Target<'a> {
    pub(super) root: Dir,
    pub(super) staging: Staging,
    pub(super) problems: Problems,
    pub(super) written: AtomicU64,
    pub(super) bytes: AtomicU64,
    stop: &'a AtomicBool,
    fatal: Mutex<Option<Error>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(root: Dir, staging: Staging, stop: &'a AtomicBool) -> Self {
        Self {
            root,
            staging,
            problems: Problems::default(),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stop,
            fatal: Mutex::default(),
        }
    }

    /// Fails where the run has to end.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.load(Relaxed) {
            return Err(Error::new(Kind::Stopped, "interrupted before everything was restored"));
        }
        self.fatal.lock().clone().map_or(Ok(()), Err)
    }

    pub(super) fn count(&self) {
        self.written.fetch_add(1, Relaxed);
    }

    /// An entry was created, and is as `applied` says.
    pub(super) fn created(&self, shown: &str, applied: &Applied) {
        self.count();
        self.applied(shown, applied);
    }

    pub(super) fn applied(&self, shown: &str, applied: &Applied) {
        for problem in &applied.problems {
            self.problems.add(shown, problem.to_string());
        }
    }

    /// An entry could not be created. A volume that can take no more ends the run.
    pub(super) fn failed(&self, error: &volume::Error) {
        if error.is_volume_failure() {
            self.fail(Error::from(error.clone()));
        } else {
            self.problems.of_destination(error);
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.fatal.lock().get_or_insert(error);
    }
}

/// A directory that is filled. It gets its metadata when the last of those who fill it has released it.
pub(super) struct OpenDir {
    pub(super) dir: Dir,
    pub(super) hints: ParentHints,
    /// `None` for a root that keeps what it has.
    want: Option<Metadata>,
    parent: Option<Arc<OpenDir>>,
}

impl OpenDir {
    /// The root. It is closed first to those who may not read it in the end.
    pub(super) fn root(target: &Target<'_>, want: Option<&Metadata>) -> Result<Arc<Self>> {
        let dir = target.root.clone();
        if let Some(want) = want {
            let have = stat::root_entry(&dir, &ReadOptions::default())?;
            narrow::directory(&dir, &have, want)?;
        }
        let hints = ParentHints::of(&dir)?;
        Ok(Arc::new(Self { dir, hints, want: want.cloned(), parent: None }))
    }

    /// Creates the directory `entry`, open to its owner alone.
    pub(super) fn create(parent: &Arc<Self>, entry: &Entry) -> volume::Result<Arc<Self>> {
        let dir = create::directory(&parent.dir, &entry.name, parent.hints)?;
        let hints = ParentHints::of(&dir)?;
        let (want, parent) = (Some(entry.meta.clone()), Some(Arc::clone(parent)));
        Ok(Arc::new(Self { dir, hints, want, parent }))
    }

    /// Gives one handle up. The last one sets the metadata, and then gives up that of the directory above.
    pub(super) fn release(handle: Arc<Self>, target: &Target<'_>) {
        let mut handle = Some(handle);
        while let Some(done) = handle.take().and_then(Arc::into_inner) {
            if let Some(want) = &done.want {
                match metadata::apply_dir(&done.dir, want, ApplyOptions::default()) {
                    Ok(applied) => target.applied(&done.dir.display(), &applied),
                    Err(error) => target.failed(&error),
                }
            }
            handle = done.parent;
        }
    }
}
