//! System calls for each file, of both ends together: `copy` runs sender and receiver in one process.
//!
//! The budget is for the difference between a tree and one of twice the files, so that the cost of starting, of
//! threads and of the session itself cancels out.

use std::{fs, path::Path};

use testkit::{Mount, Process, TempTree, skip};

use crate::support::copy_command;

/// A file that is new: stat, open, read, stat again and close at one end; create, write, set and read back the metadata and
/// close at the other.
const FIRST_COPY: f64 = 16.0;
/// A file that stands: statx and the names of its extended attributes, at each end.
const UNCHANGED: f64 = 4.5;

/// How often these are called follows from who waits for whom, and not from what is done.
const WAITING: [&str; 3] = ["futex", "sched_yield", "epoll_wait"];

const FILES: u32 = 2000;
const FILES_A_DIRECTORY: u32 = 100;

#[test]
fn system_calls_for_each_file() {
    if !skip::commands(&["strace"]) {
        return;
    }
    // What is called depends on the file system.
    let Some(mount) = Mount::tmpfs("size=256m") else { return };
    let [few, many] = [FILES, 2 * FILES].map(|files| calls(mount.path(), files));
    let runs = [("first copy", FIRST_COPY), ("nothing changed", UNCHANGED)];
    for ((run, budget), (few, many)) in runs.into_iter().zip(few.into_iter().zip(many)) {
        let calls = f64::from(many - few) / f64::from(FILES);
        assert!(calls <= budget, "{run}: {calls:.2} system calls a file, over {budget}");
    }
}

/// System calls of a first copy of so many files, and of the run after it.
fn calls(volume: &Path, files: u32) -> [u32; 2] {
    let (source, destination) = (TempTree::below(volume), TempTree::below(volume));
    for n in 0..files {
        source.file(format!("{}/{n}", n / FILES_A_DIRECTORY), [b'x'; 1000].as_slice());
    }
    [(); 2].map(|()| traced(source.path(), destination.path(), &volume.join("calls")))
}

/// `pvferry copy` under strace, which leaves its table in `table`; the sum of that.
fn traced(source: &Path, destination: &Path, table: &Path) -> u32 {
    let copy = copy_command(source, destination, &["--progress", "none"]);
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(table).arg(copy.get_program()).args(copy.get_args());
    Process::run(strace).expect(0);
    // "% time", "seconds", "usecs/call", "calls", "errors" where there were any, "syscall".
    let table = fs::read_to_string(table).unwrap();
    let lines = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (calls, name) = (columns.get(3)?.parse::<u32>().ok()?, *columns.last()?);
        (name != "total" && !WAITING.contains(&name)).then_some(calls)
    });
    let calls = lines.sum();
    assert!(calls > 0, "strace counted nothing:\n{table}");
    calls
}
