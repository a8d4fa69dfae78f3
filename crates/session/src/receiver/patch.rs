//! A file that is made from what is here and from what differs.
//!
//! Where the differences go is decided when the first of them comes, so a file that proves equal is
//! never written to: into a part of an earlier run; into a clone, where the file system shares data;
//! into a copy, where the file is small or must not be seen half-written; else into the file itself,
//! which counts as half patched until it is whole.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use delta::{Layout, SegmentFold};
use parking_lot::Mutex;
use rustix::io::Errno;
use volume::{
    metadata::{self, Applied, MetadataDiff},
    writer::FileWriter,
};
use wire::{ContentDigest, Metadata, ToReceiver, Want};

use super::{
    basis::{Basis, Output},
    file::{FileState, Finished},
    known::Known,
    rebuild::{Old, Rebuilt},
    room,
    state::Shared,
};
use crate::fault::Fault;

/// Smallest file that is patched in place instead of being copied, in bytes.
const IN_PLACE_MIN: u64 = 1 << 20;
/// Bytes of a device that are made zeros in one step.
const DEVICE_STEP: u64 = 64 << 20;

pub(super) struct Delta {
    pub(super) basis: Basis,
    pub(super) basis_len: u64,
    pub(super) layout: Layout,
    /// Nothing is written; only whether something would be is of interest.
    pub(super) dry: bool,
    pub(super) inner: Mutex<Inner>,
}

pub(super) struct Inner {
    /// Segment hashes of the basis, as far as the signature thread has come, and of what took their
    /// place.
    pub(super) known: Known,
    pub(super) output: Option<Output>,
    /// Bytes that were sent, and bytes that were made holes.
    sent: u64,
    /// Something differs.
    pub(super) changed: bool,
    pub(super) rebuilt: Option<Rebuilt>,
}

/// One difference, as it is written.
type Change = Box<dyn Fn(&Output) -> volume::Result<()>>;

impl Delta {
    /// `output` is where the differences go, where that is settled already.
    pub(super) fn new(basis: Basis, output: Option<Output>, basis_len: u64, dry: bool) -> Self {
        let layout = Layout::for_len(basis_len);
        let inner =
            Inner { known: Known::new(layout), output, sent: 0, changed: false, rebuilt: None };
        Self { basis, basis_len, layout, dry, inner: Mutex::new(inner) }
    }

    pub(super) fn want(&self) -> Want {
        Want::Delta { basis_len: self.basis_len, segment_log2: self.layout.segment_log2() }
    }

    /// Bytes of memory that hashes and ranges of its content take.
    pub(super) fn memory(&self) -> u64 {
        self.inner.lock().known.memory()
    }

    pub(super) fn segments(&self) -> u64 {
        self.layout.segments(self.basis_len)
    }

    /// Applies one difference.
    pub(super) fn apply(
        &self,
        shared: &Shared,
        file: &FileState,
        message: ToReceiver,
    ) -> Result<(), Fault> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let write: Change = match message {
            ToReceiver::Patch(_, at, data) => {
                let len = data.len() as u64;
                shared.context.progress.bytes_literal.fetch_add(len, Relaxed);
                inner.sent = inner.sent.saturating_add(len);
                match &mut inner.rebuilt {
                    Some(rebuilt) => {
                        rebuilt.follow(shared, at, len)?;
                        rebuilt.pieces.push(shared.key.hash(&data));
                    }
                    None => inner.known.wrote(&shared.key, self.segments(), at, &data),
                }
                Box::new(move |output| output.write_at(at, &data))
            }
            ToReceiver::Hole(_, at, len) => {
                inner.sent = inner.sent.saturating_add(len);
                match &mut inner.rebuilt {
                    Some(rebuilt) => {
                        rebuilt.follow(shared, at, len)?;
                        rebuilt.pieces.push_hole(&shared.key, len);
                    }
                    None => inner.known.zeroed(at..at + len),
                }
                return self.zero(shared, file, inner, at..at + len);
            }
            ToReceiver::Copy(_, at, from, len) => {
                return self.copy(shared, inner, at, from, len);
            }
            ToReceiver::Rebuild(_, keep) => return self.rebuild(shared, file, inner, keep),
            _ => return Ok(shared.broken("content of a type that was not requested")?),
        };
        inner.changed = true;
        if self.dry {
            return Ok(());
        }
        let output = room::with_room(shared, || self.prepare(shared, file, inner))?;
        room::with_room(shared, || write(&output))
    }

    /// Makes a hole of `range`, however long.
    fn zero(
        &self,
        shared: &Shared,
        file: &FileState,
        inner: &mut Inner,
        range: std::ops::Range<u64>,
    ) -> Result<(), Fault> {
        inner.changed = true;
        if self.dry {
            return Ok(());
        }
        let output = room::with_room(shared, || self.prepare(shared, file, inner))?;
        // A device may have to be written to, so whoever ends the session is heard in between.
        let step = if matches!(output, Output::Device(_)) { DEVICE_STEP } else { u64::MAX };
        let mut at = range.start;
        while at < range.end {
            shared.control.check()?;
            let len = step.min(range.end - at);
            room::with_room(shared, || output.zero(at, len))?;
            at += len;
        }
        Ok(())
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
        let error = |errno| volume::Error::new("write", file.display(), errno);
        let Some(dir) = file.dir() else { return Err(error(Errno::INVAL)) };
        shared.before_content()?;
        dir.touch();
        let (on_disk, name) = (dir.dir()?, &file.entry().name);
        let (existing, basis) = match (file.existing(), &self.basis) {
            (_, Basis::Part(part)) => {
                let opened = FileWriter::open_part(file.place(shared)?)?;
                let (writer, _) = opened.ok_or_else(|| error(Errno::STALE))?;
                part.expect(&writer)?;
                let output = Output::File(Arc::new(writer));
                inner.output = Some(output.clone());
                return Ok(output);
            }
            (Some(existing), Basis::File(basis)) => (existing, basis.descriptor()?),
            _ => return Err(error(Errno::INVAL)),
        };
        let mut writer = None;
        if shared.reflinks.load(Relaxed) {
            let clone = file.stage(shared)?;
            if clone.reflink_from(&basis)? {
                writer = Some(clone);
            } else {
                shared.reflinks.store(false, Relaxed);
            }
        }
        let in_place = writer.is_none()
            && existing.alone
            && self.basis_len >= IN_PLACE_MIN
            && !shared.options().atomic;
        if in_place {
            let want = &file.entry().meta;
            let opened = FileWriter::in_place(on_disk, name, existing.identity, want);
            writer = match opened.and_then(|writer| writer.begin().map(|()| writer)) {
                Ok(writer) => {
                    shared.half_patched.lock().insert(file.id);
                    Some(writer)
                }
                // Somebody else's, whose mode cannot be narrowed: a copy of it is not open to those it is open to.
                Err(error) if matches!(error.errno, Errno::PERM | Errno::OPNOTSUPP) => None,
                Err(error) => return Err(error),
            };
        }
        let writer = match writer {
            Some(writer) => writer,
            None => {
                let copy = file.stage(shared)?;
                Old::new(basis).copy_to(&copy, 0, 0..self.basis_len)?;
                copy.set_len(self.basis_len)?;
                copy
            }
        };
        let output = Output::File(Arc::new(writer));
        inner.output = Some(output.clone());
        Ok(output)
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
            let changed = inner.changed
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
        // What nobody sent is not read, let alone made: it may be any length.
        if inner.rebuilt.is_none() && !inner.known.reaches(self.segments(), meta.size) {
            return Ok(Finished::Differs);
        }
        let detach = file.existing().is_some_and(|existing| existing.detach);
        // A part gets its name in any case.
        let moves = detach || matches!(self.basis, Basis::Part(_));
        if inner.output.is_none() && (meta.size != self.basis_len || moves) {
            self.prepare(shared, file, &mut inner)?;
        }
        if let Some(output) = &inner.output {
            output.set_len(meta.size)?;
        }
        if self.digest(shared, &inner, meta.size)?.as_ref() != Some(digest) {
            return Ok(Finished::Differs);
        }
        inner.rebuilt = None;
        // From here on it is not read, and the name may lead to another file.
        self.basis.close();
        let name = &file.entry().name;
        match (inner.output.take(), file.dir()) {
            (Some(Output::File(writer)), _) => match Arc::into_inner(writer) {
                Some(writer) => writer.finish(meta, shared.apply_options).map(Finished::Written),
                None => Err(volume::Error::new("finish", name.to_string(), Errno::BUSY)),
            },
            (None, Some(dir)) => metadata::apply_at(dir.dir()?, name, meta, shared.apply_options)
                .map(Finished::Unchanged),
            (device, _) => {
                let changed = device.is_some() && inner.changed;
                let applied =
                    Applied { actual: meta.clone(), problems: Vec::new(), changed: false };
                Ok(if changed { Finished::Written(applied) } else { Finished::Unchanged(applied) })
            }
        }
    }

    /// The digest of what the file has become: of its segments, and of the pieces behind them where it
    /// was built anew. `None` where that cannot be `size` bytes.
    fn digest(
        &self,
        shared: &Shared,
        inner: &Inner,
        size: u64,
    ) -> volume::Result<Option<ContentDigest>> {
        let mut fold = SegmentFold::new(&shared.key, self.layout);
        let segments = match &inner.rebuilt {
            Some(rebuilt) if rebuilt.next != size => return Ok(None),
            Some(rebuilt) => self.layout.segments(rebuilt.keep),
            None => self.layout.segments(size),
        };
        let mut buffer = Vec::new();
        let mut next = 0;
        while next < segments {
            let index = next;
            let zeros = inner.known.zero_segments(index, size);
            if zeros > 0 {
                fold.push_zeros(zeros);
                next += zeros;
                continue;
            }
            next += 1;
            let range = self.layout.segment_range(index, size);
            if let Some(hash) = inner.known.get(index, &range) {
                fold.push(hash);
                continue;
            }
            // Only a part of it was written, so it has to be read again.
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
        if let Some(rebuilt) = &inner.rebuilt {
            fold.push(rebuilt.pieces.clone().finish());
        }
        Ok(Some(fold.finish(size).0))
    }

    /// Bytes that were sent, holes among them.
    pub(super) fn written(&self) -> u64 {
        self.inner.lock().sent
    }

    /// What is written to. A part that nothing was written to yet is opened for it.
    pub(super) fn take_writer(&self, shared: &Shared, file: &FileState) -> Option<Arc<FileWriter>> {
        let mut inner = self.inner.lock();
        inner.rebuilt = None;
        match (inner.output.take(), &self.basis) {
            (Some(Output::File(writer)), _) => Some(writer),
            (None, Basis::Part(part)) => {
                let (writer, _) = FileWriter::open_part(file.place(shared).ok()?).ok()??;
                part.expect(&writer).ok().map(|()| Arc::new(writer))
            }
            _ => None,
        }
    }
}
