//! The line between the real programs: cut, ended, stalled, delayed and flipped, at a dense grid of positions.
//!
//! ```text
//!   before decryption   sync ── relay ──── TLS ────────── serve
//!   after decryption    sync ── relay ── tunnel ── TLS ── serve
//! ```
//!
//! A run takes the time of a process and a handshake, so a grid has a step, which is printed: `PVFERRY_FAULT_POINTS=5000`
//! makes it one. `plain` leaves out nothing.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use testkit::{
    Aspects, Content, Faults, Finished, Process, Relay, Snapshot, TempTree, differences,
};

use crate::{
    counts,
    judge::{wait_until_free, wrongly_shown},
    pod::Pod,
};

/// Runs at a time, each into a volume of its own. Most of those that hang in a handshake only wait.
const LANES: usize = 10;
/// What a run may exit with that a line has spoiled: protocol, start-up, socket, stream, partial, silence, no connection;
/// and, after decryption alone, that somebody had to end it.
const CODES: [i32; 7] = [2, 5, 10, 12, 23, 30, 35];
const ENDED: i32 = 20;
/// When it is ended: a run takes a hundredth of it, and silence a half.
const ENOUGH: Duration = Duration::from_secs(20);
/// One deadline over TLS and hello, then silence, the last words, and what a loaded machine adds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the relay lies.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before decryption.
    Outside,
    /// After decryption.
    InThePod,
}

/// A server with a volume for each lane, and what is to be moved into each of them.
struct Line {
    place: Place,
    pod: Pod,
    serve: Process,
    tunnel: Process,
    source: TempTree,
    wanted: Snapshot,
    lanes: Vec<TempTree>,
}

impl Line {
    fn new(place: Place) -> Self {
        let source = TempTree::new();
        source.file("changed", Content::random(1, 300)).mode("changed", 0o600);
        source.file("dir/same", "the same").mtime("dir/same", 7, 7);
        source.file("new/inner", Content::random(2, 100)).symlink("new/link", "inner");
        for path in ["new", "dir", ""] {
            source.mtime(path, 9, 9);
        }
        let lanes: Vec<_> = (0..LANES).map(|_| TempTree::below(Path::new("/dev/shm"))).collect();
        let names: Vec<_> = (0..LANES).map(|lane| format!("v{lane}")).collect();
        let volumes = names.iter().map(String::as_str).zip(lanes.iter().map(TempTree::path));
        let pod = Pod::new();
        let serve = pod.serve(&volumes.collect::<Vec<_>>(), &["--timeout", "3"]);
        let tunnel = pod.tunnel(&[]);
        let wanted = Snapshot::of(source.path());
        Self { place, pod, serve, tunnel, source, wanted, lanes }
    }

    /// Makes the volume of a lane what it is before each run.
    fn prepare(&self, lane: usize) -> Snapshot {
        let tree = self.lanes[lane].clear();
        tree.file("changed", "old").mode("changed", 0o640);
        tree.file("dir/same", "the same").mtime("dir/same", 7, 7);
        tree.file("gone/inner", "to be removed").mtime("", 1, 1);
        Snapshot::of(tree.path())
    }

    /// A run of a lane to its end, through a relay with these faults.
    fn run(&self, lane: usize, (there, back): (Faults, Faults)) -> (Finished, (u64, u64)) {
        let relay = Relay::always(self.target(), there, back);
        let options = ["--attempts", "1", "--wait", "0"];
        (self.run_through(&relay, lane, &options), relay.bytes())
    }

    fn target(&self) -> SocketAddr {
        match self.place {
            Place::Outside => self.pod.server,
            Place::InThePod => self.pod.local,
        }
    }

    fn run_through(&self, relay: &Relay, lane: usize, options: &[&str]) -> Finished {
        let (address, identity) = (relay.address().to_string(), self.pod.pki.source());
        let route = match self.place {
            Place::Outside => {
                vec!["--connect", &address, "--identity", identity.to_str().unwrap()]
            }
            Place::InThePod => vec!["--via", &address],
        };
        let options = [&["--delete", "--timeout", "3"], options].concat();
        let volume = format!("v{lane}");
        let mut sync =
            Process::start(self.pod.sync_by(&route, self.source.path(), &volume, &options));
        if self.place == Place::InThePod {
            // Both ends may have been told of different things, and hear each other wait.
            let until = Instant::now() + ENOUGH;
            while sync.is_running() && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            if sync.is_running() {
                sync.terminate();
            }
        }
        sync.wait()
    }

    /// Bytes of a run without faults, there and back.
    fn lengths(&self) -> (u64, u64) {
        self.prepare(0);
        let (finished, bytes) = self.run(0, (Faults::default(), Faults::default()));
        finished.expect(0);
        assert_eq!(self.differences(0), [""; 0]);
        bytes
    }

    fn differences(&self, lane: usize) -> Vec<String> {
        let now = Snapshot::of(self.lanes[lane].path());
        differences(&self.wanted, &now, Aspects::default())
    }

    /// One run with faults; what it exits with.
    fn try_faults(&self, lane: usize, faults: (Faults, Faults)) -> i32 {
        let before = self.prepare(lane);
        let begun = Instant::now();
        let (finished, _) = self.run(lane, faults);
        let (code, case) = (finished.code(), format!("{faults:?}\n{}", finished.stderr));
        assert!(begun.elapsed() < PATIENCE, "{:?} {case}", begun.elapsed());
        assert!(!finished.stderr.contains("panicked"), "{case}");
        wait_until_free(self.lanes[lane].path());
        if code == 0 {
            let mut found = self.differences(lane);
            if self.place == Place::InThePod && found.iter().all(|line| is_crash_marker(line)) {
                // Of a flipped goodbye the receiver hears doubts that the sender does not have. The next run has none.
                let (again, _) = self.run(lane, (Faults::default(), Faults::default()));
                assert_eq!(again.code(), 0, "{}\nafter {case}", again.stderr);
                found = self.differences(lane);
            }
            assert_eq!(found, [""; 0], "a false success: {case}");
            return 0;
        }
        self.judge(lane, &before, &finished, &case);
        code
    }

    /// Fails unless a run that failed did so well, and the next one makes everything right.
    fn judge(&self, lane: usize, before: &Snapshot, finished: &Finished, case: &str) {
        let code = finished.code();
        let in_the_pod = self.place == Place::InThePod;
        assert!(CODES.contains(&code) || (in_the_pod && code == ENDED), "exit code {code} {case}");
        let explained = finished.stderr.lines().any(|line| line.starts_with("pvferry: "));
        assert!(explained, "no reason given: {case}");
        if !in_the_pod {
            let now = Snapshot::of(self.lanes[lane].path());
            let found = wrongly_shown(before, &self.wanted, &now, "");
            assert!(found.is_empty(), "{found:?}\n{case}");
            return;
        }
        // Where the sender's judgement was lost, or none was made, only the content tells what is right.
        let relay = Relay::always(self.target(), Faults::default(), Faults::default());
        self.run_through(&relay, lane, &["--checksum"]).expect(0);
        let (again, _) = self.run(lane, (Faults::default(), Faults::default()));
        assert_eq!(again.code(), 0, "{}\nafter {case}", again.stderr);
        assert_eq!(self.differences(lane), [""; 0], "a false success of the next run: {case}");
    }

    /// Tries all of `faults`, several at a time; how often each exit code came.
    fn try_all(&self, faults: &[(Faults, Faults)]) -> Vec<(i32, usize)> {
        let next = AtomicUsize::new(0);
        let codes = Mutex::new(std::collections::BTreeMap::new());
        thread::scope(|scope| {
            for lane in 0..LANES {
                let (next, codes) = (&next, &codes);
                scope.spawn(move || {
                    while let Some(&faults) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let code = self.try_faults(lane, faults);
                        *codes.lock().entry(code).or_default() += 1;
                    }
                });
            }
        });
        codes.into_inner().into_iter().collect()
    }

    /// Fails unless the processes that went on all the time are still what they were.
    fn end(mut self) {
        assert!(self.serve.is_running() && self.tunnel.is_running());
        self.prepare(0);
        self.run(0, (Faults::default(), Faults::default())).0.expect(0);
        for process in [self.serve, self.tunnel] {
            process.terminate();
            let finished = process.wait();
            assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
            assert!(!finished.stderr.contains("internal error"), "{}", finished.stderr);
        }
    }
}

/// Whether a difference is the staging directory with the crash marker, which the destination has.
fn is_crash_marker(line: &str) -> bool {
    let name =
        line.strip_prefix(".pvferry-").and_then(|rest| rest.strip_suffix(": only on the right"));
    name.is_some_and(|name| !name.contains('/') || name.ends_with("/crash-marker"))
}

/// One fault at every `step`-th position of both directions.
fn grid(
    (there, back): (u64, u64),
    step: usize,
    fault: impl Fn(u64) -> Faults,
) -> Vec<(Faults, Faults)> {
    let none = Faults::default;
    let there = (0..=there).step_by(step).map(|at| (fault(at), none()));
    let back = (0..=back).step_by(step).map(|at| (none(), fault(at)));
    there.chain(back).collect()
}

/// Tries one kind of fault on a grid of so many points, as `counts::points` has it, and tells how much.
fn try_grid(place: Place, what: &str, share: u32, fault: impl Fn(u64) -> Faults) {
    let line = Line::new(place);
    let lengths = line.lengths();
    let step = ((lengths.0 + lengths.1) as usize / counts::points(share) as usize).max(1);
    let mut faults = grid(lengths, step, &fault);
    // The goodbye ends what the source sends.
    faults.extend((1..=4).map(|back| (fault(lengths.0.saturating_sub(back)), Faults::default())));
    let codes = line.try_all(&faults);
    line.end();
    let (there, back) = lengths;
    let grid =
        format!("{} (step {step} of {there} and {back} bytes, codes {codes:?})", faults.len());
    counts::tell(what, grid);
}

#[test]
fn a_connection_reset_anywhere() {
    try_grid(Place::Outside, "connections reset, real programs", 75, Faults::cut);
}

#[test]
fn a_connection_ended_anywhere() {
    try_grid(Place::Outside, "connections ended, real programs", 75, Faults::end);
}

#[test]
fn a_bit_flipped_anywhere_before_decryption() {
    let flip = |at| Faults::flip_bit(at, (at % 8) as u8);
    try_grid(Place::Outside, "bits flipped before decryption, real programs", 240, flip);
}

#[test]
fn a_bit_flipped_anywhere_after_decryption() {
    let flip = |at| Faults::flip_bit(at, (at % 8) as u8);
    try_grid(Place::InThePod, "bits flipped after decryption, real programs", 60, flip);
}

/// What TLS finds changed is as good as a connection that was lost: the run tries again.
#[test]
fn a_bit_flipped_once_is_no_reason_to_give_up() {
    let line = Line::new(Place::Outside);
    let (there, back) = line.lengths();
    // The handshake comes first. It is said in the clear for a part, where damage looks like another protocol.
    let none = Faults::default;
    let there = (there - 600..there - 60).step_by(60).map(|at| (Faults::flip(at), none()));
    let back = (back - 160..back - 60).step_by(20).map(|at| (none(), Faults::flip(at)));
    let faults: Vec<_> = there.chain(back).collect();
    let mut tried_again = 0;
    for &(there, back) in &faults {
        line.prepare(0);
        let relay = Relay::once(line.target(), there, back);
        let finished = line.run_through(&relay, 0, &["--wait", "20"]);
        finished.expect(0);
        assert_eq!(line.differences(0), [""; 0]);
        tried_again += relay.connections() - 1;
    }
    line.end();
    // A session may be a frame shorter than the one that was measured.
    assert!(tried_again as usize * 2 > faults.len(), "{tried_again} of {}", faults.len());
    counts::tell("bits flipped once, and then a second try", tried_again);
}

#[test]
fn a_line_that_falls_silent_anywhere() {
    try_grid(Place::Outside, "lines that fell silent, real programs", 8, Faults::stall);
}

#[test]
fn a_line_that_crumbles_and_dawdles_is_no_fault() {
    let line = Line::new(Place::Outside);
    let slow = |chunk, micros| Faults {
        delay: Some(Duration::from_micros(micros)),
        ..Faults::chunk(chunk)
    };
    let lines = [Faults::chunk(1), Faults::chunk(7), slow(100, 3000), slow(1500, 50_000)];
    for faults in lines {
        for faults in [(faults, Faults::default()), (Faults::default(), faults), (faults, faults)] {
            assert_eq!(line.try_faults(0, faults), 0, "{faults:?}");
        }
    }
    line.end();
    counts::tell("slow and crumbled lines", 3 * lines.len());
}
