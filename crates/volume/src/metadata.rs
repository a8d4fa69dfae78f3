//! Giving an inode the metadata that it has at the source, and reading back what it really got.
//!
//! [`apply_fd`], [`apply_at`] and [`apply_dir`] compare what is wanted with what is there and change
//! only what differs: on an entry that is already right they write nothing. Not everything can be
//! set everywhere, and some of it fails without an error (ext4 cuts off years beyond 2446, a file
//! system may round times), so the inode is read back afterwards. [`Applied`] holds what it *is*, and
//! a [`MetadataProblem`] for everything that is not as wanted. Nothing is lost silently.
//!
//! # Order
//! Flags that forbid changes are lifted first. Then: owner, extended attributes and ACLs, mode, times,
//! inode flags.
//! * Setting the owner clears setuid, setgid and `security.capability`: everything else comes later.
//! * Setting an ACL rewrites permission bits and may clear setgid: the mode comes after it. The mode
//!   in turn rewrites the mask of an ACL, to what the wanted ACL holds already.
//! * Nothing that is done here moves the modification time, but writing does: times come late.
//! * Inode flags forbid everything else, renaming included: they come last, and for an entry that
//!   is still to be renamed after that.
//!
//! Nobody gets more on the way than before and in the end: where owner, group or ACL change, the mode is first narrowed to
//! what both have in common.
//!
//! setuid, setgid and `security.capability` of anything but a directory lend rights. They are set only where owner and
//! group, as read back, are exactly those of the source: with another owner they would lend the rights of somebody else,
//! with another group they would lend them to somebody else. setgid of a directory lends none (it hands the group
//! down), so directories keep their bits.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::{fs::IFlags, io::Errno};
use wire::{Attributes, FileKind, Metadata, Name};

use crate::{
    Dir, Result, acl,
    calendar::Shown,
    held::{Held, OWNER_FILE},
    unlock, unmapped, xattr,
};

pub use crate::metadata_problem::MetadataProblem;

/// setuid and setgid.
pub(crate) const SET_ID: u16 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";
const ACLS: &[u8] = b"system.posix_acl_";

/// What to set besides the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Set and remove `security.selinux` too; it says more about the host than about the data.
    pub selinux: bool,
    /// Accept any owner: if the wanted one cannot be set, the entry keeps its owner, and nothing is reported.
    pub any_owner: bool,
}

/// Which parts of metadata differ. Size and kind are not among them: they are matters of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataDiff {
    /// Owner or group.
    pub owner: bool,
    /// Permission bits, setuid, setgid, sticky.
    pub mode: bool,
    /// Extended attributes and ACLs.
    pub xattrs: bool,
    /// Modification time.
    pub mtime: bool,
    /// Immutable and append-only flags.
    pub attributes: bool,
}

impl MetadataDiff {
    /// What of `have` is not as in `want`. The mode of a symbolic link means nothing and never
    /// differs.
    #[must_use]
    pub fn between(want: &Metadata, have: &Metadata) -> Self {
        Self {
            owner: (want.uid, want.gid) != (have.uid, have.gid),
            mode: want.kind != FileKind::Symlink && want.mode != have.mode,
            xattrs: want.xattrs != have.xattrs,
            mtime: want.mtime != have.mtime,
            attributes: want.attributes != have.attributes,
        }
    }

    /// True where nothing differs.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What the inode is now, read back.
    pub actual: Metadata,
    /// Everything that is not as wanted; empty where all is.
    pub problems: Vec<MetadataProblem>,
    /// False where all was right before and nothing was written.
    pub changed: bool,
}

/// Whether the entry is still to be renamed, which inode flags would forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All but the inode flags, which are cleared.
    BeforeRename,
    /// Everything.
    Final,
}

/// Applies `want` to the open file `fd`, which is the entry `name` of `dir`.
///
/// # Errors
/// Where the inode cannot be read. What cannot be set is a [`MetadataProblem`] instead.
pub fn apply_fd(
    dir: &Dir,
    name: &Name,
    fd: BorrowedFd<'_>,
    want: &Metadata,
    options: ApplyOptions,
) -> Result<Applied> {
    apply_staged(dir, name, fd, want, options, Stage::Final)
}

pub(crate) fn apply_staged(
    dir: &Dir,
    name: &Name,
    fd: BorrowedFd<'_>,
    want: &Metadata,
    options: ApplyOptions,
    stage: Stage,
) -> Result<Applied> {
    Run::start(Held::Open(dir, fd), want, options, stage)
        .and_then(Run::apply)
        .map_err(|e| dir.error("read metadata", name, e))
}

/// Applies `want` to the entry `name` of `dir`, of any kind, without opening it: a FIFO or a device
/// is not woken and a link is not followed. An entry that is of another kind is left alone.
///
/// # Errors
/// Where the entry cannot be read, `ESTALE` where it is not of the wanted kind.
pub fn apply_at(dir: &Dir, name: &Name, want: &Metadata, options: ApplyOptions) -> Result<Applied> {
    apply_at_staged(dir, name, want, options, Stage::Final)
}

pub(crate) fn apply_at_staged(
    dir: &Dir,
    name: &Name,
    want: &Metadata,
    options: ApplyOptions,
    stage: Stage,
) -> Result<Applied> {
    Run::start(Held::entry(dir, name)?, want, options, stage)
        .and_then(Run::apply)
        .map_err(|e| dir.error("read metadata", name, e))
}

/// Applies `want` to the directory `dir` itself. Comes after everything in it is done, since every
/// change in a directory moves its modification time.
///
/// # Errors
/// Where the directory cannot be read.
pub fn apply_dir(dir: &Dir, want: &Metadata, options: ApplyOptions) -> Result<Applied> {
    let fd = dir.descriptor()?;
    let mut applied = Run::start(Held::Open(dir, fd.as_fd()), want, options, Stage::Final)
        .and_then(Run::apply)
        .map_err(|e| dir.own_error("read metadata", e))?;
    let actual = &mut applied.actual;
    if (actual.mode, actual.attributes) == (want.mode, want.attributes) {
        unlock::settle(dir);
    } else if unlock::restore(dir)? {
        // What could not be set is as it was before anything was lifted.
        let read = Held::Open(dir, fd.as_fd()).read(options.selinux);
        *actual = read.map_err(|e| dir.own_error("read metadata", e))?;
    }
    Ok(applied)
}

/// Puts back what was lifted of `dir` so that work could be done in it. Everything else of it is as it was in
/// `before`. Answers what it is now.
///
/// # Errors
/// Where it cannot be put back.
pub fn restore_dir(dir: &Dir, before: &Metadata) -> Result<Metadata> {
    unlock::restore(dir)?;
    Ok(before.clone())
}

/// One inode on its way from what it is to what is wanted.
struct Run<'a> {
    held: Held<'a>,
    want: &'a Metadata,
    have: Metadata,
    options: ApplyOptions,
    stage: Stage,
    problems: Vec<MetadataProblem>,
    /// Parts with a problem that was already named.
    named: MetadataDiff,
    changed: bool,
}

impl<'a> Run<'a> {
    fn start(
        held: Held<'a>,
        want: &'a Metadata,
        options: ApplyOptions,
        stage: Stage,
    ) -> Result<Self, Errno> {
        let have = held.read(options.selinux)?;
        if have.kind != want.kind {
            return Err(Errno::STALE);
        }
        let (problems, named) = (Vec::new(), MetadataDiff::default());
        Ok(Self { held, want, have, options, stage, problems, named, changed: false })
    }

    fn apply(mut self) -> Result<Applied, Errno> {
        let diff = self.difference();
        if !diff.is_empty() {
            self.lift_flags();
            self.narrow(diff);
            if diff.owner {
                self.set_owner()?;
            }
            if self.want.xattrs != self.have.xattrs {
                self.set_xattrs()?;
            }
            self.set_mode();
            if diff.mtime {
                let done = self.held.set_mtime(self.want.mtime);
                self.named.mtime = self.done(done, || "set modification time".to_owned());
            }
            self.set_flags();
            self.have = self.held.read(self.options.selinux)?;
            if diff.mtime && !self.named.mtime && self.have.mtime != self.want.mtime {
                self.set_both_times()?;
            }
            self.name_the_rest();
        }
        Ok(Applied { actual: self.have, problems: self.problems, changed: self.changed })
    }

    fn difference(&self) -> MetadataDiff {
        let mut diff = MetadataDiff::between(self.want, &self.have);
        if self.stage == Stage::BeforeRename {
            diff.attributes = self.have.attributes != Attributes::default();
        }
        diff
    }

    fn lift_flags(&mut self) {
        if self.have.attributes == Attributes::default() {
            return;
        }
        let done = self.held.set_flags(IFlags::empty());
        if done.is_ok() {
            self.have.attributes = Attributes::default();
        }
        self.named.attributes = self.done(done, || "clear inode flags".to_owned());
    }

    /// Leaves group and others what both modes grant, before the bits come to mean other users.
    fn narrow(&mut self, diff: MetadataDiff) {
        let acl = || {
            let acls = |meta: &'a Metadata| meta.xattrs.iter().filter(|x| x.name.starts_with(ACLS));
            acls(self.want).ne(self.have.xattrs.iter().filter(|x| x.name.starts_with(ACLS)))
        };
        let mode = self.have.mode & (self.want.mode | 0o7700);
        if self.want.kind == FileKind::Symlink || mode == self.have.mode {
            return;
        }
        // Where it fails, setting the final mode fails as well, and that is named.
        if (diff.owner || acl()) && self.held.set_mode(mode).is_ok() {
            self.have.mode = mode;
            self.changed = true;
        }
    }

    /// The time did not take, though the file system said so: some set both times or none.
    fn set_both_times(&mut self) -> Result<(), Errno> {
        self.lift_flags();
        let done = self.held.set_both_times(self.want.mtime);
        self.named.mtime = self.done(done, || "set modification time".to_owned());
        self.set_flags();
        self.have = self.held.read(self.options.selinux)?;
        Ok(())
    }

    /// Owner and group are exactly the wanted ones, as read back, and known.
    fn has_its_owner(&self) -> bool {
        (self.have.uid, self.have.gid) == (self.want.uid, self.want.gid)
            && !unmapped::may_be_unmapped(self.want.uid, self.want.gid)
    }

    fn set_owner(&mut self) -> Result<(), Errno> {
        let Metadata { uid, gid, .. } = *self.want;
        let done = self.held.set_owner(Some(uid), Some(gid));
        if done.is_err() && uid != self.have.uid && gid != self.have.gid {
            // An ordinary user may still give a file to a group of its own.
            self.changed |= self.held.set_owner(None, Some(gid)).is_ok();
        }
        self.named.owner = if self.options.any_owner {
            self.changed |= done.is_ok();
            true
        } else {
            self.done(done, || format!("set owner {uid}:{gid}"))
        };
        // The kernel has cleared setuid, setgid and capabilities.
        self.have = self.held.read(self.options.selinux)?;
        Ok(())
    }

    fn set_xattrs(&mut self) -> Result<(), Errno> {
        let want = self.want;
        let have = std::mem::take(&mut self.have.xattrs);
        for old in have.iter().filter(|old| want.xattrs.iter().all(|new| new.name != old.name)) {
            let done = self.permitted(|held| held.remove_xattr(&old.name));
            self.named.xattrs |= self.done(done, || attribute("remove", &old.name));
        }
        for new in want.xattrs.iter().filter(|new| !have.contains(new)) {
            let done = if !xattr::is_carried(&new.name, self.options.selinux) {
                Err(Errno::OPNOTSUPP)
            } else if &*new.name == CAPABILITY && !self.has_its_owner() {
                Err(Errno::PERM)
            } else {
                self.permitted(|held| held.set_xattr(&new.name, &new.value))
            };
            self.named.xattrs |= self.done(done, || attribute("set", &new.name));
        }
        // An ACL changes permission bits.
        self.have = self.held.read_inode()?.0;
        Ok(())
    }

    /// Changes one attribute, which takes the permission to write the file, even for its owner.
    fn permitted(&self, change: impl Fn(&Held<'a>) -> Result<(), Errno>) -> Result<(), Errno> {
        match change(&self.held) {
            Err(Errno::ACCESS) if self.want.kind != FileKind::Symlink => {
                let widened = self.held.widen(OWNER_FILE)?;
                let done = change(&self.held);
                widened.restore()?;
                done
            }
            other => other,
        }
    }

    fn set_mode(&mut self) {
        let want = self.want;
        if want.kind == FileKind::Symlink {
            return;
        }
        let mut mode = want.mode & 0o7777;
        if want.kind != FileKind::Directory && !self.has_its_owner() {
            mode &= !SET_ID;
        }
        let lost = acl::access(want).filter(|acl| !self.has_acl(acl));
        if let Some(acl) = lost {
            mode = acl::mode_without(acl, mode);
        }
        if mode != self.have.mode {
            let done = self.held.set_mode(mode);
            self.named.mode = self.done(done, || format!("set mode {mode:04o}"));
        }
        if mode != want.mode {
            let why = if lost.is_some() { "without its ACL" } else { "for another owner" };
            let what = || format!("set mode {:04o} {why}", want.mode);
            self.named.mode |= self.done::<()>(Err(Errno::PERM), what);
        }
    }

    /// The access ACL is `acl`, as read back.
    fn has_acl(&self, acl: &[u8]) -> bool {
        self.held.read(self.options.selinux).is_ok_and(|now| acl::access(&now) == Some(acl))
    }

    fn set_flags(&mut self) {
        let (want, have) = (self.want.attributes, self.have.attributes);
        if self.stage == Stage::BeforeRename || self.named.attributes || want == have {
            return;
        }
        let mut flags = IFlags::empty();
        flags.set(IFlags::IMMUTABLE, want.immutable);
        flags.set(IFlags::APPEND, want.append_only);
        let done = self.held.set_flags(flags);
        self.named.attributes = self.done(done, || "set inode flags".to_owned());
    }

    /// Names what was accepted without an error and is different all the same.
    fn name_the_rest(&mut self) {
        let (diff, named) = (self.difference(), self.named);
        let Metadata { uid, gid, mode, mtime, .. } = self.have;
        let mut silent = Vec::new();
        if diff.owner && !named.owner {
            silent.push(format!("the owner: it is {uid}:{gid}"));
        }
        if diff.mode && !named.mode {
            silent.push(format!("the mode: it is {mode:04o}"));
        }
        if diff.xattrs && !named.xattrs {
            silent.extend(self.attributes_that_differ());
        }
        if diff.mtime && !named.mtime {
            silent.push(format!("the modification time: it is {}", Shown::exact(mtime)));
        }
        if diff.attributes && !named.attributes {
            silent.push("the inode flags".to_owned());
        }
        let problems = silent.into_iter().map(|what| MetadataProblem {
            what: format!("the file system did not preserve {what}"),
            errno: None,
        });
        self.problems.extend(problems);
    }

    /// The attributes that are other ones than wanted, or should not exist.
    fn attributes_that_differ(&self) -> Vec<String> {
        let (want, have) = (&self.want.xattrs, &self.have.xattrs);
        let lost = want.iter().filter(|xattr| !have.contains(xattr)).map(|xattr| &xattr.name);
        let extra = have.iter().map(|xattr| &xattr.name);
        let extra = extra.filter(|&name| want.iter().all(|xattr| xattr.name != *name));
        let names = lost.map(|name| format!("the attribute {}", wire::name::escape(name)));
        let extra =
            extra.map(|name| format!("the removal of the attribute {}", wire::name::escape(name)));
        names.chain(extra).collect()
    }

    /// Notes how a change went; true where it failed.
    fn done<T>(&mut self, result: Result<T, Errno>, what: impl Fn() -> String) -> bool {
        match result {
            Ok(_) => self.changed = true,
            Err(errno) => {
                self.problems.push(MetadataProblem { what: what(), errno: Some(errno) });
            }
        }
        result.is_err()
    }
}

fn attribute(verb: &str, name: &[u8]) -> String {
    format!("{verb} the attribute {}", wire::name::escape(name))
}
