//! A snapshot: what its file says.

use rustic_core::{TreeId, repofile::SnapshotFile};

use crate::retention::Moment;

/// A snapshot as it is listed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) file: SnapshotFile,
}

impl Snapshot {
    /// The id in hexadecimal; that of zeros before the snapshot is saved.
    #[must_use]
    pub fn id(&self) -> String {
        self.file.id.to_hex().to_string()
    }

    /// When it was made, as RFC 3339.
    #[must_use]
    pub fn time(&self) -> String {
        self.file.time.timestamp().to_string()
    }

    /// When it was made, in its own time zone.
    pub(crate) fn moment(&self) -> Moment {
        let time = &self.file.time;
        let week = time.date().iso_week_date();
        Moment {
            year: time.year(),
            month: time.month(),
            day: time.day(),
            hour: time.hour(),
            week: (week.year(), week.week()),
        }
    }

    /// The host that it is of.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.file.hostname
    }

    /// The paths that it is of.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.file.paths.iter().cloned().collect()
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.file.tags.iter().cloned().collect()
    }

    /// True where this program made it: its path leads to the root of the volume then.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.file.program_version.starts_with("pvferry ")
    }

    /// Bytes that it added to the repository, compressed.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.file.summary.as_ref().map_or(0, |summary| summary.data_added_packed)
    }

    /// Adds a tag.
    pub(crate) fn tag(&mut self, tag: &str) {
        self.file.tags.add(tag.to_owned());
    }

    pub(crate) fn tree(&self) -> TreeId {
        self.file.tree
    }
}
