//! Making entries that are not regular files: directories, symbolic links, FIFOs, sockets, device
//! nodes, and further names of a file.
//!
//! Each comes in two forms. The plain one wants the name to be free. The replacing one takes the
//! place of whatever bears the name, except a directory: the entry is made under its
//! [temporary name](crate::temp), complete with its metadata, and renamed over the old one, so the
//! name is never missing and never half made.
//!
//! A parent with a default ACL hands it down to whatever is made in it. That is metadata nobody
//! wanted: a new directory is freed of it at once, since otherwise it would hand it further down, and
//! every other kind when its own metadata is applied.

use std::os::fd::AsFd as _;

use rustix::{
    fs::{self, AtFlags, Dev, FileType, Mode, RenameFlags},
    io::Errno,
};
use wire::{Entry, FileKind, Metadata, Name};

use crate::{
    Dir, Error, Result,
    metadata::{self, Applied, ApplyOptions, Stage},
    temp,
    unlock::{lifting, unlocking},
    xattr::{self, XattrTarget},
};

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// What a directory gives to the entries that are made in it. Read once per directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentHints {
    /// The directory has a default ACL.
    pub default_acl: bool,
    /// Owner of what this process makes in it.
    pub uid: u32,
    /// Group of what this process makes in it: that of a setgid directory, else of the process.
    pub gid: u32,
}

impl ParentHints {
    /// Reads them from `dir`.
    ///
    /// # Errors
    /// Where the directory or its ACL cannot be read.
    pub fn of(dir: &Dir) -> Result<Self> {
        let fail = |errno| Error::new("read metadata", dir.display(), errno);
        let fd = dir.descriptor()?;
        let stat = fs::fstat(&fd).map_err(fail)?;
        let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        let mut acl = [0_u8; 0];
        let default_acl = match fs::fgetxattr(&fd, DEFAULT_ACL, &mut acl) {
            Ok(_) | Err(Errno::RANGE) => true,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
            Err(errno) => return Err(fail(errno)),
        };
        Ok(Self {
            default_acl,
            uid: rustix::process::geteuid().as_raw(),
            gid: if setgid { stat.st_gid } else { rustix::process::getegid().as_raw() },
        })
    }
}

/// Makes the directory `name`, open to its owner alone until its metadata is applied.
///
/// # Errors
/// `EEXIST` where the name is taken; whatever `mkdirat(2)` answers.
pub fn directory(dir: &Dir, name: &Name, hints: ParentHints) -> Result<Dir> {
    let fd = dir.descriptor()?;
    unlocking(dir, None, || fs::mkdirat(&fd, name.as_bytes(), Mode::RWXU))
        .map_err(|e| dir.error("make directory", name, e))?;
    let made = dir.open_child(name)?;
    if hints.default_acl {
        let fd = made.descriptor()?;
        for acl in [DEFAULT_ACL, ACCESS_ACL] {
            match xattr::remove(XattrTarget::Fd(fd.as_fd()), acl) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(dir.error("remove inherited ACL", name, errno)),
            }
        }
    }
    Ok(made)
}

/// Gives the directory `made`, which was built under a temporary name, its name `name`. Comes before
/// [`metadata::apply_dir`], since inode flags would forbid it.
///
/// # Errors
/// `EEXIST` where the name is taken; `EINVAL` for the root; whatever `renameat2(2)` answers.
pub fn publish_directory(made: &Dir, name: &Name) -> Result<()> {
    let (Some(dir), Some(temporary)) = (made.parent(), made.name()) else {
        return Err(Error::new("rename", made.display(), Errno::INVAL));
    };
    let fd = dir.descriptor()?;
    let rename = |flags| {
        unlocking(dir, None, || {
            fs::renameat_with(&fd, temporary.as_bytes(), &fd, name.as_bytes(), flags)
        })
    };
    let done = match rename(RenameFlags::NOREPLACE) {
        // Not every file system knows the flag. Without it an empty directory would be replaced,
        // which loses nothing, and anything else refused.
        Err(Errno::INVAL | Errno::NOSYS) => rename(RenameFlags::empty()),
        other => other,
    };
    done.map_err(|e| dir.error("rename", name, e))?;
    made.renamed(name.clone());
    Ok(())
}

/// Makes `entry`, a symbolic link, FIFO, socket or device node, where its name is free.
///
/// # Errors
/// `EEXIST` where the name is taken, `EINVAL` for a file or directory, `EPERM` for a device node
/// without the capability `MKNOD`; whatever the calls answer. Nothing is left behind.
pub fn node(dir: &Dir, entry: &Entry, options: ApplyOptions) -> Result<Applied> {
    make(dir, entry, &entry.name).map_err(|e| dir.error("create", &entry.name, e))?;
    metadata::apply_at(dir, &entry.name, &entry.meta, options)
        .inspect_err(|_| discard(dir, &entry.name))
}

/// Makes `entry`, a symbolic link, FIFO, socket or device node, in the place of whatever bears its
/// name, unless that is a directory.
///
/// # Errors
/// `EISDIR` where a directory bears the name; else as [`node`]. The old entry stays then.
pub fn replace_node(dir: &Dir, entry: &Entry, options: ApplyOptions) -> Result<Applied> {
    let name = &entry.name;
    let part = temp::part_name(name);
    let made = match make(dir, entry, &part) {
        Err(Errno::EXIST) => {
            discard(dir, &part);
            make(dir, entry, &part)
        }
        other => other,
    };
    made.map_err(|e| dir.error("create", name, e))?;
    let applied = metadata::apply_at_staged(dir, &part, &entry.meta, options, Stage::BeforeRename)
        .and_then(|applied| rename_over(dir, &part, name).map(|()| applied))
        .inspect_err(|_| discard(dir, &part))?;
    if applied.actual.attributes == entry.meta.attributes {
        return Ok(applied);
    }
    metadata::apply_at(dir, name, &entry.meta, options)
}

/// Makes `name` in `dir` a further name of the file `leader` in `leader_dir`, in the place of
/// whatever bears that name, unless that is a directory. Nothing happens where it is one already.
///
/// # Errors
/// `EMLINK` and `EXDEV` where the group of names cannot be kept whole; whatever the calls answer.
pub fn link(leader_dir: &Dir, leader: &Name, dir: &Dir, name: &Name) -> Result<()> {
    // Flags of the file forbid further names of it, and to rename those.
    lifting(leader_dir, leader, || try_link(leader_dir, leader, dir, name))
        .map_err(|e| dir.error("link", name, e))
}

fn try_link(leader_dir: &Dir, leader: &Name, dir: &Dir, name: &Name) -> Result<(), Errno> {
    match link_once(leader_dir, leader, dir, name) {
        Err(Errno::EXIST) => {}
        other => return other,
    }
    if inode(leader_dir, leader)? == inode(dir, name)? {
        return Ok(());
    }
    let part = temp::part_name(name);
    match link_once(leader_dir, leader, dir, &part) {
        Err(Errno::EXIST) => {
            discard(dir, &part);
            link_once(leader_dir, leader, dir, &part)?;
        }
        other => other?,
    }
    let renamed = rename_over(dir, &part, name).map_err(|e| e.errno);
    // Renaming one name of an inode over another name of it does nothing, and says that it went well.
    // The name may have become one only now, so the temporary name is looked after in any case.
    discard(dir, &part);
    renamed
}

/// Moves the file `from` of `from_dir` to the temporary name of `name` in `dir`, where
/// [`FileWriter::open_part`](crate::writer::FileWriter::open_part) takes it up: a file that was renamed
/// at the source is then patched from itself.
///
/// # Errors
/// `EEXIST` where the temporary name is taken; `EXDEV` across file systems; whatever `renameat2(2)`
/// answers.
pub fn adopt(from_dir: &Dir, from: &Name, dir: &Dir, name: &Name) -> Result<()> {
    let part = temp::part_name(name);
    let (old, new) = (from_dir.descriptor()?, dir.descriptor()?);
    let rename =
        || fs::renameat_with(&old, from.as_bytes(), &new, part.as_bytes(), RenameFlags::NOREPLACE);
    unlocking(dir, None, || unlocking(from_dir, None, rename))
        .map_err(|e| from_dir.error("rename", from, e))
}

/// Renames `from` over `to` in `dir`, clearing flags of `to` that forbid it.
pub(crate) fn rename_over(dir: &Dir, from: &Name, to: &Name) -> Result<()> {
    let fd = dir.descriptor()?;
    unlocking(dir, Some(to), || fs::renameat(&fd, from.as_bytes(), &fd, to.as_bytes()))
        .map_err(|e| dir.error("rename", to, e))
}

/// Removes an entry of our own making. Failing to do so is no news: the next run removes it.
pub(crate) fn discard(dir: &Dir, name: &Name) {
    if let Ok(fd) = dir.descriptor() {
        let unlink = || fs::unlinkat(&fd, name.as_bytes(), AtFlags::empty());
        // It may be a further name of an immutable file, which is to stay so.
        let _ = lifting(dir, name, || unlocking(dir, None, unlink));
    }
}

fn make(dir: &Dir, entry: &Entry, name: &Name) -> Result<(), Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    let kind = match entry.meta.kind {
        FileKind::Symlink => {
            return unlocking(dir, None, || fs::symlinkat(&*entry.target, &fd, name.as_bytes()));
        }
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::File | FileKind::Directory => return Err(Errno::INVAL),
    };
    let mode = Mode::RUSR | Mode::WUSR;
    let device = device_number(&entry.meta);
    unlocking(dir, None, || fs::mknodat(&fd, name.as_bytes(), kind, mode, device))
}

fn device_number(meta: &Metadata) -> Dev {
    match meta.kind {
        FileKind::CharDevice | FileKind::BlockDevice => fs::makedev(meta.rdev.0, meta.rdev.1),
        _ => 0,
    }
}

fn link_once(leader_dir: &Dir, leader: &Name, dir: &Dir, name: &Name) -> Result<(), Errno> {
    let from = leader_dir.descriptor().map_err(|e| e.errno)?;
    let to = dir.descriptor().map_err(|e| e.errno)?;
    unlocking(dir, None, || {
        fs::linkat(&from, leader.as_bytes(), &to, name.as_bytes(), AtFlags::empty())
    })
}

fn inode(dir: &Dir, name: &Name) -> Result<(u64, u64), Errno> {
    let fd = dir.descriptor().map_err(|e| e.errno)?;
    let stat = fs::statat(fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}
