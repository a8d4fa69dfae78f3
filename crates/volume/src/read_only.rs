//! Whether a directory can be written to at all, found out without writing.

use rustix::{
    fs::{self, Access, AtFlags},
    io::Errno,
};

use crate::{Dir, Result};

/// True where the file system of `dir`, its mount or its subvolume is read-only. Permissions do not count: a mode can be
/// changed.
///
/// # Errors
/// Where the directory cannot be opened.
pub fn is_read_only(dir: &Dir) -> Result<bool> {
    let access = fs::accessat(dir.descriptor()?, c".", Access::WRITE_OK, AtFlags::empty());
    Ok(access == Err(Errno::ROFS))
}
