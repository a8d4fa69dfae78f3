//! A dry run cannot write, whatever the destination is and whatever the options are.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use testkit::{Content, Mount, Process, Rng, Snapshot, TempTree, skip};

use crate::{
    device::Loop,
    support::{assert_untouched, below, changes, copy, copy_command, report},
};

/// Options that take different paths to the content of the destination.
const OPTIONS: [&[&str]; 9] = [
    &[],
    &["--checksum"],
    &["--delete"],
    &["--atomic", "--delete", "--checksum"],
    &["--verify"],
    &["--no-owner"],
    &["--streams", "3"],
    &["--compress", "zstd", "--itemize"],
    &["--delete", "--max-delete", "2"],
];

const SIZE: usize = 8 << 20;

#[test]
fn dry_run_of_a_device_writes_nothing() {
    let source = Content::random(1, SIZE).overwrite(1 << 20, &[0; 1 << 20]);
    let old = Content::random(2, SIZE);
    let larger = Content::random(3, SIZE).overwrite(SIZE, &[7; 4096]);
    let (Some(from), Some(equal), Some(large)) =
        (Loop::new(&source), Loop::new(&old), Loop::new(&larger))
    else {
        return;
    };
    for options in OPTIONS {
        for (target, content) in [(&equal, &old), (&large, &larger)] {
            let ended = copy(&from.device, &target.device, &[options, &["-n"]].concat());
            assert!(target.content() == content.bytes(), "{options:?} wrote to the device");
            let report = report(ended.expect(0));
            assert_eq!(report["files_written"], 1, "{options:?} {report}");
        }
    }
    copy(&from.device, &equal.device, &[]).expect(0);
    let report = report(copy(&from.device, &equal.device, &["-n"]).expect(0));
    assert_eq!(report["files_written"], 0, "{report}");
}

#[test]
fn dry_run_of_a_device_refuses_what_the_run_refuses() {
    let (Some(from), Some(small)) =
        (Loop::new(&Content::random(1, SIZE)), Loop::new(&Content::random(2, SIZE - 4096)))
    else {
        return;
    };
    copy(&from.device, &small.device, &["-n"]).expect(3);
    let busy = fs::File::open(&from.device).unwrap();
    let held = rustix::fs::OFlags::EXCL | rustix::fs::OFlags::RDONLY;
    let mode = rustix::fs::Mode::empty();
    let _held = rustix::fs::open(&small.device, held, mode).unwrap();
    for options in [&["-n"][..], &[]] {
        let ended = copy(&small.device, &small.device, options);
        assert_ne!(ended.code(), 0, "{options:?}: a device in use");
    }
    drop(busy);
}

#[test]
fn dry_run_opens_nothing_of_the_destination_for_writing() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (tree, seed) in [(&source, 1), (&destination, 2)] {
        tree.file("large", Content::random(seed, 4 << 20)).file("small", "1").dir("d");
        tree.symlink("link", seed.to_string());
    }
    source.file("kind/inside", "1").file("new/deep", "2");
    destination.file("kind", "a file").file("extra/1", "3");
    let log = TempTree::new();
    for options in OPTIONS {
        let to = log.at("strace");
        let changes = "trace=openat2,openat,unlinkat,renameat,renameat2,linkat,mkdirat,symlinkat,mknodat,\
            fchmod,fchmodat,chmod,fchownat,utimensat,fsetxattr,lsetxattr,fremovexattr,lremovexattr,\
            pwrite64,pwritev2,ftruncate,fallocate,copy_file_range,syncfs,fsync";
        let strace = ["strace", "-D", "-f", "-qq", "-o", to.to_str().unwrap(), "-e", changes];
        let command = copy_command(source.path(), destination.path(), &[options, &["-n"]].concat());
        let before = Snapshot::of(destination.path());
        let code = match options {
            options if options.contains(&"2") => 25,
            // Without --delete, what only the destination has is a difference between the trees.
            options if options.contains(&"--verify") => 23,
            _ => 0,
        };
        assert_eq!(Process::run(below(&strace, &command)).code(), code, "{options:?}");
        assert_untouched(&before, destination.path());
        let calls = fs::read_to_string(&to).unwrap();
        let writes: Vec<_> = calls
            .lines()
            .filter(|line| !line.contains("/proc/") && !line.contains("/dev/null"))
            .filter(|line| {
                let opens = line.contains("openat");
                !opens
                    || ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                        .iter()
                        .any(|flag| line.contains(flag))
            })
            .filter(|line| line.contains('(') && !line.contains("syscall_0x"))
            .collect();
        assert_eq!(writes, [""; 0], "{options:?}");
    }
}

#[test]
fn dry_run_of_a_tree_touches_no_entry() {
    for seed in 0..4 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.populate(seed, 60);
        }
        destination.mutate(seed + 9, 50);
        let before = Snapshot::of(destination.path());
        let of_source = Snapshot::of(source.path());
        for options in OPTIONS {
            let ended = copy(source.path(), destination.path(), &[options, &["-n"]].concat());
            assert!([0, 23, 25].contains(&ended.code()), "{options:?}: {}", ended.stderr);
            assert_untouched(&before, destination.path());
            assert_untouched(&of_source, source.path());
        }
    }
}

#[test]
fn dry_run_onto_a_read_only_file_system_ends_as_the_run_does() {
    let Some(mount) = Mount::ext4(32) else { return };
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    source.populate(3, 40);
    copy(source.path(), destination.path(), &[]).expect(0);
    mount.read_only();
    for changed in [false, true] {
        if changed {
            source.file("new", "1");
        }
        let run = copy(source.path(), destination.path(), &[]);
        let dry = copy(source.path(), destination.path(), &["-n"]);
        dry.expect(if changed { 11 } else { 0 });
        assert_eq!(run.code(), dry.code(), "{}", run.stderr);
        assert_eq!(dry.stderr.contains("Read-only file system"), changed, "{}", dry.stderr);
    }
}

#[test]
fn dry_run_onto_a_read_only_subvolume_ends_as_the_run_does() {
    if !skip::commands(&["btrfs"]) {
        return;
    }
    let (Some(mount), source) = (Mount::btrfs(128), TempTree::new()) else { return };
    source.file("new", "1").file("sub/y", "2");
    let (writable, destination) = (mount.path().join("w"), mount.path().join("ro"));
    for (words, paths) in
        [(&["create"][..], vec![&writable]), (&["snapshot", "-r"], vec![&writable, &destination])]
    {
        let made = Command::new("btrfs").arg("subvolume").args(words).args(paths).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    for options in [&["-n"][..], &[]] {
        let finished = copy(source.path(), &destination, options);
        assert_eq!(finished.code(), 11, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("Read-only file system"), "{}", finished.stderr);
    }
}

#[test]
fn dry_run_of_a_user_names_the_device_nodes_that_the_run_cannot_make() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a", "1").fifo("fifo");
    let (mode, file) = (rustix::fs::Mode::from(0o666), rustix::fs::FileType::CharacterDevice);
    let at = source.at("null");
    rustix::fs::mknodat(rustix::fs::CWD, &at, file, mode, rustix::fs::makedev(1, 3)).unwrap();
    for tree in [&source, &destination] {
        tree.owner("", 65_534, 65_534);
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let mut named = Vec::new();
    for options in [&["--no-owner", "-n"][..], &["--no-owner"]] {
        let command = copy_command(source.path(), destination.path(), options);
        let ended = Process::run(below(&user, &command));
        let report = report(ended.expect(23));
        let errors = report["errors"].as_array().unwrap().clone();
        named.push(errors.into_iter().map(|error| error["name"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(named[0], ["null"]);
    assert_eq!(named[0], named[1]);
}

#[test]
fn dry_run_of_a_user_names_the_files_that_the_run_cannot_read() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("closed", "1").file("d/closed", Content::random(1, 900_000)).file("open", "2");
    source.file("same", "3").mtime("same", 5, 5).file("first", "4").hard_link("first", "second");
    destination.file("same", "3").mtime("same", 5, 5).file("closed", "older").mtime("closed", 1, 1);
    for path in ["closed", "d/closed", "same", "first"] {
        source.mode(path, 0o600);
    }
    destination.mode("same", 0o600);
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        std::os::unix::fs::chown(tree.path(), Some(65_534), Some(65_534)).unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for path in ["closed", "same"] {
        destination.owner(path, 65_534, 65_534);
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let mut named = Vec::new();
    for options in [&["--no-owner", "-n"][..], &["--no-owner"]] {
        let command = copy_command(source.path(), destination.path(), options);
        let ended = Process::run(below(&user, &command));
        let report = report(ended.expect(23));
        let errors = report["errors"].as_array().unwrap().iter();
        let mut names: Vec<_> = errors.map(|e| e["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        named.push((names, report["files_written"].clone()));
    }
    assert_eq!(named[0].0, ["closed", "d/closed", "first", "second"]);
    assert_eq!(named[0], named[1]);
}

#[test]
fn dry_run_onto_nothing_makes_nothing() {
    let (source, parent) = (TempTree::new(), TempTree::new());
    source.populate(3, 40);
    let ctime = || fs::metadata(parent.path()).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    let before = ctime();
    for options in OPTIONS {
        copy(source.path(), &parent.at("new"), &[options, &["-n"]].concat()).expect(0);
        assert!(!parent.at("new").exists(), "{options:?}");
        assert_eq!(ctime(), before, "{options:?}");
    }
}

/// A tree of few names, contents and times, so that two of them agree in some entries and differ in all ways in others.
fn small_tree(rng: &mut Rng) -> TempTree {
    const NAMES: [&str; 6] = ["a", "b", "c.keep", "d", "keep", "z"];
    let tree = TempTree::new();
    let mut files: Vec<String> = Vec::new();
    for _ in 0..30 {
        let depth = 1 + rng.below(3);
        let parts: Vec<_> = (0..depth).map(|_| NAMES[rng.below(6) as usize]).collect();
        let path = parts.join("/");
        let free = (1..=parts.len()).all(|n| {
            let at = tree.at(parts[..n].join("/"));
            at.symlink_metadata().map_or(true, |meta| n < parts.len() && meta.is_dir())
        });
        if !free {
            continue;
        }
        match rng.below(10) {
            0 => {
                tree.dir(&path);
            }
            1 => {
                tree.symlink(&path, NAMES[rng.below(2) as usize]);
            }
            2 => {
                tree.fifo(&path);
            }
            3 | 4 if !files.is_empty() => {
                let first = &files[rng.below(files.len() as u64) as usize];
                tree.hard_link(first, &path);
            }
            kind => {
                let content = match kind {
                    5 | 6 => Content::from(""),
                    7 => Content::random(rng.below(2), 100_000),
                    _ => Content::from(["x", "y"][rng.below(2) as usize]),
                };
                tree.file(&path, content).mtime(&path, 5 + rng.below(2) as i64, 0);
                match rng.below(8) {
                    0 => {
                        tree.mode(&path, 0o600);
                    }
                    1 => {
                        tree.owner(&path, 7, 7);
                    }
                    2 => {
                        tree.xattr(&path, "user.a", &[b'x'; 40]);
                    }
                    3 => {
                        tree.xattr(&path, "user.a", b"y");
                    }
                    _ => {}
                }
                files.push(path);
            }
        }
    }
    tree
}

#[test]
fn dry_run_and_the_run_after_it_name_the_same_set() {
    if !skip::root() {
        return;
    }
    let rules: [&[&str]; 4] = [
        &[],
        &["--exclude=*.keep"],
        &["--exclude=keep/", "--exclude=/z"],
        &["--include=*/", "--exclude=a"],
    ];
    let seeds = std::env::var("PVFERRY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let mut rng = Rng::new(seed);
        let (source, destination) = (small_tree(&mut rng), small_tree(&mut rng));
        let mut options = vec!["--itemize", "--progress", "none", "--allow-empty-source"];
        for option in ["--checksum", "--delete", "--atomic", "--no-owner"] {
            if rng.below(2) == 0 {
                options.push(option);
            }
        }
        options.extend(rules[rng.below(4) as usize]);
        let before = Snapshot::of(destination.path());
        let dry = copy(source.path(), destination.path(), &[&options[..], &["-n"]].concat());
        assert_untouched(&before, destination.path());
        let real = copy(source.path(), destination.path(), &options);
        let case = format!("seed {seed} {options:?}\n{}\n{}", dry.stderr, real.stderr);
        assert_eq!(changes(&dry), changes(&real), "{case}");
        assert_eq!(dry.code(), real.code(), "{case}");
        let (dry, real) = (report(&dry), report(&real));
        let errors = |report: &serde_json::Value| {
            let errors = report["errors"].as_array().unwrap().iter().map(ToString::to_string);
            errors.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(errors(&dry), errors(&real), "{case}");
        for count in ["files_written", "files_deleted", "entries"] {
            assert_eq!(dry[count], real[count], "{count} {case}\n{dry}\n{real}");
        }
    }
}

#[test]
fn dry_run_of_new_hard_linked_empty_files_exits_0() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("empty", "").hard_link("empty", "second").hard_link("empty", "d/third");
    let ended = copy(source.path(), destination.path(), &["-n", "--progress", "none"]);
    ended.expect(0);
    assert_eq!(changes(&ended), ["create d/", "create d/third", "create empty", "create second"]);
}

#[test]
fn dry_run_by_content_announces_every_name_of_a_changed_file() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (tree, content) in [(&source, "new"), (&destination, "old")] {
        tree.file("a", content).hard_link("a", "b").hard_link("a", "c").mtime("a", 5, 0);
        tree.mtime("", 5, 0);
    }
    let options = ["--checksum", "--itemize", "--progress", "none"];
    let dry = copy(source.path(), destination.path(), &[&options[..], &["-n"]].concat());
    assert_eq!(changes(dry.expect(0)), ["update a", "update b", "update c"]);
    let real = copy(source.path(), destination.path(), &options);
    assert_eq!(changes(real.expect(0)), changes(&dry));
}

#[test]
fn dry_run_of_a_large_file_with_another_time_and_the_same_content_names_metadata_only() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (tree, time) in [(&source, 1), (&destination, 2)] {
        tree.file("f", Content::random(1, 1 << 20)).mtime("f", time, 0).mtime("", 5, 5);
    }
    let options = ["--itemize", "--progress", "none"];
    let dry = copy(source.path(), destination.path(), &[&options[..], &["-n"]].concat());
    let run = copy(source.path(), destination.path(), &options);
    assert_eq!(changes(&dry), ["metadata f"]);
    assert_eq!(changes(&run), ["metadata f"]);
    assert_eq!(report(&dry)["files_written"], 0);
    assert_eq!(report(&run)["files_written"], 0);
}

#[test]
fn dry_run_leaves_what_an_interrupted_run_left() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1");
    destination.dir("made").mode("made", 0o700);
    let staging = format!(
        ".pvferry-{:x}-0123456789abcdef",
        fs::metadata(destination.at("made")).unwrap().ino()
    );
    destination.rename("made", &staging).file(format!("{staging}/part"), "unfinished");
    let before = Snapshot::of(destination.path());
    for options in OPTIONS {
        copy(source.path(), destination.path(), &[options, &["-n"]].concat()).expect(0);
        assert_untouched(&before, destination.path());
    }
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert!(!destination.at(&staging).exists(), "the run itself removes it");
}

/// Calls that change a volume by a name or a descriptor.
const CHANGES: [&str; 17] = [
    "fs::mkdirat(",
    "fs::symlinkat(",
    "fs::mknodat(",
    "fs::linkat(",
    "fs::renameat(",
    "fs::renameat_with(",
    "fs::unlinkat(",
    "fs::fchmod(",
    "fs::chmod(",
    "fs::chownat(",
    "fs::futimens(",
    "fs::utimensat(",
    "fs::fsetxattr(",
    "fs::lsetxattr(",
    "fs::fremovexattr(",
    "fs::lremovexattr(",
    "fs::ioctl_setflags(",
];

/// What asks whether the volume may be changed.
const CHECKS: [&str; 3] = ["unlocking(", "lifting(", "check_writable"];

/// Functions whose callers have asked, or that have a file which is open for writing.
const ASKED: [&str; 6] =
    ["close_to_others", "open_part", "mark_changed", "restore", "set_flags", "widen_dir"];

#[test]
fn every_function_that_changes_a_volume_asks_whether_it_may() {
    let volume = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/volume/src");
    let mut changing = 0;
    for entry in walkdir::WalkDir::new(volume) {
        let path = entry.unwrap().into_path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let text = text.split("#[cfg(test)]").next().unwrap();
        // A function reaches to the next one; closures and nested items belong to it.
        for function in text.split("fn ").skip(1) {
            if !CHANGES.iter().any(|call| function.contains(call)) {
                continue;
            }
            changing += 1;
            let name: String =
                function.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let asks = CHECKS.iter().any(|check| function.contains(check));
            assert!(asks || ASKED.contains(&&*name), "{}: {name} does not ask", path.display());
        }
    }
    assert!(changing > 15, "the calls are out of date: {changing}");
}
