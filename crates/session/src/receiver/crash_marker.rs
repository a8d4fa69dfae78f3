//! The crash marker: how a session finds out that the machine went down in the middle of an earlier one, or that an
//! earlier one ended with other content than was sent.
//!
//! What a session publishes is on stable storage only after the flush that precedes its commit
//! record. A power cut before that may leave files with the right size and time and without their
//! data, which size and time alone would then take for unchanged. A volume whose device fails, and that is mounted
//! again, is no better off. So before the first content is written, a small file with the kernel's boot id and the
//! number of the mount is made durable in the [staging directory](volume::staging), and it is removed after the flush.
//! A session that finds one with another content compares by content. The same content means that processes died and
//! the page cache did not, so nothing is missing. A session that ends early, but in order, flushes too: then the next
//! can trust size and time.
//!
//! A session also leaves one where the sender's manifest was another and nobody knows why: somewhere is content that was
//! not sent, with the right size and time. It is found by comparing, in the next session.
//!
//! And it stays where a file was left half patched. Whatever a marker says, there may be such files while there is one:
//! those whose content and inode changed together are compared by content ([`volume::writer`] says why that finds
//! them all). A session that did not look at everything leaves the marker for the next.

use parking_lot::Mutex;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, StatxFlags},
    io::Errno,
};
use volume::{
    Dir, Error, Result,
    staging::{self, CRASH_MARKER, Staging},
};
use wire::Name;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longer than any boot id with a number.
const MAX_LEN: usize = 64;
/// The content of the marker where the manifests of both ends differed.
const MANIFESTS_DIFFER: &[u8] = b"the manifests of both ends differ";

/// The content of the marker where nothing is wrong but that files are half patched.
const HALF_PATCHED: &[u8] = b"files are half patched";

/// `STATX_MNT_ID_UNIQUE` of `linux/stat.h`.
const UNIQUE_MOUNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The crash marker of one session.
#[derive(Default)]
pub(super) struct CrashMarker {
    /// There is one on disk.
    present: Mutex<bool>,
    untrusted_reason: Option<&'static str>,
    /// An earlier session left one, so files may be half patched.
    left: bool,
}

impl CrashMarker {
    /// Looks for the markers of earlier sessions.
    pub(super) fn find(root: &Dir, staging: &Staging) -> Result<Self> {
        let mut marker = Self::default();
        for (index, dir) in staging.dirs().iter().enumerate() {
            let Some(content) = read(dir)? else { continue };
            marker.left = true;
            marker.untrusted_reason = marker.untrusted_reason.or(untrusted(&content, root));
            if index == 0 {
                *marker.present.get_mut() = true;
            }
        }
        Ok(marker)
    }

    /// Why size and time do not tell what is unchanged.
    pub(super) fn untrusted_reason(&self) -> Option<&'static str> {
        self.untrusted_reason
    }

    /// True where an earlier session may have left half patched files.
    pub(super) fn was_left(&self) -> bool {
        self.left
    }

    /// Makes the marker durable, before content is written. That of an earlier session stays as it
    /// is: what it says holds until a session has succeeded.
    pub(super) fn begin(&self, root: &Dir, staging: &Staging) -> Result<()> {
        self.write(root, staging, || here(root))
    }

    /// Makes known to the next session that this one ended with other content than was sent.
    pub(super) fn manifests_differ(&self, root: &Dir, staging: &Staging) -> Result<()> {
        // One that stays for half patched files says less.
        if *self.present.lock() && self.untrusted_reason.is_none() {
            return rewrite(staging, MANIFESTS_DIFFER);
        }
        self.write(root, staging, || MANIFESTS_DIFFER.to_vec())
    }

    /// Writes the marker where there is none: `id` is asked for then only, for this is called before each content.
    fn write(&self, root: &Dir, staging: &Staging, id: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let mut present = self.present.lock();
        if *present {
            return Ok(());
        }
        let dir = staging.dir()?;
        let fail = |errno| Error::new("write the crash marker", root.display(), errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let open = dir.open_at(&name()?, flags, Mode::RUSR | Mode::WUSR);
        let fd = open.map_err(|error| fail(error.errno))?;
        let id = id();
        if rustix::io::write(&fd, &id).map_err(fail)? != id.len() {
            return Err(fail(Errno::NOSPC));
        }
        fs::fsync(&fd).map_err(fail)?;
        staging::flush(&dir)?;
        staging::flush(root)?;
        *present = true;
        Ok(())
    }

    /// Where a session ends early: what it wrote is flushed, so that the next can trust it. What is unfinished stays
    /// for the next, and so does the marker where `half_patched` says that a file is.
    pub(super) fn leave(&self, root: &Dir, staging: &Staging, half_patched: bool) {
        let mut present = self.present.lock();
        // What an earlier one may have lost is still not to be trusted.
        if self.untrusted_reason.is_some() {
            return;
        }
        let flushed = if *present { volume::flush::file_system(root) } else { Ok(()) };
        // Where that fails it stays, and the next session compares by content or goes on, as it finds the volume.
        let done = match flushed {
            Ok(()) if half_patched && *present => rewrite(staging, HALF_PATCHED),
            flushed => flushed.and_then(|()| staging.remove(true)).map(|()| *present = false),
        };
        // It says more than it has to then.
        drop(done);
    }

    /// After everything was flushed: what is left to say is that files are half patched.
    pub(super) fn keep(&self, staging: &Staging) -> Result<()> {
        let present = self.present.lock();
        if *present && self.untrusted_reason.is_none() {
            rewrite(staging, HALF_PATCHED)
        } else {
            Ok(())
        }
    }

    /// Removes the marker with the staging directory, after everything was flushed.
    pub(super) fn end(&self, staging: &Staging) -> Result<()> {
        let mut present = self.present.lock();
        staging.remove(false)?;
        *present = false;
        Ok(())
    }
}

fn name() -> Result<Name> {
    let invalid = |_| Error::new("name", "the crash marker", Errno::INVAL);
    Name::new(CRASH_MARKER).map_err(invalid)
}

/// Gives the marker other content. One that is cut off in between is trusted less.
fn rewrite(staging: &Staging, content: &[u8]) -> Result<()> {
    let dir = staging.dir()?;
    let fail = |errno| Error::new("write the crash marker", dir.display(), errno);
    let fd = dir.open_at(&name()?, OFlags::WRONLY | OFlags::TRUNC, Mode::empty())?;
    if rustix::io::write(&fd, content).map_err(fail)? != content.len() {
        return Err(fail(Errno::NOSPC));
    }
    fs::fsync(&fd).map_err(fail)
}

fn read(dir: &Dir) -> Result<Option<Vec<u8>>> {
    let fd = match dir.open_at(&name()?, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) if error.errno == Errno::NOENT => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; MAX_LEN];
    let len = rustix::io::read(&fd, &mut buffer)
        .map_err(|errno| Error::new("read the crash marker", dir.display(), errno))?;
    buffer.truncate(len);
    Ok(Some(buffer))
}

/// What the marker of an earlier session means.
fn untrusted(id: &[u8], root: &Dir) -> Option<&'static str> {
    match id {
        HALF_PATCHED => None,
        MANIFESTS_DIFFER => Some("an earlier transfer ended with other content than was sent"),
        id if id != here(root) => Some(
            "the machine went down in the middle of an earlier transfer, or the volume was mounted anew",
        ),
        _ => None,
    }
}

/// What this start of the kernel and this mount of the volume are called.
fn here(root: &Dir) -> Vec<u8> {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let mut here = format!("{} {}", boot.trim(), mount(root)).into_bytes();
    here.truncate(MAX_LEN);
    here
}

/// The number of the mount that `root` is on, which is never used again. Kernels before 6.8 have none; there it is the moment
/// when the first process of this container began, which mounts its volumes once.
fn mount(root: &Dir) -> u64 {
    let unique = root.descriptor().ok().and_then(|fd| {
        let stat = fs::statx(fd, c"", AtFlags::EMPTY_PATH, UNIQUE_MOUNT_ID).ok()?;
        (stat.stx_mask & UNIQUE_MOUNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
    });
    unique.unwrap_or_else(|| begin_of_first_process().unwrap_or(0))
}

/// In clock ticks since the start of the kernel; see `proc_pid_stat(5)`.
fn begin_of_first_process() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/1/stat").ok()?;
    // Its name may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_mount_has_one_name() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (Dir::open_root(tmp.path()).unwrap(), Dir::open_root(tmp.path()).unwrap());
        assert_eq!(here(&a), here(&b));
        assert!(here(&a).len() > 37 && here(&a).len() <= MAX_LEN);
        let other = Dir::open_root(std::path::Path::new("/proc")).unwrap();
        assert_ne!(here(&a), here(&other));
    }

    #[test]
    fn the_first_process_has_begun() {
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let own = own.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        let first = begin_of_first_process().unwrap();
        assert!(first < own.parse().unwrap(), "{first} {own}");
    }
}
