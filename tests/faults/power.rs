//! Power cuts: what a disk holds at any moment, mounted again.
//!
//! The destination is a file system on an image that is cloned in one step while runs go on, again and again, over a
//! source that changes. A clone is what a machine finds after its power was cut: all that had reached the disk, and
//! nothing of what was still in memory. Meanwhile a neighbour on the same file system flushes a file of its own all the
//! time, so that new names and times come to the disk long before the content does.
//!
//! A clone without a crash marker must hold one run to the last byte. One with a crash marker may show new names
//! without their content, which is what the marker is for: the next run, in another boot, must find them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use testkit::{
    Aspects, Content, Mount, Node, Process, Rng, Snapshot, TempTree, differences,
    interrupted::is_staged, skip,
};

use crate::{
    counts,
    pod::Pod,
    support::{copy_command, report},
};

/// Power cuts while a run goes on; one more comes right after it.
const CUTS: usize = 3;

/// What was found on the disks.
#[derive(Default)]
struct Tally {
    after: usize,
    committed: usize,
    untouched: usize,
    open: usize,
    torn: usize,
}

/// A process on the same file system that flushes all the time.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn move_in(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut file = File::create(path).unwrap();
            while !stopped.load(Relaxed) {
                file.write_all(b"x").unwrap();
                file.sync_all().unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs over a source that changes, with the power cut in each of them.
fn cut_the_power(name: &str, disk: &Mount, runs: u32) {
    let volume = disk.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let _neighbour = Neighbour::move_in(disk.path().join("neighbour"));
    thread::sleep(Duration::from_millis(50));
    let (pod, source) = (Pod::new(), TempTree::new());
    let _serve = pod.serve(&[("a", &volume)], &[]);
    let (mut tally, mut rng) = (Tally::default(), Rng::new(1));
    let mut before = Snapshot::of(&volume);
    let mut seconds = 1.0;
    for run in 0..runs {
        change(&source, u64::from(run), &mut rng);
        let wanted = Snapshot::of(source.path());
        let identity = pod.pki.source();
        // So slow that there is time to write back, and for the neighbour to flush, before a run is through.
        let options = ["--delete", "--bwlimit", "2M"];
        let begun = Instant::now();
        let sync = Process::start(pod.direct(pod.server, &identity, source.path(), &options));
        let mut moments: Vec<_> =
            (0..CUTS).map(|_| seconds * rng.below(1000) as f64 / 1e3).collect();
        moments.sort_by(f64::total_cmp);
        let cuts: Vec<_> = moments
            .into_iter()
            .map(|moment| {
                thread::sleep(Duration::from_secs_f64(moment).saturating_sub(begun.elapsed()));
                disk.cut_power()
            })
            .collect();
        let report = report(sync.wait().expect(0));
        let after = disk.cut_power();
        seconds = report["seconds"].as_f64().unwrap();

        let case = format!("{name}, run {run}");
        let found = Snapshot::of(&after.mount().unwrap().path().join("volume"));
        let lost = differences(&wanted, &found, Aspects::default());
        assert_eq!(lost, [""; 0], "{case}: ended with 0, and then the power was cut");
        tally.after += 1;
        for cut in cuts {
            let cut = cut.mount().unwrap();
            judge(&mut tally, &cut.path().join("volume"), &before, &wanted, &case);
            restart(source.path(), &cut.path().join("volume"), &wanted, &case);
        }
        before = wanted;
    }
    let Tally { after, committed, untouched, open, torn } = tally;
    assert!(open > 0, "no power cut hit a run that was writing");
    let found = format!(
        "{} images: {after} after a run and {committed} with the commit of one under way, all whole; \
         {untouched} before it wrote; {open} in the middle, with {torn} files of the right time and other content",
        after + committed + untouched + open
    );
    counts::tell(&format!("power cuts on {name}"), found);
}

/// Whether what a run left when the power was cut is one run's, to the last byte, or says that it is not.
fn judge(tally: &mut Tally, volume: &Path, before: &Snapshot, wanted: &Snapshot, case: &str) {
    let now = Snapshot::of(volume);
    let marked = now.paths().any(|path| is_staged(path) && path.ends_with("crash-marker"));
    let torn = wanted.0.iter().filter(|(path, wanted)| {
        let torn = |now: &Node| now.mtime == wanted.mtime && now.content != wanted.content;
        now.0.get(*path).is_some_and(torn)
    });
    let torn = torn.count();
    assert!(
        marked || torn == 0,
        "{case}: no crash marker, and {torn} files with a time that is not theirs"
    );
    if marked {
        tally.torn += torn;
        tally.open += 1;
    } else if contents(&now) == contents(wanted) {
        tally.committed += 1;
    } else {
        let lost = differences(before, &now, Aspects::default());
        assert!(
            contents(&now) == contents(before),
            "{case}: no crash marker, and neither tree: {lost:?}"
        );
        tally.untouched += 1;
    }
}

/// What every file holds.
fn contents(tree: &Snapshot) -> BTreeMap<&PathBuf, [u8; 32]> {
    let files = tree.0.iter().filter_map(|(path, node)| Some((path, node.content?)));
    files.filter(|(path, _)| !is_staged(path)).collect()
}

/// A run on the disk of a machine that was started again, which must converge.
fn restart(source: &Path, volume: &Path, wanted: &Snapshot, case: &str) {
    let boot = tempfile::NamedTempFile::new().unwrap();
    fs::write(&boot, "1b4e28ba-2fa1-11d2-883f-0016d3cca427\n").unwrap();
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(boot.path());
    let copy = copy_command(source, volume, &["--delete", "--progress", "none"]);
    command.arg(copy.get_program()).args(copy.get_args());
    let finished = Process::run(command);
    assert_eq!(finished.status.code(), Some(0), "{case}: {}", finished.stderr);
    let left = differences(wanted, &Snapshot::of(volume), Aspects::default());
    assert_eq!(left, [""; 0], "{case}: does not converge after the power was cut");
}

/// What happens to the source between two runs.
fn change(source: &TempTree, run: u64, rng: &mut Rng) {
    let random =
        |rng: &mut Rng, size: u64| Content::from(rng.bytes(usize::try_from(size).unwrap()));
    if run == 0 {
        source.file("data/large", random(rng, 3 << 20)).file("data/grows", random(rng, 300_000));
        source.file("data/done early", random(rng, 1 << 20));
        source.file("data/linked", "text").hard_link("data/linked", "data/again");
    }
    for _ in 0..15 {
        let size = rng.below(20_000);
        source.file(format!("data/small/{}", rng.below(40)), random(rng, size));
        let size = 1000 + rng.below(9000);
        source.file(format!("data/new {run}/{}", rng.below(30)), random(rng, size));
        source.patch("data/large", rng.below((3 << 20) - 9000), &rng.bytes(9000));
    }
    source.patch("data/done early", rng.below(1 << 19), &rng.bytes(100));
    source.patch("data/grows", 300_000 + run * 10_000, &rng.bytes(10_000));
    source.file(format!("data/whole {run}"), random(rng, 200_000));
    if run >= 2 {
        source.remove(format!("data/new {}", run - 2)).remove(format!("data/whole {}", run - 2));
    }
}

/// A disk of the kind that `make` makes, on a file system in memory that clones.
fn on(name: &str, make: impl FnOnce(&Path) -> Option<Mount>) {
    if !(skip::root() && skip::commands(&["unshare"])) {
        return;
    }
    let Some(memory) = Mount::tmpfs("size=2g") else { return };
    let Some(host) = Mount::xfs_below(memory.path(), 1500) else { return };
    let Some(disk) = make(host.path()) else { return };
    cut_the_power(name, &disk, counts::points(4));
}

#[test]
fn on_xfs_where_files_are_cloned() {
    on("XFS", |host| Mount::xfs_below(host, 320));
}

#[test]
fn on_ext4_where_files_are_patched_in_place() {
    on("ext4", |host| Mount::ext4_below(host, 128));
}
