//! Directories that change between the reading of their entry and that of their names.

use std::process::Command;

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

/// What is made in a directory after it was closed to others is not open at the destination.
#[test]
fn a_directory_that_gets_another_mode_or_acl_before_its_names_are_read_ends_with_24_and_is_not_filled()
 {
    if !(skip::root() && skip::commands(&["strace", "setfacl", "setfattr"])) {
        return;
    }
    type Change = fn(&TempTree, &str);
    fn run(words: &[&str], tree: &TempTree, dir: &str) {
        assert!(
            Command::new(words[0]).args(&words[1..]).arg(tree.at(dir)).status().unwrap().success()
        );
    }
    let changes: [(&str, Change); 3] = [
        ("mode", |tree, dir| _ = tree.mode(dir, 0o700)),
        ("acl", |tree, dir| run(&["setfacl", "-m", "u:77:rwx"], tree, dir)),
        ("attribute", |tree, dir| run(&["setfattr", "-n", "user.k", "-v", "1"], tree, dir)),
    ];
    for (what, change) in changes {
        for (dir, there) in [("z", true), ("z", false), (".", true), (".", false)] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            source.file("a/f", "1").file("z/f", "2").mode("z", 0o755).mode(".", 0o755);
            if there {
                copy(source.path(), destination.path(), &[]).expect(0);
            }
            let mut slow = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"];
            slow.push("--inject=getdents64:delay_enter=60000");
            let command = copy_command(source.path(), destination.path(), &["--progress", "none"]);
            let running = Process::start(below(&slow, &command));
            wait_for_listing_of(&source.at(dir).canonicalize().unwrap());
            change(&source, dir);
            source.file(format!("{dir}/secret"), "3");
            let finished = running.wait();
            let case = format!("{what} of {dir}, {there}: {}", finished.stderr);
            if dir == "." {
                // It goes out with what it has now, at the end.
                assert_eq!(finished.code(), 0, "{case}");
                assert_same(source.path(), destination.path());
                continue;
            }
            assert_eq!(finished.code(), 24, "{case}");
            assert!(finished.stderr.contains("mode, owner or attributes changed"), "{case}");
            assert!(!destination.at("z/secret").exists(), "{case}");
            copy(source.path(), destination.path(), &[]).expect(0);
            assert_same(source.path(), destination.path());
        }
    }
}
