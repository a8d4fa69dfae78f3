//! Entries of the source that are left out by design are reported once and counted. They are not errors.

use std::{fs, path::Path, process::Command};

use testkit::{Finished, Mount, Process, TempTree, assert_same, skip};

use crate::support::{assert_explains, copy, pvferry, report};

/// A tmpfs mounted inside a tree; unmounted when dropped.
struct Inside<'a>(&'a Path);

impl<'a> Inside<'a> {
    fn mount(point: &'a Path) -> Self {
        fs::create_dir_all(point).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(point).status();
        assert!(mounted.unwrap().success());
        Self(point)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// The lines on standard error that report a skipped entry.
fn reported(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter(|line| line.contains(": skipped: ")).collect()
}

#[test]
fn a_mount_point_in_the_source_is_reported_once_with_exit_code_0() {
    if !skip::root() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("dir/f", "1");
    let point = source.at("dir/mounted");
    let _mounted = Inside::mount(&point);
    fs::write(point.join("beyond"), "another file system").unwrap();
    for options in [&["--verify", "--progress", "none"][..], &["-n", "--progress", "none"]] {
        let finished = copy(source.path(), destination.path(), options);
        let report = report(finished.expect(0));
        assert_eq!(report["skipped"], 1, "{report}");
        let lines = reported(&finished);
        assert_eq!(lines, ["dir/mounted: skipped: mount point: its content is not copied"]);
    }
}

#[test]
fn lost_and_found_with_content_is_reported_and_a_pristine_one_is_not() {
    let (Some(volume), destination) = (Mount::ext4(16), TempTree::new()) else { return };
    fs::write(volume.path().join("f"), "text").unwrap();
    let run = || copy(volume.path(), destination.path(), &["--progress", "none"]);
    let pristine = run();
    assert_eq!(report(pristine.expect(0))["skipped"], 0);
    assert_eq!(reported(&pristine), [""; 0]);

    fs::write(volume.path().join("lost+found/mine"), "text").unwrap();
    let finished = run();
    assert_eq!(report(finished.expect(0))["skipped"], 1);
    let line = "lost+found: skipped: belongs to the file system and is not copied";
    assert_eq!(reported(&finished), [line]);
    assert!(!destination.at("lost+found").exists());
}

#[test]
fn a_lost_and_found_that_a_user_made_is_reported_even_if_it_is_empty() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.dir("lost+found").file("dir/lost+found/f", "below the root it is like any other");
    let finished = copy(source.path(), destination.path(), &["--progress", "none"]);
    assert_eq!(report(finished.expect(0))["skipped"], 1);
    assert!(destination.at("dir/lost+found/f").exists());
    let excluded = copy(source.path(), destination.path(), &["--exclude", "/lost+found"]);
    assert_eq!(report(excluded.expect(0))["skipped"], 0, "a filter leaves it out");
}

/// Makes a subvolume of btrfs at `path`.
fn subvolume(path: &Path) {
    let made = Command::new("btrfs").args(["subvolume", "create"]).arg(path).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn subvolumes_of_btrfs_in_the_source_are_copied_with_what_they_hold() {
    if !skip::commands(&["btrfs"]) {
        return;
    }
    let (Some(volume), destination) = (Mount::btrfs(128), TempTree::new()) else { return };
    // Inode numbers begin anew in each subvolume: the files below have the same one, and several names.
    for part in ["one", "two"] {
        let part = volume.path().join(part);
        subvolume(&part);
        fs::write(part.join("f"), part.to_str().unwrap()).unwrap();
        fs::hard_link(part.join("f"), part.join("g")).unwrap();
    }
    subvolume(&volume.path().join("one/inner"));
    fs::write(volume.path().join("one/inner/deep"), "deep").unwrap();

    let finished = copy(volume.path(), destination.path(), &["--verify", "--progress", "none"]);
    assert_eq!(report(finished.expect(0))["skipped"], 0, "{}", finished.stderr);
    assert_eq!(reported(&finished), [""; 0]);
    assert_same(volume.path(), destination.path());
}

#[test]
fn a_read_only_snapshot_in_the_destination_is_reported_and_everything_else_is_done() {
    if !skip::commands(&["btrfs"]) {
        return;
    }
    let (Some(volume), source) = (Mount::btrfs(256), TempTree::new()) else { return };
    let destination = volume.path().join("d");
    fs::create_dir(&destination).unwrap();
    subvolume(&destination.join("sub"));
    fs::write(destination.join("sub/f"), "1").unwrap();
    for snapshot in ["a gone", "b kept"] {
        let made = Command::new("btrfs")
            .args(["subvolume", "snapshot", "-r"])
            .args([destination.join("sub"), destination.join(snapshot)])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    fs::create_dir(destination.join("z gone")).unwrap();
    fs::write(destination.join("z gone/f"), "old").unwrap();
    source.file("b kept/f", "other").file("b kept/new", "new").file("sub/f", "2").file("z", "3");

    for options in [&["--delete", "-n"][..], &["--delete"], &["--delete", "--atomic"]] {
        let finished = copy(source.path(), &destination, options);
        report(finished.expect(23));
        assert_explains(&finished, &["Read-only file system"]);
        assert!(!finished.stderr.contains("gave up"), "{}", finished.stderr);
    }
    for path in ["sub/f", "z"] {
        assert_eq!(fs::read(source.at(path)).unwrap(), fs::read(destination.join(path)).unwrap());
    }
    assert!(!destination.join("z gone").exists());
    for snapshot in ["a gone/f", "b kept/f"] {
        assert_eq!(fs::read(destination.join(snapshot)).unwrap(), b"1");
    }
}

/// The times of the directory that stands for the inner subvolume are those of each look.
#[test]
fn a_snapshot_of_btrfs_with_a_subvolume_in_it_is_copied_with_verify_and_the_subvolume_is_named() {
    let (Some(volume), destination) = (Mount::btrfs(256), TempTree::new()) else { return };
    subvolume(&volume.path().join("v"));
    subvolume(&volume.path().join("v/in"));
    fs::write(volume.path().join("v/f"), "text").unwrap();
    let snapshot = volume.path().join("snapshot");
    let made = Command::new("btrfs")
        .args(["subvolume", "snapshot", "-r"])
        .args([volume.path().join("v"), snapshot.clone()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for round in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let finished = copy(&snapshot, destination.path(), &["--verify", "--itemize"]);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert!(finished.stderr.contains("subvolume in a Btrfs snapshot"), "{}", finished.stderr);
        assert!(round == 0 || !finished.stdout.contains("metadata"), "{}", finished.stdout);
    }
    let verified = Process::run(pvferry([
        "verify".as_ref(),
        snapshot.as_os_str(),
        destination.path().as_os_str(),
    ]));
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn subvolumes_of_btrfs_in_the_destination_are_written_to_and_removed() {
    if !skip::commands(&["btrfs"]) {
        return;
    }
    let (Some(volume), source) = (Mount::btrfs(256), TempTree::new()) else { return };
    let large = vec![7; 3 << 20];
    source.file("kept/small", "1").file("kept/linked", "2").dir("kept/new/dir").file("top", "3");
    fs::write(source.at("kept/large"), &large).unwrap();
    fs::write(source.at("kept/moved"), &large[1..]).unwrap();
    fs::hard_link(source.at("kept/linked"), source.at("kept/linked too")).unwrap();
    fs::hard_link(source.at("top"), source.at("kept/top")).unwrap();

    let destination = volume.path().join("d");
    fs::create_dir(&destination).unwrap();
    for part in ["kept", "gone", "gone/inner"] {
        subvolume(&destination.join(part));
    }
    fs::write(destination.join("moved from"), &large[1..]).unwrap();
    fs::write(destination.join("kept/large"), &large[..1 << 20]).unwrap();
    fs::write(destination.join("gone/inner/f"), "old").unwrap();

    // Names of one inode on both sides of a subvolume cannot be: that is an error, and it is named.
    let finished = copy(source.path(), &destination, &["--delete", "--progress", "none"]);
    finished.expect(23);
    assert!(finished.stderr.contains("top: "), "{}", finished.stderr);
    fs::remove_file(source.at("kept/top")).unwrap();

    let options = ["--delete", "--verify", "--progress", "none"];
    copy(source.path(), &destination, &options).expect(0);
    assert_same(source.path(), &destination);
    assert!(!destination.join("gone").exists());
}

#[test]
fn digest_and_verify_name_the_mount_points_that_they_do_not_enter() {
    if !skip::root() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1");
    let point = source.at("mounted");
    let _mounted = Inside::mount(&point);
    copy(source.path(), destination.path(), &["--progress", "none"]).expect(0);

    let line = "mounted: skipped: mount point";
    let digest = pvferry(["digest"]).arg(source.path()).output().unwrap();
    assert_eq!(String::from_utf8(digest.stderr).unwrap().trim_end(), line);
    let verify = pvferry(["verify"]).args([source.path(), destination.path()]).output().unwrap();
    assert_eq!(String::from_utf8(verify.stderr).unwrap().trim_end(), line);
    assert_eq!(verify.status.code(), Some(0));
    let said = String::from_utf8(verify.stdout).unwrap();
    assert!(said.contains("1 skipped"), "{said}");
}

#[test]
fn verify_names_lost_and_found_which_it_does_not_compare() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        tree.file("f", "1").mtime("f", 1, 1);
    }
    source.dir("lost+found");
    for tree in [&source, &destination] {
        tree.mtime("", 1, 1);
    }
    let verify = pvferry(["verify"]).args([source.path(), destination.path()]).output().unwrap();
    assert_eq!(verify.status.code(), Some(0));
    let said = String::from_utf8([verify.stdout, verify.stderr].concat()).unwrap();
    assert!(said.contains("lost+found: skipped") && said.contains("1 skipped"), "{said}");
}

#[test]
fn verify_after_a_copy_leaves_out_what_is_below_a_skipped_mount_point_at_the_destination() {
    if !skip::root() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1");
    let point = source.at("d");
    let _mounted = Inside::mount(&point);
    destination.file("d/old/deep", "2");
    for options in [&["--verify"][..], &["--verify", "--delete"]] {
        let copied = copy(source.path(), destination.path(), options);
        copied.expect(0);
        assert!(destination.at("d/old/deep").exists());
    }
    // Other content beside it is seen.
    destination.file("f", "2").mtime("f", 5, 0);
    source.mtime("f", 5, 0);
    let copied = copy(source.path(), destination.path(), &["--verify"]);
    assert!(copied.expect(23).stderr.contains("digests of source and destination differ"));
}
