//! Closing an existing file or directory before new content comes into it.
//!
//! What stands at the destination may be open to users who may not read what the source has now. Until it has its final
//! metadata it therefore grants nobody more than both the old and the new permission bits. Where owner, group or
//! access ACL differ, those bits speak of different users, so nothing is left to group and others (which takes the
//! effect from an ACL, too), and an entry of another owner becomes that of this process. A run that is stopped
//! leaves the entry like this: narrower than before and at the source, never wider.

use std::os::fd::AsFd as _;

use rustix::io::Errno;
use wire::{FileKind, Metadata};

use crate::{
    Dir, Result, acl,
    held::{Held, OWNER_DIRECTORY},
};

const SPECIAL: u16 = 0o7000;
const STICKY: u16 = 0o1000;

/// Narrows `dir`, which was read as `have`, for the time until it becomes `want`. Nothing is written where the two
/// grant the same.
///
/// # Errors
/// `EPERM` for a directory of somebody else; whatever the calls answer.
pub fn directory(dir: &Dir, have: &Metadata, want: &Metadata) -> Result<()> {
    let fail = |errno| dir.own_error("narrow mode", errno);
    let mode = narrowed(have, want);
    let fd = dir.descriptor()?;
    let held = Held::Open(dir, fd.as_fd());
    if mode != have.mode {
        // What was widened so as to work in it is put back to the narrower mode.
        let mut lifted = dir.lifted().lock();
        let works = lifted.as_mut().map(|before| before.mode = mode).is_some();
        let now = if works { mode | OWNER_DIRECTORY } else { mode };
        held.set_mode(now).map_err(fail)?;
    }
    take(&held, have, want).map_err(fail)
}

/// The same for an open file.
pub(crate) fn file(held: &Held<'_>, want: &Metadata) -> Result<(), Errno> {
    let have = held.read(false)?;
    let mode = narrowed(&have, want);
    if mode != have.mode {
        held.set_mode(mode)?;
    }
    take(held, &have, want)
}

/// What of `want` counts here; attributes may be large.
pub(crate) fn limits(want: &Metadata) -> Metadata {
    let acl = want.xattrs.iter().filter(|xattr| &*xattr.name == acl::ACCESS).cloned().collect();
    let Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, .. } = *want;
    Metadata { kind, mode, uid, gid, size, mtime, rdev, attributes, xattrs: acl }
}

/// The mode that grants nobody more than either of the two.
fn narrowed(have: &Metadata, want: &Metadata) -> u16 {
    let mut mode = have.mode & want.mode & 0o777;
    if have.uid != want.uid || have.gid != want.gid || acl::access(have) != acl::access(want) {
        mode &= 0o700;
    }
    if want.kind == FileKind::Directory {
        // setgid is about the group of what is made in it; sticky takes rights from users.
        mode |= have.mode & SPECIAL | want.mode & STICKY;
    }
    mode
}

/// An entry that is to belong to another user belongs to nobody else until then.
fn take(held: &Held<'_>, have: &Metadata, want: &Metadata) -> Result<(), Errno> {
    let own = rustix::process::geteuid().as_raw();
    if have.uid == want.uid || have.uid == own { Ok(()) } else { held.set_owner(Some(own), None) }
}

#[cfg(test)]
mod tests {
    use wire::{Attributes, Timestamp, Xattr};

    use super::*;

    fn meta(kind: FileKind, mode: u16, owner: (u32, u32), acl: &[u8]) -> Metadata {
        let acl = Xattr { name: acl::ACCESS.into(), value: acl.into() };
        Metadata {
            kind,
            mode,
            uid: owner.0,
            gid: owner.1,
            size: 0,
            mtime: Timestamp { secs: 0, nanos: 0 },
            rdev: (0, 0),
            attributes: Attributes::default(),
            xattrs: if acl.value.is_empty() { vec![] } else { vec![acl] },
        }
    }

    #[test]
    fn nobody_is_granted_more_than_before_and_after() {
        use FileKind::{Directory, File};
        type Side<'a> = (u16, (u32, u32), &'a [u8]);
        let cases: [(FileKind, Side<'_>, Side<'_>, u16); 9] = [
            (File, (0o644, (1, 1), b""), (0o644, (1, 1), b""), 0o644),
            (File, (0o644, (1, 1), b""), (0o600, (1, 1), b""), 0o600),
            (File, (0o606, (1, 1), b""), (0o660, (1, 1), b""), 0o600),
            (File, (0o6755, (1, 1), b""), (0o6755, (1, 1), b""), 0o755),
            (File, (0o644, (1, 1), b""), (0o644, (2, 1), b""), 0o600),
            (File, (0o644, (1, 1), b""), (0o644, (1, 2), b""), 0o600),
            (File, (0o644, (1, 1), b"a"), (0o644, (1, 1), b""), 0o600),
            (Directory, (0o2755, (1, 1), b""), (0o1770, (1, 1), b""), 0o3750),
            (Directory, (0o1777, (1, 1), b"a"), (0o755, (1, 1), b"b"), 0o1700),
        ];
        for (kind, have, want, expected) in cases {
            let have = meta(kind, have.0, have.1, have.2);
            let want = meta(kind, want.0, want.1, want.2);
            assert_eq!(narrowed(&have, &want), expected, "{have:?} {want:?}");
        }
    }
}
