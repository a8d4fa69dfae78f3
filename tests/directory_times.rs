//! Modification times of directories that change while the source is listed.

use testkit::{Process, TempTree, assert_same, skip};

use crate::{
    past_the_walk::wait_for_listing_of,
    support::{below, copy, copy_command},
};

/// The entry of a directory is read before its names are. What changes in between has both, or neither.
#[test]
fn a_directory_that_changes_before_it_is_listed_arrives_with_the_time_of_its_names() {
    if !skip::commands(&["strace"]) {
        return;
    }
    for (changed, there, options) in [
        ("z", true, &["--delete"][..]),
        ("z", true, &["--verify", "--delete"]),
        ("z", false, &["--verify"]),
        ("z", false, &[]),
        (".", true, &["--delete", "--verify"]),
        (".", false, &[]),
    ] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("a/f", "1").file("z/sub/f", "2").file("z/f", "3").file("f", "4");
        for dir in ["a", "z/sub", "z", "."] {
            source.mtime(dir, 1_000_000_000, 0);
        }
        if there {
            copy(source.path(), destination.path(), &[]).expect(0);
            assert_same(source.path(), destination.path());
        }
        let mut slow = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
        slow.push("--inject=getdents64:delay_enter=60000");
        let options = [options, &["--progress", "none"]].concat();
        let command = copy_command(source.path(), destination.path(), &options);
        let running = Process::start(below(&slow, &command));
        wait_for_listing_of(&source.at(changed).canonicalize().unwrap());
        source.rename(format!("{changed}/f"), format!("{changed}/g"));
        let finished = running.wait();
        assert_eq!(finished.code(), 0, "{changed} {there} {options:?}: {}", finished.stderr);
        assert_same(source.path(), destination.path());
        let quiet = copy(source.path(), destination.path(), &[]);
        assert!(!quiet.expect(0).stderr.contains("comparing the content"), "{}", quiet.stderr);
    }
}
