//! One regular file from blobs.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rustix::io::Errno;
use volume::{metadata::ApplyOptions, small, staging::Place, writer::FileWriter};

use super::target::{OpenDir, Target};
use crate::{
    Error,
    engine::{Indexed, StoredEntry},
    error::Kind,
};

/// Files up to this size are put together in memory and written with few calls.
const SMALL: u64 = 256 << 10;
/// Zeros of this many bytes at a multiple of it become a hole.
const BLOCK: usize = 4096;

/// A file to be written.
pub(super) struct Job {
    pub(super) dir: Arc<OpenDir>,
    pub(super) stored: StoredEntry,
}

/// Why a file is not restored.
enum Failure {
    Volume(volume::Error),
    Repository(Error),
}

impl From<volume::Error> for Failure {
    fn from(error: volume::Error) -> Self {
        Self::Volume(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Repository(error)
    }
}

/// Writes one file, and reports it where that fails.
pub(super) fn write(indexed: &Indexed, target: &Target<'_>, job: Job) {
    let Job { dir, stored } = job;
    if target.check().is_ok() {
        let shown = dir.dir.display_entry(&stored.entry.name);
        match write_file(indexed, target, &dir, &stored) {
            Ok(applied) => target.created(&shown, &applied),
            Err(Failure::Volume(error)) => target.failed(&error),
            // Of what is damaged the rest can be restored. A storage that does not answer has no rest.
            Err(Failure::Repository(error)) if error.kind == Kind::Damaged => {
                target.problems.add(shown, error.what);
            }
            Err(Failure::Repository(error)) => target.fail(error),
        }
    }
    OpenDir::release(dir, target);
}

fn write_file(
    indexed: &Indexed,
    target: &Target<'_>,
    dir: &OpenDir,
    stored: &StoredEntry,
) -> Result<volume::metadata::Applied, Failure> {
    let (entry, options) = (&stored.entry, ApplyOptions::default());
    let want = &entry.meta;
    check_size(indexed, stored)?;
    if want.size <= SMALL {
        let mut content = Vec::with_capacity(usize::try_from(want.size).unwrap_or(0));
        for blob in &stored.content {
            content.extend_from_slice(&indexed.blob(blob)?);
        }
        target.bytes.fetch_add(want.size, Relaxed);
        return Ok(small::write_new(&dir.dir, &entry.name, want, &content, dir.hints, options)?);
    }
    let place = Place {
        staging: &target.staging,
        dir: &dir.dir,
        name: &entry.name,
        occupied: false,
        hints: dir.hints,
    };
    let file = FileWriter::staged(place)?;
    let mut at = 0;
    for blob in &stored.content {
        if target.check().is_err() {
            return Err(dir.dir.error("write", &entry.name, Errno::CANCELED).into());
        }
        let content = indexed.blob(blob)?;
        write_data(&file, at, &content)?;
        at += content.len() as u64;
        target.bytes.fetch_add(content.len() as u64, Relaxed);
    }
    file.set_len(want.size)?;
    Ok(file.finish(want, options)?)
}

/// The blobs must be as long as the file. Nothing is written otherwise.
pub(super) fn check_size(indexed: &Indexed, stored: &StoredEntry) -> Result<(), Error> {
    let damaged = |what: String| Err(Error::new(Kind::Damaged, what));
    let mut size = 0_u64;
    for blob in &stored.content {
        match indexed.blob_size(blob) {
            Some(bytes) => size = size.saturating_add(bytes),
            None => return damaged(format!("blob {blob} is not in the index")),
        }
    }
    let want = stored.entry.meta.size;
    if size == want { Ok(()) } else { damaged(format!("{size} bytes are stored of {want}")) }
}

/// Writes `content` at `start` of a new file, and leaves out blocks of zeros.
fn write_data(file: &FileWriter, start: u64, content: &[u8]) -> volume::Result<()> {
    let block = BLOCK as u64;
    let mut at = 0;
    let mut data = None;
    while at < content.len() {
        let to_boundary = block - (start + at as u64) % block;
        let end = content.len().min(at + usize::try_from(to_boundary).unwrap_or(BLOCK));
        let is_zero = content[at..end].iter().all(|byte| *byte == 0);
        match (is_zero, data) {
            (true, Some(from)) => {
                file.write_at(start + from as u64, &content[from..at])?;
                data = None;
            }
            (false, None) => data = Some(at),
            _ => {}
        }
        at = end;
    }
    match data {
        Some(from) => file.write_at(start + from as u64, &content[from..]),
        None => Ok(()),
    }
}
