//! Descriptors that can be closed at any time and opened again.
//!
//! A process has a limit on open files (`RLIMIT_NOFILE`), and a tree may have more directories than
//! that. So a directory or a basis keeps its descriptor in a slot of one cache for the whole
//! process, whatever the number of volumes. The cache takes at most a share of the limit and closes
//! the descriptors that were not used for the longest time (the clock algorithm, with more than one
//! round for those from which many others can be reached). A descriptor that is on loan stays open
//! until it is given back.
//!
//! Everything else that opens a file goes through [`opening`]: where the kernel has no descriptor
//! left, cached ones are closed and the call is repeated.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

/// One part in so many of the limit on open files is for cached descriptors.
const SHARE: usize = 2;
/// Cached descriptors, at most: more saves nothing, and each holds memory of the kernel.
const MOST: usize = 4096;
/// Cached descriptors that are allowed however often the kernel has none left.
const FEWEST: usize = 12;
/// The most that a slot may be [worth](Slot::worth), and the rounds of the clock that find one to close.
pub(crate) const MOST_WORTH: u8 = 8;
const ROUNDS: usize = MOST_WORTH as usize + 3;
/// How long a call waits for others to close files, in milliseconds, before each repetition.
const PAUSES: [u64; 11] = [0, 0, 1, 2, 5, 10, 20, 50, 100, 200, 500];

static CACHE: Cache = Cache {
    open: AtomicUsize::new(0),
    limit: AtomicUsize::new(0),
    hand: Mutex::new(VecDeque::new()),
};

/// Runs `open`, which opens one file. Where the process or the system has no descriptor left, closes
/// cached ones and runs it again, at last after waiting for other threads to close theirs.
///
/// # Errors
/// What `open` answers; `EMFILE` or `ENFILE` where no descriptor came free in about a second.
pub fn opening<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut outcome = open();
    for pause in PAUSES {
        if !matches!(outcome, Err(Errno::MFILE | Errno::NFILE)) {
            break;
        }
        CACHE.run_short();
        if pause > 0 {
            thread::sleep(Duration::from_millis(pause));
        }
        outcome = open();
    }
    outcome
}

/// Closes cached descriptors, for a caller that got `EMFILE` from somewhere else.
pub fn release() {
    CACHE.run_short();
}

/// The limit on open files of this process.
#[must_use]
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// A place for the descriptor of one directory or file.
#[derive(Default)]
pub(crate) struct Slot {
    held: Mutex<Option<Arc<OwnedFd>>>,
    /// How often the hand of the clock lets it stay after a use, beyond the first time.
    worth: u8,
    /// How often the hand lets it stay from now on.
    stays: AtomicU8,
    /// The hand will come by.
    queued: AtomicBool,
}

impl Slot {
    /// A slot that stays `worth` rounds of the clock longer than others.
    pub(crate) fn worth(worth: u8) -> Self {
        let mut slot = Self::default();
        slot.worth = worth;
        slot
    }

    /// The descriptor, where it is open.
    pub(crate) fn get(&self) -> Option<Loan> {
        let held = self.held.lock().clone()?;
        self.touch();
        Some(Loan(held))
    }

    /// Keeps `fd`. Where another thread was faster, its descriptor stays.
    pub(crate) fn put(self: &Arc<Self>, fd: OwnedFd) -> Loan {
        let loan = {
            let mut held = self.held.lock();
            if let Some(held) = &*held {
                return Loan(Arc::clone(held));
            }
            Loan(Arc::clone(held.insert(Arc::new(fd))))
        };
        CACHE.added(self);
        loan
    }

    /// Lets the descriptor stay for another round of the clock.
    pub(crate) fn touch(&self) {
        self.stays.store(1 + self.worth, Relaxed);
    }

    /// Closes the descriptor, as soon as nobody has it on loan.
    pub(crate) fn close(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Arc<OwnedFd>> {
        let held = self.held.lock().take();
        if held.is_some() {
            CACHE.open.fetch_sub(1, Relaxed);
        }
        held
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.close();
    }
}

/// A descriptor on loan; it stays open as long as this lives.
#[derive(Clone)]
pub struct Loan(Arc<OwnedFd>);

impl Loan {
    /// A descriptor that no cache may close.
    pub(crate) fn fixed(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for Loan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Cache {
    /// Slots that hold a descriptor.
    open: AtomicUsize,
    /// How many may; 0 until it is known.
    limit: AtomicUsize,
    /// Slots in the order in which the hand of the clock comes by.
    hand: Mutex<VecDeque<Weak<Slot>>>,
}

impl Cache {
    fn limit(&self) -> usize {
        match self.limit.load(Relaxed) {
            0 => {
                let limit = (limit() / SHARE).clamp(FEWEST, MOST);
                self.limit.store(limit, Relaxed);
                limit
            }
            limit => limit,
        }
    }

    fn added(&self, slot: &Arc<Slot>) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        let limit = self.limit();
        if slot.queued.swap(true, Relaxed) {
            // It keeps the place of its earlier stay, which may be the next one.
            slot.touch();
        } else {
            let mut hand = self.hand.lock();
            if hand.len() > 2 * limit + 64 {
                hand.retain(is_open);
            }
            hand.push_back(Arc::downgrade(slot));
        }
        if open > limit {
            self.shrink(limit);
        }
    }

    /// The kernel has no descriptor left: half of what is cached is closed, and fewer are cached from
    /// now on, since others need their part.
    fn run_short(&self) {
        let half = self.open.load(Relaxed) / 2;
        let limit = self.limit().min(half.max(FEWEST));
        self.limit.store(limit, Relaxed);
        self.shrink(half);
    }

    fn shrink(&self, limit: usize) {
        // Closed after the lock is given back: some file systems take their time.
        let mut closed = Vec::new();
        let mut hand = self.hand.lock();
        // So many rounds at most until all have stayed as often as they may.
        for _ in 0..ROUNDS * hand.len() {
            if self.open.load(Relaxed) <= limit {
                break;
            }
            let Some(weak) = hand.pop_front() else { break };
            let Some(slot) = weak.upgrade() else { continue };
            let stays = slot.stays.load(Relaxed);
            if stays > 0 {
                slot.stays.store(stays - 1, Relaxed);
                hand.push_back(weak);
                continue;
            }
            slot.queued.store(false, Relaxed);
            closed.extend(slot.take());
        }
        drop(hand);
    }
}

/// Whether the hand has to come by.
fn is_open(slot: &Weak<Slot>) -> bool {
    let Some(slot) = slot.upgrade() else { return false };
    slot.queued.store(false, Relaxed);
    // Where it was opened and queued again meanwhile, that place is enough.
    slot.held.lock().is_some() && !slot.queued.swap(true, Relaxed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn slots(count: usize) -> Vec<Arc<Slot>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    fn put(cache: &'static Cache, slot: &Arc<Slot>) {
        assert!(std::ptr::eq(cache, &raw const CACHE));
        drop(slot.put(File::open("/dev/null").unwrap().into()));
    }

    #[test]
    fn unused_descriptors_are_closed_before_used_ones() {
        let few = slots(8);
        few.iter().for_each(|slot| put(&CACHE, slot));
        for slot in &slots(2 * MOST + 200) {
            put(&CACHE, slot);
            assert!(few.iter().all(|slot| slot.get().is_some()), "the working set stays");
            assert!(CACHE.open.load(Relaxed) <= CACHE.limit() + 8);
        }
        let loan = few[0].get().unwrap();
        few.iter().for_each(|slot| slot.close());
        assert!(few[0].get().is_none());
        assert!(rustix::fs::fstat(&loan).is_ok(), "a loan outlives the slot");
    }
    #[test]
    fn descriptors_that_are_worth_more_stay_longer() {
        let landmark = Arc::new(Slot::worth(MOST_WORTH));
        put(&CACHE, &landmark);
        landmark.touch();
        let others = slots(CACHE.limit() + 64);
        others.iter().for_each(|slot| put(&CACHE, slot));
        assert!(landmark.get().is_some());
        assert!(others[0].get().is_none());
    }
}
