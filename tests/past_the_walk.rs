//! Entries that are moved while the source is listed, from a directory that is listed later to one that was listed.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    thread,
};

use testkit::{Mount, OddMount, Process, Quirks, Snapshot, TempTree, assert_same, skip};

use crate::support::{below, copy, copy_command, during};

/// What goes from a directory that is still to be listed to one that was listed stands in neither listing.
#[test]
fn an_entry_that_is_moved_past_the_walk_is_reported_and_nothing_is_deleted() {
    for (from, options) in [
        ("D", &["--delete"][..]),
        ("file", &["--delete"]),
        ("file", &["--delete", "--atomic"]),
        ("D", &["--delete", "--dry-run"]),
        ("D", &[]),
    ] {
        let Some(odd) = OddMount::new(Quirks::default()) else { return };
        let (source, destination) = (odd.path(), TempTree::new());
        for dir in ["a", "m", "z/D"] {
            fs::create_dir_all(source.join(dir)).unwrap();
        }
        fs::write(source.join("z/D/1"), "precious").unwrap();
        fs::write(source.join("z/file"), "precious").unwrap();
        copy(source, destination.path(), &[]).expect(0);
        destination.file("old", "extraneous");
        odd.set(|quirks| {
            let place = |dir: &str| (dir.into(), from.into());
            quirks.moved_when_listed = Some(("m".into(), place("z"), place("a")));
        });
        let finished = copy(source, destination.path(), options);
        assert_eq!(finished.code(), 24, "{from} {options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("a: changed after it was listed"), "{}", finished.stderr);
        for path in ["z/D/1", "z/file", "old"] {
            assert!(destination.at(path).exists(), "{from} {options:?}: {path} is gone");
        }
        assert!(!finished.stdout.contains("delete "), "{}", finished.stdout);
        if !options.contains(&"--dry-run") {
            copy(source, destination.path(), &["--delete"]).expect(0);
            assert_same(source, destination.path());
        }
    }
}

/// The same on a local file system, whose times can be compared: only what was moved counts, and not what was made.
#[test]
fn on_a_local_file_system_only_entries_that_existed_before_the_run_count_as_moved_past_the_walk() {
    let source = TempTree::new();
    source.dir("a");
    for number in 0..6000 {
        source.file(format!("m/{}/{number}", number / 100), "");
    }
    for number in 0..20 {
        source.file(format!("z/D/{number}"), "precious");
    }
    let (mut met, mut number) = (0, 0);
    for pause in [0, 5, 10, 20, 40, 80] {
        let destination = TempTree::new();
        destination.file("z/D/5", "precious").file("old", "extraneous").dir("a");
        let options = ["--delete", "--progress", "none"];
        let running = Process::start(copy_command(source.path(), destination.path(), &options));
        thread::sleep(std::time::Duration::from_millis(pause));
        source.rename("z/D", "a/D");
        let finished = running.wait();
        assert!([0, 24].contains(&finished.code()), "{}", finished.stderr);
        let arrived = |dir: &str| destination.at(dir).join("5").exists();
        assert!(arrived("a/D") || arrived("z/D"), "D is lost: {}", finished.stderr);
        met += usize::from(finished.stderr.contains("a: changed after it was listed"));
        source.rename("a/D", "z/D");

        let finished = during(
            || {
                number += 1;
                fs::write(source.at(format!("a/{number}")), "").unwrap();
                thread::sleep(std::time::Duration::from_millis(3));
            },
            || copy(source.path(), destination.path(), &options),
        );
        assert!(!finished.stderr.contains("after it was listed"), "{}", finished.stderr);
    }
    println!("the move was met in {met} of 6 runs");
}

/// An overlay of two file systems gives its directories other inode numbers whenever the kernel drops them from its cache.
#[test]
fn directories_whose_inode_numbers_are_not_kept_are_copied_and_cleaned_up_as_usual() {
    let (Some(upper), lower) = (Mount::tmpfs("size=64m"), TempTree::new()) else { return };
    for number in 0..400 {
        lower.file(format!("low/d{number}/s/f"), "text");
    }
    lower.dir("merged");
    for dir in ["upper", "work"] {
        fs::create_dir(upper.path().join(dir)).unwrap();
    }
    let (low, at) = (lower.at("low"), upper.path());
    let layers = format!(
        "lowerdir={},upperdir={},workdir={},xino=off",
        low.display(),
        at.join("upper").display(),
        at.join("work").display()
    );
    let merged = lower.at("merged");
    let Some(_overlay) = Overlaid::mount(&layers, &merged) else { return };
    let number = || fs::metadata(merged.join("d1")).unwrap().ino();
    let before = number();
    for _ in 0..4 {
        let destination = TempTree::new();
        destination.file("extra", "old");
        let finished = during(
            || {
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                thread::sleep(std::time::Duration::from_millis(20));
            },
            || copy(&merged, destination.path(), &["--delete", "--progress", "none"]),
        );
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert_same(&merged, destination.path());
    }
    println!("the number of a directory was {before} and is {}", number());
}

/// On an overlay a file that is moved is born again, by a copy in the upper layer.
#[test]
fn on_an_overlay_an_entry_that_is_moved_past_the_walk_is_seen() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (Some(upper), lower) = (Mount::tmpfs("size=64m"), TempTree::new()) else { return };
    lower.file("low/z/f", "precious").file("low/a/x", "old").dir("merged");
    for number in 0..2000 {
        lower.dir(format!("low/m/{number}"));
    }
    for dir in ["upper", "work"] {
        fs::create_dir(upper.path().join(dir)).unwrap();
    }
    let (low, at, merged) = (lower.at("low"), upper.path(), lower.at("merged"));
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        low.display(),
        at.join("upper").display(),
        at.join("work").display()
    );
    let Some(_overlay) = Overlaid::mount(&layers, &merged) else { return };
    let destination = TempTree::new();
    copy(&merged, destination.path(), &["--progress", "none"]).expect(0);
    let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
    let slow = [&slow[..], &["--inject=getdents64:delay_exit=200"]].concat();
    let command = copy_command(&merged, destination.path(), &["--delete", "--progress", "none"]);
    let running = Process::start(below(&slow, &command));
    thread::sleep(std::time::Duration::from_millis(700));
    fs::rename(merged.join("z/f"), merged.join("a/f")).unwrap();
    let finished = running.wait();
    assert!([0, 24].contains(&finished.code()), "{}", finished.stderr);
    let there = ["z/f", "a/f"].iter().any(|path| destination.at(path).exists());
    assert!(there, "{}: f is lost: {}", finished.code(), finished.stderr);
}

/// Waits until a process holds `dir` open.
pub(crate) fn wait_for_listing_of(dir: &Path) {
    let holds = |pid: fs::DirEntry| {
        let descriptors = fs::read_dir(pid.path().join("fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == dir))
    };
    let started = std::time::Instant::now();
    while !fs::read_dir("/proc").unwrap().flatten().any(holds) {
        assert!(started.elapsed().as_secs() < 60, "{} is not listed", dir.display());
        thread::yield_now();
    }
}

/// Each while `z` is listed, when the directories before it are.
#[test]
fn a_move_past_the_walk_is_seen_whatever_else_is_renamed_or_removed_and_only_of_what_is_copied() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    type Change = fn(&TempTree);
    let changes: [(&str, Change, &[&str], i32); 6] = [
        (
            "the directory that it was moved to is mounted over",
            |source| {
                source.rename("z/h", "m/h");
                let mut mount = Command::new("mount");
                mount.arg("--bind").arg(source.at("a")).arg(source.at("m"));
                assert!(mount.status().unwrap().success());
            },
            &[],
            24,
        ),
        (
            "a directory before it is removed",
            |source| {
                fs::remove_dir_all(source.at("a")).unwrap();
                source.rename("z/h", "m/h");
            },
            &[],
            24,
        ),
        (
            "the directory that it was moved to is renamed",
            |source| {
                source.rename("z/h", "m/h").rename("m", "m2");
            },
            &[],
            24,
        ),
        (
            "another name of the same file is there already",
            |source| {
                source.rename("z/link", "m/link");
            },
            &[],
            24,
        ),
        (
            "it is excluded",
            |source| {
                source.rename("z/x.tmp", "m/y.tmp");
            },
            &["--exclude", "*.tmp"],
            0,
        ),
        (
            "the directory is closed to the user",
            |source| {
                source.rename("z/h", "m/h").mode("m", 0);
            },
            &[],
            23,
        ),
    ];
    for (what, change, filters, code) in changes {
        if code == 23 && !skip::commands(&["setpriv"]) {
            continue;
        }
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("a/k/f", "1").file("m/g", "2").file("z/h", "3").file("z/x.tmp", "4");
        source.hard_link("m/g", "z/link");
        copy(source.path(), destination.path(), filters).expect(0);
        destination.file("old", "extraneous");
        let mut slow = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
        slow.push("--inject=getdents64:delay_enter=300000");
        if code == 23 {
            for tree in [&source, &destination] {
                for path in Snapshot::of(tree.path()).0.keys() {
                    tree.owner(path, 65_534, 65_534);
                }
                let parent = tree.path().parent().unwrap();
                fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
            }
            slow.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let options = [&["--delete", "--progress", "none"], filters].concat();
        let command = copy_command(source.path(), destination.path(), &options);
        let running = Process::start(below(&slow, &command));
        wait_for_listing_of(&source.at("z"));
        change(&source);
        let finished = running.wait();
        let _ =
            Command::new("umount").arg(source.at("m")).stderr(std::process::Stdio::null()).status();
        assert_eq!(finished.code(), code, "{what}: {}", finished.stderr);
        for name in ["z/h", "z/link", "old"] {
            assert_eq!(destination.at(name).exists(), code != 0 || name != "old", "{what}: {name}");
        }
        assert!(!has_crash_marker(destination.path()), "{what}: the next run trusts nothing");
    }
}

/// What stays because of the move is not a second reason, nor is it the fault of a filter.
#[test]
fn a_move_past_the_walk_with_verify_ends_with_24_and_names_no_other_reason() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("m/g", "2").file("z/h", "3");
    destination.file("old/extraneous", "1");
    let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
    let slow = [&slow[..], &["--inject=getdents64:delay_enter=100000"]].concat();
    let options = ["--delete", "--verify", "--progress", "none"];
    let command = copy_command(source.path(), destination.path(), &options);
    let running = Process::start(below(&slow, &command));
    wait_for_listing_of(&source.at("z"));
    source.rename("z/h", "m/h");
    let finished = running.wait();
    assert_eq!(finished.code(), 24, "{}", finished.stderr);
    assert!(!finished.stderr.contains("only at the destination"), "{}", finished.stderr);
    assert!(destination.at("old/extraneous").exists());
}

/// Each while `z` is listed, when the directories before it are.
#[test]
fn entries_that_were_listed_at_another_place_are_no_reason_for_an_alarm() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    type Change = fn(&TempTree);
    let changes: [(&str, Change, i32); 8] = [
        ("a mail is read", |source| _ = source.rename("new/m1", "cur/m1:2,S"), 0),
        (
            "a directory is renamed, and another takes its place",
            |source| _ = source.rename("new", "new2").dir("new").file("new/m2", "2"),
            0,
        ),
        ("a directory is moved", |source| _ = source.rename("new", "cur/new"), 0),
        ("a file gets another name", |source| _ = source.hard_link("new/m1", "cur/m1"), 0),
        (
            "a file with all its names listed gets one more",
            |source| {
                source.hard_link("new/l1", "cur/l3");
            },
            0,
        ),
        (
            "an entry that is not listed comes into a directory that moves",
            |source| _ = source.rename("z/h", "new/h").rename("new", "cur/new"),
            24,
        ),
        (
            "as many names are listed as there are, and one that moved is not",
            |source| {
                fs::remove_file(source.at("new/h1")).unwrap();
                source.rename("z/h2", "new/h2").hard_link("z/h3", "z/h4");
            },
            24,
        ),
        (
            "a name that is not listed takes the place of one that is",
            |source| {
                fs::remove_file(source.at("new/h1")).unwrap();
                source.rename("z/h2", "new/h2");
            },
            24,
        ),
    ];
    for (what, change, code) in changes {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("cur/m0", "0").file("new/m1", "1").file("new/sub/f", "2").file("z/h", "3");
        source.file("new/l1", "4").hard_link("new/l1", "cur/l2");
        source.file("new/h1", "5").hard_link("new/h1", "z/h2").hard_link("new/h1", "z/h3");
        copy(source.path(), destination.path(), &[]).expect(0);
        destination.file("old", "extraneous");
        let mut slow = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
        slow.push("--inject=getdents64:delay_enter=300000");
        let options = ["--delete", "--progress", "none"];
        let command = copy_command(source.path(), destination.path(), &options);
        let running = Process::start(below(&slow, &command));
        wait_for_listing_of(&source.at("z"));
        change(&source);
        let finished = running.wait();
        assert_eq!(finished.code(), code, "{what}: {}", finished.stderr);
        assert_eq!(destination.at("old").exists(), code != 0, "{what}");
        copy(source.path(), destination.path(), &["--delete"]).expect(0);
        assert_same(source.path(), destination.path());
    }
}

/// There a change can hide in the second of the listing, and a new file cannot be told from one that was moved.
#[test]
fn where_times_are_whole_seconds_a_quiet_source_is_mirrored_and_a_move_past_the_walk_is_seen() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (Some(ext2), Some(ext4)) = (Mount::ext2(64), Mount::ext4_small_inodes(64)) else { return };
    let options = ["--delete", "--progress", "none"];
    for mount in [ext2, ext4] {
        let source = mount.path().join("source");
        for number in 0..500 {
            fs::create_dir_all(source.join(format!("m/{number}"))).unwrap();
        }
        for name in ["a", "z"] {
            fs::create_dir(source.join(name)).unwrap();
        }
        fs::write(source.join("z/f"), "precious").unwrap();
        let destination = TempTree::new();
        // Nothing has changed since the listing, but in the same second.
        for round in 0..3 {
            destination.file("a/extra", "old");
            fs::write(source.join("a/new"), "new".repeat(1 + round)).unwrap();
            copy(&source, destination.path(), &options).expect(0);
            assert_same(&source, destination.path());
        }

        let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
        let slow = [&slow[..], &["--inject=getdents64:delay_exit=1000"]].concat();
        let command = copy_command(&source, destination.path(), &options);
        let running = Process::start(below(&slow, &command));
        thread::sleep(std::time::Duration::from_millis(900));
        fs::rename(source.join("z/f"), source.join("a/f")).unwrap();
        let finished = running.wait();
        assert!([0, 24].contains(&finished.code()), "{}", finished.stderr);
        let there = ["z/f", "a/f"].iter().any(|path| destination.at(path).exists());
        assert!(there, "{}: f is lost: {}", finished.code(), finished.stderr);
        println!("the run of the move ended with {}", finished.code());
    }
}

/// A mounted overlay; unmounted when dropped.
struct Overlaid<'a>(&'a Path);

impl<'a> Overlaid<'a> {
    fn mount(layers: &str, point: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", layers]).arg(point);
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(point));
        }
        skip::unsupported("an overlay of two file systems");
        None
    }
}

impl Drop for Overlaid<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// What was moved may lie in a directory that is new, or have the name of a file that was listed.
#[test]
fn on_a_local_file_system_a_move_into_a_new_directory_or_over_a_listed_file_is_seen_and_a_log_is_not()
 {
    type Change = fn(&TempTree);
    let moves: [(&str, Change, bool); 5] = [
        (
            "into a new directory",
            |source| {
                source.dir("a/new/deep").rename("z/f", "a/new/deep/f");
            },
            true,
        ),
        (
            "over a listed file",
            |source| {
                source.rename("z/f", "a/x");
            },
            true,
        ),
        (
            "a new file and an old one that is written to",
            |source| {
                source.file("a/new", "new");
                source.patch("a/x", 0, b"more");
            },
            false,
        ),
        (
            "a file that is saved by rename",
            |source| {
                source.file("a/.x", "saved").rename("a/.x", "a/x");
            },
            false,
        ),
        (
            "a log that is rotated",
            |source| {
                source.rename("a/x", "a/x.1").file("a/x", "new");
            },
            false,
        ),
    ];
    for (what, change, moved) in moves {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("z/f", "precious").file("a/x", "listed");
        for number in 0..2000 {
            source.dir(format!("m/{number}"));
        }
        copy(source.path(), destination.path(), &["--progress", "none"]).expect(0);
        destination.file("extra", "old");
        let options = ["--delete", "--progress", "none"];
        // Each listing waits a little, so that the change comes between those of `a` and `z`.
        let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
        let slow = [&slow[..], &["--inject=getdents64:delay_exit=200"]].concat();
        if !skip::commands(&["strace"]) {
            return;
        }
        let command = below(&slow, &copy_command(source.path(), destination.path(), &options));
        let running = Process::start(command);
        thread::sleep(std::time::Duration::from_millis(700));
        change(&source);
        let finished = running.wait();
        let named = finished.stderr.contains("after it was listed");
        let there = destination.at("z/f").exists()
            || !source.at("z/f").exists()
                && finished.code() == 0
                && ["a/new/deep/f", "a/x"]
                    .iter()
                    .any(|path| fs::read(destination.at(path)).is_ok_and(|c| c == b"precious"));
        assert!(there, "{what}: {} {}", finished.code(), finished.stderr);
        assert!(moved || !named, "{what}: {}", finished.stderr);
        println!("{what}: exit code {}, named {named}", finished.code());
    }
}

fn has_crash_marker(tree: &Path) -> bool {
    let is_marker = |path: &Path| path.ends_with("crash-marker");
    Snapshot::of(tree).0.keys().any(|path| is_marker(Path::new(path)))
}
