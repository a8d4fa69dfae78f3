//! What the differences of a file refer to, and where they are written.

use std::{os::fd::AsFd, sync::Arc};

use rustix::io::Errno;
use volume::{
    basis::BasisFile, device::BlockSource, target_device::TargetDevice, writer::FileWriter,
};

/// The content that a signature is made of.
pub(super) enum Basis {
    /// The file that bears the name.
    File(BasisFile),
    /// A part of an earlier run, which is also written to.
    Part(BasisFile),
    /// What is also written to.
    Device(Arc<TargetDevice>),
    /// A device in a dry run.
    ReadOnlyDevice(Arc<BlockSource>),
}

/// Where content goes.
#[derive(Clone)]
pub(super) enum Output {
    File(Arc<FileWriter>),
    Device(Arc<TargetDevice>),
}

impl Basis {
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> volume::Result<usize> {
        match self {
            Self::File(file) | Self::Part(file) => file.read_at(offset, buffer),
            Self::Device(device) => device.read_at(offset, buffer),
            Self::ReadOnlyDevice(device) => device.read_at(offset, buffer),
        }
    }

    /// True where all of `range` is a hole, as far as that is cheap to tell.
    pub(super) fn is_hole(&self, range: std::ops::Range<u64>) -> bool {
        match self {
            Self::File(file) => file.is_hole(range),
            Self::Part(_) | Self::Device(_) | Self::ReadOnlyDevice(_) => false,
        }
    }

    /// Nothing is read any more.
    pub(super) fn close(&self) {
        if let Self::File(file) | Self::Part(file) = self {
            file.close();
        }
    }
}

pub(super) fn read_full(fd: impl AsFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&fd, &mut buffer[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

impl Output {
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> volume::Result<usize> {
        match self {
            Self::File(writer) => writer.read_at(offset, buffer),
            Self::Device(device) => device.read_at(offset, buffer),
        }
    }

    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> volume::Result<()> {
        match self {
            Self::File(writer) => writer.write_at(offset, data),
            Self::Device(device) => device.write_at(offset, data),
        }
    }

    pub(super) fn zero(&self, offset: u64, len: u64) -> volume::Result<()> {
        match self {
            Self::File(writer) => writer.punch_hole(offset, len),
            Self::Device(device) => device.zero_range(offset, len),
        }
    }

    pub(super) fn set_len(&self, len: u64) -> volume::Result<()> {
        match self {
            Self::File(writer) => writer.set_len(len),
            Self::Device(_) => Ok(()),
        }
    }
}
