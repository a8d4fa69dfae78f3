//! Extended attributes and POSIX ACLs, of entries that are not opened.
//!
//! A symbolic link, a device node or a FIFO has attributes but cannot be opened for them, and the
//! calls that take `(directory, name)` are younger than most kernels that nodes run. Whether there are
//! attributes at all is asked by `listxattrat(2)` where there is that call; else an entry is reached as `/proc/<pid>/fd/<descriptor>/<name>` with the calls that do not follow links.
//! This is confined: the first part is a link that the kernel resolves to the held descriptor itself
//! and not by its path, the second is one component that is neither followed nor `..`.
//! An entry that is already held by a descriptor is reached as `/proc/<pid>/fd/<descriptor>`: that link leads to the
//! inode itself, so an entry that is put in its place meanwhile is neither read nor changed.
//! Where `/proc` is missing, files and directories are opened instead, and for every other kind the
//! answer is `ENOSYS`.
//!
//! # Which attributes
//! `user.*`, `trusted.*` where the process may see it, `security.*` (`security.selinux` only where
//! asked for), `system.posix_acl_access` and `system.posix_acl_default`. Everything else below
//! `system.` is left alone, `system.nfs4_acl` too: an NFS server makes one up for every file from
//! its mode, and no other file system takes it. XFS shows its ACLs a second time as
//! `trusted.SGI_ACL_*`, in its own form; only the portable form is taken.
//!
//! Errors are plain `Errno`: the caller knows which entry it was about.

use std::{
    ffi::CStr,
    io::Write as _,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use rustix::{
    buffer::{Buffer, spare_capacity},
    fs::{self, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};
use wire::{Name, Xattr, Xattrs};

use crate::{
    Dir,
    descriptors::{Loan, opening},
    listxattrat,
};

/// The longest value, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// Names and values of one entry together, in bytes.
pub const MAX_TOTAL: usize = 1024 * 1024;

/// The longest list of names that Linux returns, in bytes.
const MAX_LIST: usize = 64 * 1024;

/// Enough for the names of nearly every entry, so that the heap is not touched for them.
const SHORT_LIST: usize = 1024;

/// `/proc/<i32>/fd/<i32>/<name>` and its NUL.
const PATH: usize = 6 + 10 + 4 + 10 + 1 + wire::name::MAX_NAME + 1;

/// Whose attributes.
#[derive(Clone, Copy)]
pub enum XattrTarget<'a> {
    /// The entry of that name, itself also where it is a symbolic link.
    At(&'a Dir, &'a Name),
    /// The entry of that name, held by a descriptor that was opened with `O_PATH`.
    Held(&'a Dir, &'a Name, BorrowedFd<'a>),
    /// An open file or directory; not one opened with `O_PATH`.
    Fd(BorrowedFd<'a>),
}

impl XattrTarget<'_> {
    /// A descriptor alone does not say what volume it is of: its holder has checked that.
    fn check_writable(&self) -> Result<(), Errno> {
        match self {
            Self::At(dir, _) | Self::Held(dir, ..) => dir.check_writable(),
            Self::Fd(_) => Ok(()),
        }
    }
}

/// True where the attribute `name` belongs to the data and is therefore read, set and removed.
#[must_use]
pub fn is_carried(name: &[u8], selinux: bool) -> bool {
    match name {
        b"security.selinux" => selinux,
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        // What XFS keeps its ACLs in shows a second time under these names.
        b"trusted.SGI_ACL_FILE" | b"trusted.SGI_ACL_DEFAULT" => false,
        _ => [&b"user."[..], b"trusted.", b"security."].iter().any(|p| name.starts_with(p)),
    }
}

/// All attributes that are [carried](is_carried), sorted by name.
///
/// # Errors
/// `EOPNOTSUPP` where the file system keeps none, `E2BIG` where they are more than [`MAX_TOTAL`]
/// bytes, `ENOSYS` as the module says, and whatever `listxattr(2)` and `getxattr(2)` answer.
pub fn read(target: XattrTarget<'_>, selinux: bool) -> Result<Xattrs, Errno> {
    let mut short = [MaybeUninit::uninit(); SHORT_LIST];
    if let XattrTarget::At(dir, name) = target {
        match listxattrat::list(dir, name, &mut short) {
            Some(Ok(0)) => return Ok(Xattrs::new()),
            Some(Err(errno)) if errno != Errno::RANGE => return Err(errno),
            // There are some, or there is no such call.
            Some(_) | None => {}
        }
    }
    let object = Object::reach(target)?;
    match object.list(&mut short) {
        Ok(([], _)) => Ok(Xattrs::new()),
        Ok((names, _)) => read_values(&object, names, selinux),
        Err(Errno::RANGE) => {
            let mut names = Vec::with_capacity(MAX_LIST);
            object.list(spare_capacity(&mut names))?;
            read_values(&object, &names, selinux)
        }
        Err(errno) => Err(errno),
    }
}

/// Sets the attribute `name` to `value`, whether it exists or not.
///
/// # Errors
/// Whatever `setxattr(2)` answers; `ENOSYS` as the module says.
pub fn set(target: XattrTarget<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    target.check_writable()?;
    match Object::reach(target)? {
        Object::Path(path) => fs::lsetxattr(path.as_c_str(), name, value, XattrFlags::empty()),
        Object::Link(path) => fs::setxattr(path.as_c_str(), name, value, XattrFlags::empty()),
        Object::Fd(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        Object::Opened(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
    }
}

/// Removes the attribute `name`.
///
/// # Errors
/// `ENODATA` where there is none; whatever `removexattr(2)` answers; `ENOSYS` as the module says.
pub fn remove(target: XattrTarget<'_>, name: &[u8]) -> Result<(), Errno> {
    target.check_writable()?;
    match Object::reach(target)? {
        Object::Path(path) => fs::lremovexattr(path.as_c_str(), name),
        Object::Link(path) => fs::removexattr(path.as_c_str(), name),
        Object::Fd(fd) => fs::fremovexattr(fd, name),
        Object::Opened(fd) => fs::fremovexattr(fd, name),
    }
}

fn read_values(object: &Object<'_>, names: &[u8], selinux: bool) -> Result<Xattrs, Errno> {
    let mut xattrs = Xattrs::new();
    let mut total = 0;
    let mut scratch = Vec::with_capacity(512);
    for name in names.split(|&b| b == 0).filter(|name| is_carried(name, selinux)) {
        scratch.clear();
        let mut got = object.get(name, spare_capacity(&mut scratch));
        if got == Err(Errno::RANGE) {
            // No value is longer than this, so one more try is enough even while it grows.
            scratch.reserve(MAX_VALUE);
            got = object.get(name, spare_capacity(&mut scratch));
        }
        match got {
            Ok(_) => {}
            // Removed since the names were read.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        total += name.len() + scratch.len();
        if scratch.len() > MAX_VALUE || total > MAX_TOTAL {
            return Err(Errno::TOOBIG);
        }
        xattrs.push(Xattr { name: name.into(), value: scratch.as_slice().into() });
    }
    xattrs.sort_unstable();
    xattrs.dedup_by(|a, b| a.name == b.name);
    Ok(xattrs)
}

/// A target in the form that the system calls take.
enum Object<'a> {
    Path(ProcPath),
    /// The link to a held descriptor, which is followed.
    Link(ProcPath),
    Fd(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl<'a> Object<'a> {
    fn reach(target: XattrTarget<'a>) -> Result<Self, Errno> {
        match target {
            XattrTarget::Fd(fd) => Ok(Self::Fd(fd)),
            XattrTarget::At(dir, name) => match process_directory() {
                Some(process) => ProcPath::entry(process, dir, name).map(Self::Path),
                None => open_plain(dir, name).map(Self::Opened),
            },
            XattrTarget::Held(dir, name, held) => match process_directory() {
                Some(process) => ProcPath::link(process, held).map(Self::Link),
                None => open_plain(dir, name)
                    .and_then(|fd| if same_inode(&fd, held)? { Ok(fd) } else { Err(Errno::STALE) })
                    .map(Self::Opened),
            },
        }
    }

    fn list<B: Buffer<u8>>(&self, buffer: B) -> Result<B::Output, Errno> {
        match self {
            Self::Path(path) => fs::llistxattr(path.as_c_str(), buffer),
            Self::Link(path) => fs::listxattr(path.as_c_str(), buffer),
            Self::Fd(fd) => fs::flistxattr(fd, buffer),
            Self::Opened(fd) => fs::flistxattr(fd, buffer),
        }
    }

    fn get<B: Buffer<u8>>(&self, name: &[u8], buffer: B) -> Result<B::Output, Errno> {
        match self {
            Self::Path(path) => fs::lgetxattr(path.as_c_str(), name, buffer),
            Self::Link(path) => fs::getxattr(path.as_c_str(), name, buffer),
            Self::Fd(fd) => fs::fgetxattr(fd, name, buffer),
            Self::Opened(fd) => fs::fgetxattr(fd, name, buffer),
        }
    }
}

/// The link to a held descriptor, or the path of an entry below it.
struct ProcPath {
    bytes: [u8; PATH],
    /// The number in the path means this directory for as long as this is held.
    _dir: Option<Loan>,
}

impl ProcPath {
    fn entry(process: &[u8], dir: &Dir, name: &Name) -> Result<Self, Errno> {
        let fd = dir.descriptor().map_err(|e| e.errno)?;
        let bytes = Self::write(process, fd.as_fd(), &[b"/", name.as_bytes()])?;
        Ok(Self { bytes, _dir: Some(fd) })
    }

    fn link(process: &[u8], held: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Self { bytes: Self::write(process, held, &[])?, _dir: None })
    }

    fn write(process: &[u8], fd: BorrowedFd<'_>, more: &[&[u8]]) -> Result<[u8; PATH], Errno> {
        let mut bytes = [0; PATH];
        let mut rest = &mut bytes[..];
        rest.write_all(process)
            .and_then(|()| write!(rest, "/fd/{}", fd.as_raw_fd()))
            .and_then(|()| more.iter().try_for_each(|part| rest.write_all(part)))
            .map_err(|_| Errno::NAMETOOLONG)?;
        Ok(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        // The array is longer than any path in it, so it always ends in NUL.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// `/proc/<pid>` of this process, where `/proc` is the real one. Asked once: to go through
/// `/proc/self` costs a fifth more with every call.
fn process_directory() -> Option<&'static [u8]> {
    static DIRECTORY: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let found = DIRECTORY.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let proc = opening(|| fs::open(c"/proc", flags, Mode::empty())).ok()?;
        if fs::fstatfs(&proc).ok()?.f_type != fs::PROC_SUPER_MAGIC {
            return None;
        }
        // The number as this /proc counts processes, which may be another namespace's.
        let pid = fs::readlinkat(&proc, c"self", Vec::new()).ok()?;
        Some([b"/proc/", pid.as_bytes()].concat())
    });
    found.as_deref()
}

fn same_inode(a: impl std::os::fd::AsFd, b: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (a, b) = (fs::fstat(a)?, fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Opens a file or directory; to open any other kind may block or wake a device.
fn open_plain(dir: &Dir, name: &Name) -> Result<OwnedFd, Errno> {
    let probe = dir.open_at(name, OFlags::PATH, Mode::empty()).map_err(|e| e.errno)?;
    let probe = fs::fstat(&probe)?;
    if !matches!(
        FileType::from_raw_mode(probe.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(Errno::NOSYS);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = dir.open_at(name, flags, Mode::empty()).map_err(|e| e.errno)?;
    let stat = fs::fstat(&fd)?;
    // Swapped for something else between the two calls.
    if (stat.st_dev, stat.st_ino) != (probe.st_dev, probe.st_ino) {
        return Err(Errno::STALE);
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_data_are_carried_and_of_the_host_are_not() {
        for yes in [
            &b"user.a"[..],
            b"trusted.a",
            b"security.capability",
            b"security.ima",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            assert!(is_carried(yes, false), "{}", wire::name::escape(yes));
        }
        for no in [
            &b"trusted.SGI_ACL_FILE"[..],
            b"trusted.SGI_ACL_DEFAULT",
            b"system.nfs4_acl",
            b"system.data",
            b"security.selinux",
            b"btrfs.x",
            b"",
        ] {
            assert!(!is_carried(no, false), "{}", wire::name::escape(no));
        }
        assert!(is_carried(b"security.selinux", true));
    }

    #[test]
    fn without_proc_files_are_opened_and_fifos_are_not() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("file"), b"").unwrap();
        fs::mknodat(fs::CWD, tmp.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let dir = Dir::open_root_writable(tmp.path()).unwrap();
        let opened = |name: &[u8]| open_plain(&dir, &Name::new(name).unwrap()).map(|_| ());
        assert_eq!(opened(b"file"), Ok(()));
        assert_eq!(opened(b"fifo"), Err(Errno::NOSYS));
        assert_eq!(opened(b"none"), Err(Errno::NOENT));
    }

    #[test]
    fn a_held_entry_is_reached_when_another_has_its_name() {
        use std::os::unix::fs::symlink;
        let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = |name: &str| tmp.path().join(name);
        let dir = Dir::open_root_writable(tmp.path()).unwrap();
        let name = Name::new(b"name").unwrap();
        let file = |path| std::fs::write(path, b"").unwrap();
        let fifo = |path| fs::mknodat(fs::CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let link = |path| symlink("target", path).unwrap();
        file(at("target"));
        type Make<'a> = &'a dyn Fn(std::path::PathBuf);
        for (kind, make) in [("file", &file as Make<'_>), ("fifo", &fifo), ("link", &link)] {
            make(at("name"));
            make(at("other"));
            let held = dir.open_at(&name, OFlags::PATH, Mode::empty()).unwrap();
            let target = XattrTarget::Held(&dir, &name, held.as_fd());
            // Only these may be set on every kind, and only by root.
            let set = |value: &[u8]| set(target, b"trusted.t", value);
            if set(b"1") == Err(Errno::PERM) {
                return;
            }
            std::fs::rename(at("name"), at("moved")).unwrap();
            std::fs::rename(at("other"), at("name")).unwrap();
            set(b"2").unwrap();
            let of = |name: &[u8]| {
                read(XattrTarget::At(&dir, &Name::new(name).unwrap()), false).unwrap()
            };
            assert_eq!(of(b"moved")[0].value.as_ref(), b"2", "{kind}");
            assert_eq!(read(target, false).unwrap(), of(b"moved"), "{kind}");
            assert_eq!(of(b"name"), [], "{kind}");
            assert_eq!(of(b"target"), [], "a link is not followed");
            remove(target, b"trusted.t").unwrap();
            assert_eq!(of(b"moved"), [], "{kind}");
            for name in ["moved", "name"] {
                std::fs::remove_file(at(name)).unwrap();
            }
        }
    }
}
