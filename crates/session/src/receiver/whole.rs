//! A file that comes whole: written beside, or unseen in a new directory, hashed as it comes.

use std::{collections::BTreeMap, sync::Arc};

use delta::{ContentFold, RangeFold, StrongHash};
use parking_lot::Mutex;
use volume::writer::FileWriter;
use wire::{ContentDigest, Metadata};

use super::{
    file::{FileState, Finished},
    state::{RANGE_LOG2, Shared},
};
use crate::{fault::Fault, sender::whole_layout};

/// Zeros of this many bytes become a hole: the block of most file systems.
const HOLE_BLOCK: usize = 4 << 10;

#[derive(Default)]
pub(super) struct Whole {
    pub(super) writer: Mutex<Option<Arc<FileWriter>>>,
    ranges: Mutex<BTreeMap<u64, Range>>,
}

/// The digest of a stretch of content.
enum Range {
    /// It is still coming; the next piece belongs there.
    Open { next: u64, fold: Box<RangeFold> },
    /// All of it came. A hash instead of a hasher, of which a large file would have many.
    Whole(StrongHash),
}

impl Whole {
    /// Writes a piece. One that does not follow the piece before ends the session.
    pub(super) fn write(
        &self,
        shared: &Shared,
        file: &FileState,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Fault> {
        let index = offset >> RANGE_LOG2;
        let segment = u64::from(whole_layout().segment_len());
        let (mut next, mut fold) = match self.ranges.lock().remove(&index) {
            None => (index << RANGE_LOG2, Box::new(RangeFold::new(&shared.key))),
            Some(Range::Open { next, fold }) => (next, fold),
            Some(Range::Whole(_)) => return Ok(shared.broken("content out of order")?),
        };
        let fits = (offset + data.len() as u64 - 1) >> RANGE_LOG2 == index;
        if offset < next || !offset.is_multiple_of(segment) || !fits {
            return Ok(shared.broken("content out of order")?);
        }
        fold.push_zeros(&shared.key, whole_layout(), offset - next);
        for piece in data.chunks(segment as usize) {
            fold.push(shared.key.hash(piece));
        }
        next = (offset + data.len() as u64).next_multiple_of(segment);
        let writer = self.writer(shared, file)?;
        for run in data_runs(data) {
            writer.write_at(offset + run.start as u64, &data[run])?;
        }
        drop(writer);
        let range = if next == (index + 1) << RANGE_LOG2 {
            Range::Whole(fold.finish())
        } else {
            Range::Open { next, fold }
        };
        self.ranges.lock().insert(index, range);
        Ok(())
    }

    fn writer(&self, shared: &Shared, file: &FileState) -> volume::Result<Arc<FileWriter>> {
        let mut slot = self.writer.lock();
        if let Some(writer) = &*slot {
            return Ok(Arc::clone(writer));
        }
        let dir = file.dir().ok_or_else(|| {
            volume::Error::new("create", file.display(), rustix::io::Errno::INVAL)
        })?;
        shared.before_content()?;
        dir.touch();
        let writer = Arc::new(FileWriter::beside(dir.dir()?, &file.entry().name)?);
        *slot = Some(Arc::clone(&writer));
        Ok(writer)
    }

    pub(super) fn finish(
        &self,
        shared: &Shared,
        file: &FileState,
        meta: &Metadata,
        digest: &ContentDigest,
    ) -> volume::Result<Finished> {
        let writer = self.writer(shared, file)?;
        if self.digest(shared, meta.size).as_ref() != Some(digest) {
            return Ok(Finished::Differs);
        }
        writer.set_len(meta.size)?;
        drop(writer);
        let Some(writer) = self.writer.lock().take().and_then(Arc::into_inner) else {
            return Err(volume::Error::new("finish", file.display(), rustix::io::Errno::BUSY));
        };
        writer.finish(meta, shared.apply_options).map(Finished::Written)
    }

    /// The digest of what came, with zeros between; `None` where more came than `size`.
    fn digest(&self, shared: &Shared, size: u64) -> Option<ContentDigest> {
        let layout = whole_layout();
        let range_len = 1u64 << RANGE_LOG2;
        let mut ranges = std::mem::take(&mut *self.ranges.lock());
        let mut fold = ContentFold::new(&shared.key, layout);
        let zeros = zero_range(shared, range_len);
        for index in 0..size.div_ceil(range_len) {
            shared.control.check().ok()?;
            let start = index * range_len;
            let end = (start + range_len).min(size);
            let hash = match ranges.remove(&index) {
                None if end - start == range_len => zeros,
                None => zero_range(shared, end - start),
                Some(Range::Whole(hash)) => hash,
                Some(Range::Open { next, mut fold }) => {
                    fold.push_zeros(&shared.key, layout, end.saturating_sub(next));
                    fold.finish()
                }
            };
            fold.push_range(hash);
        }
        ranges.is_empty().then(|| fold.finish(size).0)
    }
}

/// The parts of `data` that are not whole blocks of zeros. The file is new, so what is not written is
/// a hole that reads the same.
fn data_runs(data: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (index, block) in data.chunks(HOLE_BLOCK).enumerate() {
        if delta::is_zero(block) {
            continue;
        }
        let start = index * HOLE_BLOCK;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += block.len(),
            _ => runs.push(start..start + block.len()),
        }
    }
    runs
}

fn zero_range(shared: &Shared, len: u64) -> delta::StrongHash {
    let mut fold = RangeFold::new(&shared.key);
    fold.push_zeros(&shared.key, whole_layout(), len);
    fold.finish()
}
