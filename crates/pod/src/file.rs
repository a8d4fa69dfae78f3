//! Small files that other containers watch: each appears under its name only when whole.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Whether the file must be on disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Lazy,
}

/// Writes `dir/name` with mode 0644 by a temporary file and a rename.
///
/// The temporary name derives from `name` and not from the process: every container of a pod is
/// process 1, and a name has one writer. It starts with a dot and ends in `~`, which no name
/// of this crate does.
pub(crate) fn publish(dir: &Path, name: &str, data: &[u8], how: Durability) -> io::Result<()> {
    let temp = temp_path(dir, name);
    remove(&temp)?;
    let published = write_new(&temp, data, how).and_then(|()| fs::rename(&temp, dir.join(name)));
    if published.is_err() {
        // The first error is the one to report; a leftover is replaced by the next try.
        let _ = remove(&temp);
    }
    published?;
    if how == Durability::Synced {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn write_new(path: &Path, data: &[u8], how: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(data)?;
    // Containers may run as different users, whatever the umask of this one says.
    file.set_permissions(Permissions::from_mode(0o644))?;
    match how {
        Durability::Synced => file.sync_all(),
        Durability::Lazy => Ok(()),
    }
}

/// Where [`publish`] builds `dir/name`.
pub(crate) fn temp_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}~"))
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens `path` to be written in place, and creates it where it is missing. Never waits: a FIFO would wait for a reader.
///
/// A character device is as good as a file, for `/dev/null` and terminals. Anything else is refused.
pub(crate) fn open_in_place(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o644)
        .custom_flags(bits(flags))
        .open(path);
    let file = match opened {
        // A FIFO without a reader, a socket, a device without a driver.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(not_a_file());
        }
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_char_device() { Ok(file) } else { Err(not_a_file()) }
}

/// The content of a regular file of at most `limit` bytes. Never waits, and follows no link out of the directory.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(bits(flags)).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_a_file());
    }
    let mut data = Vec::new();
    file.take(limit + 1).read_to_end(&mut data)?;
    if data.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    Ok(data)
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Flags as the standard library takes them.
fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}
