//! Any tree becomes any other.

use std::{fs, path::Path};

use proptest::prelude::*;
use wire::Options;

use super::support::*;

/// What stands under a name.
#[derive(Debug, Clone)]
enum Node {
    File(u64, usize),
    /// A file that differs from the one of this seed and length in one place.
    Edited(u64, usize),
    Sparse(u64),
    Symlink(u8),
    /// A further name of an earlier file.
    Link(prop::sample::Index),
    Dir,
}

type Tree = Vec<(Vec<u8>, Node, u16, i64)>;

fn node() -> impl Strategy<Value = Node> {
    let size = prop_oneof![
        Just(0usize),
        1..200usize,
        65_530..65_545usize,
        100_000..400_000usize,
        1_040_000..1_100_000usize
    ];
    prop_oneof![
        4 => (0..3u64, size.clone()).prop_map(|(seed, len)| Node::File(seed, len)),
        2 => (0..3u64, size).prop_map(|(seed, len)| Node::Edited(seed, len)),
        1 => (0..40_000_000u64).prop_map(Node::Sparse),
        1 => any::<u8>().prop_map(Node::Symlink),
        2 => any::<prop::sample::Index>().prop_map(Node::Link),
        2 => Just(Node::Dir),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(0..4u8, 1..4);
    prop::collection::vec((path, node(), 0o600..0o777u16, 0..4i64), 1..25)
}

/// Builds the tree; what cannot be, since its name is taken, is left out.
fn build(root: &Path, tree: &Tree) {
    let mut files = Vec::new();
    for (path, node, mode, time) in tree {
        let mut at = root.to_owned();
        for component in path {
            let _ = fs::create_dir(&at);
            at = at.join(format!("n{component}"));
        }
        if at.symlink_metadata().is_ok() || !at.parent().unwrap().is_dir() {
            continue;
        }
        match node {
            Node::File(seed, len) => fs::write(&at, noise(*seed, *len)).unwrap(),
            Node::Edited(seed, len) => {
                let mut content = noise(*seed, *len);
                if let Some(byte) = content.get_mut(len / 3) {
                    *byte ^= 1;
                }
                fs::write(&at, content).unwrap();
            }
            Node::Sparse(len) => fs::File::create(&at).unwrap().set_len(*len).unwrap(),
            Node::Symlink(target) => {
                std::os::unix::fs::symlink(format!("t{target}"), &at).unwrap();
                continue;
            }
            Node::Link(index) if !files.is_empty() => {
                fs::hard_link(index.get(&files), &at).unwrap();
                continue;
            }
            Node::Link(_) | Node::Dir => fs::create_dir(&at).unwrap(),
        }
        if at.is_file() {
            files.push(at.clone());
        }
        rustix::fs::chmod(&at, rustix::fs::Mode::from_raw_mode(u32::from(*mode) | 0o100)).unwrap();
        set_mtime(&at, 1000 + time, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 60, ..Default::default() })]

    #[test]
    fn one_tree_becomes_another(a in tree(), b in tree(), atomic: bool) {
        let pair = Pair::new();
        build(pair.from.path(), &a);
        build(pair.to.path(), &b);
        // Size and time alone cannot tell some of these trees apart.
        let options = Options {
            delete: true, checksum: true, allow_empty: true, atomic, verify: true,
            ..Options::default()
        };
        pair.converge_twice(options);
    }
}
