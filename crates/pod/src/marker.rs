//! Completion markers: how the tunnel of a pod learns that the transfers beside it have ended.
//!
//! Each `sync` container writes `<volume>.done`, its [`Report`], into a directory on the emptyDir
//! that the pod shares, when it ends, well or badly. A marker appears under its name only when
//! whole, so a reader never sees half of one. `sync` clears its own marker when it starts: the
//! emptyDir outlives a restart of the container.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{
    Error, ExitCode, Report,
    file::{self, Durability},
};

/// How often [`wait_for`] looks.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

const SUFFIX: &str = ".done";
/// The longest marker, in bytes; a report with more errors is shortened to it.
const LIMIT: usize = 1 << 20;

/// The name of a volume: 1 to 248 of `A-Z a-z 0-9 . _ -`, without a dot in front.
///
/// Every name of a PersistentVolumeClaim up to that length is one. The limit leaves room for a
/// suffix, a dot and a tilde within the 255 bytes of a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// The longest name, in bytes.
    pub const MAX: usize = 248;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn marker(&self) -> String {
        format!("{}{SUFFIX}", self.0)
    }

    fn of_marker(file_name: &str) -> Option<Self> {
        file_name.strip_suffix(SUFFIX)?.parse().ok()
    }
}

impl FromStr for VolumeName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = (1..=Self::MAX).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(allowed);
        if ok { Ok(Self(name.into())) } else { Err(Error::VolumeName { name: name.into() }) }
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes the marker of `volume` into `dir`, over an earlier one, and waits until it is on disk.
///
/// # Errors
/// [`Error::File`] where `dir` cannot be written to.
pub fn write(dir: &Path, volume: &VolumeName, report: &Report) -> Result<(), Error> {
    let name = volume.marker();
    let json = report.to_json_within(LIMIT);
    file::publish(dir, &name, json.as_bytes(), Durability::Synced)
        .map_err(Error::file("write", &dir.join(&name)))
}

/// Where [`write()`] builds the marker of `volume` in `dir`, and where it puts it.
#[must_use]
pub fn paths(dir: &Path, volume: &VolumeName) -> (PathBuf, PathBuf) {
    let name = volume.marker();
    (file::temp_path(dir, &name), dir.join(&name))
}

/// Removes the marker of `volume` that an earlier run left in `dir`, and its unfinished one.
///
/// # Errors
/// [`Error::File`] where a file is there and cannot be removed: a stale marker would end the
/// tunnel early.
pub fn clear(dir: &Path, volume: &VolumeName) -> Result<(), Error> {
    let name = volume.marker();
    for path in [dir.join(&name), file::temp_path(dir, &name)] {
        file::remove(&path).map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

/// The marker of `volume` in `dir`, if it exists. One that cannot be read or understood is reported as failed, as by [`read_all`].
#[must_use]
pub fn read(dir: &Path, volume: &VolumeName) -> Option<Report> {
    match parse(&dir.join(volume.marker())) {
        Ok(report) => Some(report),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let what = format!("invalid marker: {error}");
            Some(Report::new(volume.as_str(), ExitCode::FileIo, what))
        }
    }
}

/// All markers in `dir`, sorted by volume.
///
/// Other files are passed over. A marker that cannot be read or understood still counts: its
/// volume's run has ended, and is reported as failed with [`ExitCode::FileIo`], for nobody
/// can say that it ended well.
///
/// # Errors
/// [`Error::File`] where `dir` itself cannot be read.
pub fn read_all(dir: &Path) -> Result<Vec<(VolumeName, Report)>, Error> {
    let mut markers = Vec::new();
    for name in names(dir).map_err(Error::file("read", dir))? {
        let Some(volume) = VolumeName::of_marker(&name) else { continue };
        // One that is missing was cleared just now.
        if let Some(report) = read(dir, &volume) {
            markers.push((volume, report));
        }
    }
    markers.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(markers)
}

/// Waits until `dir` holds `count` markers or more, and returns them all.
///
/// Looks every `interval`; [`POLL_INTERVAL`] is a good one.
///
/// # Errors
/// [`Error::File`] at once where `dir` cannot be read.
pub async fn wait_for(
    dir: &Path,
    count: usize,
    interval: Duration,
) -> Result<Vec<(VolumeName, Report)>, Error> {
    loop {
        let markers = read_all(dir)?;
        if markers.len() >= count {
            return Ok(markers);
        }
        tokio::time::sleep(interval).await;
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        // A name that is not UTF-8 is nobody's marker.
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

fn parse(path: &Path) -> io::Result<Report> {
    let data = file::read(path, LIMIT as u64)?;
    let invalid = |error: Box<dyn std::error::Error + Send + Sync>| {
        io::Error::new(io::ErrorKind::InvalidData, error)
    };
    // Fields that are skipped would be skipped as bytes.
    let text = str::from_utf8(&data).map_err(|error| invalid(error.into()))?;
    serde_json::from_str(text).map_err(|error| invalid(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryError, Outcome};
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn volume(name: &str) -> VolumeName {
        name.parse().unwrap()
    }

    fn ok(name: &str) -> Report {
        Report::new(name, ExitCode::Ok, "")
    }

    proptest! {
        #[test]
        fn a_volume_name_is_a_visible_file_name(text in prop_oneof![any::<String>(), "[A-Za-z0-9._/-]{0,300}"]) {
            if let Ok(name) = text.parse::<VolumeName>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(!text.is_empty() && !text.starts_with('.') && !text.contains('/'));
                prop_assert!(".~".len() + name.marker().len() <= 255);
                prop_assert_eq!(VolumeName::of_marker(&name.marker()), Some(name));
            } else {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                prop_assert!(text.is_empty() || text.len() > 248 || text.starts_with('.')
                    || !text.chars().all(plain));
            }
        }
    }

    #[test]
    fn markers_come_back_sorted_and_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let longest = "v".repeat(VolumeName::MAX);
        for name in ["b", &longest, "a.done", "a"] {
            write(dir.path(), &volume(name), &ok(name)).unwrap();
        }
        write(dir.path(), &volume("b"), &Report::new("b", ExitCode::Partial, "again")).unwrap();

        let markers = read_all(dir.path()).unwrap();
        let names: Vec<_> = markers.iter().map(|(volume, _)| volume.as_str()).collect();
        assert_eq!(names, ["a", "a.done", "b", &longest]);
        assert!(markers[0].1.is_success());
        assert_eq!(markers[2].1.exit_code, ExitCode::Partial);
        let mode = fs::metadata(dir.path().join("a.done")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "temporary files left");
    }

    #[test]
    fn garbage_counts_as_a_failed_run() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cut.done"), r#"{"outcome":"completed","exit_"#).unwrap();
        fs::write(dir.path().join("empty.done"), "").unwrap();
        fs::create_dir(dir.path().join("dir.done")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("link.done")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = dir.path().join("fifo.done");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let no_text = b"{\"outcome\":\"completed\",\"exit_code\":0,\"later\":\"\xd6\"}";
        fs::write(dir.path().join("no-text.done"), no_text).unwrap();
        let markers = read_all(dir.path()).unwrap();
        assert_eq!(markers.len(), 6);
        for (volume, report) in markers {
            assert_eq!(report.outcome, Outcome::Failed, "{volume}");
            assert_eq!(report.exit_code, ExitCode::FileIo, "{volume}");
        }
    }

    #[test]
    fn other_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.done~", ".done", ".a.done", "a.done~", "tunnel.status", "ü.done"] {
            fs::write(dir.path().join(name), ok("a").to_json()).unwrap();
        }
        assert_eq!(read_all(dir.path()).unwrap(), []);
        assert!(read_all(&dir.path().join("none")).is_err());
    }

    #[test]
    fn clear_removes_only_the_own_marker() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &volume("a"), &ok("a")).unwrap();
        write(dir.path(), &volume("b"), &ok("b")).unwrap();
        fs::write(dir.path().join(".a.done~"), "half").unwrap();
        clear(dir.path(), &volume("a")).unwrap();
        clear(dir.path(), &volume("a")).unwrap();
        let left: Vec<_> = names(dir.path()).unwrap();
        assert_eq!(left, ["b.done"]);
    }

    #[test]
    fn a_stale_temporary_file_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join(".a.done~")).unwrap();
        write(dir.path(), &volume("a"), &ok("a")).unwrap();
        assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
        assert!(read_all(dir.path()).unwrap()[0].1.is_success());
    }

    #[test]
    fn a_marker_is_never_too_long_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = Report::new("a", ExitCode::Partial, "much left out");
        let error = EntryError { name: "n".repeat(255).into(), what: "permission denied".into() };
        report.errors = vec![error; 10_000];
        write(dir.path(), &volume("a"), &report).unwrap();
        let read = &read_all(dir.path()).unwrap()[0].1;
        assert_eq!(read.exit_code, ExitCode::Partial);
        assert!(read.errors_omitted > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_marker() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(wait_for(dir.path(), 0, POLL_INTERVAL).await.unwrap(), []);
        write(dir.path(), &volume("a"), &ok("a")).unwrap();
        let waiting = wait_for(dir.path(), 2, POLL_INTERVAL);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_secs(5), &mut waiting).await;
        assert!(early.is_err(), "one marker is not two");
        write(dir.path(), &volume("b"), &ok("b")).unwrap();
        assert_eq!(waiting.await.unwrap().len(), 2);
    }
}
