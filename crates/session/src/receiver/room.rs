//! Room on the volume: where content may not fit beside what `--delete` removes, deletions come first.
//!
//! Deletions wait for the end, so that renamed files are found among what would be removed. A volume that is more than
//! half full and whose files all get new names has no room for both, now or in any later run. So:
//!
//! * Files that are missing and may not fit into what was free at the start are asked for when everything is listed. What
//!   is extraneous is removed before, once renamed files have been found.
//! * Where a write finds the volume full after that, what is extraneous is removed then, and the write is tried again.
//! * Where a write finds it full while listings still come, the entry is reported and the run goes on: it makes room, and
//!   the next run has it. Where there is nothing to remove, the run ends like any other on a full volume.
//!
//! Nothing is removed before every listing has come and is complete, nor where `--max-delete` forbids a part of it, nor in
//! vain: where what is extraneous takes less than is missing. A quota is not seen beforehand.
//!
//! A session that does not delete warns once where the files that it is going to write are larger than what was free at its
//! start. It goes on: holes, compression and shared blocks may let them fit.

use std::{
    collections::HashSet,
    sync::atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread::{self, ThreadId},
};

use parking_lot::Mutex;
use rustix::io::Errno;
use volume::Dir;

use super::{deletions, state::Shared};
use crate::{control::Stopped, fault::Fault};

/// For the staging directory and for files that are built beside.
const SPARE_INODES: u64 = 32;

/// What a session knows of the room on its volume.
pub(super) struct Room {
    /// Bytes and inodes that are free beside what was asked for.
    bytes: AtomicI64,
    inodes: AtomicI64,
    /// Everything is listed. Set while `full` is locked.
    listed: AtomicBool,
    full: Mutex<Full>,
    /// How often deletions made room.
    made: AtomicU64,
    making: Mutex<()>,
}

/// Writes that found the volume full while listings came.
#[derive(Default)]
struct Full {
    first: Option<volume::Error>,
    /// Threads that are about to report one. Everything may be listed before they do.
    reporting: HashSet<ThreadId>,
}

/// What is expected to be written, beside what was free at the start.
#[derive(Default)]
pub(super) struct Forecast {
    free: Option<u64>,
    expected: AtomicU64,
}

impl Forecast {
    /// `root` is the volume of a session that does not delete.
    pub(super) fn new(root: Option<&Dir>) -> Self {
        let stat = root.and_then(|root| rustix::fs::fstatvfs(root.descriptor().ok()?).ok());
        let free = stat.map(|stat| stat.f_bfree.saturating_mul(stat.f_frsize));
        // A file system that counts no blocks has none that are free.
        Self { free: free.filter(|&free| free > 0), expected: AtomicU64::new(0) }
    }

    /// Adds `bytes`; answers all that is expected and what was free, where that is too little by these bytes.
    fn add(&self, bytes: u64) -> Option<(u64, u64)> {
        let free = self.free?;
        let before = self.expected.fetch_add(bytes, Relaxed);
        let expected = before.saturating_add(bytes);
        (before <= free && expected > free).then_some((expected, free))
    }
}

/// More `bytes` are going to be written. Warns where they may not fit.
pub(super) fn expect(shared: &Shared, bytes: u64) -> Result<(), Stopped> {
    let Some((expected, free)) = shared.forecast.add(bytes) else { return Ok(()) };
    shared.note(&format!(
        "the destination may be too small: {:.1} MiB are to be written, {:.1} MiB were free at the start",
        mebibytes(expected),
        mebibytes(free),
    ))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What entries take, or what is free when they are removed.
#[derive(Clone, Copy, Default)]
pub(super) struct Takes {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl Room {
    /// `root` is the volume of a session that deletes.
    pub(super) fn new(root: Option<&Dir>) -> Self {
        let stat = root.and_then(|root| rustix::fs::fstatvfs(root.descriptor().ok()?).ok());
        let bytes = stat.as_ref().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        // Some file systems make inodes as they are needed, and have none to count.
        let inodes = stat.filter(|stat| stat.f_files > 0).map(|stat| stat.f_favail);
        Self {
            bytes: AtomicI64::new(bytes.map_or(i64::MAX, signed)),
            inodes: AtomicI64::new(inodes.map_or(i64::MAX, signed)),
            listed: AtomicBool::new(false),
            full: Mutex::default(),
            made: AtomicU64::new(0),
            making: Mutex::default(),
        }
    }

    /// Takes room; false where there may be too little.
    pub(super) fn claim(&self, takes: Takes) -> bool {
        let claim = |of: &AtomicI64, takes| {
            let takes = signed(takes);
            of.update(Relaxed, Relaxed, |left| left.saturating_sub(takes)) >= takes
        };
        let bytes = claim(&self.bytes, takes.bytes);
        claim(&self.inodes, takes.inodes) && bytes
    }

    /// More may come than there is room for.
    pub(super) fn is_short(&self) -> bool {
        self.bytes.load(Relaxed) < 0 || self.inodes.load(Relaxed) < 0
    }

    /// True where all that comes has room once `freed` is.
    fn suffices(&self, freed: Takes) -> bool {
        let enough = |of: &AtomicI64, freed| of.load(Relaxed).saturating_add(signed(freed)) >= 0;
        freed.inodes > 0
            && enough(&self.bytes, freed.bytes)
            && enough(&self.inodes, freed.inodes.saturating_sub(SPARE_INODES))
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// True where deletions may make the room that `error` says is missing.
fn is_full(error: &volume::Error) -> bool {
    matches!(error.errno, Errno::NOSPC | Errno::DQUOT)
}

/// Puts off `error`, of an entry that did not fit while listings still come. False where the session has to end with it.
pub(super) fn put_off(shared: &Shared, error: &volume::Error) -> bool {
    if !(deletes(shared) && is_full(error)) {
        return false;
    }
    let mut full = shared.room.full.lock();
    let waits = full.reporting.remove(&thread::current().id()) || !shared.room.listed.load(Relaxed);
    if waits {
        full.first.get_or_insert_with(|| error.clone());
    }
    waits
}

/// True where a write that did not fit is to be tried again, because everything was listed meanwhile. Otherwise this thread
/// reports it next, and [`put_off`] still knows that it was too early to make room.
fn is_late(shared: &Shared, error: &volume::Error, was_listed: bool) -> bool {
    if was_listed || !deletes(shared) {
        return false;
    }
    let mut full = shared.room.full.lock();
    if shared.room.listed.load(Relaxed) {
        return true;
    }
    full.first.get_or_insert_with(|| error.clone());
    full.reporting.insert(thread::current().id());
    false
}

/// Everything is listed and renamed files are found: makes room where more may come than fits.
pub(super) fn all_listed(shared: &Shared) -> Result<(), Stopped> {
    let room = &shared.room;
    let full = {
        let full = room.full.lock();
        room.listed.store(true, Relaxed);
        full.first.clone()
    };
    if full.is_none() && !room.is_short() {
        return Ok(());
    }
    let made = make(shared, 0)?;
    match full {
        Some(error) if !made => {
            shared.control.fail(crate::Error::Volume(error));
            Err(Stopped)
        }
        // Only now it is known that another run helps.
        Some(_) => shared.note("deletions have made room for entries that did not fit: run again"),
        None => Ok(()),
    }
}

/// Runs `write`, and again where deletions could make the room that it lacks.
pub(super) fn with_room<T>(
    shared: &Shared,
    mut write: impl FnMut() -> volume::Result<T>,
) -> Result<T, Fault> {
    loop {
        let seen = shared.room.made.load(Acquire);
        let was_listed = shared.room.listed.load(Relaxed);
        match write() {
            Err(error)
                if is_full(&error)
                    && (make(shared, seen)? || is_late(shared, &error, was_listed)) => {}
            other => return Ok(other?),
        }
    }
}

/// Removes what is extraneous, unless that happened since `seen`. False where nothing may be removed.
fn make(shared: &Shared, seen: u64) -> Result<bool, Stopped> {
    let room = &shared.room;
    let _one_at_a_time = room.making.lock();
    if room.made.load(Acquire) != seen {
        return Ok(true);
    }
    let may = deletes(shared)
        && room.listed.load(Relaxed)
        && !shared.sender_failed.load(Relaxed)
        && !shared.deletions.are_suspended()
        && deletions::would_free(shared).is_some_and(|freed| room.suffices(freed));
    if may && deletions::delete(shared)? {
        room.made.fetch_add(1, Release);
        return Ok(true);
    }
    Ok(false)
}

fn deletes(shared: &Shared) -> bool {
    shared.options().delete && !shared.dry_run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_warns_once_and_only_where_more_is_expected_than_was_free() {
        let forecast = Forecast { free: Some(100), expected: AtomicU64::new(0) };
        let warnings = [60, 40, 1, 500].map(|bytes| forecast.add(bytes));
        assert_eq!(warnings, [None, None, Some((101, 100)), None]);
        assert_eq!(Forecast::default().add(u64::MAX), None, "where nothing is known");
    }
}
