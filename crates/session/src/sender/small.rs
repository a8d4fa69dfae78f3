//! Small files that were asked for: read whole, and sent many in a frame.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use delta::Checksum;
use wire::{AttributesBuilder, ContentCheck, Ended, Entry, SmallFilesBuilder, ToReceiver};

use super::{
    entry::{Chunk, FileRecord, FileRef, OpenError},
    files::{self, Job},
    state::Shared,
};
use crate::{control::Stopped, manifest};

/// Largest file that travels whole in a frame with others, in bytes.
pub(crate) const SMALL: u64 = 64 << 10;
/// Content of one frame before the next is begun.
const BATCH: usize = 256 << 10;

/// Settles what the receiver did not ask for in a listing, and sends what it did.
pub(super) fn planned(
    shared: &Arc<Shared>,
    chunk: &Arc<Chunk>,
    asked: &[bool],
    wanted: &[usize],
) -> Result<(), Stopped> {
    for (index, item) in chunk.items.iter().enumerate() {
        if !asked[index] {
            shared.settle(chunk.directory, chunk.id(index), item);
        }
    }
    if shared.agreed.hello.options.dry_run {
        return wanted.iter().try_for_each(|&index| would_send(shared, &chunk.file(index)));
    }
    let mut batch = SmallFilesBuilder::new(BATCH);
    for &index in wanted {
        let file = chunk.file(index);
        if file.entry().meta.size > SMALL || !batch_small(shared, &file, &mut batch) {
            shared.queue(Job::Whole(Arc::new(file)))?;
        }
        if batch.wire_len() >= BATCH {
            let full = std::mem::replace(&mut batch, SmallFilesBuilder::new(BATCH));
            shared.send_charged(chunk.first, full.finish())?;
        }
    }
    if batch.count() > 0 {
        shared.send_charged(chunk.first, batch.finish())?;
    }
    Ok(())
}

/// Tells, in a dry run, whether the run could read a file. Nothing is read of it.
fn would_send(shared: &Shared, file: &FileRef) -> Result<(), Stopped> {
    let meta = &file.entry().meta;
    let opened = files::check_size(file, meta).map_err(OpenError::from);
    if let Err(error) = opened.and_then(|()| file.open()) {
        return files::failed(shared, file, &error);
    }
    file.done.finish(&shared.context.progress.bytes_done);
    let ended = Ended::Whole(Box::new(meta.clone()), ContentCheck::Checksum(0));
    shared.send_charged(0, ToReceiver::EndOfFile(file.id, 0, ended).encode())
}

/// Sends extended attributes that were asked for, as they were listed.
pub(super) fn attributes(shared: &Shared, chunk: &Chunk, wanted: &[usize]) -> Result<(), Stopped> {
    let mut batch = AttributesBuilder::new(1024);
    for &index in wanted {
        batch.push(chunk.id(index), &chunk.items[index].entry.meta.xattrs);
        if batch.wire_len() >= BATCH {
            let full = std::mem::replace(&mut batch, AttributesBuilder::new(1024));
            shared.send_charged(chunk.first, full.finish())?;
        }
    }
    if batch.count() > 0 {
        shared.send_charged(chunk.first, batch.finish())?;
    }
    Ok(())
}

/// Adds a small file to a batch; false where it is not small any more, or cannot be read.
fn batch_small(shared: &Shared, file: &FileRef, batch: &mut SmallFilesBuilder) -> bool {
    push_small(shared, file, |entry, checksum, fill| {
        batch.push(file.id, &entry.meta, fill)?;
        shared.settle_as(&FileRecord {
            parent: file.parent,
            id: file.id,
            link: file.link,
            entry,
            content: Some(checksum()),
        });
        Ok(())
    })
    .is_ok()
}

/// Why a small file did not travel with others.
pub(super) enum ReadError {
    Changed,
    Volume,
}

/// Reads a small file so that its content and metadata belong together, and hands it to `push`
/// with its entry as of the reading, its checksum (known after the filling) and the filling itself.
pub(super) fn push_small(
    shared: &Shared,
    file: &FileRef,
    push: impl FnOnce(
        &Entry,
        &dyn Fn() -> ContentCheck,
        &mut dyn FnMut(&mut [u8]) -> Result<u64, ReadError>,
    ) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let content = file.open().map_err(|_| ReadError::Volume)?;
    let mut stamp = content.opened();
    let mut entry = file.entry().clone();
    if let Some(now) = stamp
        && file.has_changed(&entry, &now)
    {
        let fresh = content.metadata(shared, &entry).map_err(|_| ReadError::Volume)?;
        (entry.meta, stamp) = fresh;
    }
    if entry.meta.size > SMALL {
        return Err(ReadError::Changed);
    }
    let size = entry.meta.size;
    let checksum = std::cell::Cell::new(0);
    let mut fill = |buffer: &mut [u8]| {
        let count = content.read_at(0, buffer).map_err(|_| ReadError::Volume)?;
        if count < buffer.len() || content.changed_since(stamp).map_err(|_| ReadError::Volume)? {
            return Err(ReadError::Changed);
        }
        checksum.set(manifest::checksum(file.id, Checksum::of(buffer)));
        Ok(checksum.get())
    };
    push(&entry, &|| ContentCheck::Checksum(checksum.get()), &mut fill)?;
    shared.context.progress.bytes_literal.fetch_add(size, Relaxed);
    file.sent(shared, &content);
    Ok(())
}
