//! The last report of a process that gets no more memory.
//!
//! Such a process cannot go on, and must not end as if it had crashed: the pod's termination message, the completion
//! marker and standard error say what happened, and the exit code is 22. None of that may allocate, so everything is
//! prepared when the command starts. A process that the kernel kills (the memory limit of a container) says nothing.

use std::{
    ffi::{CStr, CString},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pod::{ExitCode, Report, VolumeName, marker};
use rustix::fs::{self, Mode, OFlags};

const REASON: &str = "out of memory: this process may not allocate more";
const SENTENCE: &[u8] = b"pvferry: out of memory: this process may not allocate more\n";
/// Readable by all, as markers and messages are.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// Where a report goes, as bytes and paths that the system takes as they are.
struct Prepared {
    /// The report and a line end, where standard output gets it.
    stdout: Vec<u8>,
    report: Vec<u8>,
    message: Option<CString>,
    marker: Option<Marker>,
}

struct Marker {
    temporary: CString,
    path: CString,
}

/// Where the report of a command goes.
#[derive(Default)]
pub(crate) struct Destinations<'a> {
    /// Standard output.
    pub(crate) stdout: bool,
    /// The termination message.
    pub(crate) message: Option<&'a Path>,
    /// The directory of completion markers, and whose.
    pub(crate) marker: Option<(&'a Path, &'a VolumeName)>,
}

/// Prepares the report on `volume`. The first call counts.
pub(crate) fn prepare(volume: &str, to: &Destinations<'_>) {
    let report = Report::new(volume, ExitCode::Memory, REASON).to_termination_message();
    let prepared = Prepared {
        stdout: if to.stdout { format!("{report}\n").into_bytes() } else { Vec::new() },
        report: report.into_bytes(),
        message: to.message.and_then(|path| as_c(path.to_owned())),
        marker: to.marker.and_then(|(dir, volume)| {
            let (temporary, path) = marker::paths(dir, volume);
            Some(Marker { temporary: as_c(temporary)?, path: as_c(path)? })
        }),
    };
    let _ = PREPARED.set(prepared);
}

/// A path that cannot be one for the system gets no report; it is refused where it is used.
fn as_c(path: PathBuf) -> Option<CString> {
    CString::new(path.into_os_string().as_os_str().as_bytes()).ok()
}

/// Leaves the report and ends the process. Allocates nothing.
#[cold]
#[allow(unsafe_code, reason = "nothing else ends a process without running what may allocate")]
pub(crate) fn report_and_exit() -> ! {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    // Another thread reports, and ends this one with the process.
    while BEGUN.swap(true, Ordering::AcqRel) {
        thread::sleep(Duration::from_secs(1));
    }
    write(io::stderr(), SENTENCE);
    if let Some(prepared) = PREPARED.get() {
        prepared.leave();
    }
    // SAFETY: takes a number, touches no memory of this process, and does not return.
    unsafe { libc::_exit(i32::from(ExitCode::Memory.number())) }
}

impl Prepared {
    /// What fails here cannot be reported any more: the exit code remains.
    fn leave(&self) {
        write(io::stdout(), &self.stdout);
        if let Some(path) = &self.message {
            put(path, OFlags::TRUNC, &self.report);
        }
        if let Some(Marker { temporary, path }) = &self.marker {
            let _ = fs::unlink(temporary.as_c_str());
            if put(temporary, OFlags::EXCL, &self.report) {
                let _ = fs::rename(temporary.as_c_str(), path.as_c_str());
            }
        }
    }
}

/// Writes the file `path`; true where all of it is on disk.
fn put(path: &CStr, how: OFlags, bytes: &[u8]) -> bool {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | how;
    let Ok(fd) = fs::open(path, flags, MODE) else { return false };
    // Containers may run as different users; the kubelet's own file keeps its mode.
    let _ = fs::fchmod(&fd, MODE);
    write(&fd, bytes) && fs::fsync(&fd).is_ok()
}

fn write(fd: impl AsFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(written @ 1..) => bytes = &bytes[written.min(bytes.len())..],
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
        }
    }
    true
}
