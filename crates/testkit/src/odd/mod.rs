//! A file system in memory, mounted by FUSE, that misbehaves on command.
//!
//! ```no_run
//! # use testkit::{OddMount, Quirks, TempTree};
//! let Some(odd) = OddMount::new(Quirks { ignore_case: true, ..Quirks::default() }) else { return };
//! let tree = TempTree::below(odd.path());
//! tree.file("README", "text");
//! assert!(tree.at("readme").exists());
//! // Quirks can change while it is mounted: build the tree first, then break it.
//! odd.set(|quirks| quirks.lookup_errors = vec![("README".into(), testkit::Errno::STALE)]);
//! ```
//!
//! Without quirks it behaves as Linux file systems do: every kind of entry, owners, modes, hard links, xattrs, times in
//! nanoseconds, `RENAME_NOREPLACE`. It has no ACLs, no holes, no inode flags. Nothing is cached by the kernel, so each
//! operation sees the quirks of its moment.

mod serve;
mod store;

use std::{ffi::OsString, path::Path, sync::Arc};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use parking_lot::Mutex;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::skip;
use serve::Server;
use store::Store;

/// In what a file system differs from an ordinary one. By default in nothing.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// Names that differ in ASCII case only are one name; the first spelling stays. So do SMB and casefold.
    pub ignore_case: bool,
    /// A file that is removed or replaced while it is open gets a hidden name in its directory until it is closed. So do
    /// NFS and libfuse without `hard_remove`.
    pub hide_open_files: bool,
    /// Every attempt to set or list attributes fails with EOPNOTSUPP; those that are there are lost.
    pub no_xattrs: bool,
    /// Times are rounded down to a multiple of so many seconds: FAT has 2. 0 keeps nanoseconds.
    pub time_step: i64,
    /// A modification time is set only together with the time of access, and otherwise ignored without an error. So does
    /// libfuse 2.
    pub times_only_together: bool,
    /// At most so many bytes are taken by one write.
    pub short_writes: Option<usize>,
    /// Closing a file fails, and its content is lost. So do file systems that send content to an object store then.
    pub close_error: Option<Errno>,
    /// `link` fails with EPERM.
    pub no_hard_links: bool,
    /// FIFOs, sockets and device nodes are refused with EPERM.
    pub no_special_files: bool,
    /// A change of owner is refused with EPERM.
    pub no_owners: bool,
    /// A change of mode is ignored without an error: every entry is 0777.
    pub no_modes: bool,
    /// `renameat2` with flags fails with EINVAL.
    pub no_rename_flags: bool,
    /// Names that directories list twice.
    pub listed_twice: Vec<OsString>,
    /// Names whose lookup fails, although their directory lists them.
    pub lookup_errors: Vec<(OsString, Errno)>,
    /// Names of directories whose listing fails after the first entry.
    pub list_errors: Vec<(OsString, Errno)>,
    /// Names of files whose content cannot be read.
    pub read_errors: Vec<(OsString, Errno)>,
    /// Sizes that are reported for files of these names, whatever they hold. Their content is read past the cache, as
    /// with `direct_io`: all of it can be read.
    pub reported_sizes: Vec<(OsString, u64)>,
    /// As `reported_sizes`, in every other answer.
    pub every_other_size: Vec<(OsString, u64)>,
    /// When this directory is listed, the first entry goes to the place of the second, once. Both are a directory of the
    /// root, or nothing for the root itself, and a name in it.
    pub moved_when_listed: Option<(OsString, Place, Place)>,
    /// When the first directory of the root is listed, the second gets the mode 0700, once.
    pub closed_when_listed: Option<(OsString, OsString)>,
    /// Names of symbolic links that read as an empty target.
    pub empty_targets: Vec<OsString>,
}

/// A directory of the root, and a name in it.
pub type Place = (OsString, OsString);

/// A mounted [`Quirks`] file system; unmounted when dropped.
#[derive(Debug)]
pub struct OddMount {
    store: Arc<Mutex<Store>>,
    /// Dropped first, and so unmounted before its mount point is removed.
    session: Option<BackgroundSession>,
    point: TempDir,
}

impl OddMount {
    /// Mounts an empty file system; `None`, said loudly, where this machine cannot.
    #[must_use]
    pub fn new(quirks: Quirks) -> Option<Self> {
        if !skip::root() {
            return None;
        }
        if !Path::new("/dev/fuse").exists() {
            skip::unsupported("no /dev/fuse here");
            return None;
        }
        let point = tempfile::tempdir().unwrap();
        let store = Arc::new(Mutex::new(Store::new(quirks)));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("odd".into()),
            MountOption::DefaultPermissions,
            MountOption::Dev,
            MountOption::Suid,
        ];
        config.acl = SessionACL::All;
        match fuser::spawn_mount(Server::new(Arc::clone(&store)), point.path(), &config) {
            Ok(session) => Some(Self { store, session: Some(session), point }),
            Err(error) => {
                skip::skip(&format!("mount a FUSE file system: {error}"));
                None
            }
        }
    }

    /// The root of the file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    /// Changes its quirks.
    pub fn set(&self, change: impl FnOnce(&mut Quirks)) {
        let mut store = self.store.lock();
        change(&mut store.quirks);
        store.forget_unsupported();
    }
}

impl Drop for OddMount {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        // A process of a failed test may still be in there; then it goes when that process does.
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("--lazy").arg(self.point.path()).output();
        drop(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Snapshot, TempTree, assert_same};
    use std::{
        fs::{self, File},
        io::{Read, Write},
    };

    fn mount(quirks: Quirks) -> Option<(OddMount, TempTree)> {
        let odd = OddMount::new(quirks)?;
        let tree = TempTree::below(odd.path());
        Some((odd, tree))
    }

    fn error<T>(result: std::io::Result<T>) -> Option<Errno> {
        result.err().and_then(|error| Errno::from_io_error(&error))
    }

    #[test]
    fn without_quirks_it_is_like_others() {
        let Some((_odd, tree)) = mount(Quirks::default()) else { return };
        let other = TempTree::new();
        for tree in [&tree, &other] {
            tree.populate(3, 60).mutate(4, 30);
            tree.file("f", Content::random(1, 300_000)).hard_link("f", "d/g").mode("f", 0o4751);
            tree.character_device("null", 1, 3).owner("f", 7, 8).xattr("f", "user.x", &[0, 1]);
            tree.mode("f", 0o4751).mtime("f", 5, 123_456_789).rename("d/g", "d/h");
            for path in Snapshot::of(tree.path()).paths() {
                tree.mtime(path, 1, 1);
            }
            tree.mtime("", 1, 1);
        }
        assert_same(&other.at(""), &tree.at(""));
    }

    #[test]
    fn case_is_ignored() {
        let Some((_odd, tree)) = mount(Quirks { ignore_case: true, ..Quirks::default() }) else {
            return;
        };
        tree.file("README", "1").file("readme", "2");
        assert_eq!(fs::read(tree.at("README")).unwrap(), b"2");
        assert_eq!(Snapshot::of(tree.path()).paths().count(), 1);
        assert_eq!(error(File::create_new(tree.at("ReadMe"))), Some(Errno::EXIST));
    }

    #[test]
    fn open_files_are_hidden_and_their_directory_changes_when_they_are_closed() {
        let Some((_odd, tree)) = mount(Quirks { hide_open_files: true, ..Quirks::default() })
        else {
            return;
        };
        tree.file("d/f", "text");
        let mut file = File::open(tree.at("d/f")).unwrap();
        tree.remove("d/f").mtime("d", 1, 1);
        assert_eq!(fs::read_dir(tree.at("d")).unwrap().count(), 1);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        drop(file);
        // The kernel tells of a closed file without waiting.
        while fs::read_dir(tree.at("d")).unwrap().count() > 0 {}
        assert_ne!(Snapshot::of(tree.path()).node("d").mtime, (1, 1));
    }

    #[test]
    fn entries_that_cannot_be_looked_up_are_listed() {
        let Some((odd, tree)) = mount(Quirks::default()) else { return };
        tree.file("d/a", "1").file("d/b", "2").symlink("l", "f");
        let names = |path: &str| -> Vec<_> {
            let entries = fs::read_dir(tree.at(path)).unwrap();
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect()
        };
        for errno in [Errno::STALE, Errno::IO, Errno::ACCESS] {
            odd.set(|quirks| quirks.lookup_errors = vec![("b".into(), errno)]);
            assert_eq!(names("d").len(), 2);
            assert_eq!(error(fs::symlink_metadata(tree.at("d/b"))), Some(errno));
            assert!(fs::symlink_metadata(tree.at("d/a")).is_ok());
        }
        odd.set(|quirks| *quirks = Quirks { listed_twice: vec!["a".into()], ..Quirks::default() });
        assert_eq!(names("d").len(), 3);
        odd.set(|quirks| quirks.list_errors = vec![("d".into(), Errno::IO)]);
        assert!(names("d").last().unwrap().is_err());
        odd.set(|quirks| quirks.read_errors = vec![("a".into(), Errno::IO)]);
        assert_eq!(error(fs::read(tree.at("d/a"))), Some(Errno::IO));
        odd.set(|quirks| quirks.empty_targets = vec!["l".into()]);
        assert_eq!(fs::read_link(tree.at("l")).unwrap(), Path::new(""));
    }

    #[test]
    fn what_it_lacks_is_refused_or_ignored() {
        let Some((_odd, tree)) = mount(Quirks {
            no_xattrs: true,
            time_step: 2,
            short_writes: Some(1000),
            no_hard_links: true,
            no_special_files: true,
            no_owners: true,
            no_modes: true,
            no_rename_flags: true,
            ..Quirks::default()
        }) else {
            return;
        };
        tree.file("f", Content::random(1, 5000)).mtime("f", 7, 7).mode("f", 0o600);
        let f = Snapshot::of(tree.path()).node("f").clone();
        assert_eq!((f.mtime, f.size, f.mode), ((6, 0), 5000, 0o777));
        let mut file = File::options().append(true).open(tree.at("f")).unwrap();
        assert_eq!(file.write(&[1; 4000]).unwrap(), 1000);
        assert_eq!(error(fs::hard_link(tree.at("f"), tree.at("g"))), Some(Errno::PERM));
        let chown = std::os::unix::fs::chown(tree.at("f"), Some(1), None);
        assert_eq!(error(chown), Some(Errno::PERM));
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::lsetxattr(tree.at("f"), "user.x", b"1", flags);
        assert_eq!(set, Err(Errno::NOTSUP));
        let (from, to) = (tree.at("f"), tree.at("g"));
        let cwd = rustix::fs::CWD;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        assert_eq!(rustix::fs::renameat_with(cwd, from, cwd, to, flags), Err(Errno::INVAL));
    }

    #[test]
    fn a_time_alone_is_ignored() {
        let quirks = Quirks { times_only_together: true, ..Quirks::default() };
        let Some((_odd, tree)) = mount(quirks) else { return };
        tree.file("f", "").mtime("f", 7, 7);
        File::options()
            .write(true)
            .open(tree.at("f"))
            .unwrap()
            .set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH))
            .unwrap();
        assert_eq!(Snapshot::of(tree.path()).node("f").mtime, (7, 7));
    }
}
