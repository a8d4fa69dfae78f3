//! Entries of the source that are left out by design are reported once and counted. They are not errors.

use std::{fs, path::Path, process::Command};

use testkit::{Finished, Mount, TempTree, skip};

use crate::support::{copy, report};

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
