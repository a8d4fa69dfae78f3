//! Set-id bits and file capabilities lend the rights of an owner: they exist at the destination only together
//! with exactly that owner and group.

use testkit::{Content, Snapshot, TempTree, skip};

use crate::support::{assert_untouched, copy, report};

/// `cap_net_bind_service=ep`, as the kernel stores it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Files of an ordinary user, of every size that takes a way of its own, with all that lends his rights.
fn lending(tree: &TempTree, seed: u64) {
    for (size, len) in [("empty", 0), ("small", 100), ("medium", 300_000), ("large", 3 << 20)] {
        for (kind, mode) in [("setuid", 0o4755), ("setgid", 0o2755), ("both", 0o6711)] {
            let name = format!("{size}-{kind}");
            tree.file(&name, Content::random(seed, len)).owner(&name, 1234, 1234);
            tree.xattr(&name, "security.capability", CAPABILITY).mode(&name, mode);
        }
    }
    tree.dir("shared").owner("shared", 1234, 1234).mode("shared", 0o2775);
}

#[test]
fn no_owner_as_root_drops_set_id_bits_and_capabilities_of_a_users_files() {
    if !skip::root() {
        return;
    }
    let source = TempTree::new();
    lending(&source, 1);
    // New files, files with other content, and files that only their mode was taken from.
    let (new, changed, equal) = (TempTree::new(), TempTree::new(), TempTree::new());
    lending(&changed, 2);
    lending(&equal, 1);
    for tree in [&changed, &equal] {
        for path in Snapshot::of(tree.path()).0.into_iter() {
            tree.owner(&path.0, 0, 0).mode(&path.0, path.1.mode);
        }
    }
    for destination in [&new, &changed, &equal] {
        for options in [&["--no-owner"][..], &["--no-owner", "--checksum"]] {
            let finished = copy(source.path(), destination.path(), options);
            assert!(finished.stderr.contains("set-id"), "announced: {}", finished.stderr);
            report(finished.expect(0));
            for (path, node) in Snapshot::of(destination.path()).0 {
                let bits = if node.kind == testkit::Kind::Directory { 0 } else { 0o6000 };
                assert_eq!(node.mode & bits, 0, "{path:?} {:o} {}", node.mode, node.uid);
                assert!(node.xattrs.is_empty(), "{path:?}");
            }
        }
        assert_eq!(Snapshot::of(destination.path()).node("shared").mode, 0o2775);
        let before = Snapshot::of(destination.path());
        copy(source.path(), destination.path(), &["--no-owner"]).expect(0);
        assert_untouched(&before, destination.path());
    }
}

#[test]
fn with_its_owner_a_file_keeps_set_id_bits_and_capabilities() {
    if !skip::root() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    lending(&source, 1);
    lending(&destination, 2);
    copy(source.path(), destination.path(), &["--verify"]).expect(0);
    testkit::assert_same(source.path(), destination.path());
}
