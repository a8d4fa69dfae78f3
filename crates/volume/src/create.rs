//! Making entries that are not regular files: directories, symbolic links, FIFOs, sockets, device
//! nodes, and further names of a file.
//!
//! Each comes in two forms. The plain one wants the name to be free, and answers with a
//! [conflict](crate::staging::CONFLICT) where it is not. The replacing one takes the place of whatever bears
//! the name, except a directory: the entry is made in the [staging directory](crate::staging), complete with its
//! metadata, and renamed over the old one, so the name is never missing and never half made.
//!
//! A parent with a default ACL hands it down to whatever is made in it. That is metadata nobody
//! wanted: a new directory is freed of it at once, since otherwise it would hand it further down, and
//! every other kind when its own metadata is applied.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::{
    fs::{self, AtFlags, Dev, FileType, IFlags, Mode},
    io::Errno,
};
use wire::{Entry, FileKind, Metadata, Name};

use crate::{
    Dir, Error, Result, capability,
    metadata::{self, Applied, ApplyOptions, Stage},
    staging::{self, Place, conflict, put_new},
    unlock::{lifting, open_new_dir, unlocking},
    xattr::{self, XattrTarget},
};

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
    /// This process may not give that group to a file by itself: only the kernel does, for what is made there.
    pub foreign_group: bool,
}

impl ParentHints {
    /// Reads them from `dir`.
    ///
    /// # Errors
    /// Where the directory or its ACL cannot be read.
    pub fn of(dir: &Dir) -> Result<Self> {
        let fail = |errno| dir.own_error("read metadata", errno);
        let fd = dir.descriptor()?;
        let stat = fs::fstat(&fd).map_err(fail)?;
        let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        let mut acl = [0_u8; 0];
        let default_acl = match fs::fgetxattr(&fd, DEFAULT_ACL, &mut acl) {
            Ok(_) | Err(Errno::RANGE) => true,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
            Err(errno) => return Err(fail(errno)),
        };
        let own = rustix::process::getegid().as_raw();
        let gid = if setgid { stat.st_gid } else { own };
        Ok(Self {
            default_acl,
            uid: rustix::process::geteuid().as_raw(),
            gid,
            foreign_group: gid != own && !capability::may_give_group(gid),
        })
    }
}

/// True where a new directory in `dir` can be filled unseen in the staging directory: where it could be renamed
/// from there when it is finished. A directory, unlike a file, cannot be copied in its last moment.
///
/// # Errors
/// Where the directory cannot be opened.
pub fn can_stage_directories(dir: &Dir, hints: ParentHints) -> Result<bool> {
    // The staging directory is made in the root, so it has the root's project and key.
    if dir.parent().is_none() {
        return Ok(!hints.foreign_group);
    }
    // A subvolume of btrfs.
    if dir.identity().0 != dir.root_device() {
        return Ok(false);
    }
    const ENCRYPTED: IFlags = IFlags::from_bits_retain(0x800);
    let apart = IFlags::PROJECT_INHERIT.union(ENCRYPTED);
    // A file system without such flags has no such directories.
    let flags = fs::ioctl_getflags(dir.descriptor()?).unwrap_or(IFlags::empty());
    Ok(!hints.foreign_group && !flags.intersects(apart))
}

/// Makes the directory `name`, open to its owner alone until its metadata is applied.
///
/// # Errors
/// `EEXIST` where the name is taken; whatever `mkdirat(2)` answers.
pub fn directory(dir: &Dir, name: &Name, hints: ParentHints) -> Result<Dir> {
    let fd = dir.descriptor()?;
    unlocking(dir, None, || fs::mkdirat(&fd, name.as_bytes(), Mode::RWXU))
        .map_err(|e| failed("create directory", dir, name, e))?;
    if !hints.default_acl {
        return dir.open_child(name);
    }
    let made = open_new_dir(dir, name)?;
    remove_acls(made.descriptor()?.as_fd())
        .map_err(|e| dir.error("remove inherited ACL", name, e))?;
    Ok(made)
}

/// Removes the ACLs that a new directory inherited.
pub(crate) fn remove_acls(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    for acl in [DEFAULT_ACL, crate::acl::ACCESS] {
        match xattr::remove(XattrTarget::Fd(fd), acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes the directory that is to become `place`, in the staging directory: nobody sees it until it is
/// [published](publish_directory).
///
/// # Errors
/// Whatever `mkdirat(2)` answers.
pub fn staged_directory(place: Place<'_>) -> Result<Dir> {
    let area = place.staging.dir()?;
    let staged = staging::staged_dir_name(place.dir, place.name);
    let fd = area.descriptor()?;
    unlocking(&area, None, || fs::mkdirat(&fd, staged.as_bytes(), Mode::RWXU))
        .map_err(|e| place.error("create directory", e))?;
    place.dir.open_staged(place.name, &area, &staged)
}

/// The directory that an earlier run made for `place` and did not finish.
///
/// # Errors
/// As [`Dir::open_child`].
pub fn left_directory(place: Place<'_>) -> Result<Option<Dir>> {
    if !place.staging.left_dir(place.dir, place.name) {
        return Ok(None);
    }
    let staged = staging::staged_dir_name(place.dir, place.name);
    place.dir.open_staged(place.name, &place.staging.dir()?, &staged).map(Some)
}

/// Gives the directory `made`, which was filled in the staging directory, its name. Comes before
/// [`metadata::apply_dir`], since inode flags would forbid it.
///
/// # Errors
/// `EEXIST` where the name is taken; `EINVAL` for one that is not staged; whatever `renameat2(2)` answers.
pub fn publish_directory(made: &Dir) -> Result<()> {
    let (Some((area, staged)), Some(dir), Some(name)) = (made.staged(), made.parent(), made.name())
    else {
        return Err(made.own_error("rename", Errno::INVAL));
    };
    put_new((&area, &staged), (dir, name), true).map_err(|e| conflict(dir, name, e))?;
    made.published();
    if staging::bears_own_number(dir, name, made.identity().1) {
        let _ = put_new((dir, name), (&area, &staged), true);
        return Err(dir.error("name of a staging directory", name, Errno::EXIST));
    }
    Ok(())
}

fn failed(operation: &'static str, dir: &Dir, name: &Name, errno: Errno) -> Error {
    let operation = if errno == Errno::EXIST { staging::CONFLICT } else { operation };
    dir.error(operation, name, errno)
}

/// Makes `entry`, a symbolic link, FIFO, socket or device node, where its name is free.
///
/// # Errors
/// `EEXIST` where the name is taken, `EINVAL` for a file or directory, `EPERM` for a device node
/// without the capability `MKNOD`; whatever the calls answer. Nothing is left behind.
pub fn node(dir: &Dir, entry: &Entry, options: ApplyOptions) -> Result<Applied> {
    make(dir, entry, &entry.name).map_err(|e| failed("create", dir, &entry.name, e))?;
    metadata::apply_at(dir, &entry.name, &entry.meta, options)
        .inspect_err(|_| discard(dir, &entry.name))
}

/// Makes `entry`, a symbolic link, FIFO, socket or device node, in the place of whatever bears its
/// name, unless that is a directory.
///
/// # Errors
/// `EISDIR` where a directory bears the name; else as [`node`]. The old entry stays then.
pub fn replace_node(place: Place<'_>, entry: &Entry, options: ApplyOptions) -> Result<Applied> {
    let shown = |error: Error| place.error(error.operation, error.errno);
    let applied =
        place.build(&mut |area, name| make(&area.dir, entry, name), &mut |_, hidden, ()| {
            let stage = Stage::BeforeRename;
            metadata::apply_at_staged(&hidden.dir, &hidden.name, &entry.meta, options, stage)
                .map_err(shown)
                .and_then(|applied| {
                    hidden.put(place.dir, place.name, place.occupied).map(|()| applied)
                })
        })?;
    if applied.actual.attributes == entry.meta.attributes {
        return Ok(applied);
    }
    metadata::apply_at(place.dir, place.name, &entry.meta, options)
}

/// Makes `place` a further name of the file `leader` in `leader_dir`, where it is occupied in place of whatever
/// bears that name, unless that is a directory. Nothing happens where it is one already.
///
/// # Errors
/// `EMLINK` and `EXDEV` where the group of names cannot be kept whole; `EEXIST` where the name was believed free;
/// whatever the calls answer.
pub fn link(leader_dir: &Dir, leader: &Name, place: Place<'_>) -> Result<()> {
    // Flags of the file forbid further names of it, and to rename those.
    lifting(leader_dir, leader, || try_link(leader_dir, leader, place))
        .map_err(|e| failed("link", place.dir, place.name, e))
}

fn try_link(leader_dir: &Dir, leader: &Name, place: Place<'_>) -> Result<(), Errno> {
    match link_once(leader_dir, leader, place.dir, place.name) {
        Err(Errno::EXIST) => {}
        other => return other,
    }
    // What was believed absent may be this very inode under a name that is the same here.
    if !place.occupied {
        return Err(Errno::EXIST);
    }
    if inode(leader_dir, leader)? == inode(place.dir, place.name)? {
        return Ok(());
    }
    let linked = place.build(
        &mut |area, name| link_once(leader_dir, leader, &area.dir, name),
        &mut |_, hidden, ()| {
            let renamed = hidden.put(place.dir, place.name, true);
            // Renaming one name of an inode over another name of it does nothing, and says that it went well.
            // The name may have become one only now, so the other is removed in any case.
            hidden.discard();
            renamed
        },
    );
    linked.map_err(|e| e.errno)
}

/// Moves the file `from` of `from_dir` to the staged name of `place`, where
/// [`FileWriter::open_part`](crate::writer::FileWriter::open_part) takes it up: a file that was renamed
/// at the source is then patched from itself.
///
/// # Errors
/// `EEXIST` where the staged name is taken; `EXDEV` across file systems; whatever `renameat2(2)`
/// answers.
pub fn adopt(from_dir: &Dir, from: &Name, place: Place<'_>) -> Result<()> {
    let staged = staging::staged_name(place.dir, place.name);
    let area = place.staging.dir()?;
    let rename = || put_new((from_dir, from), (&area, &staged), false);
    unlocking(from_dir, None, rename).map_err(|e| from_dir.error("rename", from, e))
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
