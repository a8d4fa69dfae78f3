//! The store as the kernel asks for it. The operations are documented at [`Filesystem`].

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::store::{Birth, Outcome, Store, chosen};

/// The kernel asks each time.
const AT_ONCE: Duration = Duration::ZERO;
const FIRST: Generation = Generation(0);

pub(super) struct Server(Arc<Mutex<Store>>);

impl Server {
    pub(super) fn new(store: Arc<Mutex<Store>>) -> Self {
        Self(store)
    }

    fn created(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (kind, mode, rdev): (FileType, u32, u32),
        content: &[u8],
    ) -> Outcome<FileAttr> {
        let mut store = self.0.lock();
        let (uid, gid) = (request.uid(), request.gid());
        let birth = Birth { kind, mode, uid, gid, rdev, content: content.to_vec() };
        let number = store.create(parent.0, name, birth)?;
        attributes(&store, number)
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Outcome<FileAttr> {
        let mut store = self.0.lock();
        let number = store.lookup(parent.0, name)?;
        attributes(&store, number)
    }

    fn read_from(&self, ino: INodeNo, offset: u64, size: u32) -> Outcome<Vec<u8>> {
        let store = self.0.lock();
        let inode = store.get(ino.0)?;
        if let Some(errno) = chosen(&store.quirks.read_errors, &inode.called) {
            return Err(errno);
        }
        let length = inode.content.len();
        let start = usize::try_from(offset).unwrap().min(length);
        let end = (start + size as usize).min(length);
        Ok(inode.content[start..end].to_vec())
    }

    fn set_times(
        &self,
        ino: INodeNo,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
    ) -> Outcome<()> {
        let mut store = self.0.lock();
        if store.quirks.times_only_together && atime.is_some() != mtime.is_some() {
            return Ok(());
        }
        let at = |time| match time {
            TimeOrNow::SpecificTime(time) => store.stepped(time),
            TimeOrNow::Now => store.now(),
        };
        let (atime, mtime) = (atime.map(at), mtime.map(at));
        let inode = store.get_mut(ino.0)?;
        inode.atime = atime.unwrap_or(inode.atime);
        inode.mtime = mtime.unwrap_or(inode.mtime);
        Ok(())
    }

    fn set_owner(&self, ino: INodeNo, uid: Option<u32>, gid: Option<u32>) -> Outcome<()> {
        let mut store = self.0.lock();
        let refuse = store.quirks.no_owners;
        let inode = store.get_mut(ino.0)?;
        let (uid, gid) = (uid.unwrap_or(inode.uid), gid.unwrap_or(inode.gid));
        if refuse && (uid, gid) != (inode.uid, inode.gid) {
            return Err(Errno::PERM);
        }
        (inode.uid, inode.gid) = (uid, gid);
        Ok(())
    }

    fn set_mode_and_size(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
    ) -> Outcome<FileAttr> {
        let mut store = self.0.lock();
        if let Some(mode) = mode
            && !store.quirks.no_modes
        {
            store.get_mut(ino.0)?.mode = (mode & 0o7777) as u16;
        }
        if let Some(size) = size {
            store.get_mut(ino.0)?.content.resize(usize::try_from(size).unwrap(), 0);
            store.written(ino.0)?;
        }
        store.changed(ino.0)?;
        attributes(&store, ino.0)
    }

    fn with_xattrs<T>(
        &self,
        ino: INodeNo,
        ask: impl FnOnce(&mut Store) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut store = self.0.lock();
        store.get(ino.0)?;
        if store.quirks.no_xattrs { Err(Errno::NOTSUP) } else { ask(&mut store) }
    }
}

fn attributes(store: &Store, number: u64) -> Outcome<FileAttr> {
    let inode = store.get(number)?;
    let held = inode.content.len() as u64;
    let size = reported_size(store, &inode.called).unwrap_or(held);
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: inode.kind,
        perm: inode.mode,
        nlink: store.links(number),
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: 4096,
        flags: 0,
    })
}

fn reported_size(store: &Store, name: &OsStr) -> Option<u64> {
    let of = |sizes: &[(std::ffi::OsString, u64)]| {
        sizes.iter().find(|(of, _)| of == name).map(|&(_, size)| size)
    };
    let other = of(&store.quirks.every_other_size).filter(|_| store.looks.is_multiple_of(2));
    of(&store.quirks.reported_sizes).or(other)
}

fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn done(outcome: Outcome<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn entry(outcome: Outcome<FileAttr>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&AT_ONCE, &attributes, FIRST),
        Err(error) => reply.error(errno(error)),
    }
}

fn sized(outcome: Outcome<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match outcome {
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap()),
        Ok(bytes) if bytes.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno(error)),
    }
}

fn kind_of(mode: u32) -> FileType {
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.look_up(parent, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.lock().looks += 1;
        match attributes(&self.0.lock(), ino.0) {
            Ok(attributes) => reply.attr(&AT_ONCE, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let outcome = self
            .set_owner(ino, uid, gid)
            .and_then(|()| self.set_mode_and_size(ino, mode, size))
            .and_then(|_| self.set_times(ino, atime, mtime))
            .and_then(|()| attributes(&self.0.lock(), ino.0));
        match outcome {
            Ok(attributes) => reply.attr(&AT_ONCE, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let store = self.0.lock();
        match store.get(ino.0) {
            Ok(inode) if store.quirks.empty_targets.contains(&inode.called) => reply.data(b""),
            Ok(inode) => reply.data(&inode.content),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let outcome = self.created(request, (parent, name), (kind_of(mode), mode, rdev), b"");
        entry(outcome, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        entry(self.created(request, (parent, name), (FileType::Directory, mode, 0), b""), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        entry(self.created(request, (parent, name), (FileType::Symlink, 0o777, 0), target), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.lock().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.lock().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut store = self.0.lock();
        let no_replace = flags == RenameFlags::RENAME_NOREPLACE;
        if !flags.is_empty() && (store.quirks.no_rename_flags || !no_replace) {
            return reply.error(fuser::Errno::EINVAL);
        }
        done(store.rename((parent.0, name), (newparent.0, newname), no_replace), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let mut store = self.0.lock();
        let linked = store.link(ino.0, newparent.0, newname);
        entry(linked.and_then(|()| attributes(&store, ino.0)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut store = self.0.lock();
        let super::Quirks { reported_sizes, every_other_size, .. } = &store.quirks;
        let reported = store.get(ino.0).is_ok_and(|file| {
            reported_sizes.iter().chain(every_other_size).any(|(name, _)| *name == file.called)
        });
        let flags = if reported { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        match store.open(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), flags),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let created = self.created(request, (parent, name), (FileType::RegularFile, mode, 0), b"");
        match created {
            Ok(attributes) if self.0.lock().open(attributes.ino.0).is_ok() => {
                reply.created(&AT_ONCE, &attributes, FIRST, FileHandle(0), FopenFlags::empty());
            }
            Ok(_) => reply.error(fuser::Errno::EIO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        done(self.0.lock().close(ino.0), reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let failed = self.0.lock().quirks.close_error;
        done(failed.map_or(Ok(()), Err), reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_from(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(ino.0, offset, data) {
            Ok(taken) => reply.written(u32::try_from(taken).unwrap()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut store = self.0.lock();
        store.change_when_listed(ino.0);
        let entries = match store.list(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        let called = store.get(ino.0).map(|inode| inode.called.as_os_str());
        let failure = called.ok().and_then(|name| chosen(&store.quirks.list_errors, name));
        let dots = [".", ".."].map(|name| (name.into(), ino.0));
        let all: Vec<_> = dots.into_iter().chain(entries).collect();
        if let Some(failure) = failure
            && offset >= 3
        {
            return reply.error(errno(failure));
        }
        let end = if failure.is_some() { 3 } else { all.len() }.min(all.len());
        for (index, (name, number)) in all[..end].iter().enumerate().skip(offset as usize) {
            let kind = store.get(*number).map_or(FileType::RegularFile, |inode| inode.kind);
            if reply.add(INodeNo(*number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let set = self.with_xattrs(ino, |store| {
            if name.as_bytes().starts_with(b"system.") {
                return Err(Errno::NOTSUP);
            }
            store.get_mut(ino.0)?.xattrs.insert(name.to_owned(), value.to_vec());
            store.changed(ino.0)
        });
        done(set, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let got = self.with_xattrs(ino, |store| {
            store.get(ino.0)?.xattrs.get(name).cloned().ok_or(Errno::NODATA)
        });
        sized(got, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let listed = self.with_xattrs(ino, |store| {
            let names = store.get(ino.0)?.xattrs.keys();
            Ok(names.flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect())
        });
        sized(listed, size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.with_xattrs(ino, |store| {
            store.get_mut(ino.0)?.xattrs.remove(name).ok_or(Errno::NODATA)?;
            store.changed(ino.0)
        });
        done(removed, reply);
    }
}
