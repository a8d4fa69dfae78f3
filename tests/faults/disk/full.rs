//! Volumes that can take no more: space, inodes, quota, the size of one file.

use std::{fs, path::Path, process::Command};

use rustix::fs::{FallocateFlags, fallocate};
use testkit::{Mount, Snapshot, TempTree, assert_same, skip};

use super::{PLAIN, Source, assert_tidy, assert_volume_failed, fill_destination, transfer};
use crate::counts;

/// Syncs to `destination` where it can take no more; answers whether there was room enough all the same.
#[track_caller]
fn fails_or_fits(source: &Source, destination: &Path, why: &str, case: &str) -> bool {
    let before = Snapshot::of(destination);
    let ended = transfer(source.path(), destination, PLAIN, PLAIN).unwrap();
    source.check(case, &before, destination, &ended);
    // Beyond a quota, which is not seen beforehand, deletions may make room in vain.
    if why != "quota" {
        source.check_removals(case, &before, destination, &ended);
    }
    if ended.code != 0 {
        assert_volume_failed(&ended, &[why], case);
        // Over its quota Btrfs may refuse even to rename what was begun; the next run goes on with it.
        if why != "quota" {
            assert_tidy(destination);
        }
    }
    ended.code == 0
}

/// Tries `points`, and prints how many there were; some must have failed and the last must not.
fn tell(what: &str, fitted: &[bool]) {
    assert!(
        !fitted[0] && fitted[fitted.len() - 1],
        "{what}: the grid misses the limit: {fitted:?}"
    );
    counts::tell(what, fitted.len());
}

/// Takes all but `free` KiB of the file system at `point`.
fn fill(point: &Path, free: u64) {
    let file = fs::File::create(point.join("filler")).unwrap();
    let mut size = 0;
    let mut step = 8 << 20;
    while step >= 4096 {
        let stat = rustix::fs::statvfs(point).unwrap();
        let room = (stat.f_bfree * stat.f_frsize).saturating_sub(free << 10).min(step);
        let taken = FallocateFlags::empty();
        if room >= 4096 && fallocate(&file, taken, size, room).is_ok() {
            size += room;
        } else {
            step /= 2;
        }
    }
}

/// Transfers to a file system with so many KiB left, one after another.
fn no_space(what: &str, levels: &[u64], mount: impl Fn() -> Option<Mount>) {
    let source = Source::new();
    let mut fitted = Vec::new();
    for &free in levels {
        let Some(mount) = mount() else { return };
        let destination = TempTree::below(mount.path());
        fill_destination(&destination);
        fill(mount.path(), free);
        let case = format!("{free} KiB free");
        fitted.push(fails_or_fits(&source, destination.path(), "No space left", &case));
        fs::remove_file(mount.path().join("filler")).unwrap();
        source.converges(destination.path());
    }
    tell(what, &fitted);
}

#[test]
fn no_space_on_tmpfs() {
    let levels = [0, 4, 8, 16, 40, 100, 200, 300, 500, 700, 1000, 1500, 2000, 2500, 3000, 6000];
    no_space("levels of a full tmpfs", &levels, || Mount::tmpfs("size=32m"));
}

#[test]
fn no_space_on_ext4() {
    let levels = [0, 8, 64, 300, 800, 1500, 2200, 3000, 9000];
    no_space("levels of a full ext4", &levels, || Mount::ext4(48));
}

#[test]
fn no_inodes() {
    let source = Source::new();
    let mut fitted = Vec::new();
    for free in [0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 60] {
        let Some(mount) = Mount::tmpfs("size=64m,nr_inodes=200") else { return };
        let destination = TempTree::below(mount.path());
        fill_destination(&destination);
        let taken = mount.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let room = rustix::fs::statvfs(mount.path()).unwrap().f_favail;
        for n in 0..room - free {
            fs::write(taken.join(n.to_string()), "").unwrap();
        }
        let case = format!("{free} inodes free");
        fitted.push(fails_or_fits(&source, destination.path(), "No space left", &case));
        fs::remove_dir_all(&taken).unwrap();
        source.converges(destination.path());
    }
    tell("levels of a tmpfs without inodes", &fitted);
}

fn btrfs(arguments: &[&str], path: &Path) -> bool {
    let output = Command::new("btrfs").args(arguments).arg(path).output().unwrap();
    output.status.success()
}

#[test]
fn over_quota_on_btrfs() {
    if !skip::commands(&["btrfs"]) {
        return;
    }
    let Some(mount) = Mount::btrfs(256) else { return };
    if !btrfs(&["quota", "enable"], mount.path()) {
        return skip::unsupported("this kernel's btrfs has no quota");
    }
    let source = Source::new();
    let mut fitted = Vec::new();
    for limit in ["5600K", "5800K", "6M", "7M", "8M", "20M"] {
        let volume = mount.path().join(limit);
        assert!(btrfs(&["subvolume", "create"], &volume));
        let destination = TempTree::below(&volume);
        fill_destination(&destination);
        assert!(btrfs(&["filesystem", "sync"], mount.path()));
        assert!(btrfs(&["qgroup", "limit", limit], &volume));
        let case = format!("quota {limit}");
        fitted.push(fails_or_fits(&source, destination.path(), "quota", &case));
        assert!(btrfs(&["qgroup", "limit", "none"], &volume));
        source.converges(destination.path());
    }
    tell("limits of quota", &fitted);
}

/// `serve` may write no file beyond so many KiB.
#[test]
fn a_file_larger_than_the_process_may_write() {
    let source = Source::new();
    let mut tried = 0;
    for limit in [4, 100, 255, 512, 1023, 2048] {
        let destination = TempTree::new();
        fill_destination(&destination);
        let before = Snapshot::of(destination.path());
        let limited = format!("ulimit -f {} && exec \"$@\"", limit * 2);
        let serve = ["sh", "-c", &limited, "sh"];
        let ended = transfer(source.path(), destination.path(), &serve, PLAIN).unwrap();
        let case = format!("no file over {limit} KiB");
        source.check(&case, &before, destination.path(), &ended);
        source.check_removals(&case, &before, destination.path(), &ended);
        assert_eq!(ended.code, 11, "{case}: {}\n{}", ended.report, ended.served.stderr);
        assert!(ended.report["reason"].as_str().unwrap().contains("too large"), "{}", ended.report);
        source.converges(destination.path());
        tried += 1;
    }
    counts::tell("limits on the size of a file", tried);
}

/// Space that the device promised and does not have: nothing fails until it is written back.
#[test]
fn a_device_that_is_full_itself() {
    let source = Source::new();
    let mut fitted = Vec::new();
    for backing in [2, 3, 4, 5, 6, 16] {
        let Some(small) = Mount::tmpfs(&format!("size={backing}m")) else { return };
        let Some(mut mount) = Mount::ext4_on(small.path(), 64) else { return };
        let destination = TempTree::below(mount.path());
        let ended = transfer(source.path(), destination.path(), PLAIN, PLAIN).unwrap();
        let told = format!("{backing} MiB: {}\n{}", ended.report, ended.served.stderr);
        if ended.code == 0 {
            // What was called flushed is there without the page cache.
            mount.repair();
            assert_same(source.path(), destination.path());
        } else {
            assert_eq!(ended.code, 11, "{told}");
        }
        fitted.push(ended.code == 0);
    }
    tell("devices that are full themselves", &fitted);
}
