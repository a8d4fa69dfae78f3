//! Single system calls that fail with `EIO`, at either end: each kind of call, at its n-th time in every thread.

use std::fs;

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

/// Each thread counts for itself.
const TIMES: [u32; 8] = [1, 2, 3, 5, 8, 13, 21, 34];

/// `strace` in the background of a program, that makes a call fail and tells in `log` where it did.
fn failing(call: &str, time: u32, log: &str) -> Vec<String> {
    let inject = format!("inject={call}:error=EIO:when={time}");
    [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        log,
        "-e",
        &format!("trace={call}"),
        "-e",
        &inject,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Makes calls of one end fail, one kind and one time after the other; answers at how many points one did.
fn grid(calls: &[&str], times: &[u32], serving: bool) -> usize {
    let source = Source::new();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut struck = 0;
    for call in calls {
        for time in times {
            let destination = TempTree::new();
            fill_destination(&destination);
            let before = Snapshot::of(destination.path());
            let strace = failing(call, *time, log.to_str().unwrap());
            let strace: Vec<_> = strace.iter().map(String::as_str).collect();
            let (serve, sync) = if serving { (&strace[..], PLAIN) } else { (PLAIN, &strace[..]) };
            let ended = transfer(source.path(), destination.path(), serve, sync);
            let hits = fs::read_to_string(&log).unwrap().matches("(INJECTED)").count();
            if hits == 0 {
                break; // it is not called so often
            }
            struck += 1;
            let case = format!("{call} {time} ({hits} times)");
            if let Some(ended) = ended {
                let told = format!("{case}: {}\n{}", ended.report, ended.served.stderr);
                assert!([0, 3, 5, 11, 23, 35].contains(&ended.code), "{told}");
                let says = |text: &str| ended.report.to_string().contains(text);
                assert!(
                    ended.code == 0 || says("Input/output error") || says("I/O error"),
                    "{told}"
                );
                assert!(ended.code != 23 || !named(&ended.report, |_| true).is_empty(), "{told}");
                source.check(&case, &before, destination.path(), &ended);
            }
            source.converges(destination.path());
        }
    }
    struck
}

#[test]
fn of_the_end_that_writes() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let struck = grid(&WRITER, &TIMES, true);
    assert!(struck > 60, "{struck}");
    counts::tell("failed calls of serve", struck);
}

#[test]
fn of_the_end_that_reads() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let struck = grid(&READER, &TIMES, false);
    assert!(struck > 25, "{struck}");
    counts::tell("failed calls of sync", struck);
}

/// Without `--delete` a directory gives way to a file only where it is empty.
#[test]
fn a_directory_that_cannot_be_listed_is_not_taken_for_empty() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let source = TempTree::new();
    source.file("d", "a file now");
    for time in 1..8 {
        let destination = TempTree::new();
        destination.file("d/inside", "to be kept");
        let strace = failing("getdents64", time, "/dev/null");
        let strace: Vec<_> = strace.iter().map(String::as_str).collect();
        let ended = transfer_with(&[], source.path(), destination.path(), &strace, PLAIN).unwrap();
        assert_ne!(ended.code, 0, "{time}: {}", ended.report);
        assert!(destination.at("d/inside").exists(), "{time}: {}", ended.report);
    }
    counts::tell("directories that could not be listed", 7);
}
