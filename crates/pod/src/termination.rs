//! The termination message: the report where the kubelet picks it up.
//!
//! The kubelet bind-mounts a file into the container and reads it once the container has ended.
//! It must be written in place: a rename would put the message into another file than the one
//! that is read. The kubelet keeps the last 4096 bytes of it, and then shares 12 KiB between all
//! containers of the pod, cutting the message of each from the end. A message that is cut is no
//! JSON any more, so it has to be short enough from the start.

use std::{
    io::{self, Write},
    path::Path,
};

use crate::{Error, Report, file};

/// Where the kubelet mounts the file unless the pod says otherwise.
pub const DEFAULT_PATH: &str = "/dev/termination-log";

/// The most bytes that the kubelet takes from one container.
pub const LIMIT: usize = 4096;

/// The most bytes that the kubelet keeps for all containers of one pod.
pub const POD_LIMIT: usize = 12 * 1024;

/// How long a message may be in a pod of so many containers, init containers included.
#[must_use]
pub fn message_limit(containers: usize) -> usize {
    (POD_LIMIT / containers.max(1)).min(LIMIT)
}

/// Replaces the content of the file at `path` by the report, in at most `limit` bytes. The file
/// is made where it is missing.
///
/// # Errors
/// [`Error::File`] where the file cannot be opened or written.
pub fn write(path: &Path, report: &Report, limit: usize) -> Result<(), Error> {
    replace(path, report.to_json_within(limit).as_bytes()).map_err(Error::file("write", path))
}

/// Checks, before a run, that its message will find a file. The file is made where it is missing.
///
/// # Errors
/// [`Error::File`] where the file cannot be opened for writing, or is neither a regular file nor a character device.
pub fn check(path: &Path) -> Result<(), Error> {
    file::open_in_place(path).map(drop).map_err(Error::file("write", path))
}

fn replace(path: &Path, message: &[u8]) -> io::Result<()> {
    let mut file = file::open_in_place(path)?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCode;
    use std::{fs, os::unix::fs::MetadataExt};

    #[test]
    fn message_replaces_the_content_of_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "x".repeat(9000)).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();

        let report = Report::new("data", ExitCode::Stream, "connection reset");
        write(&path, &report, LIMIT).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(fs::read_to_string(&path).unwrap(), report.to_json());
    }

    #[test]
    fn file_is_made_where_missing_and_failure_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let report = Report::new("data", ExitCode::Ok, "");
        write(&dir.path().join("log"), &report, LIMIT).unwrap();
        assert!(dir.path().join("log").exists());

        let error = write(&dir.path().join("none/log"), &report, LIMIT).unwrap_err();
        assert!(error.to_string().contains("none/log"), "{error}");
    }

    #[test]
    fn a_fifo_or_a_socket_is_refused_at_once_and_a_character_device_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, socket) = (dir.path().join("fifo"), dir.path().join("socket"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let report = Report::new("data", ExitCode::Ok, "");
        for path in [&*fifo, &*socket, dir.path()] {
            for error in [check(path).unwrap_err(), write(path, &report, LIMIT).unwrap_err()] {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
        }
        check(Path::new("/dev/null")).unwrap();
        write(Path::new("/dev/null"), &report, LIMIT).unwrap();
    }

    #[test]
    fn many_containers_share_what_the_pod_has() {
        assert_eq!(message_limit(0), 4096);
        assert_eq!(message_limit(3), 4096);
        assert_eq!(message_limit(4), 3072);
        assert_eq!(message_limit(12), 1024);
    }
}
