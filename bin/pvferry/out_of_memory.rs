//! The last report of a process that gets no more memory.
//!
//! Such a process cannot go on, and must not end as if it had crashed: the pod's termination message, the completion
//! marker and standard error say what happened, and the exit code is 22. None of that may allocate, so everything is
//! prepared when the command starts. A process that the kernel kills (the memory limit of a container) says nothing.

use std::{
    ffi::{CStr, CString},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt as _},
    panic,
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

const NO_MEMORY: &str = "out of memory: the memory limit of this process is reached";
const NO_THREAD: &str = "cannot start a thread: the limit on memory or on processes is reached";
/// Readable by all, as markers and messages are.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

/// Standard error is JSON.
static JSON: AtomicBool = AtomicBool::new(false);
static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// What the process does not get.
#[derive(Clone, Copy)]
enum Missing {
    Memory,
    Thread,
}

/// Where a report goes, as bytes and paths that the system takes as they are.
struct Prepared {
    no_memory: Vec<u8>,
    no_thread: Vec<u8>,
    /// Standard output gets it too.
    stdout: bool,
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

/// Has the message on standard error be a JSON object.
pub(crate) fn report_in_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Prepares the report on `volume`. The first call counts.
pub(crate) fn prepare(volume: &str, to: &Destinations<'_>) {
    let report =
        |why| Report::new(volume, ExitCode::Memory, why).to_termination_message().into_bytes();
    let prepared = Prepared {
        no_memory: report(NO_MEMORY),
        no_thread: report(NO_THREAD),
        stdout: to.stdout,
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

/// Ends the process with a report where the runtime or the standard library gets no thread. Both panic then, and the
/// runtime may wait for ever for the threads that it has.
pub(crate) fn report_missing_threads() {
    /// How the panics of the runtime and of `std::thread::spawn` begin.
    const PANICS: [&str; 2] = ["OS can't spawn worker thread", "failed to spawn thread"];
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let says = info.payload_as_str().unwrap_or_default();
        if PANICS.iter().any(|panic| says.starts_with(panic)) {
            leave(Missing::Thread);
        }
        otherwise(info);
    }));
}

/// Leaves the report that no memory is left, and ends the process. Allocates nothing.
#[cold]
pub(crate) fn report_and_exit() -> ! {
    leave(Missing::Memory)
}

#[allow(unsafe_code, reason = "nothing else ends a process without running what may allocate")]
fn leave(missing: Missing) -> ! {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    // Another thread reports, and ends this one with the process.
    while BEGUN.swap(true, Ordering::AcqRel) {
        thread::sleep(Duration::from_secs(1));
    }
    let why = match missing {
        Missing::Memory => NO_MEMORY,
        Missing::Thread => NO_THREAD,
    };
    // The texts hold nothing that JSON would escape.
    let (before, after) = match JSON.load(Ordering::Relaxed) {
        true => ("{\"level\":\"ERROR\",\"message\":\"pvferry: ", "\"}\n"),
        false => ("pvferry: ", "\n"),
    };
    for part in [before, why, after] {
        write(io::stderr(), part.as_bytes());
    }
    if let Some(prepared) = PREPARED.get() {
        prepared.leave(missing);
    }
    // SAFETY: takes a number, touches no memory of this process, and does not return.
    unsafe { libc::_exit(i32::from(ExitCode::Memory.number())) }
}

impl Prepared {
    /// What fails here cannot be reported any more: the exit code remains.
    fn leave(&self, missing: Missing) {
        let report = match missing {
            Missing::Memory => &self.no_memory,
            Missing::Thread => &self.no_thread,
        };
        if self.stdout {
            write(io::stdout(), report);
            write(io::stdout(), b"\n");
        }
        if let Some(path) = &self.message {
            put(path, OFlags::TRUNC | OFlags::NONBLOCK, report);
        }
        if let Some(Marker { temporary, path }) = &self.marker {
            let _ = fs::unlink(temporary.as_c_str());
            if put(temporary, OFlags::EXCL, report) {
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
