//! The journal: how a session finds out that the machine went down in the middle of an earlier one, or that an earlier
//! one ended with other content than was sent.
//!
//! What a session publishes is on stable storage only after the flush that precedes its commit
//! record. A power cut before that may leave files with the right size and time and without their
//! data, which size and time alone would then take for unchanged. So before the first content is
//! written, a small file with the kernel's boot id is made durable in the root, and it is removed
//! after the flush. A session that finds one with another boot id compares by content. The same boot id
//! means that processes died and the page cache did not, so nothing is missing.
//!
//! A session also leaves one where the sender's manifest was another and nobody knows why: somewhere is content that was
//! not sent, with the right size and time. It is found by comparing, in the next session.
//!
//! The file bears a [temporary name](volume::temp), which listings of this end leave alone; a source
//! with an entry of that very name at its root is told that it cannot be kept.

use parking_lot::Mutex;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};
use volume::{Dir, Error, Result, metadata, stat, temp};
use wire::Name;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Longer than any boot id.
const MAX_LEN: usize = 64;
/// What stands in place of a boot id where the manifests of both ends differed.
const DOUBT: &[u8] = b"the manifests of both ends differ";

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
                    journal.suspicion = suspicion(&buffer[..len]);
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
        self.leave(root, &boot_id())
    }

    /// Makes known to the next session that this one ended with other content than was sent.
    pub(super) fn doubt(&self, root: &Dir) -> Result<()> {
        self.leave(root, DOUBT)
    }

    fn leave(&self, root: &Dir, id: &[u8]) -> Result<()> {
        let mut present = self.present.lock();
        let Some(name) = self.name.as_ref().filter(|_| !*present) else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = root.open_at(name, flags, Mode::RUSR | Mode::WUSR)?;
        let fail = |errno| root.error("write", name, errno);
        if rustix::io::write(&fd, id).map_err(fail)? != id.len() {
            return Err(fail(Errno::NOSPC));
        }
        fs::fsync(&fd).map_err(fail)?;
        flush_root(root)?;
        *present = true;
        Ok(())
    }

    /// Removes the journal, after everything was flushed; the root keeps its time.
    pub(super) fn end(&self, root: &Dir) -> Result<()> {
        let mut present = self.present.lock();
        let Some(name) = self.name.as_ref().filter(|_| *present) else { return Ok(()) };
        let before = stat::root_entry(root, &stat::ReadOptions::default())?;
        match fs::unlinkat(root.descriptor()?, name.as_bytes(), AtFlags::empty()) {
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
fn suspicion(id: &[u8]) -> Option<&'static str> {
    match id {
        DOUBT => Some("an earlier transfer ended with other content than was sent"),
        id if id != boot_id() => Some("the machine went down in the middle of an earlier transfer"),
        _ => None,
    }
}

/// What this start of the kernel is called; the same for ever where it does not say.
fn boot_id() -> Vec<u8> {
    let mut id = std::fs::read(BOOT_ID).unwrap_or_default();
    id.truncate(MAX_LEN);
    if id.is_empty() { b"unknown".to_vec() } else { id }
}
