//! Unfinished content lies in a private staging directory at the root of the volume: no name of the source is
//! special, nothing that somebody else laid down is reused, and nothing that was believed absent is replaced.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{
    Content, Mount, OddMount, Process, Quirks, Rng, Snapshot, TempTree, assert_same, lock, skip,
    syscalls::{Moment, killed_at},
};

use crate::support::{assert_untouched, below, copy, copy_command, pvferry, report};

/// Names that earlier versions gave to unfinished entries called `a`.
const OLD_PART: &str = ".pvferry-17762fddd969a453.part";
const OLD_NEW: &str = ".pvferry-17762fddd969a453.new";

/// The staging directories at the root of a volume, by the form of their names.
fn staging_of(volume: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().path());
    let is_staging = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let rest = name.strip_prefix(".pvferry-").unwrap_or_default();
        rest.split_once('-').is_some_and(|(number, _)| {
            u64::from_str_radix(number, 16) == Ok(path.symlink_metadata().unwrap().ino())
        })
    };
    entries.filter(is_staging).collect()
}

/// A destination in which a run was killed before the `nth` call of `call`.
fn killed(source: &TempTree, destination: &TempTree, call: &'static str, nth: u32) {
    killed_with(source, destination, call, nth, &["--delete"]);
}

fn killed_with(
    source: &TempTree,
    destination: &TempTree,
    call: &'static str,
    nth: u32,
    options: &[&str],
) {
    let moment = Moment { call: call.to_owned(), nth };
    let command = copy_command(source.path(), destination.path(), options);
    let ended = Process::run(killed_at(&command, &moment));
    assert!(!ended.status.success(), "killed at {call} {nth}");
    lock::wait_until_free(destination.path());
}

#[test]
fn a_file_and_another_under_its_old_part_name_both_arrive() {
    for (of_a, of_part) in [(2, 2), (900_000, 400_000), (400_000, 900_000)] {
        for run in 0..3 {
            let (source, destination) = (TempTree::new(), TempTree::new());
            for dir in ["", "dir/"] {
                source.file(format!("{dir}a"), Content::random(run, of_a));
                source.file(format!("{dir}{OLD_PART}"), Content::random(run + 100, of_part));
            }
            copy(source.path(), destination.path(), &[]).expect(0);
            assert_same(source.path(), destination.path());
        }
    }
}

#[test]
fn a_directory_under_the_old_name_of_a_new_one_arrives() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a/inside", "1").file(format!("{OLD_NEW}/planted"), "2");
    destination.file("other", "so that it is not empty");
    source.file("other", "so that it is not empty");
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn what_lies_in_the_destination_under_old_temporary_names_is_not_reused() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a", Content::random(1, 900_000)).mode("a", 0o600).file("d/a/f", "1");
    let of_a_user = |path: &str| {
        destination.owner(path, 65_534, 65_534).mode(path, 0o644);
    };
    destination.file(OLD_PART, Content::random(1, 900_000)).mode("", 0o1777);
    destination.file(format!("d/{OLD_NEW}/planted"), "2");
    if skip::root() {
        of_a_user(OLD_PART);
    }
    let planted = destination.at(OLD_PART).symlink_metadata().unwrap().ino();
    copy(source.path(), destination.path(), &[]).expect(0);
    let arrived = destination.at("a").symlink_metadata().unwrap();
    let uid = source.at("a").symlink_metadata().unwrap().uid();
    assert_eq!((arrived.mode() & 0o7777, arrived.uid()), (0o600, uid));
    assert_ne!(arrived.ino(), planted);
    assert!(destination.at(OLD_PART).exists() && !destination.at("d/a/planted").exists());
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_run_that_changes_nothing_writes_nothing_and_one_that_does_leaves_nothing() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.everything().file("large", Content::random(1, 900_000));
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
    let before = Snapshot::of(destination.path());
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_untouched(&before, destination.path());
}

#[test]
fn a_killed_run_leaves_one_private_directory_which_the_next_run_reuses_and_removes() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("new/a", "1").file("z", Content::random(1, 9_000_000));
    for tree in [&source, &destination] {
        tree.file("kept", "2");
    }
    killed(&source, &destination, "ftruncate", 1);
    let staging = staging_of(destination.path());
    let [staging] = &staging[..] else { panic!("{staging:?}") };
    assert_eq!(staging.symlink_metadata().unwrap().mode() & 0o7777, 0o700);
    let names: Vec<_> = fs::read_dir(destination.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path != staging && !path.ends_with("new") && !path.ends_with("kept"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    let again = copy(source.path(), destination.path(), &[]);
    let literal = report(again.expect(0))["bytes_literal"].as_u64().unwrap();
    assert!(literal <= 1, "the large file is here: {literal}");
    assert_same(source.path(), destination.path());
}

/// Runs that are killed, by their rules; a run that succeeds; whether the staging directory is still there then.
type Rules = &'static [&'static str];
const AFTER_KILLS: [(&[Rules], Rules, bool); 6] = [
    (&[&["--exclude", "*.log"]], &["--exclude", "*.log"], false),
    (&[&["--exclude", "*.log"]], &[], false),
    (&[&["--exclude", "*.log"]], &["--exclude", "*.tmp"], true),
    (&[&[]], &["--exclude", "*.log"], true),
    (&[&["--exclude", "*.log"], &["--exclude", "*.tmp"]], &["--exclude", "*.tmp"], true),
    (&[&["--exclude", "*.log"], &["--exclude", "*.log"]], &["--exclude", "*.log"], false),
];

#[test]
fn a_run_that_sees_all_that_the_killed_ones_saw_leaves_nothing() {
    if !skip::commands(&["strace"]) {
        return;
    }
    for (kills, rules, stays) in AFTER_KILLS {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.file("large", Content::random(1, 3 << 20)).file("x.log", "1").file("x.tmp", "2");
        }
        for (nth, rules) in (0..).zip(kills) {
            source.patch("large", 5 + nth * 1_000_000, b"changed");
            killed_with(&source, &destination, "fdatasync", 1, rules);
        }
        copy(source.path(), destination.path(), rules).expect(0);
        let case = format!("{kills:?} {rules:?}");
        assert_eq!(!staging_of(destination.path()).is_empty(), stays, "{case}");
        // One that succeeds in between changes nothing about what is left to be done.
        copy(source.path(), destination.path(), rules).expect(0);
        assert_eq!(!staging_of(destination.path()).is_empty(), stays, "{case}");
        if stays && kills.len() == 1 {
            copy(source.path(), destination.path(), kills[0]).expect(0);
        } else {
            copy(source.path(), destination.path(), &[]).expect(0);
        }
        assert!(staging_of(destination.path()).is_empty(), "{case}");
        assert_same(source.path(), destination.path());
    }
}

#[test]
fn a_staging_directory_in_the_source_is_reported_and_left_out_and_a_copy_of_it_arrives() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (origin, source, destination) = (TempTree::new(), TempTree::new(), TempTree::new());
    origin.file("a", Content::random(1, 9_000_000)).file("b", "text");
    source.file("old", "so that it is not empty");
    killed(&origin, &source, "ftruncate", 1);
    let staging = staging_of(source.path());
    let [staging] = &staging[..] else { panic!("{staging:?}") };
    let name = staging.file_name().unwrap().to_str().unwrap();

    let finished = copy(source.path(), destination.path(), &["--verify", "--progress", "none"]);
    let report = report(finished.expect(0));
    assert_eq!(report["skipped"], 1, "{report}");
    let told = format!("{name}: skipped: ");
    assert_eq!(finished.stderr.lines().filter(|line| line.starts_with(&told)).count(), 1);
    assert!(!destination.at(name).exists());
    let mut verify = pvferry(["verify"]);
    verify.arg(source.path()).arg(destination.path());
    Process::run(verify).expect(0);

    // Any other tool gives the copy another inode number, so it is data like any other.
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(staging).arg(origin.at("x"));
    Process::run(cp).expect(0);
    origin.rename("x", name).dir("deeper");
    fs::create_dir(destination.at("deeper")).unwrap();
    copy(origin.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(origin.path(), destination.path());
}

#[test]
fn default_acls_of_root_and_directory_leak_into_nothing() {
    if !skip::commands(&["setfacl"]) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1").file("old/f", "2").file("old/large", Content::random(1, 900_000));
    source.file("new/f", "3").symlink("old/l", "x").file("old/dir/f", "4");
    destination.file("old/f", "5");
    for path in ["", "old"] {
        destination.acl(path, "d:u:1000:rwx").acl(path, "d:o:rwx");
    }
    source.acl("old", "d:g:7:rx");
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_setgid_directory_gives_its_group_to_what_an_ordinary_user_receives_into_it() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    // The user is not a member of the group of the last directory: only the kernel can give it.
    for group in [65_534, 4343, 7] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.dir("old");
            for path in ["", "old"] {
                tree.owner(path, 65_534, group).mode(path, 0o2775);
            }
            let parent = tree.path().parent().unwrap();
            fs::set_permissions(parent, PermissionsExt::from_mode(0o755)).unwrap();
        }
        source.file("small", "1").file("old/large", Content::random(1, 900_000));
        source.symlink("old/link", "x").file("old/new/f", "2").file("old/small", "3");
        source.mode("old/new", 0o755);
        destination.file("old/small", "old").owner("old/small", 65_534, group);
        let run = copy_command(source.path(), destination.path(), &["--no-owner"]);
        let user = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=4343", "--"];
        Process::run(below(&user, &run)).expect(0);
        for path in ["small", "old/large", "old/link", "old/new", "old/small"] {
            let node = destination.at(path).symlink_metadata().unwrap();
            assert_eq!((node.uid(), node.gid()), (65_534, group), "{path}");
        }
    }
}

#[test]
fn directories_with_another_project_quota_are_written_to() {
    if !(skip::root() && skip::commands(&["xfs_io"])) {
        return;
    }
    let Some(volume) = Mount::xfs(400) else { return };
    let (source, destination) = (TempTree::new(), TempTree::below(volume.path()));
    for tree in [&source, &destination] {
        tree.file("limited/replaced", "old")
            .file("limited/sub/patched", Content::random(1, 900_000));
    }
    let limited = destination.at("limited");
    let project = ["-c", "chproj -R 42", "-c", "chattr -R +P"];
    let mut xfs_io = Command::new("xfs_io");
    Process::run({
        xfs_io.args(project).arg(&limited);
        xfs_io
    })
    .expect(0);
    destination.symlink("limited/link", "old");
    source.file("limited/replaced", "new text").file("limited/small", "2");
    source.symlink("limited/link", "new").hard_link("limited/small", "limited/second");
    source.file("limited/large", Content::random(2, 900_000)).patch("limited/sub/patched", 5, b"x");
    source.file("limited/new/deep/f", "3").file("outside", "4").fifo("limited/fifo");
    source.file("limited/new/large", Content::random(3, 900_000));
    copy(source.path(), destination.path(), &["--atomic"]).expect(0);
    assert_same(source.path(), destination.path());
    assert_eq!(staging_of(destination.path()), [""; 0].map(PathBuf::from));
}

/// Pairs of entries whose names differ in case only.
const PAIRS: [[&str; 2]; 8] = [
    ["Dir", "dir"],
    ["Fifo", "fifo"],
    ["Hard", "hard"],
    ["Large", "large"],
    ["Link", "link"],
    ["Small", "small"],
    ["Xattr", "xattr"],
    ["new/Small", "new/small"],
];

/// Files large enough for each to have a thread of its own, on a file system that cannot keep a rename from replacing.
#[test]
fn large_files_that_arrive_at_once_under_one_name_are_conflicts_without_rename_flags_and_links() {
    const PAIRS: u64 = 60;
    let source = TempTree::new();
    for pair in 0..PAIRS {
        for (name, seed) in [("A", 2 * pair), ("a", 2 * pair + 1)] {
            source.file(format!("{pair}{name}"), Content::random(seed, 70_000));
        }
    }
    let quirks = Quirks { ignore_case: true, no_rename_flags: true, ..Quirks::default() };
    let Some(odd) = OddMount::new(Quirks { no_hard_links: true, ..quirks }) else { return };
    fs::write(odd.path().join("other"), "so that it is not empty").unwrap();
    let report = report(copy(source.path(), odd.path(), &[]).expect(23));
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len() as u64, PAIRS, "{report}");
    assert_eq!(report["files_written"], PAIRS, "{report}");
}

#[test]
fn names_that_are_one_at_the_destination_are_conflicts_in_every_run_and_never_merged() {
    let source = TempTree::new();
    for (index, [upper, lower]) in PAIRS.into_iter().enumerate() {
        for (path, seed) in [(upper, 2 * index as u64), (lower, 2 * index as u64 + 1)] {
            match upper {
                "Dir" => source.file(format!("{path}/in {path}"), "1"),
                "Fifo" => source.fifo(path),
                "Hard" if path == lower => source.hard_link(upper, lower),
                "Large" => source.file(path, Content::random(seed, 900_000)),
                "Link" => source.symlink(path, path),
                "Xattr" => source.file(path, Content::random(seed, 50)).xattr(path, "user.x", b"1"),
                _ => source.file(path, Content::random(seed, 100)),
            };
        }
    }
    let flags = Quirks { ignore_case: true, ..Quirks::default() };
    let links = Quirks { no_rename_flags: true, ..flags.clone() };
    let neither = Quirks { no_hard_links: true, ..links.clone() };
    for (quirks, fresh) in [(flags.clone(), true), (flags, false), (links, false), (neither, false)]
    {
        let Some(odd) = OddMount::new(quirks.clone()) else { return };
        let case = format!("{quirks:?}, fresh {fresh}");
        if !fresh {
            fs::write(odd.path().join("other"), "so that it is not empty").unwrap();
        }
        for _run in 0..2 {
            let finished = copy(source.path(), odd.path(), &[]);
            let report = report(finished.expect(23));
            let errors = report["errors"].as_array().unwrap();
            for pair in PAIRS {
                let named = |name: &&str| {
                    let of = |error: &&serde_json::Value| error["name"] == **name;
                    errors.iter().filter(of).count()
                };
                let what = format!("{case}: {pair:?}: {report}");
                assert_eq!(pair.iter().map(named).sum::<usize>(), 1, "{what}");
                let [kept] =
                    pair.into_iter().filter(|name| named(name) == 0).collect::<Vec<_>>()[..]
                else {
                    panic!("{what}")
                };
                let (here, there) = (odd.path().join(kept), source.at(kept));
                if there.is_file() && !there.is_symlink() {
                    assert!(fs::read(&here).unwrap() == fs::read(&there).unwrap(), "{what}");
                }
                assert_eq!(here.read_link().ok(), there.read_link().ok(), "{what}");
            }
            let conflict = |error: &&serde_json::Value| {
                error["what"].as_str().unwrap().contains("conflicts with an existing entry")
            };
            assert_eq!(errors.iter().filter(conflict).count(), PAIRS.len(), "{case}: {report}");
        }
        let in_dir = fs::read_dir(odd.path().join("dir")).unwrap().count();
        assert_eq!(in_dir, 1, "{case}: two directories were merged");
        assert!(staging_of(odd.path()).is_empty(), "{case}");
    }
}

#[test]
fn a_file_system_without_modes_is_written_to_and_nothing_is_left() {
    let source = TempTree::new();
    source.file("a", "1").file("large", Content::random(1, 900_000)).file("new/f", "2");
    let Some(odd) = OddMount::new(Quirks { no_modes: true, ..Quirks::default() }) else { return };
    copy(source.path(), odd.path(), &["--delete"]).expect(23);
    let names: std::collections::BTreeSet<_> =
        fs::read_dir(odd.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a", "large", "new"].map(Into::into).into());
    assert!(fs::read(odd.path().join("large")).unwrap() == fs::read(source.at("large")).unwrap());
}

/// A name of one of the forms that unfinished entries have or had, or one that is similar.
fn name(rng: &mut Rng) -> String {
    let digits = format!("{:016x}", rng.next_u64());
    match rng.below(9) {
        0 => "a".to_owned(),
        1 => OLD_PART.to_owned(),
        2 => OLD_NEW.to_owned(),
        3 => format!(".pvferry-{digits}.part"),
        4 => format!(".pvferry-{digits}.new"),
        5 => format!(".pvferry-{:x}-{digits}", rng.below(200_000)),
        6 => ".pvferry-ee2d19316401a6f5.part".to_owned(),
        7 => "crash-marker".to_owned(),
        _ => format!("{digits}{digits}"),
    }
}

#[test]
fn entries_of_any_name_arrive_and_a_second_run_writes_nothing() {
    for seed in 0..24 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        let rng = &mut Rng::new(seed);
        for _ in 0..rng.below(9) {
            let parent = if rng.below(2) == 0 { ".".to_owned() } else { name(rng) };
            let path = Path::new(&parent).join(name(rng));
            let (above, here) = (source.at(&parent), source.at(&path));
            if (above.symlink_metadata().is_ok() && !above.is_dir())
                || here.symlink_metadata().is_ok()
            {
                continue;
            }
            match rng.below(4) {
                0 => source.dir(&path),
                1 => source.file(&path, Content::random(rng.next_u64(), 100)),
                2 => source.file(&path, Content::random(rng.next_u64(), 300_000)),
                _ => source.symlink(&path, "x"),
            };
        }
        source.file("also", "1");
        if seed % 2 == 0 {
            destination.file("old", "2");
        }
        copy(source.path(), destination.path(), &["--delete"]).expect(0);
        assert_same(source.path(), destination.path());
        let copied = Snapshot::of(destination.path());
        let again = copy(source.path(), destination.path(), &["--delete"]);
        assert_eq!(report(again.expect(0))["files_written"], 0, "seed {seed}");
        assert_untouched(&copied, destination.path());
    }
}
