//! The names of an entry's extended attributes by `(directory, name)`: `listxattrat(2)`, which Linux has
//! since 6.13 and no library yet.
//!
//! Most entries have no attributes, and to learn that by a path through `/proc` costs more than
//! everything else that an unchanged entry costs: a whole run over 200,000 unchanged files took 1.13 s
//! that way and takes 0.71 s this way. Where the kernel or its filter of system calls does not
//! know the call, that path is the way as before.

#![allow(unsafe_code, reason = "a system call that rustix does not have")]

use std::{
    mem::MaybeUninit,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::io::Errno;
use wire::Name;

use crate::Dir;

/// The number on all architectures that nodes have (`include/uapi/asm-generic/unistd.h`).
const LISTXATTRAT: libc::c_long = 465;

/// The call was refused once: this kernel does not have it, or a filter does not let it through.
static MISSING: AtomicBool = AtomicBool::new(false);

/// Writes the names, each with its NUL, into `buffer`, and returns how many bytes they are; `None` where
/// there is no such call. Symbolic links are not followed.
///
/// # Errors
/// `ERANGE` where they do not fit; else as `llistxattr(2)`.
pub(crate) fn list(
    dir: &Dir,
    name: &Name,
    buffer: &mut [MaybeUninit<u8>],
) -> Option<Result<usize, Errno>> {
    if MISSING.load(Relaxed) {
        return None;
    }
    let fd = match dir.descriptor() {
        Ok(fd) => fd,
        Err(error) => return Some(Err(error.errno)),
    };
    let mut path = [0; wire::name::MAX_NAME + 1];
    path[..name.as_bytes().len()].copy_from_slice(name.as_bytes());
    // SAFETY: `path` holds at most MAX_NAME bytes and ends in NUL, since its last byte is never written
    // to; the kernel writes at most `buffer.len()` bytes into `buffer`, which is borrowed for writing;
    // `fd` is open for as long as this function runs.
    let got = unsafe {
        libc::syscall(
            LISTXATTRAT,
            std::os::fd::AsFd::as_fd(&fd).as_raw_fd(),
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    if let Ok(got) = usize::try_from(got) {
        return Some(Ok(got));
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    match Errno::from_raw_os_error(errno) {
        // Filters answer with either. The call itself never says EPERM of an entry.
        Errno::NOSYS | Errno::PERM => {
            MISSING.store(true, Relaxed);
            None
        }
        errno => Some(Err(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xattr::{self, XattrTarget};

    #[test]
    fn names_are_those_of_the_way_by_proc() {
        let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(tmp.path().join("file"), b"").unwrap();
        std::os::unix::fs::symlink("file", tmp.path().join("link")).unwrap();
        let longest = "n".repeat(wire::name::MAX_NAME);
        std::fs::write(tmp.path().join(&longest), b"").unwrap();
        let dir = Dir::open_root_writable(tmp.path()).unwrap();
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let file = name("file");
        let mut buffer = [MaybeUninit::uninit(); 64];
        let Some(none) = list(&dir, &file, &mut buffer) else {
            return; // An older kernel: the other way is tested for itself.
        };
        assert_eq!(none, Ok(0));
        xattr::set(XattrTarget::At(&dir, &file), b"user.a", b"1").unwrap();
        assert_eq!(list(&dir, &file, &mut buffer), Some(Ok(7)));
        assert_eq!(list(&dir, &file, &mut buffer[..6]), Some(Err(Errno::RANGE)));
        assert_eq!(list(&dir, &name("link"), &mut buffer), Some(Ok(0)), "not followed");
        assert_eq!(list(&dir, &name(&longest), &mut buffer), Some(Ok(0)));
        assert_eq!(list(&dir, &name("gone"), &mut buffer), Some(Err(Errno::NOENT)));
    }
}
