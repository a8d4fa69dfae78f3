//! What is widened or lifted so that work can be done is put back, on every name of the inode, and read back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use testkit::{Content, Process, Snapshot, TempTree, skip};

use crate::{
    pod::Pod,
    support::{below, copy, pvferry, report},
};

const NOBODY: u32 = 65_534;

/// Runs `sync` as root against a `serve` that runs as an ordinary user.
fn sync_to_nobody(source: &TempTree, destination: &TempTree, options: &[&str], code: i32) {
    let pod = Pod::new();
    let identity = pod.pki.destination();
    for entry in walkdir::WalkDir::new(&identity) {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for path in [pod.pki.path(), destination.path().parent().unwrap()] {
        open(path);
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let mut serve = pvferry(["serve", "--termination-log", "/dev/null", "--listen"]);
    serve.arg(pod.server.to_string()).arg("--identity").arg(&identity).arg("--volume");
    serve.arg(format!("a={}", destination.path().display())).arg("--allow-delete");
    let serve = Process::start(below(&nobody, &serve));
    serve.wait_for_line("listening on");
    let server = pod.server.to_string();
    let mut sync = pvferry(["sync", "--volume", "a", "--json", "--connect", &server]);
    sync.args(options).arg("--identity").arg(pod.pki.source()).arg(source.path());
    report(Process::run(sync).expect(code));
    drop(serve);
}

/// Gives everything in the tree to the ordinary user.
fn give_away(tree: &TempTree) {
    for path in Snapshot::of(tree.path()).0.keys() {
        let mode = fs::symlink_metadata(tree.at(path)).unwrap().permissions().mode();
        tree.owner(path, NOBODY, NOBODY).mode(path, mode & 0o7777);
    }
}

fn mode(tree: &TempTree, path: &str) -> u32 {
    fs::symlink_metadata(tree.at(path)).unwrap().permissions().mode() & 0o7777
}

const CLOSED: [u32; 5] = [0o000, 0o100, 0o200, 0o400, 0o500];

#[test]
fn directories_that_their_owner_closed_are_closed_after_a_run_that_changed_nothing_in_them() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        for closed in CLOSED {
            let name = format!("d{closed:03o}");
            tree.file(format!("{name}/below/f"), "x").mtime(format!("{name}/below/f"), 1000, 0);
            tree.mtime(format!("{name}/below"), 1000, 0).mode(format!("{name}/below"), closed);
            tree.mtime(&name, 1000, 0).mode(&name, closed);
        }
        give_away(tree);
        tree.mtime("", 1000, 0);
    }
    for options in [&[][..], &["--delete"]] {
        sync_to_nobody(&source, &destination, options, 0);
        for closed in CLOSED {
            let name = format!("d{closed:03o}");
            assert_eq!(mode(&destination, &name), closed, "{name}");
            assert_eq!(mode(&destination, &format!("{name}/below")), closed, "{name}/below");
        }
    }
    // The same where something in them is replaced.
    for closed in CLOSED {
        source.file(format!("d{closed:03o}/below/f"), "other");
    }
    give_away(&source);
    sync_to_nobody(&source, &destination, &[], 0);
    testkit::assert_same(source.path(), destination.path());
}

#[test]
fn a_file_that_its_owner_cannot_read_is_updated_and_so_are_its_attributes() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (tree, seed) in [(&source, 1), (&destination, 2)] {
        for (name, size) in [("small", 100), ("large", 3 << 20), ("same", 500)] {
            let seed = if name == "same" { 0 } else { seed };
            tree.file(name, Content::random(seed, size)).xattr(name, "user.note", b"kept");
            tree.mtime(name, 1000 + i64::try_from(seed).unwrap(), 0).mode(name, 0o200);
        }
        give_away(tree);
        tree.mtime("", 1000, 0);
    }
    source.xattr("large", "user.more", b"new");
    sync_to_nobody(&source, &destination, &[], 0);
    testkit::assert_same(source.path(), destination.path());
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).status().unwrap().success()
}

fn flags(path: &Path) -> String {
    let listed = Command::new("lsattr").arg("-d").arg(path).output().unwrap();
    let flags = String::from_utf8(listed.stdout).unwrap();
    flags.split(' ').next().unwrap().chars().filter(|c| "ia".contains(*c)).collect()
}

#[test]
fn an_inode_of_several_names_keeps_its_flags_where_one_of_them_goes() {
    if !(skip::root() && skip::commands(&["chattr", "lsattr"])) {
        return;
    }
    for flag in ["i", "a"] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("replaced", "new").file("small", "sent");
        // Both ends leave `kept` out, so it stays as it is, whatever becomes of its other names.
        destination.file("kept/f", "x");
        for name in ["removed", "replaced", "way", "small"] {
            destination.hard_link("kept/f", name);
        }
        source.dir("way");
        if !chattr(&format!("+{flag}"), &destination.at("kept/f")) {
            return skip::unsupported("this file system knows no inode flags");
        }
        let options = ["--delete", "--exclude", "/kept"];
        let finished = copy(source.path(), destination.path(), &options);
        let after = flags(&destination.at("kept/f"));
        chattr(&format!("-{flag}"), &destination.at("kept/f")); // or the tree could not be removed
        finished.expect(0);
        assert_eq!(after, flag, "the flag is put back");
        assert_eq!(fs::read_to_string(destination.at("kept/f")).unwrap(), "x");
    }
}

#[test]
fn an_immutable_file_whose_patch_fails_is_immutable_afterwards() {
    if !(skip::root() && skip::commands(&["chattr", "lsattr"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("large", Content::random(1, 8 << 20));
    destination.file("large", Content::random(1, 8 << 20)).mtime("large", 1000, 0);
    for page in 0..50 {
        source.patch("large", 40_960 * page, b"other");
    }
    if !chattr("+i", &destination.at("large")) {
        return skip::unsupported("this file system knows no inode flags");
    }
    let mut copy = crate::support::copy_command(
        source.path(),
        destination.path(),
        &["--bwlimit", "40K", "--progress", "json"],
    );
    copy.env_remove("RUST_LOG");
    let before = fs::metadata(destination.at("large")).unwrap().modified().unwrap();
    let mut process = Process::start(copy);
    let is_as_before =
        || fs::metadata(destination.at("large")).unwrap().modified().unwrap() == before;
    while process.is_running() && is_as_before() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    process.terminate();
    let finished = process.wait();
    let after = flags(&destination.at("large"));
    chattr("-i", &destination.at("large"));
    finished.expect(20);
    assert_eq!(after, "i");
}
