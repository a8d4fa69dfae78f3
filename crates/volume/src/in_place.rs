//! Whether a directory is still in the tree that it was found in.

use rustix::fs::{self, AtFlags};

use crate::Dir;

/// False where the directory, or one above it, was moved away or replaced since it was opened: its own path no longer
/// leads to it. True where that cannot be found out.
#[must_use]
pub fn is_in_place(dir: &Dir) -> bool {
    let mut dir = dir.clone();
    while let Some((parent, name)) = dir.location() {
        let Ok(fd) = parent.descriptor() else { return true };
        match fs::statat(&fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == dir.identity() => {}
            Ok(_) => return false,
            Err(errno) => return errno != rustix::io::Errno::NOENT,
        }
        dir = parent;
    }
    true
}
