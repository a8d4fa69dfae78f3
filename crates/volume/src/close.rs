//! Closing a file so that the answer is heard.
//!
//! A file system on a network, or one by FUSE, may write content only when its file is closed, and say only then that
//! it could not be kept. The standard library closes without looking at the answer.

#![allow(unsafe_code, reason = "no safe function of a library returns what close(2) answers")]

use std::os::fd::{AsFd, IntoRawFd as _, OwnedFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Closes a duplicate of `file`. The file system takes each close for the end of a writer, so what is written until
/// now is kept, or the answer is an error. `file` stays open.
pub(crate) fn close_duplicate(file: impl AsFd) -> Result<(), Errno> {
    close(fcntl_dupfd_cloexec(file, 0)?)
}

fn close(file: OwnedFd) -> Result<(), Errno> {
    let fd = file.into_raw_fd();
    // SAFETY: `fd` comes from an `OwnedFd` that has given it up, so it is open and nothing else closes or uses it.
    if unsafe { libc::close(fd) } == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_closed_and_the_file_stays_open() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(close_duplicate(&file), Ok(()));
        assert!(file.metadata().is_ok());
    }
}
