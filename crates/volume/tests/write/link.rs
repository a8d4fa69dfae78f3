//! Further names of a file.

use std::{fs, os::unix::fs::MetadataExt as _};

use rustix::io::Errno;
use volume::create::{ParentHints, directory};

use super::support::*;

/// When the leader got or lost a name, for the last time.
fn ctime(scratch: &Scratch) -> (i64, i64) {
    let meta = fs::metadata(scratch.at("leader")).unwrap();
    (meta.ctime(), meta.ctime_nsec())
}

#[test]
fn a_name_becomes_a_further_name_whatever_it_was() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("leader"), b"leader").unwrap();
    let sub =
        directory(&scratch.dir, &name("sub"), ParentHints::of(&scratch.dir).unwrap()).unwrap();
    std::os::unix::fs::symlink("leader", scratch.at("sub/link")).unwrap();
    fs::write(scratch.at("sub/file"), b"old").unwrap();
    for at in ["free", "link", "file"] {
        for again in [false, true] {
            let before = ctime(&scratch);
            scratch.link("leader", &sub, at).unwrap();
            assert_eq!(
                identity(&scratch.at(&format!("sub/{at}"))),
                identity(&scratch.at("leader"))
            );
            // The second time it is one already, and nothing is written.
            assert_eq!(ctime(&scratch) == before, again, "{at}");
            assert_eq!(scratch.unfinished(), [""; 0]);
        }
    }
    assert_eq!(names(&scratch.at("sub")), ["file", "free", "link"]);
}

#[test]
fn what_a_killed_run_left_is_in_nobodys_way() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("leader"), b"leader").unwrap();
    fs::write(scratch.at("other"), b"other").unwrap();
    fs::hard_link(scratch.at("leader"), scratch.part("other")).unwrap();
    scratch.link("leader", &scratch.dir, "other").unwrap();
    assert_eq!(scratch.names(), ["leader", "other"]);
    assert_eq!(fs::read(scratch.at("other")).unwrap(), b"leader");
}

#[test]
fn a_link_is_linked_itself_and_a_directory_is_in_the_way() {
    let scratch = Scratch::disk();
    std::os::unix::fs::symlink("nowhere", scratch.at("leader")).unwrap();
    scratch.link("leader", &scratch.dir, "second").unwrap();
    assert_eq!(identity(&scratch.at("second")), identity(&scratch.at("leader")));
    fs::create_dir(scratch.at("d")).unwrap();
    let error = scratch.link("leader", &scratch.dir, "d").unwrap_err();
    assert_eq!(error.errno, Errno::ISDIR);
    let error = scratch.link("gone", &scratch.dir, "x").unwrap_err();
    assert_eq!((error.name.as_str(), error.errno), ("x", Errno::NOENT));
    assert_eq!(scratch.names(), ["d", "leader", "second"]);
}

#[test]
fn an_immutable_file_gets_further_names_and_stays_immutable() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("leader"), b"leader").unwrap();
    fs::write(scratch.at("old"), b"old").unwrap();
    fs::write(scratch.at("stale"), b"old").unwrap();
    fs::hard_link(scratch.at("leader"), scratch.part("stale")).unwrap();
    if !run(&["chattr", "+i", scratch.at("leader").to_str().unwrap()]) {
        return skip("no immutable files on /tmp");
    }
    for at in ["free", "old", "stale"] {
        scratch.link("leader", &scratch.dir, at).unwrap();
        assert_eq!(identity(&scratch.at(at)), identity(&scratch.at("leader")), "{at}");
        assert!(fs::write(scratch.at(at), b"x").is_err());
    }
    assert_eq!(scratch.names(), ["free", "leader", "old", "stale"]);
}

#[test]
fn a_stale_name_of_an_immutable_file_goes_and_the_file_stays_immutable() {
    let scratch = Scratch::disk();
    fs::write(scratch.at("leader"), b"leader").unwrap();
    fs::hard_link(scratch.at("leader"), scratch.part("f")).unwrap();
    if !run(&["chattr", "+i", scratch.at("leader").to_str().unwrap()]) {
        return skip("no immutable files on /tmp");
    }
    drop(scratch.staged(&scratch.dir, "f").unwrap());
    assert_eq!(scratch.names(), ["leader"]);
    assert_eq!(scratch.unfinished(), [""; 0]);
    assert!(fs::write(scratch.at("leader"), b"x").is_err());
}
