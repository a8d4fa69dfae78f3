//! A file that comes whole: written in the staging directory, with a checksum as it comes.

use std::{collections::BTreeMap, sync::Arc};

use delta::Checksum;
use parking_lot::Mutex;
use volume::writer::FileWriter;
use wire::Metadata;

use super::{
    file::{FileState, Finished},
    room,
    state::Shared,
};
use crate::{fault::Fault, layout::RANGE_LOG2, manifest};

/// Zeros of this many bytes become a hole: the block of most file systems.
const HOLE_BLOCK: usize = 4 << 10;

/// What the checksum of a range takes, with its share of the map that holds it.
const RANGE: usize = 64;

#[derive(Default)]
pub(super) struct Whole {
    pub(super) writer: Mutex<Option<Arc<FileWriter>>>,
    /// The checksum of each range that something came of, from its start to where the next piece belongs.
    ranges: Mutex<BTreeMap<u64, Checksum>>,
}

impl Whole {
    /// Writes a piece. One that comes before the end of the piece before it ends the session.
    pub(super) fn write(
        &self,
        shared: &Shared,
        file: &FileState,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Fault> {
        let index = offset >> RANGE_LOG2;
        let mut checksum = self.ranges.lock().remove(&index).unwrap_or_default();
        let next = (index << RANGE_LOG2) + checksum.len();
        let fits = (offset + data.len() as u64 - 1) >> RANGE_LOG2 == index;
        if offset < next || !fits {
            return Ok(shared.broken("content out of order")?);
        }
        checksum.append(Checksum::of_zeros(offset - next));
        checksum.update(data);
        let writer = room::with_room(shared, || self.writer(shared, file))?;
        for run in data_runs(data) {
            let at = offset + run.start as u64;
            room::with_room(shared, || writer.write_at(at, &data[run.clone()]))?;
        }
        drop(writer);
        self.ranges.lock().insert(index, checksum);
        Ok(())
    }

    /// Bytes of memory that the checksums of its ranges take.
    pub(super) fn memory(&self) -> u64 {
        (self.ranges.lock().len() * RANGE) as u64
    }

    fn writer(&self, shared: &Shared, file: &FileState) -> volume::Result<Arc<FileWriter>> {
        let mut slot = self.writer.lock();
        if let Some(writer) = &*slot {
            return Ok(Arc::clone(writer));
        }
        let writer = Arc::new(file.stage(shared)?);
        *slot = Some(Arc::clone(&writer));
        Ok(writer)
    }

    pub(super) fn finish(
        &self,
        shared: &Shared,
        file: &FileState,
        meta: &Metadata,
        expected: u64,
    ) -> volume::Result<Finished> {
        let writer = self.writer(shared, file)?;
        let checksum = self.checksum(meta.size);
        if checksum.map(|checksum| manifest::checksum(file.id, checksum)) != Some(expected) {
            return Ok(Finished::Differs);
        }
        writer.set_len(meta.size)?;
        drop(writer);
        let Some(writer) = self.writer.lock().take().and_then(Arc::into_inner) else {
            return Err(volume::Error::new("finish", file.display(), rustix::io::Errno::BUSY));
        };
        writer.finish(meta, shared.apply_options).map(Finished::Written)
    }

    /// The checksum of what came, with zeros between; `None` where more came than `size`.
    fn checksum(&self, size: u64) -> Option<Checksum> {
        let mut whole = Checksum::default();
        for (index, range) in std::mem::take(&mut *self.ranges.lock()) {
            whole.append(Checksum::of_zeros((index << RANGE_LOG2).checked_sub(whole.len())?));
            whole.append(range);
        }
        whole.append(Checksum::of_zeros(size.checked_sub(whole.len())?));
        Some(whole)
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
