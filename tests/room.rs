//! Volumes that have no room for new content beside what `--delete` removes.

use std::fs;

use testkit::{Content, Mount, TempTree, assert_same};

use crate::support::{copy, report};

/// A destination of 48 MiB that is more than half full, with files of a directory `old`, and a source that has as much under
/// other names: `count` files of `size` bytes in `dir`.
fn rotated(mount: &Mount, dir: &str, count: u64, size: usize) -> (TempTree, TempTree) {
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    for number in 0..count {
        source.file(format!("{dir}/new-{number}"), Content::random(number, size));
        let old = format!("same/old-{number}");
        destination.file(&old, Content::random(1000 + number, size));
        // Of another time than any new file: it is not taken for a renamed one.
        destination.mtime(&old, 1_000_000_000, 0);
    }
    source.dir("same").file("z", "1");
    (source, destination)
}

#[test]
fn files_that_all_get_new_names_replace_the_old_ones_on_a_volume_that_is_more_than_half_full() {
    for mount in
        [|| Mount::tmpfs("size=48m,nr_inodes=100k"), || Mount::ext4(56), || Mount::xfs(400)]
    {
        for (count, size) in [(5, 6 << 20), (500, 60 << 10), (9, 3_500_000)] {
            for options in [&["--delete"][..], &["--delete", "--max-delete", "1000"]] {
                let Some(mount) = mount() else { return };
                let (source, destination) = rotated(&mount, "same", count, size);
                // What is left has no room for half of it.
                let filler = fs::File::create(mount.path().join("filler")).unwrap();
                let stat = rustix::fs::statvfs(mount.path()).unwrap();
                let room = (stat.f_bavail * stat.f_frsize).saturating_sub(10 << 20);
                let flags = rustix::fs::FallocateFlags::empty();
                if room > 0 {
                    rustix::fs::fallocate(&filler, flags, 0, room).unwrap();
                }
                let ended = copy(source.path(), destination.path(), options);
                let report = report(ended.expect(0));
                assert_eq!(report["files_deleted"], count, "{report}");
                assert_same(source.path(), destination.path());
            }
        }
    }
}

#[test]
fn nothing_is_deleted_for_room_where_max_delete_forbids_a_part_of_it() {
    let Some(mount) = Mount::tmpfs("size=48m") else { return };
    let (source, destination) = rotated(&mount, "same", 5, 6 << 20);
    let ended = copy(source.path(), destination.path(), &["--delete", "--max-delete", "4"]);
    ended.expect(11);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    for number in 0..5 {
        let old = fs::read(destination.at(format!("same/old-{number}"))).unwrap();
        assert!(old == Content::random(1000 + number, 6 << 20).bytes());
    }
}

/// What is in a new directory may come before everything is listed, and cannot wait for room then.
#[test]
fn a_new_directory_has_room_in_the_first_run_or_in_the_next() {
    let Some(mount) = Mount::tmpfs("size=48m,nr_inodes=100k") else { return };
    let (source, destination) = rotated(&mount, "fresh", 0, 0);
    for number in 0..500_u64 {
        let dir = format!("fresh/{}/{}", number % 50, number % 3);
        source.file(format!("{dir}/{number}"), Content::random(number, 60 << 10));
        let old = Content::random(1000 + number, 60 << 10);
        destination.file(format!("same/old-{number}"), old);
    }
    let ended = copy(source.path(), destination.path(), &["--delete"]);
    if ended.code() != 0 {
        assert!(ended.stderr.contains("run again"), "{}", ended.stderr);
        ended.expect(11);
        copy(source.path(), destination.path(), &["--delete"]).expect(0);
    }
    assert_same(source.path(), destination.path());
}

#[test]
fn a_full_volume_with_nothing_to_delete_ends_the_run() {
    let Some(mount) = Mount::tmpfs("size=16m") else { return };
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    for number in 0..500 {
        source.file(format!("new/{number}"), Content::random(number, 60 << 10));
    }
    destination.file("z", "1");
    source.file("z", "1");
    let ended = copy(source.path(), destination.path(), &["--delete"]);
    ended.expect(11);
    assert!(!ended.stderr.contains("run again"), "{}", ended.stderr);
}

#[test]
fn files_that_are_larger_than_what_is_free_are_announced_and_copied_where_they_fit_all_the_same() {
    let Some(mount) = Mount::tmpfs("size=24m") else { return };
    let warning = "the destination may be too small: ";
    // Three files of holes, and one that is there already.
    let (source, destination) = (TempTree::new(), TempTree::below(mount.path()));
    for name in ["a", "b", "c"] {
        let file = fs::File::create(source.at(name)).unwrap();
        file.set_len(12 << 20).unwrap();
    }
    let ended = copy(source.path(), destination.path(), &["--progress", "none"]);
    ended.expect(0);
    assert_eq!(ended.stderr.matches(warning).count(), 1, "{}", ended.stderr);
    let sizes = "24.0 MiB are to be written, 2";
    assert!(
        ended.stderr.contains(sizes) || ended.stderr.contains("36.0 MiB are"),
        "{}",
        ended.stderr
    );
    let again = copy(source.path(), destination.path(), &["--progress", "none"]);
    assert!(!again.expect(0).stderr.contains(warning), "{}", again.stderr);

    source.file("d", Content::random(1, 16 << 20));
    let ended = copy(source.path(), destination.path(), &["--progress", "none"]);
    assert!(!ended.expect(0).stderr.contains(warning), "{}", ended.stderr);
    source.file("e", Content::random(2, 16 << 20));
    let ended = copy(source.path(), destination.path(), &["--progress", "none"]);
    ended.expect(11);
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
}
