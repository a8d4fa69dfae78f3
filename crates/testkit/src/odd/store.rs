//! The inodes of the file system, without FUSE.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use fuser::FileType;
use rustix::io::Errno;

use super::{Place, Quirks};

pub(super) type Outcome<T> = Result<T, Errno>;

/// The number of the root, as FUSE has it.
pub(super) const ROOT: u64 = 1;

/// One inode.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) atime: SystemTime,
    pub(super) mtime: SystemTime,
    pub(super) ctime: SystemTime,
    /// Names in directories; of a directory without those of its children.
    pub(super) names: u32,
    /// The content of a file, or the target of a symbolic link.
    pub(super) content: Vec<u8>,
    pub(super) children: BTreeMap<OsString, u64>,
    pub(super) parent: u64,
    pub(super) xattrs: BTreeMap<OsString, Vec<u8>>,
    /// How often it is open.
    opened: u32,
    /// The hidden name that goes when it is closed.
    hidden: Option<(u64, OsString)>,
    /// Names by which it was found last: quirks are chosen by name.
    pub(super) called: OsString,
}

/// Who makes an inode, and as what.
pub(super) struct Birth {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) content: Vec<u8>,
}

/// All inodes.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) quirks: Quirks,
    /// How often somebody asked for attributes.
    pub(super) looks: u64,
    inodes: BTreeMap<u64, Inode>,
    next: u64,
}

impl Store {
    pub(super) fn new(quirks: Quirks) -> Self {
        let mut store = Self { quirks, looks: 0, inodes: BTreeMap::new(), next: ROOT };
        let content = Vec::new();
        let root =
            Birth { kind: FileType::Directory, mode: 0o1777, uid: 0, gid: 0, rdev: 0, content };
        store.insert(root, ROOT, OsStr::new(""));
        store
    }

    fn insert(&mut self, birth: Birth, parent: u64, name: &OsStr) -> u64 {
        let now = self.now();
        let inode = Inode {
            kind: birth.kind,
            mode: if self.quirks.no_modes { 0o777 } else { (birth.mode & 0o7777) as u16 },
            uid: birth.uid,
            gid: birth.gid,
            rdev: birth.rdev,
            atime: now,
            mtime: now,
            ctime: now,
            names: 1,
            content: birth.content,
            children: BTreeMap::new(),
            parent,
            xattrs: BTreeMap::new(),
            opened: 0,
            hidden: None,
            called: name.to_owned(),
        };
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, inode);
        number
    }

    /// Drops what the quirks have no room for.
    pub(super) fn forget_unsupported(&mut self) {
        if self.quirks.no_xattrs {
            self.inodes.values_mut().for_each(|inode| inode.xattrs.clear());
        }
    }

    pub(super) fn get(&self, number: u64) -> Outcome<&Inode> {
        self.inodes.get(&number).ok_or(Errno::STALE)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Outcome<&mut Inode> {
        self.inodes.get_mut(&number).ok_or(Errno::STALE)
    }

    pub(super) fn links(&self, number: u64) -> u32 {
        let Ok(inode) = self.get(number) else { return 0 };
        let is_directory =
            |number: &&u64| self.get(**number).is_ok_and(|i| i.kind == FileType::Directory);
        match inode.kind {
            FileType::Directory => {
                2 + u32::try_from(inode.children.values().filter(is_directory).count()).unwrap()
            }
            _ => inode.names,
        }
    }

    /// The name under which `parent` has `name`.
    fn spelling(&self, parent: u64, name: &OsStr) -> Outcome<Option<OsString>> {
        let children = &self.get(parent)?.children;
        if children.contains_key(name) {
            return Ok(Some(name.to_owned()));
        }
        if !self.quirks.ignore_case {
            return Ok(None);
        }
        Ok(children.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned())
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &OsStr) -> Outcome<u64> {
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        if let Some(errno) = chosen(&self.quirks.lookup_errors, name) {
            return Err(errno);
        }
        let spelling = self.spelling(parent, name)?.ok_or(Errno::NOENT)?;
        let number = self.get(parent)?.children[&spelling];
        self.get_mut(number)?.called = spelling;
        Ok(number)
    }

    pub(super) fn create(&mut self, parent: u64, name: &OsStr, birth: Birth) -> Outcome<u64> {
        self.absent(parent, name)?;
        let plain =
            matches!(birth.kind, FileType::Directory | FileType::RegularFile | FileType::Symlink);
        if self.quirks.no_special_files && !plain {
            return Err(Errno::PERM);
        }
        let number = self.insert(birth, parent, name);
        self.enter(parent, name, number)?;
        Ok(number)
    }

    pub(super) fn link(&mut self, number: u64, parent: u64, name: &OsStr) -> Outcome<()> {
        if self.quirks.no_hard_links {
            return Err(Errno::PERM);
        }
        self.absent(parent, name)?;
        self.get_mut(number)?.names += 1;
        self.enter(parent, name, number)?;
        self.changed(number)
    }

    fn absent(&self, parent: u64, name: &OsStr) -> Outcome<()> {
        match self.spelling(parent, name)? {
            Some(_) => Err(Errno::EXIST),
            None => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Outcome<()> {
        let spelling = self.spelling(parent, name)?.ok_or(Errno::NOENT)?;
        let number = self.get(parent)?.children[&spelling];
        self.may_go(number, directory)?;
        self.leave(parent, &spelling, number)
    }

    fn may_go(&self, number: u64, directory: bool) -> Outcome<()> {
        let inode = self.get(number)?;
        match (inode.kind == FileType::Directory, directory) {
            (true, false) => Err(Errno::ISDIR),
            (false, true) => Err(Errno::NOTDIR),
            _ if !inode.children.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new_name): (u64, &OsStr),
        no_replace: bool,
    ) -> Outcome<()> {
        let spelling = self.spelling(from, name)?.ok_or(Errno::NOENT)?;
        let number = self.get(from)?.children[&spelling];
        if let Some(taken) = self.spelling(to, new_name)? {
            let other = self.get(to)?.children[&taken];
            if no_replace {
                return Err(Errno::EXIST);
            }
            if other == number && (from, &spelling) != (to, &taken) {
                return Ok(()); // two names of one inode
            }
            if other != number {
                self.may_go(other, self.get(number)?.kind == FileType::Directory)?;
                self.leave(to, &taken, other)?;
            }
        }
        self.get_mut(from)?.children.remove(&spelling);
        self.written(from)?;
        self.enter(to, new_name, number)?;
        self.get_mut(number)?.parent = to;
        self.changed(number)
    }

    /// Changes what is to be changed when the directory `number` is listed.
    pub(super) fn change_when_listed(&mut self, number: u64) {
        let Some(called) = self.inodes.get(&number).map(|inode| inode.called.clone()) else {
            return;
        };
        let closed = self.quirks.closed_when_listed.take_if(|(dir, _)| *dir == called);
        if let Some((_, name)) = closed
            && let Ok(inode) = self.lookup(ROOT, &name).and_then(|number| self.get_mut(number))
        {
            inode.mode = 0o700;
        }
        let moved = self.quirks.moved_when_listed.take_if(|(dir, ..)| *dir == called);
        let Some((_, from, to)) = moved else { return };
        let mut place = |(dir, name): Place| {
            let dir = if dir.is_empty() { ROOT } else { self.lookup(ROOT, &dir)? };
            Ok::<_, Errno>((dir, name))
        };
        if let (Ok((from, name)), Ok((to, new_name))) = (place(from), place(to)) {
            // A directory makes way only if it is empty.
            if let Ok(taken) = self.lookup(to, &new_name)
                && let Ok(taken) = self.get_mut(taken)
            {
                taken.children.clear();
            }
            let _ = self.rename((from, &name), (to, &new_name), false);
        }
    }

    pub(super) fn open(&mut self, number: u64) -> Outcome<()> {
        self.get_mut(number)?.opened += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, number: u64) -> Outcome<()> {
        let inode = self.get_mut(number)?;
        inode.opened = inode.opened.saturating_sub(1);
        if inode.opened == 0
            && let Some((parent, name)) = inode.hidden.take()
        {
            self.leave(parent, &name, number)?;
        }
        self.forget(number);
        Ok(())
    }

    fn enter(&mut self, parent: u64, name: &OsStr, number: u64) -> Outcome<()> {
        self.get_mut(parent)?.children.insert(name.to_owned(), number);
        self.written(parent)
    }

    /// Takes a name away, or hides it.
    fn leave(&mut self, parent: u64, name: &OsStr, number: u64) -> Outcome<()> {
        self.get_mut(parent)?.children.remove(name);
        self.written(parent)?;
        let hide = self.quirks.hide_open_files;
        let inode = self.get_mut(number)?;
        if hide && inode.opened > 0 && inode.names == 1 && inode.hidden.is_none() {
            let hidden = OsString::from(format!(".fuse_hidden{number:08x}"));
            inode.hidden = Some((parent, hidden.clone()));
            return self.enter(parent, &hidden, number);
        }
        inode.names -= 1;
        self.changed(number)?;
        self.forget(number);
        Ok(())
    }

    /// What has no name and is not open is gone. Its number is never given again.
    fn forget(&mut self, number: u64) {
        if self.get(number).is_ok_and(|inode| inode.names == 0 && inode.opened == 0) {
            self.inodes.remove(&number);
        }
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Outcome<usize> {
        let taken = self.quirks.short_writes.map_or(data.len(), |most| most.min(data.len()));
        let start = usize::try_from(offset).unwrap();
        let content = &mut self.get_mut(number)?.content;
        content.resize(content.len().max(start + taken), 0);
        content[start..start + taken].copy_from_slice(&data[..taken]);
        self.written(number)?;
        Ok(taken)
    }

    /// Marks that content or entries of an inode have changed.
    pub(super) fn written(&mut self, number: u64) -> Outcome<()> {
        let now = self.now();
        let inode = self.get_mut(number)?;
        (inode.mtime, inode.ctime) = (now, now);
        Ok(())
    }

    pub(super) fn changed(&mut self, number: u64) -> Outcome<()> {
        let now = self.now();
        self.get_mut(number)?.ctime = now;
        Ok(())
    }

    pub(super) fn now(&self) -> SystemTime {
        self.stepped(SystemTime::now())
    }

    /// A time as this file system keeps it.
    pub(super) fn stepped(&self, time: SystemTime) -> SystemTime {
        let step = u64::try_from(self.quirks.time_step).unwrap();
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) if step > 0 => {
                let whole = since.as_secs() / step * step;
                SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(whole)
            }
            _ => time,
        }
    }

    /// The entries of a directory in the order of their names.
    pub(super) fn list(&self, number: u64) -> Outcome<Vec<(OsString, u64)>> {
        let directory = self.get(number)?;
        let mut entries = Vec::new();
        for (name, &number) in &directory.children {
            entries.push((name.clone(), number));
            if self.quirks.listed_twice.contains(name) {
                entries.push((name.clone(), number));
            }
        }
        Ok(entries)
    }
}

/// What a quirk says about a name.
pub(super) fn chosen(errors: &[(OsString, Errno)], name: &OsStr) -> Option<Errno> {
    errors.iter().find(|(known, _)| known == name).map(|(_, errno)| *errno)
}
