//! `kill -9` of each process of a transfer, at a grid of the system calls that it makes.
//!
//! One undisturbed run tells which calls there are and how many of each. Then a run for each point of the grid: one
//! process dies right before that call. Nobody may claim success unless the tree is whole, nothing half-done may pass
//! for finished, and an undisturbed run after it must converge, also where the other two processes are still those of
//! the first.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt, path::Path, process::Command,
};

use testkit::{
    Aspects, Content, Finished, Mount, Process, Rng, Snapshot, TempTree, differences,
    interrupted::unfinished,
    lock, skip,
    syscalls::{self, Moment},
};

use crate::{counts, pod::Pod, support::report};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sync,
    Tunnel,
    Serve,
}

/// A pod and its volumes, set up for one run after another.
struct Stage {
    pod: Pod,
    options: &'static [&'static str],
    seed: u64,
    source: TempTree,
    /// What the destination is before each run.
    old: TempTree,
    destination: TempTree,
    wanted: Snapshot,
    before: Snapshot,
}

/// Large enough to be patched where they lie.
const IN_PLACE: [&str; 3] = ["patched", "shifted", "holes"];

impl Stage {
    fn new(parent: &Path, options: &'static [&'static str], seed: u64) -> Self {
        let [source, old, destination] = [(); 3].map(|()| TempTree::below(parent));
        fill(&source, &old, seed);
        let (wanted, before) = (Snapshot::of(source.path()), Snapshot::of(old.path()));
        let stage =
            Self { pod: Pod::new(), options, seed, source, old, destination, wanted, before };
        stage.set_up();
        let copied = Snapshot::of(stage.destination.path());
        assert_eq!(differences(&stage.before, &copied, Aspects::default()), [""; 0]);
        stage
    }

    /// Puts the destination back as it was, and removes what the run before left in the pod.
    fn set_up(&self) {
        // The directory itself stays: who serves it may go nowhere else.
        for entry in fs::read_dir(self.destination.path()).unwrap() {
            let path = entry.unwrap().path();
            let is_dir = path.symlink_metadata().unwrap().is_dir();
            if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.old.at(".")).arg(self.destination.path());
        Process::run(copy).expect(0);
        let left = [self.pod.message_path("a"), self.pod.message_path("serve")];
        for path in left.into_iter().chain([self.pod.markers().join("a.done")]) {
            let _ = fs::remove_file(path);
        }
    }

    fn serve(&self) -> Command {
        let volumes = [("a", self.destination.path())];
        self.pod.serve_command(&self.pod.pki.destination(), &volumes, &["--exit-when", "1"])
    }

    fn lasting_serve(&self) -> Process {
        self.pod.serve(&[("a", self.destination.path())], &[])
    }

    fn tunnel(&self) -> Command {
        self.pod.tunnel_command(self.pod.server, &self.pod.pki.source(), &["--exit-when", "1"])
    }

    fn lasting_tunnel(&self) -> Process {
        self.pod.tunnel(&[])
    }

    fn sync(&self, options: &[&str]) -> Command {
        let options = [&["--delete", "--timeout", "10"][..], self.options, options].concat();
        self.pod.sync(self.source.path(), "a", &options)
    }

    /// The calls of an undisturbed run, and how many of each.
    fn calls(&self, victim: Victim) -> BTreeMap<String, u32> {
        let list = self.pod.markers().join("calls");
        let traced = |command| syscalls::listed(&command, &list);
        self.set_up();
        let processes = self.others(victim);
        let watched = self.victim(victim, traced);
        if let Some(watched) = &watched {
            watched.wait_for_line("listening on");
        }
        let sync = self.sync(&[]);
        Process::run(if victim == Victim::Sync { traced(sync) } else { sync }).expect(0);
        if let Some(watched) = watched {
            watched.wait().expect(0);
        }
        drop(processes);
        let list = fs::read_to_string(list).unwrap();
        syscalls::counts(&list)
    }

    /// The processes that are not killed, but for `sync`.
    fn others(&self, victim: Victim) -> [Option<Process>; 2] {
        [
            (victim != Victim::Serve).then(|| self.lasting_serve()),
            (victim != Victim::Tunnel).then(|| self.lasting_tunnel()),
        ]
    }

    /// The process to be killed, under strace, where it is not `sync`.
    fn victim(&self, victim: Victim, traced: impl FnOnce(Command) -> Command) -> Option<Process> {
        match victim {
            Victim::Sync => None,
            Victim::Tunnel => Some(Process::start(traced(self.tunnel()))),
            Victim::Serve => Some(Process::start(traced(self.serve()))),
        }
    }

    /// One point of the grid. True where the victim came so far.
    fn try_point(&self, victim: Victim, moment: &Moment) -> bool {
        let case = format!("{victim:?} killed at {moment}, {:?}, seed {}", self.options, self.seed);
        self.set_up();
        let traced = |command| syscalls::killed_at(&command, moment);
        let watched = self.victim(victim, traced);
        if let Some(watched) = &watched {
            let _dead_already = watched.line("listening on");
        }
        let sync = self.sync(&["--attempts", "1", "--wait", "0"]);
        let ended = Process::run(if victim == Victim::Sync { traced(sync) } else { sync });
        let died = watched.map_or(ended.status, |watched| watched.wait().status);
        lock::wait_until_free(self.destination.path());

        let after = Snapshot::of(self.destination.path());
        let whole = differences(&self.wanted, &after, Aspects::default());
        if self.claims(victim, &ended, &case) {
            assert_eq!(whole, [""; 0], "{case}: claims success");
        }
        let atomic = self.options.contains(&"--atomic");
        let in_place = if atomic { &[][..] } else { &IN_PLACE };
        let wrong = unfinished(&self.wanted, &self.before, &after, in_place);
        assert_eq!(wrong, [""; 0], "{case}");

        let _ended = match victim {
            Victim::Sync => None,
            Victim::Tunnel => Some(self.lasting_tunnel()),
            Victim::Serve => Some(self.lasting_serve()),
        };
        let again = Process::run(self.sync(&[]));
        assert_eq!(again.status.code(), Some(0), "{case}: {}", again.stderr);
        let after = Snapshot::of(self.destination.path());
        let left = differences(&self.wanted, &after, Aspects::default());
        assert_eq!(left, [""; 0], "{case}: does not converge");
        died.signal() == Some(9)
    }

    /// Whether anything that the run left says that it went well.
    fn claims(&self, victim: Victim, sync: &Finished, case: &str) -> bool {
        let well = |path: &Path| {
            // Killed while it is written, a message is no message.
            let text = fs::read_to_string(path).unwrap_or_default();
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            parsed
                .is_ok_and(|message| message["outcome"] == "completed" || message["exit_code"] == 0)
        };
        let marker = self.pod.markers().join("a.done");
        let found = [&marker, &self.pod.message_path("a"), &self.pod.message_path("serve")]
            .map(|path| well(path));
        if victim != Victim::Sync {
            let report = report(sync);
            let well = sync.status.success();
            assert_eq!((found[0], found[1]), (well, well), "{case}: {report}");
            assert_eq!(report["outcome"] == "completed", well, "{case}: {report}");
            assert!(well || report["retryable"] == true, "{case}: {report}");
            assert!(!sync.stderr.contains("panicked"), "{case}: {}", sync.stderr);
        }
        sync.status.success() || found.contains(&true)
    }
}

/// The source, and what the destination has of it: entries of every kind to leave, to patch, to replace, to change, to
/// rename, to make and to delete.
fn fill(source: &TempTree, old: &TempTree, seed: u64) {
    for tree in [source, old] {
        tree.populate(seed, 60);
    }
    source.mutate(seed + 1, 25);
    for tree in [source, old] {
        tree.everything();
        for index in 0..30 {
            let path = format!("small/{index}");
            tree.file(&path, Content::random(index, 2000)).mtime(&path, 1_000_000, 1);
        }
        tree.file("patched", Content::random(1, 3 << 20));
        tree.file("shifted", Content::random(2, 1 << 20));
        tree.sparse("holes", 4 << 20, &[(0, b"a"), (2 << 20, b"b")]);
        for path in IN_PLACE {
            tree.mtime(path, 1_000_000, 1);
        }
        tree.file("acl", "text").acl("acl", "u:1000:rw").xattr("acl", "user.x", b"1");
    }
    // Every kind of entry is there at the root, and is new further down.
    old.remove("one");
    for index in (0..30).step_by(3) {
        source.file(format!("small/{index}"), Content::random(100 + index, 2100));
        old.file(format!("gone/{index}"), Content::random(index, 100));
    }
    let mut rng = Rng::new(seed);
    for _ in 0..20 {
        source.patch("patched", rng.below((3 << 20) - 5000), &rng.bytes(5000));
    }
    source.file("shifted", Content::random(2, 1 << 20).insert(300_000, b"some bytes"));
    source.patch("holes", 1 << 20, b"more").acl("acl", "g:2000:r").xattr("acl", "user.x", b"2");
    source.file("new large", Content::random(5, 700_000));
    old.file("old name", Content::random(6, 200_000)).mtime("old name", 7, 7);
    source.file("new name", Content::random(6, 200_000)).mtime("new name", 7, 7);
    source.file("two/a", "linked").hard_link("two/a", "small/b").acl("two", "d:u:1000:rwx");
}

/// Tries as many points of the grid of `victim` as `percent` says, with a destination below `parent`: of one tree, or of
/// several where that is more than the whole grid.
fn kill(name: &str, parent: &Path, victim: Victim, percent: u32, options: &'static [&'static str]) {
    let points = counts::points(percent) as usize;
    let (mut all, mut tried, mut killed, mut seed) = (0, 0, 0, 0);
    while tried < points {
        let stage = Stage::new(parent, options, seed);
        let calls = stage.calls(victim);
        let grid = syscalls::grid(&calls, u32::try_from(points - tried).unwrap());
        let _processes = stage.others(victim);
        killed += grid.iter().filter(|moment| stage.try_point(victim, moment)).count();
        all += calls.values().sum::<u32>();
        tried += grid.len();
        seed += 1;
    }
    assert!(killed * 2 > tried, "{killed} kills at {tried} points");
    let what = format!("{tried} of {all} points, {killed} kills");
    counts::tell(&format!("kill -9 of {name}"), what);
}

fn on_tmpfs(name: &str, victim: Victim, percent: u32, options: &'static [&'static str]) {
    if !skip::commands(&["strace", "setfacl"]) {
        return;
    }
    let Some(mount) = Mount::tmpfs("size=512m") else { return };
    kill(name, mount.path(), victim, percent, options);
}

#[test]
fn serve_at_any_call() {
    on_tmpfs("serve", Victim::Serve, 180, &[]);
}

#[test]
fn sync_at_any_call() {
    on_tmpfs("sync", Victim::Sync, 40, &[]);
}

#[test]
fn tunnel_at_any_call() {
    on_tmpfs("tunnel", Victim::Tunnel, 35, &[]);
}

#[test]
fn each_with_atomic() {
    on_tmpfs("serve with --atomic", Victim::Serve, 30, &["--atomic"]);
    on_tmpfs("sync with --atomic", Victim::Sync, 5, &["--atomic"]);
    on_tmpfs("tunnel with --atomic", Victim::Tunnel, 5, &["--atomic"]);
}

#[test]
fn serve_where_files_are_cloned() {
    if !skip::commands(&["strace", "setfacl"]) {
        return;
    }
    let Some(memory) = Mount::tmpfs("size=1g") else { return };
    let Some(mount) = Mount::xfs_below(memory.path(), 320) else { return };
    kill("serve on XFS", mount.path(), Victim::Serve, 30, &[]);
}
