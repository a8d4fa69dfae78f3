//! The lock that a transfer holds on its volume.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

/// Waits until no transfer writes to the volume at `path`.
///
/// # Panics
/// Where one still does after 30 s.
#[track_caller]
pub fn wait_until_free(path: &Path) {
    let root = File::open(path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while flock(&root, FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(Instant::now() < deadline, "{} stays locked", path.display());
        thread::sleep(Duration::from_millis(1));
    }
}
