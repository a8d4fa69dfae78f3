//! Single system calls that fail with `EIO`, at either end: each kind of call, at its n-th time in every thread.

use std::fs;

use tempfile::NamedTempFile;
use testkit::{Snapshot, TempTree, skip};

use super::{PLAIN, Source, fill_destination, named, transfer, transfer_with};
use crate::counts;

/// What the end that writes calls to change a volume, and to look at it.
const WRITER: [&str; 25] = [
    "openat2",
    "pwrite64",
    "pwritev2",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "renameat",
    "renameat2",
    "linkat",
    "mkdirat",
    "symlinkat",
    "mknodat",
    "unlinkat",
    "fchmod",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "lsetxattr",
    "fsync",
    "syncfs",
    "getdents64",
    "statx",
    "fstat",
    "pread64",
    "flock",
];

/// What the end that reads calls.
const READER: [&str; 9] = [
    "openat2",
    "getdents64",
    "statx",
    "fstat",
    "pread64",
    "readlinkat",
    "lgetxattr",
    "flistxattr",
    "lseek",
];

/// When a call fails (each thread counts for itself: `3` the third, `2+5` the second and each fifth after it, `4+` all from
/// the fourth on), with what, and how that is called.
type Fault = (&'static str, &'static str, &'static str);

const BROKEN: &str = "Input/output error";
/// Where a call is not made so often, it is not either at the times after it.
const ONCE: [Fault; 8] = [
    ("1", "EIO", BROKEN),
    ("2", "EIO", BROKEN),
    ("3", "EIO", BROKEN),
    ("5", "EIO", BROKEN),
    ("8", "EIO", BROKEN),
    ("13", "EIO", BROKEN),
    ("21", "EIO", BROKEN),
    ("34", "EIO", BROKEN),
];
const AGAIN: [Fault; 3] = [
    ("2+5", "ENOSPC", "No space left"),
    ("3+", "EROFS", "Read-only file system"),
    ("4+", "EDQUOT", "quota exceeded"),
];

/// `strace` in the background of a program, that makes a call fail and tells in `log` where it did.
fn failing(call: &str, (when, errno, _): Fault, log: &str) -> Vec<String> {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:error={errno}:when={when}");
    let words =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", &trace, "-e", &inject];
    words.map(str::to_owned).to_vec()
}

/// One end of a transfer whose calls fail.
struct Grid {
    source: Source,
    serving: bool,
    log: NamedTempFile,
    struck: usize,
}

impl Grid {
    fn new(serving: bool) -> Self {
        Self { source: Source::new(), serving, log: NamedTempFile::new().unwrap(), struck: 0 }
    }

    /// Tries each call at each time of `faults`.
    fn try_all(&mut self, calls: &[&str], faults: &[Fault]) {
        for call in calls {
            for fault in faults {
                if !self.strikes(call, *fault) {
                    break;
                }
            }
        }
    }

    /// Has one call fail, and sees to what becomes of the transfer; false where it was not called so often.
    fn strikes(&mut self, call: &str, fault: Fault) -> bool {
        let destination = TempTree::new();
        fill_destination(&destination);
        let before = Snapshot::of(destination.path());
        let strace = failing(call, fault, self.log.path().to_str().unwrap());
        let strace: Vec<_> = strace.iter().map(String::as_str).collect();
        let (serve, sync) = if self.serving { (&strace[..], PLAIN) } else { (PLAIN, &strace[..]) };
        let ended = transfer(self.source.path(), destination.path(), serve, sync);
        let hits = fs::read_to_string(self.log.path()).unwrap().matches("(INJECTED)").count();
        if hits == 0 {
            return false;
        }
        self.struck += 1;
        let (when, errno, words) = fault;
        let case = format!("{call} {errno} {when} ({hits} times)");
        if let Some(ended) = ended {
            let told = format!("{case}: {}\n{}", ended.report, ended.served.stderr);
            assert!([0, 3, 5, 11, 23, 35].contains(&ended.code), "{told}");
            assert!(ended.code == 0 || ended.report.to_string().contains(words), "{told}");
            assert!(ended.code != 23 || !named(&ended.report, |_| true).is_empty(), "{told}");
            self.source.check(&case, &before, destination.path(), &ended);
            // A run that fails for good after it has lost single entries does not name those.
            if ended.code == 23 || !when.contains('+') {
                self.source.check_removals(&case, &before, destination.path(), &ended);
            }
        }
        self.source.converges(destination.path());
        true
    }
}

#[test]
fn of_the_end_that_writes() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let mut grid = Grid::new(true);
    grid.try_all(&WRITER, &ONCE);
    assert!(grid.struck > 60, "{}", grid.struck);
    counts::tell("failed calls of serve", grid.struck);
}

#[test]
fn of_the_end_that_writes_again_and_again() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let mut grid = Grid::new(true);
    for fault in AGAIN {
        grid.try_all(&WRITER, &[fault]);
    }
    assert!(grid.struck > 20, "{}", grid.struck);
    counts::tell("calls of serve that fail again and again", grid.struck);
}

#[test]
fn of_the_end_that_reads() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let mut grid = Grid::new(false);
    grid.try_all(&READER, &ONCE);
    grid.try_all(&READER, &[("2+5", "EIO", BROKEN)]);
    assert!(grid.struck > 25, "{}", grid.struck);
    counts::tell("failed calls of sync", grid.struck);
}

/// Without `--delete` a directory gives way to a file only where it is empty.
#[test]
fn a_directory_that_cannot_be_listed_is_not_taken_for_empty() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let source = TempTree::new();
    source.file("d", "a file now");
    for time in ["1", "2", "3", "4", "5", "6", "7"] {
        let destination = TempTree::new();
        destination.file("d/inside", "to be kept");
        let strace = failing("getdents64", (time, "EIO", BROKEN), "/dev/null");
        let strace: Vec<_> = strace.iter().map(String::as_str).collect();
        let ended = transfer_with(&[], source.path(), destination.path(), &strace, PLAIN).unwrap();
        assert_ne!(ended.code, 0, "{time}: {}", ended.report);
        assert!(destination.at("d/inside").exists(), "{time}: {}", ended.report);
    }
    counts::tell("directories that could not be listed", 7);
}
