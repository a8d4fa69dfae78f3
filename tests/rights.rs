//! Runs with fewer rights than root has.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use testkit::{
    Aspects, Content, Finished, Mount, Process, Snapshot, TempTree, assert_same, differences, skip,
};

use crate::{
    pod::Pod,
    support::{
        assert_rsync_finds_nothing, assert_untouched, below, copy, copy_command, pvferry, report,
    },
};

/// The capabilities that a transfer pod keeps.
const POD: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+setfcap,+mknod";

/// `pvferry copy` below `setpriv` with these arguments.
fn copy_with(rights: &[&str], source: &Path, destination: &Path, options: &[&str]) -> Finished {
    let setpriv = [&["setpriv"], rights, &["--"]].concat();
    Process::run(below(&setpriv, &copy_command(source, destination, options)))
}

#[test]
fn root_with_the_capabilities_of_a_pod_only() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.everything().populate(1, 50);
    destination.populate(2, 50).file("plain", "read-only").mode("plain", 0o000);
    let bound = format!("--bounding-set={POD}");
    let options = ["--delete", "--verify"];
    copy_with(&[&bound], source.path(), destination.path(), &options).expect(0);
    assert_same(source.path(), destination.path());
    assert_rsync_finds_nothing(source.path(), destination.path());
}

#[test]
fn an_ordinary_user_copies_what_is_his() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 100).mutate(2, 30);
    destination.populate(3, 30);
    for tree in [&source, &destination] {
        for path in Snapshot::of(tree.path()).0.keys() {
            tree.owner(path, 65_534, 65_534);
        }
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // In a directory without the right to write, which its owner can give himself.
    destination.dir("locked").file("locked/f", "x").owner("locked/f", 65_534, 65_534);
    destination.owner("locked", 65_534, 65_534).mode("locked", 0o500);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    copy_with(&nobody, source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn an_ordinary_user_loses_owners_and_devices_and_says_so() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("mine", "1").file("theirs", "2").file("d/f", "3").character_device("null", 1, 3);
    source.owner("theirs", 1234, 1234);
    destination.owner("", 65_534, 65_534);
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let finished = copy_with(&nobody, source.path(), destination.path(), &[]);
    let partial = report(finished.expect(23));
    assert_eq!(partial["outcome"], "partial");
    assert!(partial["errors"].to_string().contains("null"), "{partial}");

    // Without owners and devices he can have all of it.
    let options = ["--no-owner", "--exclude", "null"];
    copy_with(&nobody, source.path(), destination.path(), &options).expect(0);
    let (left, right) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    let aspects = Aspects { permissions: false, ..Aspects::default() };
    assert_eq!(differences(&left, &right, aspects), ["null: only on the left"]);
}

/// There owners that are not mapped read as one.
#[test]
fn a_user_namespace_that_does_not_map_all_owners_is_announced_once() {
    if !(skip::root() && skip::commands(&["unshare"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("f", "1").owner("f", 1234, 1234);
    copy(source.path(), destination.path(), &[]).expect(0);
    destination.owner("f", 5678, 5678);
    let what = "owners that this user namespace does not map";
    for (options, count) in [(&[][..], 1), (&["--no-owner"], 0)] {
        let command = copy_command(source.path(), destination.path(), options);
        let finished = Process::run(below(&["unshare", "--user", "--map-root-user"], &command));
        assert_eq!(
            finished.stderr.matches(what).count(),
            count,
            "{options:?}: {}",
            finished.stderr
        );
    }
    assert!(!copy(source.path(), destination.path(), &[]).stderr.contains(what));
}

/// Both owners read as the same there, and none of them is known.
#[test]
fn set_id_bits_fall_where_a_user_namespace_does_not_map_the_owner() {
    if !(skip::root() && skip::commands(&["unshare"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("su", "1").owner("su", 1000, 1000).mode("su", 0o6755);
    let command = copy_command(source.path(), destination.path(), &[]);
    let finished = Process::run(below(&["unshare", "--user"], &command));
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
    let mode = fs::metadata(destination.at("su")).map(|made| made.permissions().mode() & 0o7777);
    assert!(!matches!(mode, Ok(mode) if mode & 0o6000 != 0), "{mode:?}");
}

/// As in a pod with a user namespace: whoever writes at the other end knows nothing of it.
#[test]
fn a_source_in_a_user_namespace_reports_owners_and_acls_that_it_does_not_map_and_sends_no_set_id_bits()
 {
    if !(skip::root() && skip::commands(&["unshare", "setfacl"])) {
        return;
    }
    let (pod, source, destination) = (Pod::new(), TempTree::new(), TempTree::new());
    source.file("su", "1").owner("su", 1000, 1000).mode("su", 0o6755);
    source.file("theirs", "2").owner("theirs", 1001, 1001).file("ours", "3").file("acl", "4");
    source.file("group", "5").owner("group", 0, 1001).mode("group", 0o660);
    source.dir("shared").owner("shared", 0, 1001).mode("shared", 0o770);
    acl("u:1234:rw", &source.at("acl"));
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let identity = pod.pki.source();
    let sync = |options: &[&str]| {
        let command = pod.direct(pod.server, &identity, source.path(), options);
        Process::run(below(&["unshare", "--user", "--map-root-user"], &command))
    };
    let finished = sync(&[]);
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
    for name in ["su: its owner", "theirs: its owner", "acl: its ACL"] {
        assert!(finished.stderr.contains(name), "{name}: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("ours: "), "{}", finished.stderr);
    // There the ids that unmapped owners read as are real ones.
    let made = Snapshot::of(destination.path());
    for (name, mode) in [("su", 0o755), ("theirs", 0o644), ("group", 0o600), ("shared", 0o700)] {
        let node = made.node(name);
        assert_eq!((node.uid, node.gid, node.mode), (0, 0, mode), "{name}: {:o}", node.mode);
    }
    assert!(!finished.stderr.contains("Value too large"), "{}", finished.stderr);
    let marked = made.0.keys().any(|path| Path::new(path).ends_with("crash-marker"));
    assert!(!marked, "the next run compares all content");
    // Without owners there is nothing to be known of them.
    fs::remove_file(source.at("acl")).unwrap();
    sync(&["--no-owner", "--delete"]).expect(0);
}

/// As in a pod with a user namespace of its own: the id that unmapped owners read as can be the one of a real owner.
#[test]
fn where_65536_ids_are_mapped_an_owner_beyond_them_is_reported_and_nobody_is_copied() {
    if !(skip::root() && skip::commands(&["unshare"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("nobody", "1").owner("nobody", 65_534, 65_534);
    source.file("theirs", "2").owner("theirs", 100_000, 0).dir("dir").owner("dir", 100_000, 0);
    let run = |command: Command| {
        // The shell waits for the map, and becomes root by it.
        let wait = "until [ -n \"$(cat /proc/self/uid_map)\" ] && [ -n \"$(cat /proc/self/gid_map)\" ]; do sleep 0.02; done; exec \"$0\" \"$@\"";
        let running = Process::start(below(&["unshare", "--user", "sh", "-c", wait], &command));
        let map = |file: &str| {
            let path = format!("/proc/{}/{file}", running.id());
            // Until `unshare` has made the namespace, the map cannot be written.
            let started = std::time::Instant::now();
            while let Err(error) = fs::write(&path, "0 0 65536") {
                assert!(started.elapsed().as_secs() < 60, "{file}: {error}");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        map("uid_map");
        map("gid_map");
        running.wait()
    };
    let finished = run(copy_command(source.path(), destination.path(), &["--verify"]));
    assert_eq!(finished.code(), 23, "{}", finished.stderr);
    for name in ["theirs", "dir"] {
        assert!(finished.stderr.contains(&format!("{name}: its owner")), "{}", finished.stderr);
        assert_eq!(Snapshot::of(destination.path()).node(name).uid, 0, "{name}");
    }
    assert!(!finished.stderr.contains("nobody: "), "{}", finished.stderr);
    assert_eq!(Snapshot::of(destination.path()).node("nobody").uid, 65_534);
    let digest = run(pvferry([OsStr::new("digest"), source.path().as_os_str()]));
    assert_eq!(digest.code(), 23, "{}", digest.stderr);
}

/// All of them read as one user.
#[test]
fn trees_whose_owners_or_acls_are_not_mapped_are_not_called_equal() {
    if !(skip::root() && skip::commands(&["unshare", "setfacl"])) {
        return;
    }
    for (what, change) in [
        (
            "owner",
            (|path, id| std::os::unix::fs::chown(path, Some(id), None).unwrap()) as fn(&Path, u32),
        ),
        ("ACL", |path, id| acl(&format!("u:{id}:rw"), path)),
    ] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        source.file("f", "1");
        copy(source.path(), destination.path(), &[]).expect(0);
        change(&source.at("f"), 1234);
        change(&destination.at("f"), 7777);
        for path in [source.at("f"), destination.at("f")] {
            fs::File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        for command in [
            copy_command(source.path(), destination.path(), &["--verify"]),
            pvferry([
                OsStr::new("verify"),
                source.path().as_os_str(),
                destination.path().as_os_str(),
            ]),
        ] {
            let finished = Process::run(below(&["unshare", "--user", "--map-root-user"], &command));
            assert_eq!(finished.code(), 23, "{what}: {}", finished.stderr);
            let printed = [finished.stdout, finished.stderr].concat();
            let named =
                printed.lines().any(|l| l.contains("f: ") && l.contains(&format!("its {what}")));
            assert!(named, "{what}: {printed}");
            assert!(!printed.contains("Value too large"), "{what}: {printed}");
        }
        // Nor does a digest stand for what is not known.
        let command = pvferry([OsStr::new("digest"), source.path().as_os_str()]);
        let finished = Process::run(below(&["unshare", "--user", "--map-root-user"], &command));
        assert_eq!((finished.code(), &*finished.stdout), (23, ""), "{what}: {}", finished.stderr);
        assert!(finished.stderr.contains(&format!("f: its {what}")), "{}", finished.stderr);
        assert!(!finished.stderr.contains("Value too large"), "{}", finished.stderr);
    }
}

#[test]
fn digest_and_verify_that_cannot_read_trusted_attributes_say_so() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let tree = TempTree::new();
    tree.file("f", "1");
    let path = tree.path().as_os_str();
    for (bounds, noted) in [("+all", false), ("-sys_admin", true)] {
        for words in [vec![OsStr::new("digest"), path], vec![OsStr::new("verify"), path, path]] {
            let option = format!("--bounding-set={bounds}");
            let finished = Process::run(below(&["setpriv", &option], &pvferry(&words)));
            let found = finished.expect(0).stderr.contains("trusted.* attributes are not read");
            assert_eq!(found, noted, "{bounds} {words:?}: {}", finished.stderr);
        }
    }
}

fn acl(entry: &str, path: &Path) {
    assert!(Command::new("setfacl").args(["-m", entry]).arg(path).status().unwrap().success());
}

/// With an ACL, the bits of the group are its mask.
#[test]
fn where_an_acl_is_not_kept_nobody_gets_more_than_the_acl_gave() {
    let (source, Some(ramfs)) = (TempTree::new(), Mount::ramfs()) else { return };
    if !skip::commands(&["setfacl"]) {
        return;
    }
    source.file("f", "secret").mode("f", 0o600).dir("d").mode("d", 0o750);
    acl("u:5000:rw", &source.at("f"));
    acl("u:5000:rwx,g::---", &source.at("d"));
    source.file("denied", "secret").mode("denied", 0o644);
    acl("u:5000:---", &source.at("denied"));
    for _ in 0..2 {
        copy(source.path(), ramfs.path(), &[]).expect(23);
        for name in ["f", "d"] {
            let mode = fs::metadata(ramfs.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o070, 0, "{name}: {mode:o}");
        }
        let mode = fs::metadata(ramfs.path().join("denied")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}

/// The kernel calls everything immutable there, since it is never written to.
#[test]
fn a_copy_from_erofs_has_no_flags() {
    if !(skip::root() && skip::commands(&["mkfs.erofs"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("tree/d/f", "text");
    let Some(erofs) = Mount::erofs(&source.at("tree")) else { return };
    copy(erofs.path(), destination.path(), &[]).expect(0);
    destination.file("d/f", "more");
    assert_eq!(
        Process::run(pvferry([
            OsStr::new("verify"),
            source.at("tree").as_os_str(),
            erofs.path().as_os_str()
        ]))
        .code(),
        0
    );
}

/// The root of a volume is made by whoever provisions it, and opened to a group by the kubelet.
#[test]
fn metadata_of_a_root_directory_of_another_user_are_announced_as_not_kept() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 30).file("d/f", "1").mode("", 0o750);
    for path in Snapshot::of(source.path()).0.keys() {
        source.owner(path, 65_534, 65_534);
    }
    destination.owner("", 0, 65_534).mode("", 0o2775);
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    for _ in 0..2 {
        let options = ["--no-owner", "--delete"];
        let finished = copy_with(&nobody, source.path(), destination.path(), &options);
        assert!(finished.stderr.contains("the root directory are not preserved"), "{finished:?}");
        finished.expect(0);
        let mode = fs::metadata(destination.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2775);
    }
    // Everything below is as at the source.
    let (mut left, mut right) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    for snapshot in [&mut left, &mut right] {
        snapshot.0.retain(|path, _| !path.as_os_str().is_empty());
    }
    let aspects = Aspects { permissions: true, ..Aspects::default() };
    assert_eq!(differences(&left, &right, aspects), [""; 0]);
}

#[test]
fn without_owners_a_file_of_another_user_is_replaced_by_one_of_this_user() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("small", "new").file("large", Content::random(1, 300_000)).mode("", 0o755);
    destination.file("small", "old").file("large", Content::random(2, 300_000));
    destination.owner("", 65_534, 65_534);
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let finished =
        copy_with(&nobody, source.path(), destination.path(), &["--no-owner", "--atomic"]);
    finished.expect(0);
    assert_eq!(fs::read_to_string(destination.at("small")).unwrap(), "new");
    assert_eq!(fs::metadata(destination.at("large")).unwrap().uid(), 65_534);
    copy_with(&nobody, source.path(), destination.path(), &["--no-owner"]).expect(0);
}

#[test]
fn a_dry_run_by_content_writes_nothing_over_what_it_may_not_read() {
    if !(skip::root() && skip::commands(&["setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for (name, size) in [("small", 100), ("large", 300_000)] {
        source.file(name, Content::random(1, size));
        destination.file(name, Content::random(2, size)).owner(name, 65_534, 65_534).mode(name, 0);
    }
    destination.owner("", 65_534, 65_534);
    for tree in [&source, &destination] {
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let before = Snapshot::of(destination.path());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let options = ["--dry-run", "--checksum", "--no-owner"];
    let finished = copy_with(&nobody, source.path(), destination.path(), &options);
    assert_untouched(&before, destination.path());
    let report = report(finished.expect(23));
    assert!(report["errors"][0]["what"].to_string().contains("denied"), "{report}");
}

#[test]
fn entries_without_rights_and_immutable_ones_at_the_destination() {
    if !(skip::root() && skip::commands(&["chattr", "setpriv"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("ro/f", "new").file("fixed", "new").file("after", "new");
    destination.file("ro/f", "old").mode("ro/f", 0o400).mode("ro", 0o500).file("fixed", "old");
    let chattr = |flag: &str| {
        let status = Command::new("chattr").arg(flag).arg(destination.at("fixed")).status();
        status.unwrap().success()
    };
    if !chattr("+i") {
        return skip::unsupported("this file system knows no immutable files");
    }
    // The right to lift the flag is not among those of a pod.
    let bound = format!("--bounding-set={POD}");
    let finished = copy_with(&[&bound], source.path(), destination.path(), &[]);
    let kept = fs::read_to_string(destination.at("fixed")).unwrap();
    let whole = copy(source.path(), destination.path(), &[]);
    let _ = chattr("-i"); // or the tree could not be removed
    let report = report(finished.expect(23));
    assert_eq!(report["errors"][0]["name"], "fixed", "{report}");
    assert_eq!(kept, "old");
    assert_eq!(fs::read_to_string(destination.at("after")).unwrap(), "new");
    // Who may lift it does.
    whole.expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn times_that_the_destination_cannot_hold_are_reported() {
    let Some(mount) = testkit::Mount::tmpfs("size=1m") else { return };
    let Some(ext4) = testkit::Mount::ext4(16) else { return };
    let source = TempTree::below(mount.path());
    // Beyond the year 2446 ext4 clamps without a word.
    source.file("far", "x").mtime("far", 20_000_000_000, 5).file("near", "y");
    let destination = TempTree::below(ext4.path());
    let finished = copy(source.path(), destination.path(), &[]);
    let report = report(finished.expect(23));
    assert_eq!(report["errors"][0]["name"], "far", "{report}");
    assert_eq!(Snapshot::of(destination.path()).node("near").size, 1);
}

#[test]
fn an_ordinary_user_makes_directories_where_a_default_acl_closes_them_to_their_owner() {
    if !(skip::root() && skip::commands(&["setpriv", "setfacl"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("new/f", "1").file("there/new/f", "2");
    destination.dir("there");
    for tree in [&source, &destination] {
        for path in Snapshot::of(tree.path()).0.keys() {
            tree.owner(path, 65_534, 65_534);
        }
        let parent = tree.path().parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    }
    destination.acl("", "d:u::---,d:g::---,d:o::---").acl("there", "d:u::---,d:g::---,d:o::---");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    copy_with(&nobody, source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}
