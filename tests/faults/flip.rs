//! Components of a tree that are swapped for symbolic links, and back, all the time while runs go on.
//!
//! What the links lead to lies outside, bears the same names, and is watched: nobody may open it, read it or change
//! it. What it holds must not arrive.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, statat,
    symlinkat,
};
use testkit::{
    Content, Finished, Process, Rng, Snapshot, TempTree, Watch, assert_same, differences, skip,
};

use crate::{
    counts,
    support::{below, copy, copy_command},
};

/// How long each way of running is tried.
const FOR: Duration = Duration::from_secs(5);
/// Directories and files that are swapped, all at once.
const FLIPPED: [&str; 6] = ["a", "a/b", "a/b/c", "large", "a/large", "a/b/c/17"];
const SECRET: &[u8] = b"SECRET of somebody else";

/// Where a run takes the least time.
fn tree() -> TempTree {
    TempTree::below(Path::new("/dev/shm"))
}

/// A tree with something of every kind below each of the names that are swapped.
fn grow(tree: &TempTree, seed: u64) {
    for dir in ["a", "a/b", "a/b/c"] {
        for index in 0..25 {
            tree.file(format!("{dir}/{index}"), Content::random(seed + index, 900));
        }
        tree.symlink(format!("{dir}/link"), "0").dir(format!("{dir}/empty"));
    }
    for path in ["large", "a/large"] {
        let mut content = Content::random(7, 3 << 20);
        for at in 0..20 {
            content = content.overwrite(at * 131_072, &seed.to_le_bytes());
        }
        tree.file(path, content);
    }
}

/// The same names, with nothing in them but the secret.
fn outside(names: &Snapshot) -> TempTree {
    let outside = tree();
    for (path, node) in &names.0 {
        match node.kind {
            testkit::Kind::Directory => outside.dir(path),
            _ => outside.file(path, SECRET),
        };
    }
    outside
}

/// Swaps an entry of a tree with a link to its namesake outside, until it is told to stop.
struct Flipper<'a> {
    tree: &'a Path,
    path: &'a Path,
    /// Where the other of the two is meanwhile: on the same file system, in no tree.
    aside: PathBuf,
    outside: PathBuf,
}

impl Flipper<'_> {
    fn run(&self, stop: &AtomicBool, swaps: &AtomicU64) {
        let mut rng = Rng::new(self.path.as_os_str().len() as u64);
        while !stop.load(Ordering::Relaxed) {
            // What fails did so because the program was faster: the next round finds out what is there.
            if self.swap().is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
            }
            // So that what runs meanwhile comes to run at all.
            thread::sleep(Duration::from_micros(rng.below(300)));
        }
    }

    fn swap(&self) -> rustix::io::Result<()> {
        let (dir, name) = self.parent()?;
        let cwd = rustix::fs::CWD;
        let here = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let here_is_link =
            here.map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if here_is_link == Ok(false) && self.aside_is_link() == Some(false) {
            // The program has made a new one in place of the link: the old one goes.
            let _ = fs::remove_dir_all(&self.aside).or_else(|_| fs::remove_file(&self.aside));
        }
        if self.aside_is_link().is_none() {
            symlinkat(&self.outside, cwd, &self.aside)?;
        }
        renameat_with(&dir, name, cwd, &self.aside, RenameFlags::EXCHANGE)
    }

    /// The directory that the entry is in, never through a link: this end must not go outside either.
    fn parent(&self) -> rustix::io::Result<(OwnedFd, &Path)> {
        let root = File::open(self.tree).unwrap();
        let parent = self.path.parent().filter(|parent| *parent != Path::new(""));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = parent.unwrap_or(Path::new("."));
        let dir = openat2(&root, parent, flags, Mode::empty(), resolve)?;
        Ok((dir, Path::new(self.path.file_name().unwrap())))
    }

    fn aside_is_link(&self) -> Option<bool> {
        Some(self.aside.symlink_metadata().ok()?.is_symlink())
    }
}

/// Runs `body` while every name of [`FLIPPED`] in `tree` is swapped; how many swaps there were.
fn while_flipping(tree: &Path, outside: &Path, body: impl FnOnce()) -> u64 {
    let aside = tempfile::tempdir_in(tree.parent().unwrap()).unwrap();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let flippers: Vec<_> = FLIPPED
        .iter()
        .enumerate()
        .map(|(index, path)| Flipper {
            tree,
            path: Path::new(path),
            aside: aside.path().join(index.to_string()),
            outside: outside.join(path),
        })
        .collect();
    thread::scope(|scope| {
        for flipper in &flippers {
            scope.spawn(|| flipper.run(&stop, &swaps));
        }
        // Also where the body fails, or the threads would never end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    // What is aside comes back, the outer before the inner.
    for flipper in flippers.iter().filter(|flipper| flipper.aside_is_link() == Some(false)) {
        // A run may have removed the link and made nothing in its place: the run after it does.
        if let Err(error) = flipper.swap() {
            assert_eq!(error, rustix::io::Errno::NOENT, "{}", flipper.path.display());
        }
    }
    swaps.into_inner()
}

/// Ways to run, which take different ways through the program.
const WAYS: [&[&str]; 4] =
    [&["--delete"], &["--delete", "--atomic"], &["--delete", "--checksum"], &["--verify"]];

/// Landlock forbids to open what lies outside before anything else could: without it the program alone has to. Only this
/// one call is traced, so a run takes hardly longer.
const WITHOUT_LANDLOCK: [&str; 9] = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=landlock_create_ruleset",
    "--inject=landlock_create_ruleset:error=ENOSYS",
];

fn run(source: &TempTree, destination: &TempTree, way: &[&str], landlock: bool) -> Finished {
    if landlock {
        return copy(source.path(), destination.path(), way);
    }
    let command = copy_command(source.path(), destination.path(), way);
    Process::run(below(&WITHOUT_LANDLOCK, &command))
}

/// Runs each way again and again, by turns with and without Landlock; how many runs, and how often each exit code came.
fn run_on(
    source: &TempTree,
    destination: &TempTree,
    prepare: impl Fn(u64),
    check: impl Fn(),
) -> String {
    let mut codes = std::collections::BTreeMap::<i32, u64>::new();
    let mut runs = 0;
    let traces = skip::commands(&["strace"]);
    for way in WAYS {
        let until = Instant::now() + FOR;
        while Instant::now() < until {
            prepare(runs);
            let finished = run(source, destination, way, !traces || runs % 2 == 0);
            assert!(!finished.stderr.contains("panicked"), "{way:?}: {}", finished.stderr);
            assert!(!finished.stderr.contains("internal error"), "{way:?}: {}", finished.stderr);
            let code = finished.code();
            assert!([0, 11, 23, 24].contains(&code), "{way:?}: {code} {}", finished.stderr);
            *codes.entry(code).or_default() += 1;
            runs += 1;
            check();
        }
    }
    format!("{runs} runs, exit codes {codes:?}")
}

#[test]
fn nothing_outside_of_a_destination_is_touched() {
    let (source, destination) = (tree(), tree());
    grow(&source, 1);
    grow(&destination, 2);
    let outside = outside(&Snapshot::of(source.path()));
    let watch = Watch::over(outside.path());
    let mut runs = String::new();
    let swaps = while_flipping(destination.path(), outside.path(), || {
        // Something to write in each run.
        let prepare = |run| {
            source.file(format!("a/b/c/{}", run % 25), Content::random(run, 901));
            source.patch("large", 4096 * (run % 700), &run.to_le_bytes());
            source.patch("a/large", 4096 * (run % 700), &run.to_le_bytes());
        };
        let check = || assert_eq!(watch.seen(), [""; 0], "outside of the destination");
        runs = run_on(&source, &destination, prepare, check);
    });
    assert_eq!(watch.seen(), [""; 0], "outside of the destination");
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
    counts::tell("swaps of a destination's components", format!("{swaps}, in {runs}"));
}

#[test]
fn nothing_outside_of_a_source_is_read() {
    let (source, destination) = (tree(), tree());
    grow(&source, 1);
    let outside = outside(&Snapshot::of(source.path()));
    let secret = Snapshot::of(outside.path()).node("large").content;
    let watch = Watch::over(outside.path());
    let mut runs = String::new();
    let swaps = while_flipping(source.path(), outside.path(), || {
        let prepare = |run| {
            if run % 3 == 0 {
                destination.clear();
            }
        };
        let check = || {
            assert_eq!(watch.seen(), [""; 0], "outside of the source");
            let now = Snapshot::of(destination.path());
            let arrived: Vec<_> = now.0.iter().filter(|(_, node)| node.content == secret).collect();
            assert!(arrived.is_empty(), "{arrived:?}");
        };
        runs = run_on(&source, &destination, prepare, check);
    });
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
    counts::tell("swaps of a source's components", format!("{swaps}, in {runs}"));
}

/// The watch and the flipper are no use where they see and do nothing.
#[test]
fn whoever_follows_a_link_is_seen() {
    let tree = tree();
    grow(&tree, 1);
    let before = Snapshot::of(tree.path());
    let outside = outside(&before);
    let watch = Watch::over(outside.path());
    let swaps = while_flipping(tree.path(), outside.path(), || {
        let until = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while seen.is_empty() {
            assert!(Instant::now() < until, "nothing is seen");
            let _ = fs::read(tree.at("a/b/c/17"));
            seen = watch.seen();
        }
        assert!(seen.iter().any(|seen| seen.contains("17")), "{seen:?}");
    });
    assert!(swaps > 0);
    let after = Snapshot::of(tree.path());
    let content = testkit::Aspects { mtime: false, ..testkit::Aspects::default() };
    assert_eq!(differences(&before, &after, content), [""; 0], "everything is where it was");
}
