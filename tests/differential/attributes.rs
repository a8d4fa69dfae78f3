//! Attributes as the kernel stores them: access control lists, capabilities, flags.

use std::{fs::File, path::Path};

use rustix::fs::{CWD, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};
use testkit::{Kind, Rng, Snapshot};

/// A random access control list in the form of `system.posix_acl_access` and `_default`.
pub(crate) fn acl(rng: &mut Rng) -> Vec<u8> {
    const USER_OBJ: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    let mut bits = || u16::try_from(rng.below(8)).unwrap();
    let entries = [
        (USER_OBJ, bits(), u32::MAX),
        (USER, bits(), 1000),
        (GROUP_OBJ, bits(), u32::MAX),
        (GROUP, bits(), 2000),
        (MASK, bits(), u32::MAX),
        (OTHER, bits(), u32::MAX),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// A value of `security.capability`: version 2, effective, with one permitted capability.
pub(crate) fn capability(rng: &mut Rng) -> Vec<u8> {
    let permitted = 1_u32 << rng.below(20);
    [0x0200_0001, permitted, 0, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// Makes some files and directories of the tree immutable or append-only: which ones follows from `seed` and their path.
pub(crate) fn set_flags(root: &Path, seed: u64, one_in: u64) {
    for (path, node) in &Snapshot::of(root).0 {
        if !matches!(node.kind, Kind::File | Kind::Directory) || path.as_os_str().is_empty() {
            continue;
        }
        let mixed = path
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(seed, |sum, &byte| Rng::new(sum ^ u64::from(byte)).next_u64());
        if mixed.is_multiple_of(one_in) {
            let flag =
                if (mixed / one_in).is_multiple_of(3) { IFlags::APPEND } else { IFlags::IMMUTABLE };
            set(&root.join(path), flag);
        }
    }
}

/// Clears the flags of all entries, so that they can be changed and removed.
pub(crate) fn clear_flags(root: &Path) {
    for (path, node) in &Snapshot::of(root).0 {
        if node.flags != (false, false) {
            set(&root.join(path), IFlags::empty());
        }
    }
}

fn set(path: &Path, flag: IFlags) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).unwrap());
    // Odd file systems have none.
    let Ok(mut now) = ioctl_getflags(&file) else { return };
    now.remove(IFlags::APPEND | IFlags::IMMUTABLE);
    ioctl_setflags(&file, now | flag).unwrap();
}
