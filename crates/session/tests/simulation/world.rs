//! A source and a destination.

use std::{path::Path, sync::Arc};

use testkit::{Content, Rng, TempTree};

/// The trees of both ends.
pub(crate) struct World {
    /// Shared with what changes it during a session.
    pub(crate) from: Arc<TempTree>,
    pub(crate) to: TempTree,
    /// Bytes that a first copy would send, about.
    pub(crate) bytes: u64,
}

impl World {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let new = || TempTree::below(Path::new("/dev/shm"));
        let (from, to) = (new(), new());
        let (entries, seed) = (1 + rng.below(14) as usize, rng.next_u64());
        from.populate(seed, entries);
        match rng.below(8) {
            0 => {}
            1 => drop(to.populate(rng.next_u64(), entries)),
            _ => {
                to.populate(seed, entries);
                to.mutate(rng.next_u64(), rng.below(4) as usize);
                from.mutate(rng.next_u64(), rng.below(4) as usize);
            }
        }
        if rng.below(3) == 0 {
            large(rng, &from, &to);
        }
        if rng.below(3) == 0 {
            hard_links(rng, &from, &to);
        }
        let sizes = walkdir::WalkDir::new(from.path()).into_iter();
        let bytes = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        Self { from: Arc::new(from), to, bytes }
    }
}

/// A file that is large enough to be patched where it is, or to be searched.
fn large(rng: &mut Rng, from: &TempTree, to: &TempTree) {
    let basis = Content::random(rng.next_u64(), 200_000 + rng.below(1_300_000) as usize);
    to.file("large", basis.clone()).mtime("large", 7, 1);
    let at = rng.below(basis.bytes().len() as u64) as usize;
    let len = 1 + rng.below(100_000) as usize;
    let piece = rng.bytes(len);
    let new = match rng.below(4) {
        0 => basis.overwrite(at, &piece),
        1 => basis.insert(at, &piece),
        2 => Content::from(&basis.bytes()[at..]),
        _ => Content::random(rng.next_u64(), basis.bytes().len()),
    };
    from.file("large", new).mtime("large", 7, 2);
}

fn hard_links(rng: &mut Rng, from: &TempTree, to: &TempTree) {
    for tree in [from, to] {
        let content = Content::random(rng.next_u64(), 90_000);
        let names = ["linked/a", "linked/b", "b", "z"];
        tree.file(names[0], content).mtime(names[0], 9, rng.below(1_000_000_000) as u32);
        for name in &names[1..] {
            match rng.below(3) {
                0 => drop(tree.hard_link(names[0], name)),
                1 => drop(tree.file(name, "on its own").mtime(
                    name,
                    9,
                    rng.below(1_000_000_000) as u32,
                )),
                _ => {}
            }
        }
    }
}
