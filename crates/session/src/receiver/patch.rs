//! A file that is made from what is here and from what differs.
//!
//! Where the differences go is decided when the first of them comes, so a file that proves equal is
//! never written to: into a part of an earlier run; into a clone, where the file system shares data;
//! into a copy, where the file is small or must not be seen half-written; else into the file itself,
//! which is marked dirty first.

use std::{
    collections::BTreeMap,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use delta::{Layout, SegmentFold, SignatureBuilder, StrongHash};
use parking_lot::Mutex;
use rustix::{
    fs::{self, SeekFrom},
    io::Errno,
};
use volume::{
    metadata::{self, Applied, MetadataDiff},
    writer::FileWriter,
};
use wire::{ContentDigest, Entry, EntryId, Metadata, ToReceiver, ToSender, Want, WeakStrong};

use super::{
    basis::{Basis, Output},
    dirs::DirState,
    file::{FileState, Finished},
    state::Shared,
};
use crate::control::Stopped;

/// Smallest file that is patched in place instead of being copied, in bytes.
const IN_PLACE_MIN: u64 = 1 << 20;
/// Block hashes in one frame.
const BLOCKS: usize = 8192;
/// Bytes read at once for block hashes.
const PIECE: usize = 1 << 20;

pub(super) struct Delta {
    basis: Basis,
    basis_len: u64,
    layout: Layout,
    /// Nothing is written; only whether something would be is of interest.
    dry: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Segment hashes of the basis, as far as the signature thread has come.
    hashes: Vec<StrongHash>,
    output: Option<Output>,
    /// Bytes that were sent, and bytes that were made holes.
    sent: u64,
    /// Where the old content can be read once the file is built anew.
    old: Option<OwnedFd>,
    written: Ranges,
}

/// One difference, as it is written.
type Change = Box<dyn FnOnce(&Output) -> volume::Result<()>>;

/// Ranges of a file, merged where they touch.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.0.insert(range.start, range.end);
    }

    fn touches(&self, range: &Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Delta {
    /// `output` is where the differences go, where that is settled already.
    pub(super) fn new(basis: Basis, output: Option<Output>, basis_len: u64, dry: bool) -> Self {
        let inner = Mutex::new(Inner { output, ..Inner::default() });
        Self { basis, basis_len, layout: Layout::for_len(basis_len), dry, inner }
    }

    pub(super) fn want(&self) -> Want {
        Want::Delta { basis_len: self.basis_len, segment_log2: self.layout.segment_log2() }
    }

    pub(super) fn segments(&self) -> u64 {
        self.layout.segments(self.basis_len)
    }

    /// Hashes segment `index` of the basis; `None` where it cannot be read any more.
    pub(super) fn hash_segment(
        &self,
        shared: &Shared,
        index: u64,
        buffer: &mut Vec<u8>,
    ) -> Option<StrongHash> {
        let range = self.layout.segment_range(index, self.basis_len);
        let len = (range.end - range.start) as usize;
        let hash = if len as u64 == u64::from(self.layout.segment_len())
            && self.basis.is_hole(range.clone())
        {
            shared.key.zero_segment(self.layout)
        } else {
            buffer.resize(len, 0);
            if self.basis.read_at(range.start, buffer).ok()? < len {
                return None;
            }
            shared.key.hash(buffer)
        };
        self.inner.lock().hashes.push(hash);
        Some(hash)
    }

    pub(super) fn answer_leaves(
        &self,
        shared: &Shared,
        id: EntryId,
        segment: u32,
    ) -> Result<(), Stopped> {
        if u64::from(segment) >= self.segments() {
            return shared.broken("leaf request past the end of a file");
        }
        let range = self.layout.segment_range(u64::from(segment), self.basis_len);
        let mut buffer = vec![0; (range.end - range.start) as usize];
        // Leaves that cannot be read are leaves that differ.
        let len = self.basis.read_at(range.start, &mut buffer).unwrap_or(0);
        let hashes = delta::leaf_hashes(&shared.key, self.layout, &buffer[..len]);
        let hashes = hashes.into_iter().map(|hash| hash.0).collect();
        shared.send(&ToSender::Leaves(id, segment, hashes))
    }

    pub(super) fn answer_blocks(
        &self,
        shared: &Shared,
        id: EntryId,
        from: u64,
        block_len: u32,
    ) -> Result<(), Stopped> {
        let mut builder = match SignatureBuilder::new(&shared.key, block_len) {
            Ok(builder) if from <= self.basis_len => builder,
            _ => return shared.broken("block request past the end of a file"),
        };
        let mut blocks = Vec::new();
        let mut buffer = vec![0; PIECE];
        let mut at = from;
        while at < self.basis_len {
            let want = ((self.basis_len - at) as usize).min(PIECE);
            let got = self.basis.read_at(at, &mut buffer[..want]).unwrap_or(0);
            builder.update(&buffer[..got], &mut |block| blocks.push(block));
            if got < want {
                break;
            }
            at += got as u64;
            while blocks.len() >= BLOCKS {
                let rest = blocks.split_off(BLOCKS);
                send_blocks(shared, id, &std::mem::replace(&mut blocks, rest), false)?;
            }
        }
        builder.finish(&mut |block| blocks.push(block));
        while blocks.len() > BLOCKS {
            let rest = blocks.split_off(BLOCKS);
            send_blocks(shared, id, &std::mem::replace(&mut blocks, rest), false)?;
        }
        send_blocks(shared, id, &blocks, true)
    }

    /// Applies one difference. The outer error ends the session, the inner one the file.
    pub(super) fn apply(
        &self,
        shared: &Shared,
        file: &FileState,
        message: ToReceiver,
    ) -> Result<volume::Result<()>, Stopped> {
        let mut inner = self.inner.lock();
        let (range, write): (_, Change) = match message {
            ToReceiver::Patch(_, at, data) => {
                let progress = &shared.context.progress;
                progress.bytes_literal.fetch_add(data.len() as u64, Relaxed);
                let range = at..at + data.len() as u64;
                inner.sent += data.len() as u64;
                (range, Box::new(move |output| output.write_at(at, &data)))
            }
            ToReceiver::Hole(_, at, len) => {
                inner.sent += len;
                (at..at + len, Box::new(move |output| output.zero(at, len)))
            }
            ToReceiver::Copy(_, at, from, len) => {
                let Some(old) = &inner.old else {
                    if self.dry {
                        return Ok(Ok(()));
                    }
                    return shared.broken("copy into a file that is not built anew");
                };
                if from + len > self.basis_len {
                    return shared.broken("copy from past the end of a file");
                }
                let copied = match &inner.output {
                    Some(Output::File(writer)) => copy_data(writer, old, from, at..at + len),
                    _ => return shared.broken("copy onto a device"),
                };
                inner.written.insert(at..at + len);
                return Ok(copied);
            }
            ToReceiver::Rebuild(_, keep) => {
                if self.dry {
                    inner.written.insert(0..1);
                    return Ok(Ok(()));
                }
                return self.rebuild(shared, file, &mut inner, keep);
            }
            _ => return shared.broken("content of a kind that was not asked for"),
        };
        inner.written.insert(range);
        if self.dry {
            return Ok(Ok(()));
        }
        Ok(self.prepare(shared, file, &mut inner).and_then(|output| write(&output)))
    }

    /// Decides where the differences go.
    fn prepare(
        &self,
        shared: &Shared,
        file: &FileState,
        inner: &mut Inner,
    ) -> volume::Result<Output> {
        if let Some(output) = &inner.output {
            return Ok(output.clone());
        }
        let invalid = || volume::Error::new("write", String::new(), rustix::io::Errno::INVAL);
        let (Some(dir), Some(existing), Basis::File(basis)) =
            (file.dir(), file.existing(), &self.basis)
        else {
            return Err(invalid());
        };
        shared.before_content()?;
        dir.touch();
        let (on_disk, name) = (dir.dir()?, &file.entry().name);
        let mut writer = None;
        if shared.reflinks.load(Relaxed) {
            let clone = FileWriter::beside(on_disk, name)?;
            if clone.reflink_from(basis)? {
                writer = Some(clone);
            } else {
                shared.reflinks.store(false, Relaxed);
            }
        }
        let writer = match writer {
            Some(writer) => writer,
            None if existing.alone
                && self.basis_len >= IN_PLACE_MIN
                && !shared.options().atomic =>
            {
                FileWriter::in_place(on_disk, name, existing.identity)?
            }
            None => {
                let copy = FileWriter::beside(on_disk, name)?;
                copy_data(&copy, basis, 0, 0..self.basis_len)?;
                copy.set_len(self.basis_len)?;
                copy
            }
        };
        let output = Output::File(Arc::new(writer));
        inner.output = Some(output.clone());
        Ok(output)
    }

    /// Begins a new file with the first `keep` bytes of what the file has become.
    fn rebuild(
        &self,
        shared: &Shared,
        file: &FileState,
        inner: &mut Inner,
        keep: u64,
    ) -> Result<volume::Result<()>, Stopped> {
        if inner.old.is_some() || keep > self.basis_len {
            return shared.broken("rebuild that makes no sense");
        }
        let Some(dir) = file.dir() else { return shared.broken("rebuild of a device") };
        let begin = |inner: &mut Inner| {
            shared.before_content()?;
            let old = match (&inner.output, &self.basis) {
                (Some(Output::File(writer)), _) => duplicate(&**writer, dir, file.entry())?,
                (None, Basis::File(basis)) => duplicate(basis, dir, file.entry())?,
                _ => return Ok(None),
            };
            // The temporary name passes to the new file; what bore it lives on by its descriptor.
            if let Some(Output::File(writer)) = inner.output.take()
                && let Some(writer) = Arc::into_inner(writer)
            {
                writer.keep();
            }
            let new = FileWriter::beside(dir.dir()?, &file.entry().name)?;
            copy_data(&new, &old, 0, 0..keep)?;
            inner.output = Some(Output::File(Arc::new(new)));
            inner.written.insert(keep..u64::MAX);
            inner.old = Some(old);
            Ok(Some(()))
        };
        dir.touch();
        match begin(inner) {
            Ok(Some(())) => Ok(Ok(())),
            Ok(None) => shared.broken("rebuild of a device"),
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) fn finish(
        &self,
        shared: &Shared,
        file: &FileState,
        meta: &Metadata,
        digest: &ContentDigest,
    ) -> volume::Result<Finished> {
        let mut inner = self.inner.lock();
        if self.dry {
            let existing = file.existing();
            let changed = !inner.written.is_empty()
                || meta.size != self.basis_len
                || existing.is_some_and(|existing| existing.detach);
            let metadata_differs = existing
                .is_some_and(|existing| !MetadataDiff::between(meta, &existing.meta).is_empty());
            let applied =
                Applied { actual: meta.clone(), problems: Vec::new(), changed: metadata_differs };
            return Ok(if changed {
                Finished::Written(applied)
            } else {
                Finished::Unchanged(applied)
            });
        }
        let detach = file.existing().is_some_and(|existing| existing.detach);
        if inner.output.is_none() && (meta.size != self.basis_len || detach) {
            self.prepare(shared, file, &mut inner)?;
        }
        if let Some(output) = &inner.output {
            output.set_len(meta.size)?;
        }
        if self.digest(shared, &inner, meta.size)?.as_ref() != Some(digest) {
            return Ok(Finished::Differs);
        }
        inner.old = None;
        let name = &file.entry().name;
        match (inner.output.take(), file.dir()) {
            (Some(Output::File(writer)), _) => match Arc::into_inner(writer) {
                Some(writer) => writer.finish(meta, shared.apply_options).map(Finished::Written),
                None => {
                    Err(volume::Error::new("finish", name.to_string(), rustix::io::Errno::BUSY))
                }
            },
            (None, Some(dir)) => metadata::apply_at(dir.dir()?, name, meta, shared.apply_options)
                .map(Finished::Unchanged),
            (device, _) => {
                let changed = device.is_some() && !inner.written.is_empty();
                let applied =
                    Applied { actual: meta.clone(), problems: Vec::new(), changed: false };
                Ok(if changed { Finished::Written(applied) } else { Finished::Unchanged(applied) })
            }
        }
    }

    /// The digest of what is on disk: written segments are read back, the others were hashed for
    /// the signature.
    fn digest(
        &self,
        shared: &Shared,
        inner: &Inner,
        size: u64,
    ) -> volume::Result<Option<ContentDigest>> {
        let mut fold = SegmentFold::new(&shared.key, self.layout);
        let mut buffer = Vec::new();
        for index in 0..self.layout.segments(size) {
            let range = self.layout.segment_range(index, size);
            let known = inner.hashes.get(usize::try_from(index).unwrap_or(usize::MAX));
            let same_range = self.layout.segment_range(index, self.basis_len) == range;
            match known {
                Some(&hash) if same_range && !inner.written.touches(&range) => fold.push(hash),
                _ => {
                    if shared.control.check().is_err() {
                        return Ok(None);
                    }
                    buffer.resize((range.end - range.start) as usize, 0);
                    let got = match (&inner.output, &self.basis) {
                        (Some(output), _) => output.read_at(range.start, &mut buffer)?,
                        (None, basis) => basis.read_at(range.start, &mut buffer)?,
                    };
                    if got < buffer.len() {
                        return Ok(None);
                    }
                    fold.push(shared.key.hash(&buffer));
                }
            }
        }
        Ok(Some(fold.finish(size).0))
    }

    /// Bytes that were sent, holes among them.
    pub(super) fn written(&self) -> u64 {
        self.inner.lock().sent
    }

    pub(super) fn take_writer(&self) -> Option<Arc<FileWriter>> {
        let mut inner = self.inner.lock();
        inner.old = None;
        match inner.output.take() {
            Some(Output::File(writer)) => Some(writer),
            _ => None,
        }
    }
}

/// A descriptor of its own for the file behind `fd`, which is `entry` of `dir`.
pub(super) fn duplicate(fd: impl AsFd, dir: &DirState, entry: &Entry) -> volume::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
        .map_err(|errno| volume::Error::new("open", dir.display_entry(&entry.name), errno))
}

/// Copies the data of `basis` from `from` on to the range `to` of a new file, and not its holes,
/// which the new file has already.
fn copy_data(
    new: &FileWriter,
    basis: impl AsFd,
    mut from: u64,
    to: Range<u64>,
) -> volume::Result<()> {
    let basis = basis.as_fd();
    let end = from + (to.end - to.start);
    let shift = |at: u64| to.start + (at + (to.end - to.start) - end);
    while from < end {
        let start = match fs::seek(basis, SeekFrom::Data(from)) {
            Ok(start) => start.max(from),
            Err(Errno::NXIO) => break,
            // A file system that does not tell.
            Err(_) => return new.copy_range(basis, from, shift(from), end - from),
        };
        if start >= end {
            break;
        }
        let stop = match fs::seek(basis, SeekFrom::Hole(start)) {
            Ok(stop) if stop > start => stop.min(end),
            _ => end,
        };
        new.copy_range(basis, start, shift(start), stop - start)?;
        from = stop;
    }
    Ok(())
}

fn send_blocks(
    shared: &Shared,
    id: EntryId,
    blocks: &[delta::SignatureBlock],
    last: bool,
) -> Result<(), Stopped> {
    let blocks = blocks.iter().map(|b| WeakStrong { weak: b.weak, strong: b.strong.0 }).collect();
    shared.send(&ToSender::Blocks(id, blocks, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_are_found() {
        let mut ranges = Ranges::default();
        ranges.insert(10..20);
        ranges.insert(30..40);
        assert!(
            !ranges.touches(&(20..30)) && ranges.touches(&(19..20)) && !ranges.touches(&(0..10))
        );
        ranges.insert(20..30);
        assert_eq!(ranges.0.len(), 1);
        ranges.insert(5..50);
        ranges.insert(7..8);
        assert_eq!(ranges.0.iter().next(), Some((&5, &50)));
        assert!(ranges.touches(&(49..u64::MAX)) && !ranges.touches(&(50..u64::MAX)));
    }
}
