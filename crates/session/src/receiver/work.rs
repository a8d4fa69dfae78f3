//! The workers: each takes its messages in order, and sets aside what refers to something that
//! another worker has not come to yet.

use std::{collections::HashMap, sync::Arc};

use wire::{EntryId, ToReceiver, ToSender};

use super::{
    awaiting,
    merge::Merge,
    state::{Known, Shared, Work},
};
use crate::control::Stopped;

/// What one worker keeps to itself.
#[derive(Default)]
pub(super) struct Worker {
    /// Directories that this worker is merging.
    pub(super) merges: HashMap<EntryId, Merge>,
    listings: HashMap<EntryId, Vec<(ToReceiver, u64)>>,
    content: HashMap<EntryId, Vec<(ToReceiver, u64)>>,
}

/// Takes work until there is no more.
pub(super) fn work(shared: &Arc<Shared>, lane: usize) -> Result<(), Stopped> {
    let mut worker = Worker::default();
    while let Ok(work) = shared.inputs[lane].recv() {
        shared.control.check()?;
        match work {
            Work::Message(message, cost) => worker.take(shared, message, cost)?,
            Work::Directory(id) => {
                let waiting = worker.listings.remove(&id);
                worker.resume(shared, waiting)?;
                shared.frame_done();
            }
            Work::File(id) => {
                let waiting = worker.content.remove(&id);
                worker.resume(shared, waiting)?;
                shared.frame_done();
            }
            Work::Grant(credit) => {
                shared.send(&ToSender::Credit(credit))?;
                shared.frame_done();
            }
        }
    }
    Ok(())
}

impl Worker {
    fn resume(
        &mut self,
        shared: &Arc<Shared>,
        waiting: Option<Vec<(ToReceiver, u64)>>,
    ) -> Result<(), Stopped> {
        for (message, cost) in waiting.unwrap_or_default() {
            shared.unparked();
            self.handle(shared, message, cost)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        shared: &Arc<Shared>,
        message: ToReceiver,
        cost: u64,
    ) -> Result<(), Stopped> {
        // Frames that came before this one and wait must be taken in before it.
        match &message {
            ToReceiver::Listing(listing) => {
                let id = listing.directory;
                if !shared.directories.lock().contains_key(&id) {
                    self.listings.entry(id).or_default().push((message, cost));
                    shared.parked();
                    return Ok(());
                }
                let waiting = self.listings.remove(&id);
                self.resume(shared, waiting)?;
            }
            ToReceiver::SmallFiles(_) | ToReceiver::Attributes(_) => {}
            other => {
                let Some(id) = file_of(other) else {
                    return shared.broken("message that has no place here");
                };
                if !shared.files.lock().contains_key(&id) {
                    self.content.entry(id).or_default().push((message, cost));
                    shared.parked();
                    return Ok(());
                }
                let waiting = self.content.remove(&id);
                self.resume(shared, waiting)?;
            }
        }
        self.handle(shared, message, cost)
    }

    fn handle(
        &mut self,
        shared: &Arc<Shared>,
        message: ToReceiver,
        cost: u64,
    ) -> Result<(), Stopped> {
        match message {
            ToReceiver::Listing(listing) => {
                let known = shared.directories.lock().get(&listing.directory).cloned();
                match known {
                    Some(Known::Ready(dir)) => self.merge(shared, &dir, listing)?,
                    Some(Known::Lost(_)) => super::merge::pass_over(shared, &listing)?,
                    None => return shared.broken("listing behind the end of its directory"),
                }
            }
            ToReceiver::SmallFiles(files) => {
                for small in files {
                    let file = shared.files.lock().get(&small.entry).cloned();
                    let Some(file) = file else {
                        return shared.broken("content that was not requested");
                    };
                    file.take_whole(shared, small)?;
                }
            }
            ToReceiver::Attributes(entries) => {
                for (id, xattrs) in entries {
                    awaiting::take(shared, id, xattrs)?;
                }
            }
            other => {
                let file = file_of(&other).and_then(|id| shared.files.lock().get(&id).cloned());
                let Some(file) = file else {
                    return shared.broken("content that was not requested");
                };
                file.take(shared, other)?;
            }
        }
        shared.return_credit(cost)?;
        shared.frame_done();
        Ok(())
    }
}

fn file_of(message: &ToReceiver) -> Option<EntryId> {
    match message {
        ToReceiver::Data(id, ..)
        | ToReceiver::Patch(id, ..)
        | ToReceiver::Hole(id, ..)
        | ToReceiver::Rebuild(id, ..)
        | ToReceiver::Copy(id, ..)
        | ToReceiver::EndOfFile(id, ..)
        | ToReceiver::LeafRequest(id, _)
        | ToReceiver::BlockRequest(id, ..) => Some(*id),
        _ => None,
    }
}
