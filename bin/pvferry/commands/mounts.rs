//! Where a directory lies on its file system, whatever path leads to it.
//!
//! A bind mount, such as a `subPath` of Kubernetes, shows a directory a second time. By its path it lies elsewhere;
//! on the file system it may lie inside the source all the same.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// A place on a file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Device, or subvolume where the file system has some.
    device: u64,
    /// The path from the root of the file system.
    path: PathBuf,
}

impl Place {
    /// Finds the place of the directory at `path`; `None` where `/proc` does not list its mount.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        #[allow(
            clippy::disallowed_methods,
            reason = "a check of what the user asked for; nothing is opened by it"
        )]
        let path = fs::canonicalize(path)?;
        let device = fs::metadata(&path)?.dev();
        let mount = statx(CWD, &path, AtFlags::empty(), StatxFlags::MNT_ID)?;
        if mount.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return Ok(None);
        }
        let Ok(mounts) = fs::read("/proc/self/mountinfo") else { return Ok(None) };
        Ok(place_on(&mounts, mount.stx_mnt_id, &path).map(|path| Self { device, path }))
    }

    /// True where `self` is `other` or lies below it.
    pub(super) fn lies_in(&self, other: &Self) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }
}

/// The path of `path` on its file system, which `mounts` lists under the id `mount`; see `proc_pid_mountinfo(5)`.
fn place_on(mounts: &[u8], mount: u64, path: &Path) -> Option<PathBuf> {
    let id = mount.to_string();
    let line = mounts
        .split(|byte| *byte == b'\n')
        .find(|line| line.split(|byte| *byte == b' ').next() == Some(id.as_bytes()))?;
    let mut fields = line.split(|byte| *byte == b' ').skip(3).map(unescape);
    let (root, mounted_on) = (fields.next()?, fields.next()?);
    Some(root.join(path.strip_prefix(mounted_on).ok()?))
}

/// A path of `mountinfo`, in which a space is `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && is_octal(digits));
        match octal {
            Some(digits) => {
                bytes.push(digits.iter().fold(0, |value: u8, digit| value << 3 | (digit - b'0')));
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn is_octal(digits: &[u8]) -> bool {
    digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) && digits[0] <= b'3'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_on_the_file_system_follows_from_the_mount() {
        let mounts = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
            30 21 8:2 /claims/a\\040b /mnt/a\\040b rw shared:5 - xfs /dev/sdb rw\n";
        let place = |mount, path: &str| place_on(mounts, mount, Path::new(path));
        assert_eq!(place(21, "/x/y"), Some("/x/y".into()));
        assert_eq!(place(30, "/mnt/a b/sub"), Some("/claims/a b/sub".into()));
        assert_eq!(place(30, "/elsewhere"), None);
        assert_eq!(place(99, "/x"), None);
    }

    #[test]
    fn a_directory_lies_in_itself_and_in_what_holds_it() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("sub")).unwrap();
        let outer = Place::of(tmp.path()).unwrap().unwrap();
        let inner = Place::of(&tmp.path().join("sub")).unwrap().unwrap();
        assert!(inner.lies_in(&outer) && outer.lies_in(&outer) && !outer.lies_in(&inner));
    }
}
