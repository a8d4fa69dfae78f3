//! The one error of this crate: an operation, the entry it was about, and what the kernel said.

use rustix::io::Errno;

/// Result of an operation on a volume.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The operation of errors with entries that changed while they were read.
pub(crate) const CHANGED: &str = "changed while it was read";

/// That of directories that changed while they were listed.
pub(crate) const CHANGED_LISTING: &str = "changed every time it was listed";

/// That of files whose reading ends before their size, or goes on after it.
pub(crate) const LESS_CONTENT: &str = "has less content than its reported size";
pub(crate) const MORE_CONTENT: &str = "has more content than its reported size";

/// That of entries of which a part cannot be known.
pub(crate) const UNKNOWN_OWNER: &str =
    "its owner or group is not mapped in this user namespace and not kept";
pub(crate) const UNKNOWN_RIGHTS: &str =
    "its owner or group may not be mapped here: set-id bits and file capabilities are not kept";
pub(crate) const UNKNOWN_ACL: &str = "its ACL names users or groups that are not mapped here";

/// That of directories that are to be deleted and on which something is mounted.
pub(crate) const MOUNTED: &str = "not deleted: a file system is mounted there";

/// Operations whose text is the whole message. Their error number only classifies them: the kernel did not report it.
const SENTENCES: [&str; 8] = [
    CHANGED,
    CHANGED_LISTING,
    LESS_CONTENT,
    MORE_CONTENT,
    UNKNOWN_OWNER,
    UNKNOWN_RIGHTS,
    UNKNOWN_ACL,
    MOUNTED,
];

/// A failed operation on one entry of a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {}", self.what())]
pub struct Error {
    /// What was tried, in the words of the system call: `open`, `rename`, `set owner`.
    pub operation: &'static str,
    /// The entry, relative to the root of the volume and escaped for display; `.` is the root.
    pub name: String,
    /// What the kernel answered.
    pub errno: Errno,
    /// It happened in a subvolume of the volume, which has a state and quotas of its own.
    pub subvolume: bool,
}

impl Error {
    /// An error of `operation` on the entry displayed as `name`.
    pub fn new(operation: &'static str, name: impl Into<String>, errno: Errno) -> Self {
        Self { operation, name: name.into(), errno, subvolume: false }
    }

    /// What failed and why, without the entry: `open: Permission denied`.
    #[must_use]
    pub fn what(&self) -> String {
        if SENTENCES.contains(&self.operation) {
            return self.operation.to_owned();
        }
        format!("{}: {}", self.operation, reason(self.errno))
    }

    /// True if the entry no longer exists: it was removed while the run was reading. Only `ENOENT` says so. `ESTALE`,
    /// `ENOTDIR`, `EACCES` or `EIO` say that the entry cannot be reached, and it may well exist.
    #[must_use]
    pub fn is_vanished(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// True where the entry changed while it was read: reading it again may help.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        [CHANGED, CHANGED_LISTING].contains(&self.operation)
    }

    /// True where the volume itself can take no more: full, over quota, read-only or broken. To go
    /// on with other entries is of no use then. A subvolume that is read-only or over its quota says nothing of the rest.
    #[must_use]
    pub fn is_volume_failure(&self) -> bool {
        match self.errno {
            Errno::DQUOT | Errno::ROFS => !self.subvolume,
            errno => matches!(errno, Errno::NOSPC | Errno::IO | Errno::NODEV),
        }
    }
}

/// What the kernel answered, in its words. The number adds nothing to them for a user.
#[must_use]
pub fn reason(errno: Errno) -> String {
    let mut text = errno.to_string();
    if let Some(number) = text.find(" (os error ") {
        text.truncate(number);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_shown_with_the_words_of_the_kernel_and_without_its_number() {
        let error = Error::new("open", "a/b", Errno::ACCESS);
        assert_eq!(error.to_string(), "a/b: open: Permission denied");
        assert_eq!(error.what(), "open: Permission denied");
    }

    #[test]
    fn error_that_this_program_found_is_shown_without_words_of_the_kernel() {
        assert_eq!(Error::new(CHANGED, "a", Errno::AGAIN).to_string(), format!("a: {CHANGED}"));
    }

    #[test]
    fn enoent_alone_means_vanished() {
        let vanished: Vec<_> = (1..=133)
            .map(Errno::from_raw_os_error)
            .filter(|&errno| Error::new("stat", "x", errno).is_vanished())
            .collect();
        assert_eq!(vanished, [Errno::NOENT]);
    }
}
