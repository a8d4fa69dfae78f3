//! Whether a directory was at rest while it was listed.
//!
//! A listing of a directory that changes meanwhile may lack names that exist all the time: Btrfs gives a file that is
//! renamed over another a new place behind the end that the listing goes to. A change sets the time of change of the
//! directory to the time of the kernel's clock tick. So a directory was at rest where that time is before the listing
//! began, or later than now, as after a clock was set back.
//!
//! The times of other file systems may come from another clock. There it is compared before and after.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::{
    fs::{self, AtFlags, StatxFlags},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use wire::Timestamp;

use crate::{Dir, Result, error::CHANGED_LISTING, flush, list::NameList, stat};

/// How often a directory that changes is listed, and how long the first pause is. It doubles: together more than two
/// ticks of the slowest clock, so that a change just before the listing does not count as one during it.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(1);

impl NameList {
    /// As [`NameList::read`], of a directory that others may change meanwhile: it is listed again then. Where it never
    /// holds still, the list is not [complete](NameList::complete).
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn read_settled(dir: &Dir) -> Result<(Self, Since)> {
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let since = Since::now(dir)?;
            let names = Self::read(dir)?;
            if !names.complete() || since.at_rest(dir)? {
                return Ok((names, since));
            }
            if tries == TRIES {
                let error = dir.own_error(CHANGED_LISTING, Errno::AGAIN);
                return Ok((names.failed(error), since));
            }
            std::thread::sleep(pause);
            (tries, pause) = (tries + 1, pause * 2);
        }
    }
}

/// When a listing began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// By the clock that the file system takes its times from.
    Clock(Timestamp),
    /// By the time of change that the directory had.
    Change(Timestamp),
}

impl Since {
    fn now(dir: &Dir) -> Result<Self> {
        if flush::is_local(dir)? && !dir.in_subvolume() {
            let tick = clock_gettime(ClockId::RealtimeCoarse);
            return Ok(Self::Clock(Timestamp {
                secs: tick.tv_sec,
                nanos: u32::try_from(tick.tv_nsec).unwrap_or(0),
            }));
        }
        change_time(dir).map(Self::Change)
    }

    /// True where no name has come to `dir`, or left it, since then.
    ///
    /// # Errors
    /// Where the directory cannot be opened or looked at.
    pub fn at_rest(&self, dir: &Dir) -> Result<bool> {
        Ok(match self {
            Self::Clock(begun) => {
                let changed = local_change_time(dir)?;
                changed < *begun || changed > now()
            }
            Self::Change(before) => change_time(dir)? == *before,
        })
    }

    /// True where one of `names` may have been moved or linked into `dir` since then, and not made: it existed when `began`
    /// was taken. A rename changes the time of change of what it moves. Where times cannot be compared, every name may.
    ///
    /// # Errors
    /// Where the directory or an entry cannot be looked at.
    pub fn moved_in(&self, dir: &Dir, names: &NameList, began: &Self) -> Result<bool> {
        let (Self::Clock(since), Self::Clock(began)) = (self, began) else { return Ok(true) };
        let held = dir.descriptor()?;
        let wanted = StatxFlags::CTIME | StatxFlags::BTIME;
        for name in (0..names.len()).filter_map(|index| names.name(index)) {
            let stat = match fs::statx(&held, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW, wanted) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(dir.error("stat", &name, errno)),
            };
            let born = (stat.stx_mask & StatxFlags::BTIME.bits() != 0)
                .then(|| stat::timestamp(stat.stx_btime));
            let is_new = born.is_some_and(|born| born >= *began);
            if stat::timestamp(stat.stx_ctime) >= *since && !is_new {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn local_change_time(dir: &Dir) -> Result<Timestamp> {
    let stat = fs::fstat(dir.descriptor()?).map_err(|errno| dir.own_error("stat", errno))?;
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
    Ok(Timestamp { secs: stat.st_ctime, nanos })
}

/// Asks the server of a network file system.
fn change_time(dir: &Dir) -> Result<Timestamp> {
    let flags = AtFlags::EMPTY_PATH | stat::UNCACHED;
    let stat = fs::statx(dir.descriptor()?, c"", flags, StatxFlags::CTIME);
    stat.map(|stat| stat::timestamp(stat.stx_ctime)).map_err(|errno| dir.own_error("stat", errno))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}
