//! What a session did.

use wire::{ManifestDigest, Text};

/// Something that was not transferred as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry, escaped for display.
    pub name: Text,
    /// What happened.
    pub what: Text,
    /// The exit code that this alone gives.
    pub exit_code: u8,
}

/// The outcome of a session that reached its commit record.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Entries of the source, the root not counted.
    pub entries: u64,
    /// Entries made or whose content was written.
    pub files_written: u64,
    /// Entries removed.
    pub files_deleted: u64,
    /// Entries of the source that were left out by design: mount points, `lost+found`.
    pub skipped: u64,
    /// Every directory of the source was listed to its end.
    pub all_listed: bool,
    /// Logical bytes of the regular files of the source.
    pub bytes_total: u64,
    /// Bytes of content that travelled.
    pub bytes_literal: u64,
    /// Bytes of content that the receiver had already, in files that are whole now.
    pub bytes_matched: u64,
    /// Bytes sent, framing included.
    pub wire_sent: u64,
    /// Bytes received, framing included.
    pub wire_received: u64,
    /// Longest chain of messages that each waited for the one before, in round trips.
    pub round_trips: u32,
    /// The digest of the manifest.
    pub digest: ManifestDigest,
    /// The digest of the whole tree, if verification was asked for.
    pub tree_digest: Option<ManifestDigest>,
    /// What went wrong with single entries, in the order it was noticed; the first thousand.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problem_count: u64,
    /// The session was a dry run: nothing was transferred.
    pub dry_run: bool,
    /// 0, or the worst exit code among the problems.
    pub exit_code: u8,
    /// What the receiver cannot keep, one sentence each.
    pub losses: Vec<Text>,
}

/// The exit code of an entry that changed or vanished at the source during the session. A session in which nothing else went wrong
/// ends with it, and then the manifests of both ends agree on all other entries.
pub(crate) const SOURCE_CHANGED: u8 = 24;

/// Problems that are kept with their names.
const MAX_NAMED: usize = 1000;

/// Problems with single entries, as far as they are kept.
#[derive(Default)]
pub(crate) struct Problems {
    pub(crate) named: Vec<Problem>,
    pub(crate) count: u64,
    pub(crate) worst: u8,
}

impl Problems {
    pub(crate) fn add(&mut self, name: &str, what: &str, exit_code: u8) {
        self.count += 1;
        self.worst = worse(self.worst, exit_code);
        if self.named.len() < MAX_NAMED {
            self.named.push(Problem { name: name.into(), what: what.into(), exit_code });
        }
    }

    /// True where nothing failed, and the trees differ by what only the destination has.
    pub(crate) fn are_only_kept(&self) -> bool {
        let is_kept = |problem: &Problem| problem.what.contains(ONLY_AT_DESTINATION);
        self.count > 0 && self.count == self.named.len() as u64 && self.named.iter().all(is_kept)
    }
}

/// What a verification says of entries that the source does not have. By these words the sender knows that nothing failed.
pub(crate) const ONLY_AT_DESTINATION: &str = "only at the destination, so the trees differ";

/// The worse of two codes that a finished session may give: a changed source is less than a partial
/// transfer, that less than a deletion limit, and a volume that failed is worst.
pub(crate) fn worse(a: u8, b: u8) -> u8 {
    let rank = |code| match code {
        0 => 0,
        SOURCE_CHANGED => 1,
        23 => 2,
        25 => 3,
        _ => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}
