//! Owners that this process cannot know. Where its user namespace, or the mount of the volume, maps a part of all ids, all
//! others read as one id. That id can also be the one of a real owner, so not every case is certain.

use std::sync::OnceLock;

use rustix::fs::{AtFlags, StatxFlags, statx};
use wire::{FileKind, Metadata};

use crate::{
    Dir, acl,
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

/// What of `meta`, which was read in `dir`, this process cannot know. `None` where it knows all.
#[must_use]
pub fn find(dir: &Dir, meta: &Metadata) -> Option<Unknown> {
    let ids = *dir.hints().ids.get_or_init(|| ids_of(dir));
    if ids == Ids::Known {
        return None;
    }
    let overflow = overflow();
    if meta.uid == overflow.uid || meta.gid == overflow.gid {
        if ids == Ids::Certain {
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
pub(crate) fn hides(dir: &Dir, meta: &Metadata) -> Option<&'static str> {
    find(dir, meta).filter(|unknown| *unknown != Unknown::Rights).map(Unknown::reason)
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
    fn only_the_options_of_the_mount_itself_say_that_it_translates_ids() {
        let mounts = "22 1 8:1 / / rw,idmapped - ext4 /dev/sda rw\n122 22 8:1 /a /b ro,relatime - ext4 idmapped rw\n";
        assert!(is_mapped(mounts, 22));
        assert!(!is_mapped(mounts, 122) && !is_mapped(mounts, 2));
    }
}
