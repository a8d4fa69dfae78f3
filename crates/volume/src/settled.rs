//! Whether a directory was at rest while it was listed.
//!
//! A listing of a directory that changes meanwhile may lack names that exist all the time: Btrfs gives a file that is
//! renamed over another a new place behind the end that the listing goes to. A change sets the time of change of the
//! directory to the time of the kernel's clock tick. So a directory was at rest where that time is before the listing
//! began, or later than now, as after a clock was set back.
//!
//! The times of other file systems may come from another clock. There it is compared before and after.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::{
    fs::{self, AtFlags, FileType, StatxAttributes, StatxFlags},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use wire::{Name, Timestamp};

use crate::{Dir, Result, error::CHANGED_LISTING, flush, list::NameList, stat};

/// How often a directory that changes is listed, and how long the first pause is. It doubles: together more than two
/// ticks of the slowest clock, so that a change just before the listing does not count as one during it.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Two ticks of the slowest clock, after which it has been set back, and how often it is asked.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
const TICK_CHECK: Duration = Duration::from_micros(250);

/// When a directory was listed.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When that began.
    pub since: Since,
    /// The times that belong to the names. `None` where they are not complete.
    pub times: Option<Times>,
}

impl NameList {
    /// As [`NameList::read`], of a directory that others may change meanwhile: it is listed again then. Where it never
    /// holds still, the list is not [complete](NameList::complete).
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn read_settled(dir: &Dir) -> Result<(Self, Moment)> {
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let since = Since::now(dir)?;
            let names = Self::read(dir)?;
            if !names.complete() {
                return Ok((names, Moment { since, times: None }));
            }
            let times = since.times(dir)?;
            if since.at_rest_by(times) {
                return Ok((names, Moment { since, times: Some(times) }));
            }
            if tries == TRIES {
                let error = dir.own_error(CHANGED_LISTING, Errno::AGAIN);
                return Ok((names.failed(error), Moment { since, times: None }));
            }
            std::thread::sleep(pause);
            (tries, pause) = (tries + 1, pause * 2);
        }
    }
}

/// Waits until the clock that local file systems take their times from has come to the present. Then what existed before has earlier
/// times than what is made later: a time can be finer than a tick, and an idle kernel is behind with its ticks.
pub fn wait_for_tick() {
    let now = |clock| {
        let time = clock_gettime(clock);
        (time.tv_sec, time.tv_nsec)
    };
    let (present, started) = (now(ClockId::Realtime), Instant::now());
    while now(ClockId::RealtimeCoarse) <= present && started.elapsed() < LONGEST_WAIT {
        std::thread::sleep(TICK_CHECK);
    }
}

/// The coarsest unit of times, that of FAT, in seconds.
const WHOLE_SECONDS: i64 = 2;

/// When a listing began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// By the clock that the file system takes its times from.
    Clock(Timestamp),
    /// By the time of change that the directory had, and whether that was so recent that a later change could have the same.
    Change(Timestamp, bool),
}

impl Since {
    /// The present, in terms of the file system of `dir`.
    ///
    /// # Errors
    /// Where the directory cannot be opened or looked at.
    pub fn now(dir: &Dir) -> Result<Self> {
        if flush::is_local(dir)? && !dir.in_subvolume() {
            let tick = clock_gettime(ClockId::RealtimeCoarse);
            return Ok(Self::Clock(Timestamp {
                secs: tick.tv_sec,
                nanos: u32::try_from(tick.tv_nsec).unwrap_or(0),
            }));
        }
        let recent = now().secs - WHOLE_SECONDS;
        Times::of(dir).map(|Times { changed, .. }| Self::Change(changed, changed.secs >= recent))
    }

    /// True where no name has come to `dir`, or left it, since then.
    ///
    /// # Errors
    /// Where the directory cannot be opened or looked at.
    pub fn at_rest(&self, dir: &Dir) -> Result<bool> {
        self.times(dir).map(|times| self.at_rest_by(times))
    }

    /// As [`Since::at_rest`], of a directory that has these times now.
    fn at_rest_by(&self, Times { changed, .. }: Times) -> bool {
        match self {
            Self::Clock(begun) => changed < *begun || changed > now(),
            Self::Change(before, _) => changed == *before,
        }
    }

    /// The times of `dir`, from where they can be compared.
    fn times(&self, dir: &Dir) -> Result<Times> {
        match self {
            Self::Clock(_) => Times::local(dir),
            Self::Change(..) => Times::of(dir),
        }
    }

    /// As [`Since::at_rest`], where a doubt is to be looked into: true only if no change can hide in the unit that the file
    /// system keeps times in, which may be two seconds.
    ///
    /// # Errors
    /// As [`Since::at_rest`].
    pub fn surely_at_rest(&self, dir: &Dir) -> Result<bool> {
        Ok(match self {
            Self::Clock(begun) => is_surely_before(Times::local(dir)?.changed, *begun),
            Self::Change(before, recent) => {
                !recent && before.nanos != 0 && Times::of(dir)?.changed == *before
            }
        })
    }

    /// True where the entry `name` of `dir` has changed since then, by a clock that can be compared.
    ///
    /// # Errors
    /// Whatever `statx(2)` answers.
    pub fn may_have_changed(&self, dir: &Dir, name: &Name) -> Result<bool> {
        let Self::Clock(begun) = self else { return Ok(false) };
        Ok(Seen::look(dir, name)?.is_some_and(|seen| seen.changed >= *begun))
    }

    /// True where `time` can be compared and is surely before this one.
    #[must_use]
    pub fn is_surely_after(&self, time: Timestamp) -> bool {
        matches!(self, Self::Clock(begun) if is_surely_before(time, *begun))
    }

    /// True where one of `names`, which `dir` has gained since then, may have been moved or linked there and not made, and is in no
    /// listing: it, or something in it, existed when the run began. Where times cannot be compared, every name may. What was not
    /// compared with the listing (`compared`) counts only if its time of change says so: a rename sets that.
    ///
    /// # Errors
    /// Where the directory or an entry cannot be looked at.
    pub fn moved_in(
        &self,
        dir: &Dir,
        names: impl Iterator<Item = Name>,
        compared: bool,
        run: &mut Listings<'_>,
    ) -> Result<bool> {
        let (Self::Clock(since), Self::Clock(began)) = (self, run.began) else {
            return Ok(names.count() > 0);
        };
        for name in names {
            let Some(seen) = Seen::look(dir, &name)? else { continue };
            if !compared && seen.changed < *since {
                continue;
            }
            if seen.is_older(began, run) {
                return Ok(true);
            }
            if seen.is_dir {
                match dir.open_child(&name) {
                    Ok(inside) if holds_missed(&inside, began, run)? => return Ok(true),
                    Err(error) if !error.is_vanished() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// The same of `dir`, which has the place of another directory, and of all that is in it.
    ///
    /// # Errors
    /// As [`Since::moved_in`].
    pub fn is_moved_in(&self, dir: &Dir, run: &mut Listings<'_>) -> Result<bool> {
        let (Self::Clock(_), Self::Clock(began)) = (self, run.began) else { return Ok(true) };
        match Seen::of(dir)? {
            Some(seen) => Ok(seen.is_older(began, run) || holds_missed(dir, began, run)?),
            None => Ok(true),
        }
    }
}

/// What is known of a run when its directories are looked at again.
pub struct Listings<'a> {
    /// When it began.
    pub began: Since,
    /// True where the inode of this number, of the device of the root, was listed under each name that it had.
    pub has: &'a dyn Fn(u64) -> bool,
    /// True for an entry of the directory that is left out; the last one says whether it is a directory.
    pub excludes: &'a dyn Fn(&Dir, &Name, bool) -> bool,
    /// Told each directory that is looked into below the one that was asked about.
    pub enters: &'a mut dyn FnMut(&Dir),
}

/// True where an entry in `dir`, all of which came there, is missed: what is old can lie in a directory that is new, or that was
/// listed at another place.
fn holds_missed(dir: &Dir, began: Timestamp, run: &mut Listings<'_>) -> Result<bool> {
    let mut below: Vec<(Dir, Name)> = Vec::new();
    let mut entered = Some(dir.clone());
    loop {
        if let Some(dir) = entered {
            (run.enters)(&dir);
            let names = NameList::read(&dir)?;
            for name in (0..names.len()).filter_map(|index| names.name(index)) {
                let Some(seen) = Seen::look(&dir, &name)? else { continue };
                if (run.excludes)(&dir, &name, seen.is_dir) {
                    continue;
                }
                if seen.is_older(began, run) {
                    return Ok(true);
                }
                if seen.is_dir {
                    below.push((dir.clone(), name));
                }
            }
            if !names.complete() {
                return Ok(true);
            }
        }
        let Some((dir, name)) = below.pop() else { return Ok(false) };
        entered = match dir.open_child(&name) {
            Ok(inside) => Some(inside),
            Err(error) if error.is_vanished() => None,
            Err(error) => return Err(error),
        };
    }
}

/// True where no change can hide in the unit that the file system keeps times in.
fn is_surely_before(time: Timestamp, begun: Timestamp) -> bool {
    let whole = time.nanos == 0;
    time < begun && !(whole && time.secs + WHOLE_SECONDS > begun.secs)
}

/// True where `dir` is the root of a mount.
///
/// # Errors
/// Where it cannot be opened or looked at.
pub fn is_mounted(dir: &Dir) -> Result<bool> {
    let flags = AtFlags::EMPTY_PATH | stat::UNCACHED;
    let stat = fs::statx(dir.descriptor()?, c"", flags, StatxFlags::TYPE);
    let stat = stat.map_err(|errno| dir.own_error("stat", errno))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// An entry.
struct Seen {
    /// Its number, where that is one of the device of the root.
    inode: Option<u64>,
    changed: Timestamp,
    /// `None` where the file system does not keep it.
    born: Option<Timestamp>,
    is_dir: bool,
}

impl Seen {
    /// `None` where there is no such entry any more.
    fn look(dir: &Dir, name: &Name) -> Result<Option<Self>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::ask(dir, name.as_bytes(), flags).map_err(|errno| dir.error("stat", name, errno))
    }

    /// The directory itself.
    fn of(dir: &Dir) -> Result<Option<Self>> {
        Self::ask(dir, b"", AtFlags::EMPTY_PATH).map_err(|errno| dir.own_error("stat", errno))
    }

    fn ask(dir: &Dir, path: &[u8], flags: AtFlags) -> Result<Option<Self>, Errno> {
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::CTIME | StatxFlags::BTIME;
        let held = dir.descriptor().map_err(|error| error.errno)?;
        let stat = match fs::statx(held, path, flags, wanted) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let born = (stat.stx_mask & StatxFlags::BTIME.bits() != 0)
            .then(|| stat::timestamp(stat.stx_btime))
            // Of a birth to come only the clock is known: that it cannot be believed.
            .filter(|born| *born <= now() && !is_overlay(dir));
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let inode = (device == dir.root_device()).then_some(stat.stx_ino);
        Ok(Some(Self { inode, changed: stat::timestamp(stat.stx_ctime), born, is_dir }))
    }

    /// True where the entry may be older than the run and stands in no listing. Where births are not known, numbers may not be
    /// kept either.
    fn is_older(&self, began: Timestamp, run: &Listings<'_>) -> bool {
        let is_listed = || self.inode.is_some_and(run.has);
        self.born.is_none_or(|born| born < began && !is_listed())
    }
}

/// True on an overlay, where a file that is moved or written to is born again in the upper layer.
fn is_overlay(dir: &Dir) -> bool {
    const OVERLAY: u64 = 0x794c_7630;
    let ask = || {
        let stat = dir.descriptor().ok().and_then(|fd| fs::fstatfs(fd).ok());
        stat.is_none_or(|stat| stat.f_type as u64 == OVERLAY)
    };
    *dir.hints().overlay.get_or_init(ask)
}

/// Times of a directory.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Of its last change of names or metadata.
    pub changed: Timestamp,
    /// Of its last change of names, or what was set as that.
    pub modified: Timestamp,
}

impl Times {
    fn local(dir: &Dir) -> Result<Self> {
        let stat = fs::fstat(dir.descriptor()?).map_err(|errno| dir.own_error("stat", errno))?;
        let nanos = |nanos| u32::try_from(nanos).unwrap_or(0);
        Ok(Self {
            changed: Timestamp { secs: stat.st_ctime, nanos: nanos(stat.st_ctime_nsec) },
            modified: Timestamp { secs: stat.st_mtime, nanos: nanos(stat.st_mtime_nsec) },
        })
    }

    /// Asks the server of a network file system.
    fn of(dir: &Dir) -> Result<Self> {
        let flags = AtFlags::EMPTY_PATH | stat::UNCACHED;
        let stat = fs::statx(dir.descriptor()?, c"", flags, StatxFlags::CTIME | StatxFlags::MTIME)
            .map_err(|errno| dir.own_error("stat", errno))?;
        let (changed, modified) = (stat.stx_ctime, stat.stx_mtime);
        Ok(Self { changed: stat::timestamp(changed), modified: stat::timestamp(modified) })
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}
