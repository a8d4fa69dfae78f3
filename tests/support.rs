//! What the themes share: the program, its report, and rsync as a second judge.

use std::{
    ffi::{OsStr, OsString},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use testkit::{Aspects, Finished, Process, Snapshot, differences};

/// The program with these arguments, in an environment that sets nothing of it.
pub(crate) fn pvferry<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvferry"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("PVFERRY_CONTAINERS");
    command
}

/// `command` run by another program, such as `setpriv`, with these arguments of its own.
pub(crate) fn below<A: AsRef<OsStr>>(wrapper: &[A], command: &Command) -> Command {
    let mut outer = Command::new(&wrapper[0]);
    outer.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    outer.env_remove("RUST_LOG").env_remove("PVFERRY_CONTAINERS");
    outer
}

/// `pvferry copy` to its end, with a report on standard output.
pub(crate) fn copy(source: &Path, destination: &Path, options: &[&str]) -> Finished {
    Process::run(copy_command(source, destination, options))
}

/// `pvferry copy`, ready to start.
pub(crate) fn copy_command(source: &Path, destination: &Path, options: &[&str]) -> Command {
    let mut command = pvferry(["copy", "--json"]);
    command.args(options).arg(source).arg(destination);
    command
}

/// The report that a run printed, which must agree with how it ended.
#[track_caller]
pub(crate) fn report(finished: &Finished) -> Value {
    let line = finished.stdout.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("{error} in {line:?}\n{}", finished.stderr));
    assert_eq!(report["exit_code"], finished.code(), "{report}");
    report
}

/// The lines that a run with `--progress none` printed about its changes, sorted. Beside a report they go to standard error.
pub(crate) fn changes(finished: &Finished) -> Vec<&str> {
    const VERBS: [&str; 4] = ["create ", "update ", "metadata ", "delete "];
    let is_change = |line: &&str| VERBS.iter().any(|verb| line.starts_with(verb));
    let mut lines: Vec<_> =
        finished.stdout.lines().chain(finished.stderr.lines()).filter(is_change).collect();
    lines.sort_unstable();
    lines
}

/// Fails unless rsync, with all it can keep switched on, finds nothing to do.
#[track_caller]
pub(crate) fn assert_rsync_finds_nothing(source: &Path, destination: &Path) {
    if !testkit::skip::commands(&["rsync"]) {
        return;
    }
    let inside = |path: &Path| {
        let mut path = OsString::from(path);
        path.push("/");
        path
    };
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXnic", "--numeric-ids", "--delete", "--modify-window=-1"]);
    let finished = Process::run({
        rsync.arg(inside(source)).arg(inside(destination));
        rsync
    });
    finished.expect(0);
    assert_eq!(finished.stdout, "", "rsync would change something");
}

/// Fails unless nothing at all was written to the tree at `path` since `before`.
#[track_caller]
pub(crate) fn assert_untouched(before: &Snapshot, path: &Path) {
    let aspects = Aspects { untouched: true, ..Aspects::default() };
    let found = differences(before, &Snapshot::of(path), aspects);
    assert!(found.is_empty(), "something was written:\n  {}", found.join("\n  "));
}

/// Fails unless standard error explains the end in one line that begins with the program's name and holds
/// all of `words`.
#[track_caller]
pub(crate) fn assert_explains(finished: &Finished, words: &[&str]) {
    let told: Vec<_> =
        finished.stderr.lines().filter(|line| line.starts_with("pvferry: ")).collect();
    let matches = |line: &&&str| words.iter().all(|word| line.contains(word));
    assert!(
        told.iter().filter(matches).count() == 1,
        "not one line with {words:?} in:\n{}",
        finished.stderr
    );
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

/// Lets this process open as many files as the system allows it.
pub(crate) fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// TLS records with the first `length` bytes of a ClientHello that announces 64 KiB.
pub(crate) fn partial_client_hello(length: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0xff, 0xff, 3, 3];
    message.resize(length, 0);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1], &length[..], part].concat()
    };
    message.chunks(16 << 10).flat_map(record).collect()
}

/// True where a readiness probe at `metrics` is answered with 200 within `limit`.
pub(crate) fn probe(metrics: SocketAddr, limit: Duration) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&metrics, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// Runs `work` again and again on another thread until `run` has ended.
pub(crate) fn during<T>(work: impl FnMut() + Send, run: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let mut work = work;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                work();
            }
        });
        let result = run();
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        result
    })
}
