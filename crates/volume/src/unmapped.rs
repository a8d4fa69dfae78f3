//! Owners that this process cannot know. Where its user namespace, or the mount of the volume, maps a part of all ids, all
//! others read as one id. That id can also be the one of a real owner, so not every case is certain.

use std::sync::OnceLock;

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx},
    io::Errno,
    thread::{self, CapabilitySet},
};
use wire::{FileKind, Metadata, Name};

use crate::{
    Dir, acl,
    descriptors::opening,
    error::{UNKNOWN_ACL, UNKNOWN_OWNER, UNKNOWN_RIGHTS},
    metadata::SET_ID,
    stat::UNCACHED,
};

const CAPABILITY: &[u8] = b"security.capability";
const ACLS: &[u8] = b"system.posix_acl_";

/// What of the metadata of an entry this process cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Its owner or group.
    Owner,
    /// Whether the owner or group that was read is the real one. That counts where the entry lends their rights.
    Rights,
    /// Users or groups in its ACL.
    Acl,
}

impl Unknown {
    /// As it is reported with the name of the entry.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Owner => UNKNOWN_OWNER,
            Self::Rights => UNKNOWN_RIGHTS,
            Self::Acl => UNKNOWN_ACL,
        }
    }
}

/// The ids that stand for every owner that is not mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overflow {
    uid: u32,
    gid: u32,
}

/// What the ids of a volume say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// All of them are real.
    Known,
    /// An overflow id is never a real one.
    Certain,
    /// An overflow id can be a real one.
    Possible,
}

/// What of `meta` this process cannot know. They are those of the entry `name` of `dir`, or of `dir` itself. `None` where it
/// knows all.
#[must_use]
pub fn find(dir: &Dir, name: Option<&Name>, meta: &Metadata) -> Option<Unknown> {
    let ids = *dir.hints().ids.get_or_init(|| ids_of(dir));
    if ids == Ids::Known {
        return None;
    }
    let overflow = overflow();
    if meta.uid == overflow.uid || meta.gid == overflow.gid {
        if ids == Ids::Certain || (meta.uid == overflow.uid && has_no_owner(dir, name, meta.kind)) {
            return Some(Unknown::Owner);
        }
        if lends_rights(meta) {
            return Some(Unknown::Rights);
        }
    }
    let acls = meta.xattrs.iter().filter(|xattr| xattr.name.starts_with(ACLS));
    acls.map(|xattr| &*xattr.value).any(acl::names_unmapped).then_some(Unknown::Acl)
}

/// Why two trees cannot be called equal by what was read of an entry: its owner or its ACL is not known.
pub(crate) fn hides(dir: &Dir, name: Option<&Name>, meta: &Metadata) -> Option<&'static str> {
    find(dir, name, meta).filter(|unknown| *unknown != Unknown::Rights).map(Unknown::reason)
}

/// Gives what belongs to an owner or a group that is not known to root, who has all permissions anyway. At the other end
/// the overflow id is a real user or group. Members of the group and of the one that takes its place get what both they and
/// all others had, and the owner is one of the others.
pub fn withhold(meta: &mut Metadata) {
    let overflow = overflow();
    if meta.gid == overflow.gid {
        meta.gid = 0;
        if let Some(acl) = acl::access(meta) {
            meta.mode = acl::mode_without(acl, meta.mode);
            meta.xattrs.retain(|xattr| &*xattr.name != acl::ACCESS);
        }
        let both = meta.mode >> 3 & meta.mode & 7;
        meta.mode = meta.mode & !0o077 | both << 3 | both;
    }
    if meta.uid == overflow.uid {
        meta.uid = 0;
        let granted = meta.mode >> 6 & 7;
        meta.mode &= !0o077 | granted << 3 | granted;
    }
}

/// True where the kernel does not know the owner of an entry that reads as the overflow id: it refuses what it permits for all
/// owners that it knows to a process with these capabilities. Special files and links are not opened.
fn has_no_owner(dir: &Dir, name: Option<&Name>, kind: FileKind) -> bool {
    let Ok(capabilities) = thread::capabilities(None).map(|sets| sets.effective) else {
        return false;
    };
    if !matches!(kind, FileKind::File | FileKind::Directory)
        || !capabilities.contains(CapabilitySet::FOWNER)
    {
        return false;
    }
    let Ok(held) = dir.descriptor() else { return false };
    let flags = OFlags::NOATIME | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = name.map_or(&b"."[..], |name| name.as_bytes());
    match opening(|| openat(&held, path, flags, Mode::empty())) {
        Err(Errno::PERM) => true,
        Err(Errno::ACCESS) => capabilities.contains(CapabilitySet::DAC_OVERRIDE),
        _ => false,
    }
}

/// True where one of these ids may stand for any owner that the user namespace of this process does not map.
pub(crate) fn may_be_unmapped(uid: u32, gid: u32) -> bool {
    let overflow = overflow();
    of_process() != Ids::Known && (uid == overflow.uid || gid == overflow.gid)
}

/// True where the user namespace of this process maps a part of all ids.
pub(crate) fn in_this_process() -> bool {
    of_process() != Ids::Known
}

fn lends_rights(meta: &Metadata) -> bool {
    let set_id = meta.kind != FileKind::Directory && meta.mode & SET_ID != 0;
    set_id || meta.xattrs.iter().any(|xattr| &*xattr.name == CAPABILITY)
}

fn ids_of(dir: &Dir) -> Ids {
    match of_process() {
        Ids::Known if is_mapped_mount(dir) => Ids::Possible,
        ids => ids,
    }
}

fn of_process() -> Ids {
    static IDS: OnceLock<Ids> = OnceLock::new();
    *IDS.get_or_init(|| {
        let read = |path| std::fs::read_to_string(path).ok();
        let overflow = overflow();
        let (uid, gid) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
        both(of_map(uid.as_deref(), overflow.uid), of_map(gid.as_deref(), overflow.gid))
    })
}

/// The weaker one of what is said of users and of groups.
fn both(users: Ids, groups: Ids) -> Ids {
    match (users, groups) {
        (Ids::Known, other) | (other, Ids::Known) => other,
        (Ids::Certain, Ids::Certain) => Ids::Certain,
        _ => Ids::Possible,
    }
}

/// By the map of a user namespace. One that cannot be read maps all ids; one that is empty maps none.
fn of_map(map: Option<&str>, overflow: u32) -> Ids {
    let Some(map) = map else { return Ids::Known };
    let ranges = map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let first: u64 = fields.next()?.parse().ok()?;
        let len: u64 = fields.nth(1)?.parse().ok()?;
        Some(first..first + len)
    });
    let ranges: Vec<_> = ranges.collect();
    if ranges.iter().map(|range| range.end - range.start).sum::<u64>() >= u64::from(u32::MAX) {
        Ids::Known
    } else if ranges.iter().any(|range| range.contains(&u64::from(overflow))) {
        Ids::Possible
    } else {
        Ids::Certain
    }
}

fn overflow() -> Overflow {
    static OVERFLOW: OnceLock<Overflow> = OnceLock::new();
    *OVERFLOW.get_or_init(|| {
        let id = |path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let of = |path| id(path).unwrap_or(65_534);
        Overflow {
            uid: of("/proc/sys/kernel/overflowuid"),
            gid: of("/proc/sys/kernel/overflowgid"),
        }
    })
}

/// True where the mount that `dir` lies on translates ids. Where the kernel does not say, it does not.
pub(crate) fn is_mapped_mount(dir: &Dir) -> bool {
    let mount = || {
        let stat =
            statx(dir.descriptor().ok()?, c"", AtFlags::EMPTY_PATH | UNCACHED, StatxFlags::MNT_ID);
        let number = stat.ok().filter(|stat| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0)?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        Some(is_mapped(&mounts, number.stx_mnt_id))
    };
    mount().unwrap_or(false)
}

/// By `/proc/self/mountinfo`: number, parent, device, root, mount point, options.
fn is_mapped(mounts: &str, number: u64) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.next().and_then(|field| field.parse().ok()) == Some(number)
            && fields.nth(4).is_some_and(|options| options.split(',').any(|o| o == "idmapped"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_whether_the_overflow_id_can_be_a_real_one() {
        let of = |map| of_map(Some(map), 65_534);
        assert_eq!(of("         0          0 4294967295\n"), Ids::Known);
        assert_eq!(of("0 100000 65536\n65536 1000 1\n"), Ids::Possible);
        assert_eq!(of("0 0 1\n"), Ids::Certain);
        assert_eq!((of(""), of("nonsense")), (Ids::Certain, Ids::Certain));
        assert_eq!(of_map(None, 65_534), Ids::Known);
        assert_eq!(both(Ids::Known, Ids::Certain), Ids::Certain);
        assert_eq!(both(Ids::Possible, Ids::Certain), Ids::Possible);
    }

    #[test]
    fn what_is_withheld_belongs_to_root_and_grants_nobody_more() {
        let overflow = overflow();
        let kept = |uid, gid, mode, acl: &[u8]| {
            let acl = wire::Xattr { name: acl::ACCESS.into(), value: acl.into() };
            let mut meta = Metadata {
                kind: FileKind::File,
                mode,
                uid,
                gid,
                size: 0,
                mtime: wire::Timestamp { secs: 0, nanos: 0 },
                rdev: (0, 0),
                attributes: wire::Attributes::default(),
                xattrs: if acl.value.is_empty() { vec![] } else { vec![acl] },
            };
            withhold(&mut meta);
            (meta.uid, meta.gid, meta.mode, meta.xattrs.len())
        };
        assert_eq!(kept(5, overflow.gid, 0o660, b""), (5, 0, 0o600, 0));
        assert_eq!(kept(5, overflow.gid, 0o664, b""), (5, 0, 0o644, 0));
        assert_eq!(kept(5, overflow.gid, 0o604, b""), (5, 0, 0o600, 0));
        assert_eq!(kept(overflow.uid, 6, 0o660, b""), (0, 6, 0o660, 0));
        assert_eq!(kept(overflow.uid, 6, 0o466, b""), (0, 6, 0o444, 0));
        assert_eq!(kept(5, 6, 0o660, b"acl"), (5, 6, 0o660, 1));
        // One of the owning group alone.
        let acl = [&[2, 0, 0, 0][..], &[4, 0, 7, 0, 255, 255, 255, 255]].concat();
        assert_eq!(kept(5, overflow.gid, 0o770, &acl), (5, 0, 0o700, 0));
    }

    #[test]
    fn only_the_options_of_the_mount_itself_say_that_it_translates_ids() {
        let mounts = "22 1 8:1 / / rw,idmapped - ext4 /dev/sda rw\n122 22 8:1 /a /b ro,relatime - ext4 idmapped rw\n";
        assert!(is_mapped(mounts, 22));
        assert!(!is_mapped(mounts, 122) && !is_mapped(mounts, 2));
    }
}
