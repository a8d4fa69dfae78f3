//! What a session tells its watchers while it runs.
//!
//! [`Progress`] is a set of counters that anyone may poll; [`Monitor`] is called on rare events. No
//! one here prints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one session, shared by all its threads. All only grow.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// The walk is complete: the totals no longer grow.
            pub listing_complete: AtomicBool,
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// The walk is complete: the totals no longer grow.
            pub listing_complete: bool,
        }

        impl Progress {
            /// Reads all counters.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.load(Relaxed),)*
                    listing_complete: self.listing_complete.load(Relaxed),
                }
            }
        }
    };
}

counters! {
    /// Entries settled: written, found unchanged or given up.
    entries,
    /// Entries found by the walk so far.
    entries_total,
    /// Entries made or whose content was written.
    files_written,
    /// Entries removed.
    files_deleted,
    /// Logical bytes of regular files found so far.
    bytes_total,
    /// Of these, bytes of settled entries, and of files on their way what has gone.
    bytes_done,
    /// Bytes of content that travelled.
    bytes_literal,
    /// Bytes of content that the receiver had already, in files that are whole now. A sender learns it from the commit record.
    bytes_matched,
    /// Bytes that are holes.
    bytes_hole,
    /// Bytes handed to the connections, framing included: the rest of them waits to be sent.
    wire_queued,
    /// Bytes sent, framing included.
    wire_sent,
    /// Bytes received, framing included.
    wire_received,
    /// Errors of entries; an entry may have several.
    errors,
    /// Entries of the source that are left out by design, each reported once.
    skipped,
}

impl Snapshot {
    /// Bytes of content that wait to be sent, by the share of content in all that was handed to the connections.
    #[must_use]
    pub fn bytes_unsent(&self) -> u64 {
        let (queued, literal) = (u128::from(self.wire_queued), u128::from(self.bytes_literal));
        let waiting = queued.saturating_sub(u128::from(self.wire_sent));
        let unsent = (waiting * literal).checked_div(queued).unwrap_or(0);
        u64::try_from(unsent).unwrap_or(u64::MAX)
    }
}

/// The phases of a session, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reaching the peer.
    Connect,
    /// Listing, comparing and moving content.
    Transfer,
    /// Links, removals and the metadata of directories.
    Finish,
    /// Waiting for the disk.
    Flush,
    /// Reading both trees again.
    Verify,
}

/// Watches a session. Names are escaped already.
pub trait Monitor: Send + Sync {
    /// A phase begins.
    fn phase(&self, _phase: Phase) {}
    /// Something went wrong with one entry.
    fn error(&self, _name: &str, _what: &str) {}
    /// An entry of the source is left out by design. Not an error.
    fn skipped(&self, _name: &str, _why: &str) {}
    /// Something was done, or would be: one line for people.
    fn action(&self, _line: &str) {}
}

/// Watches nothing.
impl Monitor for () {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_content_that_waits_is_that_of_what_was_queued() {
        let at = |wire_queued, wire_sent, bytes_literal| {
            Snapshot { wire_queued, wire_sent, bytes_literal, ..Snapshot::default() }.bytes_unsent()
        };
        assert_eq!((at(0, 0, 0), at(0, 9, 5)), (0, 0));
        assert_eq!(at(100, 40, 100), 60);
        assert_eq!(at(100, 40, 1000), 600, "compressed");
        assert_eq!(at(100, 120, 100), 0, "pings are not queued");
        assert_eq!(at(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}
