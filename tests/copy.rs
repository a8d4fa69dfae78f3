//! `pvferry copy`: the tree that it leaves, judged by the independent comparison and by rsync.

use std::path::PathBuf;

use testkit::{
    Aspects, Content, Mount, Process, Rng, Snapshot, TempTree, assert_same, differences, skip,
};

use crate::support::{
    assert_rsync_finds_nothing, assert_untouched, below, copy, copy_command, report,
};

#[test]
fn full_copy_and_a_second_run_that_writes_nothing() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.everything();
    let before = Snapshot::of(source.path());

    copy(source.path(), destination.path(), &["--delete", "--verify"]).expect(0);
    assert_same(source.path(), destination.path());
    assert_untouched(&before, source.path());
    assert_rsync_finds_nothing(source.path(), destination.path());

    let copied = Snapshot::of(destination.path());
    for options in [&["--delete"][..], &["--checksum"], &["--atomic", "--verify"]] {
        let again = copy(source.path(), destination.path(), options);
        let report = report(again.expect(0));
        assert_eq!(report["files_written"], 0, "{options:?}: {report}");
        assert_eq!(report["bytes_literal"], 0, "{options:?}: {report}");
        assert_untouched(&copied, destination.path());
    }
}

#[test]
fn any_tree_becomes_any_other() {
    for seed in 0..12 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.populate(seed, 80);
        }
        source.mutate(seed + 100, 40).mtime("", 1_500_000_000, 5);
        let options: &[&[&str]] = &[&["--delete"], &["--delete", "--atomic"]];
        let options = options[usize::try_from(seed % 2).unwrap()];
        copy(source.path(), destination.path(), options).expect(0);
        assert_same(source.path(), destination.path());
        assert_rsync_finds_nothing(source.path(), destination.path());
    }
}

#[test]
fn without_delete_what_only_the_destination_has_stays() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("both/new", "1");
    destination.file("both/old", "2").file("own/file", "3").symlink("link", "x");
    let before = Snapshot::of(destination.path());
    copy(source.path(), destination.path(), &[]).expect(0);
    let after = Snapshot::of(destination.path());
    for path in ["both/old", "own", "own/file", "link"] {
        assert_eq!(before.node(path), after.node(path), "{path}");
    }
    assert_eq!(
        after.node("both/new").content,
        Snapshot::of(source.path()).node("both/new").content
    );
}

#[test]
fn depth_beyond_the_longest_path() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.deep("n".repeat(175), 70).deep("d", 300).file("x", "1");
    copy(source.path(), destination.path(), &["--verify"]).expect(0);
    assert_same(source.path(), destination.path());
    let copied = Snapshot::of(destination.path());
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_untouched(&copied, destination.path());
}

#[test]
fn same_size_and_time_but_other_content_is_found_by_checksum_only() {
    for size in [10, 200_000, 12 << 20] {
        let (source, destination) = (TempTree::new(), TempTree::new());
        let content = Content::random(1, size);
        source.file("f", content.clone()).mtime("f", 7, 7).mtime("", 8, 8);
        let other = content.overwrite(size / 2, b"#");
        destination.file("f", other).mtime("f", 7, 7).mtime("", 8, 8);
        let before = Snapshot::of(destination.path());

        copy(source.path(), destination.path(), &[]).expect(0);
        assert_untouched(&before, destination.path());
        copy(source.path(), destination.path(), &["--checksum"]).expect(0);
        assert_same(source.path(), destination.path());
    }
}

#[test]
fn rewritten_pages_of_a_large_file_cost_little_more_than_themselves() {
    const SIZE: usize = 64 << 20;
    const PAGE: usize = 8 << 10;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let mut content = Content::random(1, SIZE);
    destination.file("f", content.clone());
    let mut rng = Rng::new(2);
    for _ in 0..20 {
        let page = usize::try_from(rng.below((SIZE / PAGE) as u64)).unwrap();
        content = content.overwrite(page * PAGE, &rng.bytes(PAGE));
    }
    source.file("f", content);
    let blocks = Snapshot::of(destination.path()).node("f").blocks;

    let finished = copy(source.path(), destination.path(), &["--compress", "never"]);
    let report = report(finished.expect(0));
    assert_same(source.path(), destination.path());
    let dirty = 20 * PAGE as u64;
    let sent = report["wire_sent"].as_u64().unwrap();
    assert!(sent <= dirty * 13 / 10, "{sent} bytes for {dirty} dirty ones: {report}");
    let after = Snapshot::of(destination.path()).node("f").blocks;
    assert!(after <= blocks + blocks / 64, "{blocks} blocks became {after}");
}

#[test]
fn insertions_appends_and_truncations_send_what_is_new() {
    type Edit = fn(Content) -> Content;
    let edits: [(&str, Edit); 4] = [
        ("append", |c| {
            let end = c.bytes().len();
            c.overwrite(end, &Rng::new(3).bytes(500_000))
        }),
        ("insert", |c| c.insert(100, b"some").insert(9 << 20, &[7; 100])),
        ("truncate", |c| c.bytes()[..5_000_001].into()),
        ("drop the start", |c| c.bytes()[777..].into()),
    ];
    for (name, edit) in edits {
        for options in [&[][..], &["--atomic"]] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            let content = Content::random(1, 16 << 20);
            destination.file("f", content.clone());
            source.file("f", edit(content));
            let report = report(copy(source.path(), destination.path(), options).expect(0));
            assert_same(source.path(), destination.path());
            let literal = report["bytes_literal"].as_u64().unwrap();
            assert!(literal < 2 << 20, "{name} {options:?}: {report}");
        }
    }
}

#[test]
fn holes_stay_holes_and_new_holes_become_holes() {
    let aspects = Aspects { extents: Some(4), ..Aspects::default() };
    let (source, destination) = (TempTree::new(), TempTree::new());
    let piece = Rng::new(1).bytes(70_000);
    source.sparse("new", 512 << 20, &[(0, &piece), (100 << 20, &piece), (511 << 20, &piece)]);
    source.sparse("only holes", 64 << 20, &[]);
    source.sparse("hole for data", 32 << 20, &[(1 << 20, &piece)]);
    destination.file("hole for data", Content::random(5, 32 << 20));
    copy(source.path(), destination.path(), &[]).expect(0);
    let (left, right) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    assert_eq!(differences(&left, &right, aspects), [""; 0]);
}

#[test]
fn file_systems_of_different_kinds() {
    let sources = [Mount::ext4(400), Mount::xfs(400), Mount::btrfs(400)];
    for mount in sources.iter().flatten() {
        let source = TempTree::below(mount.path());
        source.everything().populate(1, 100);
        for target in [Mount::xfs(400), Mount::btrfs(400), Mount::ext4(400)].iter().flatten() {
            let destination = TempTree::below(target.path());
            copy(source.path(), destination.path(), &["--verify"]).expect(0);
            assert_same(source.path(), destination.path());
            source.mutate(2, 20);
            copy(source.path(), destination.path(), &["--delete"]).expect(0);
            assert_same(source.path(), destination.path());
        }
    }
}

#[test]
fn tmpfs_and_overlay() {
    let (Some(tmpfs), Some(overlay)) = (Mount::tmpfs("size=256m"), Mount::overlay()) else {
        return;
    };
    let source = TempTree::new();
    source.populate(3, 200).sparse("sparse", 8 << 20, &[(4 << 20, b"x")]);
    for path in [tmpfs.path(), overlay.path()] {
        let destination = TempTree::below(path);
        copy(source.path(), destination.path(), &["--verify"]).expect(0);
        assert_same(source.path(), destination.path());
        copy(destination.path(), TempTree::new().path(), &["--verify"]).expect(0);
    }
}

#[test]
fn mount_points_are_not_crossed_and_lost_and_found_is_left_alone() {
    let (Some(from), Some(to)) = (Mount::ext4(64), Mount::ext4(64)) else { return };
    std::fs::write(from.path().join("f"), "text").unwrap();
    std::fs::write(from.path().join("lost+found/secret"), "not to be copied").unwrap();
    std::fs::write(to.path().join("lost+found/own"), "not to be deleted").unwrap();
    let point = from.path().join("mounted");
    std::fs::create_dir(&point).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&point)
        .status()
        .unwrap();
    assert!(mounted.success());
    std::fs::write(point.join("beyond"), "another file system").unwrap();

    let finished = copy(from.path(), to.path(), &["--delete"]);
    let unmounted = std::process::Command::new("umount").arg(&point).status().unwrap();
    assert!(unmounted.success());
    let after = Snapshot::of(to.path());
    let paths: Vec<_> = after.paths().collect();
    let expected = ["f", "lost+found", "lost+found/own", "mounted"].map(PathBuf::from);
    assert_eq!(paths, expected, "{}", finished.stderr);
}

#[test]
fn holes_of_small_files_stay_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let (source, destination) = (TempTree::new(), TempTree::new());
    let shapes: [&[(usize, usize)]; 6] = [
        &[],
        &[(0, 1)],
        &[(65_535, 1)],
        &[(30_000, 9)],
        &[(4095, 2), (20_480, 4096)],
        &[(0, 65_536)],
    ];
    for (number, shape) in shapes.iter().enumerate() {
        let data = shape.iter().fold(Content::zeros(65_536), |content, &(at, len)| {
            content.overwrite(at, &vec![7; len])
        });
        for path in [format!("new/{number}"), format!("old/{number}")] {
            source.file(&path, data.clone());
        }
        destination.file(format!("old/{number}"), "old");
    }
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
    for (number, shape) in shapes.iter().enumerate() {
        for path in [format!("new/{number}"), format!("old/{number}")] {
            let blocks = destination.at(&path).metadata().unwrap().blocks();
            let touched: usize =
                shape.iter().map(|(at, len)| (at + len - 1) / 4096 - at / 4096 + 1).sum();
            assert!(blocks <= 8 * (touched as u64 + 1), "{path}: {blocks} blocks");
        }
    }
}

#[test]
fn acls_and_default_acls_that_must_not_leak() {
    if !skip::commands(&["setfacl"]) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("plain", "1").dir("dir").file("dir/inside", "2").file("private", "3");
    source.mode("private", 0o600).acl("dir", "u:1234:rwx").acl("dir", "d:g:4321:rx");
    source.acl("plain", "u:77:rw");
    destination.acl("", "d:u:9999:rwx").file("dir/inside", "old").acl("dir/inside", "u:5:rwx");
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
    assert_rsync_finds_nothing(source.path(), destination.path());
}

#[test]
fn capabilities_survive_a_change_of_owner() {
    if !(skip::root() && skip::commands(&["setcap"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("tool", Content::random(1, 50_000)).mode("tool", 0o4755).owner("tool", 12, 34);
    let set = std::process::Command::new("setcap")
        .arg("cap_net_raw+ep")
        .arg(source.at("tool"))
        .status()
        .unwrap();
    assert!(set.success());
    source.mode("tool", 0o755);
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
    assert!(!Snapshot::of(destination.path()).node("tool").xattrs.is_empty());
}

#[test]
fn copying_into_itself_is_refused() {
    let tree = TempTree::new();
    tree.file("a/b/c", "x");
    let before = Snapshot::of(tree.path());
    for (from, to) in [("", "a/b"), ("a/b", ""), ("a", "a")] {
        copy(&tree.at(from), &tree.at(to), &["--delete"]).expect(3);
        assert_untouched(&before, tree.path());
    }
}

/// A network file system answers `stat` from a cache unless it is told not to; the flag is what a local one shows of that.
#[test]
fn source_attributes_are_never_taken_from_a_cache() {
    if !skip::commands(&["strace"]) {
        return;
    }
    let (source, destination, traces) = (TempTree::new(), TempTree::new(), TempTree::new());
    source
        .file("small", b"1".as_slice())
        .file("large", Content::random(1, 200_000))
        .dir("sub")
        .file("sub/x", b"3".as_slice());
    let copy = copy_command(source.path(), destination.path(), &["--progress", "none"]);
    let trace = traces.at("trace");
    let strace = ["strace", "-f", "-y", "-e", "trace=statx", "-o", trace.to_str().unwrap()];
    Process::run(below(&strace, &copy)).expect(0);
    let trace = std::fs::read_to_string(trace).unwrap();
    let of_source = format!("<{}", source.path().display());
    let calls: Vec<_> = trace.lines().filter(|line| line.contains(&of_source)).collect();
    assert!(calls.len() > 5, "{trace}");
    for call in calls {
        assert!(call.contains("AT_STATX_FORCE_SYNC"), "{call}");
    }
}

#[test]
fn a_filter_pattern_that_is_not_utf_8_excludes() {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = std::ffi::OsStr::from_bytes;
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.file("a", "a").file(bytes(b"b\xff"), "b").file(bytes(b"c\xfe"), "c");
    let mut command = copy_command(source.path(), destination.path(), &[]);
    command.arg("--exclude").arg(bytes(b"*\xff"));
    Process::run(command).expect(0);
    let arrived: Vec<_> = Snapshot::of(destination.path()).paths().map(PathBuf::from).collect();
    assert!(arrived.contains(&bytes(b"c\xfe").into()), "{arrived:?}");
    assert!(!arrived.contains(&bytes(b"b\xff").into()), "{arrived:?}");
}
