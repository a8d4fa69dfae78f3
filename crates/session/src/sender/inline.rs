//! Listings of directories that the receiver is known not to have: they wait for no plan, and carry
//! the content of their small files.
//!
//! These threads do nothing else, and what their frames take of the receiver's credit was set aside
//! by the walk: so they always get on, whatever the content of large files waits for.

use std::sync::Arc;

use wire::{EntryId, FileKind, ListingBuilder};

use super::{
    entry::{Chunk, FileRecord, Item, ListingEnd},
    files::Job,
    small::{ReadError, SMALL, push_small},
    state::Shared,
};
use crate::control::{Stopped, frame_cost};

/// A listing to complete with the content of its small files.
pub(super) struct InlineJob {
    pub(super) chunk: Arc<Chunk>,
    /// The directory ends with this frame.
    pub(super) end: Option<ListingEnd>,
    /// Credit set aside.
    pub(super) reserved: u64,
    /// Place in the order of the walk.
    pub(super) ticket: u64,
}

/// Takes jobs until there are no more.
pub(super) fn work(shared: &Arc<Shared>) -> Result<(), Stopped> {
    while let Ok(job) = shared.inline_jobs.recv() {
        shared.control.check()?;
        inline(shared, &job)?;
    }
    Ok(())
}

fn inline(shared: &Arc<Shared>, job: &InlineJob) -> Result<(), Stopped> {
    let InlineJob { chunk, end, reserved, ticket } = job;
    let capacity = *reserved as usize;
    let mut builder = ListingBuilder::new(chunk.directory, EntryId(chunk.first), true, capacity);
    let mut large = Vec::new();
    for (index, item) in chunk.items.iter().enumerate() {
        let id = chunk.id(index);
        let leads = item.link.is_none_or(|link| link == id);
        let is_file = item.entry.meta.kind == FileKind::File;
        if !is_file || !leads {
            builder.push(&item.entry, item.link, item.mount);
            shared.settle(chunk.directory, id, item);
            continue;
        }
        let sent = item.entry.meta.size <= SMALL
            && push_small(shared, &chunk.file(index), |entry, checksum, fill| {
                // A file that grew since the listing goes the way of the large ones.
                if entry.meta.size > item.entry.meta.size
                    || Item::wire_len(entry) > Item::wire_len(&item.entry)
                {
                    return Err(ReadError::Changed);
                }
                builder.push_content(entry, item.link, fill)?;
                shared.settle_as(&FileRecord {
                    parent: chunk.directory,
                    id,
                    link: item.link,
                    entry,
                    content: Some(checksum()),
                });
                Ok(())
            })
            .is_ok();
        if !sent {
            builder.push(&item.entry, item.link, item.mount);
            large.push(index);
        }
    }
    let fresh = shared.agreed.welcome.fresh;
    for &index in large.iter().filter(|_| !fresh) {
        shared.remember_file(chunk.file(index));
    }
    let frame = ListingEnd::close(builder, *end);
    let unused = reserved.checked_sub(frame_cost(frame.wire_len()));
    shared.inline_sends(*ticket, || {
        match unused {
            Some(unused) => shared.send_credit.grant(unused),
            // To wait here for more could be to wait for ever.
            None => return shared.broken("a listing is longer than was foreseen"),
        }
        shared.outbox()?.send(frame)
    })?;
    for &index in large.iter().filter(|_| fresh) {
        shared.queue(Job::Whole(Arc::new(chunk.file(index))))?;
    }
    Ok(())
}
