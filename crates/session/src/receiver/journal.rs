//! The journal: how a session finds out that the machine went down in the middle of an earlier one, or that an earlier
//! one ended with other content than was sent.
//!
//! What a session publishes is on stable storage only after the flush that precedes its commit
//! record. A power cut before that may leave files with the right size and time and without their
//! data, which size and time alone would then take for unchanged. A volume whose device fails, and that is mounted
//! again, is no better off. So before the first content is written, a small file with the kernel's boot id and the
//! number of the mount is made durable in the root, and it is removed after the flush. A session that finds one with
//! another content compares by content. The same means that processes died and the page cache did not, so
//! nothing is missing. A session that ends early, but in order, flushes too: then the next need not doubt anything.
//!
//! A session also leaves one where the sender's manifest was another and nobody knows why: somewhere is content that was
//! not sent, with the right size and time. It is found by comparing, in the next session.
//!
//! The file bears a [temporary name](volume::temp), which listings of this end leave alone; a source
//! with an entry of that very name at its root is told that it cannot be kept.

use parking_lot::Mutex;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags, StatxFlags},
    io::Errno,
};
use volume::{Dir, Error, Result, metadata, stat, temp, unlock::unlocking};
use wire::Name;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longer than any boot id with a number.
const MAX_LEN: usize = 64;
/// What stands in its place where the manifests of both ends differed.
const DOUBT: &[u8] = b"the manifests of both ends differ";

/// `STATX_MNT_ID_UNIQUE` of `linux/stat.h`.
const UNIQUE_MOUNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The journal of one session.
pub(super) struct Journal {
    name: Option<Name>,
    /// There is one on disk.
    present: Mutex<bool>,
    /// Why size and time do not tell what is unchanged.
    suspicion: Option<&'static str>,
}

impl Journal {
    /// Looks for the journal of an earlier session in `root`.
    pub(super) fn find(root: Option<&Dir>) -> Result<Self> {
        let name = Name::new(b".pvferry-session").ok().map(|name| temp::part_name(&name));
        let mut journal = Self { name, present: Mutex::new(false), suspicion: None };
        if let (Some(root), Some(name)) = (root, &journal.name) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            match root.open_at(name, flags, Mode::empty()) {
                Ok(fd) => {
                    let mut buffer = [0; MAX_LEN];
                    let len = rustix::io::read(&fd, &mut buffer)
                        .map_err(|errno| root.error("read", name, errno))?;
                    journal.suspicion = suspicion(&buffer[..len], root);
                    *journal.present.get_mut() = true;
                }
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => return Err(error),
            }
        }
        Ok(journal)
    }

    /// Why everything has to be compared by content, where it has: a clause for people.
    pub(super) fn suspicion(&self) -> Option<&'static str> {
        self.suspicion
    }

    /// True where `name`, in the root, is the journal's.
    pub(super) fn is_named(&self, name: &Name) -> bool {
        self.name.as_ref() == Some(name)
    }

    /// Makes the journal durable, before content is written. That of an earlier session stays as it
    /// is: what it says holds until a session is through.
    pub(super) fn begin(&self, root: &Dir) -> Result<()> {
        self.write(root, || here(root))
    }

    /// Makes known to the next session that this one ended with other content than was sent.
    pub(super) fn doubt(&self, root: &Dir) -> Result<()> {
        self.write(root, || DOUBT.to_vec())
    }

    /// Writes the journal where there is none: `id` is asked for then only, for this is called before each content.
    fn write(&self, root: &Dir, id: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let mut present = self.present.lock();
        let Some(name) = self.name.as_ref().filter(|_| !*present) else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fail = |errno| root.error("write", name, errno);
        let mode = Mode::RUSR | Mode::WUSR;
        let open = || root.open_at(name, flags, mode).map_err(|error| error.errno);
        let fd = unlocking(root, None, open).map_err(fail)?;
        let id = id();
        if rustix::io::write(&fd, &id).map_err(fail)? != id.len() {
            return Err(fail(Errno::NOSPC));
        }
        fs::fsync(&fd).map_err(fail)?;
        flush_root(root)?;
        *present = true;
        Ok(())
    }

    /// Where a session ends early: what it wrote is flushed, so that the next need not doubt it.
    pub(super) fn leave(&self, root: &Dir) {
        // What an earlier one may have lost is still in doubt.
        if *self.present.lock() && self.suspicion.is_none() {
            // Where that fails it stays, and the next session compares by content or goes on, as it finds the volume.
            let _ = volume::flush::file_system(root).and_then(|()| self.end(root));
        }
    }

    /// Removes the journal, after everything was flushed; the root keeps its time.
    pub(super) fn end(&self, root: &Dir) -> Result<()> {
        let mut present = self.present.lock();
        let Some(name) = self.name.as_ref().filter(|_| *present) else { return Ok(()) };
        let before = stat::root_entry(root, &stat::ReadOptions::default())?;
        let fd = root.descriptor()?;
        let unlink = || fs::unlinkat(&fd, name.as_bytes(), AtFlags::empty());
        match unlocking(root, None, unlink) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(root.error("remove", name, errno)),
        }
        *present = false;
        metadata::apply_dir(root, &before, metadata::ApplyOptions::default())?;
        flush_root(root)
    }
}

fn flush_root(root: &Dir) -> Result<()> {
    fs::fsync(root.descriptor()?).map_err(|errno| Error::new("flush", root.display(), errno))
}

/// What the journal of an earlier session means.
fn suspicion(id: &[u8], root: &Dir) -> Option<&'static str> {
    match id {
        DOUBT => Some("an earlier transfer ended with other content than was sent"),
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
        let (a, b) = (
            Dir::open_root_writable(tmp.path()).unwrap(),
            Dir::open_root_writable(tmp.path()).unwrap(),
        );
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
