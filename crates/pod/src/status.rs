//! What the tunnel tells the `sync` containers of its pod: why the server cannot be reached.
//!
//! Through a plain byte tunnel all that `sync` sees is a connection that closes. The tunnel knows
//! why, and leaves it in `tunnel.status` in the marker directory. The file is advice for a
//! message: it is there while the tunnel's last try failed, and nothing is decided by it.

use std::{
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use text::Text;

use crate::{
    Error, NotReady, Reason,
    file::{self, Durability},
};

const NAME: &str = "tunnel.status";
const LIMIT: u64 = 64 << 10;

/// The last failure of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The kind of trouble.
    pub kind: Reason,
    /// The trouble in words.
    pub message: Text,
    /// When it came up, in seconds since 1970.
    pub time: u64,
}

impl Status {
    /// Trouble that came up now.
    #[must_use]
    pub fn now(kind: Reason, message: impl Into<Text>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { kind, message: message.into(), time: since.as_secs() }
    }
}

impl From<Status> for NotReady {
    fn from(status: Status) -> Self {
        Self::new(status.kind, status.message)
    }
}

/// Leaves `status` in `dir`, over an earlier one.
///
/// # Errors
/// [`Error::File`] where `dir` cannot be written to.
pub fn write(dir: &Path, status: &Status) -> Result<(), Error> {
    serde_json::to_vec(status)
        .map_err(io::Error::from)
        .and_then(|json| file::publish(dir, NAME, &json, Durability::Lazy))
        .map_err(Error::file("write", &dir.join(NAME)))
}

/// Removes the status from `dir`; for after a try that worked.
///
/// # Errors
/// [`Error::File`] where it is there and cannot be removed.
pub fn clear(dir: &Path) -> Result<(), Error> {
    let path = dir.join(NAME);
    file::remove(&path).map_err(Error::file("remove", &path))
}

/// The status in `dir`. `None` where there is none that can be understood.
#[must_use]
pub fn read(dir: &Path) -> Option<Status> {
    serde_json::from_slice(&file::read(&dir.join(NAME), LIMIT).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_there_until_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        clear(dir.path()).unwrap();
        for status in
            [Status::now(Reason::Dns, "no such host"), Status::now(Reason::Identity, "expired")]
        {
            write(dir.path(), &status).unwrap();
            assert_eq!(read(dir.path()), Some(status));
        }
        clear(dir.path()).unwrap();
        assert_eq!(read(dir.path()), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_understood_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"kind":"of_a_later_version","message":"","time":0}"#] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(read(dir.path()), None, "{text}");
        }
        assert!(write(&dir.path().join("none"), &Status::now(Reason::Tls, "")).is_err());
    }

    #[test]
    fn the_form_on_disk_is_fixed() {
        let status = Status { kind: Reason::UnknownVolume, message: "x".into(), time: 7 };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"kind":"unknown_volume","message":"x","time":7}"#
        );
        assert!(!NotReady::from(status).retryable);
    }
}
