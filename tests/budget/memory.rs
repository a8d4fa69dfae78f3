//! Peak memory of a run, and that it does not grow with the tree.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use testkit::{Mount, TempTree};

use crate::support::copy_command;

/// What any run may take, in bytes: 18 to 40 MiB were seen. What is on its way may fill a window of 32 MiB where the
/// receiver falls behind.
const PEAK: u64 = 64 << 20;
/// What each further entry may add, in bytes, beyond what differs from run to run. Together that is less than a list of
/// all entries with their metadata would take at both ends.
const GROWTH: u64 = 60;
/// What the allocator keeps for threads that happened to need it, in bytes: up to 14 MiB were seen.
const WOBBLE: u64 = 20 << 20;

const FILES_A_DIRECTORY: u64 = 100;
/// Enough entries to fill every window that there is.
const FEW: u64 = 500;
const MANY: u64 = 1500;

/// A peak depends on who waits for whom: the lowest of some runs says what a run cannot do without.
const RUNS: usize = 3;
const TRIES: usize = 6;

#[test]
fn peak_memory_is_bounded_and_does_not_follow_the_tree() {
    let Some(mount) = Mount::tmpfs("size=1g") else { return };
    let few = Pair::new(mount.path(), FEW);
    let few = (0..RUNS).map(|_| few.peak()).min().unwrap();
    let many = Pair::new(mount.path(), MANY);
    let limit = few + WOBBLE + (MANY - FEW) * (FILES_A_DIRECTORY + 1) * GROWTH;
    let mut peaks = Vec::new();
    let stays = (0..TRIES).any(|_| {
        peaks.push(many.peak());
        peaks.last().is_some_and(|peak| *peak <= limit)
    });
    assert!(stays, "{peaks:?} bytes with {MANY} directories, {few} with {FEW}: over {limit}");
}

/// Two trees that are the same.
struct Pair {
    source: TempTree,
    destination: TempTree,
}

impl Pair {
    /// So many directories of empty files, copied once.
    fn new(volume: &Path, directories: u64) -> Self {
        let (source, destination) = (TempTree::below(volume), TempTree::below(volume));
        for d in 0..directories {
            let dir = source.at(format!("directory {d}"));
            fs::create_dir(&dir).unwrap();
            for f in 0..FILES_A_DIRECTORY {
                fs::File::create(dir.join(format!("file {f}"))).unwrap();
            }
        }
        let pair = Self { source, destination };
        pair.peak();
        pair
    }

    /// Peak memory of one run, which is bounded in any case.
    fn peak(&self) -> u64 {
        let peak = peak(self.source.path(), self.destination.path());
        assert!(peak <= PEAK, "{peak} bytes, over {PEAK}");
        peak
    }
}

/// The high-water mark of the resident set of `pvferry copy`, in bytes.
///
/// It only rises, so asking until the process is gone misses no more than what its last milliseconds add. `wait4` would
/// not do: it counts what the process was before `exec`, which is a copy of the tests.
pub(super) fn peak(source: &Path, destination: &Path) -> u64 {
    let mut command = copy_command(source, destination, &["--progress", "none"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // A process that has ended and was not waited for has a status without memory.
        let now = fs::read_to_string(&status).unwrap();
        peak = high_water_mark(&now).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            assert!(peak > 1 << 20, "{peak} bytes cannot be a run");
            return peak;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
