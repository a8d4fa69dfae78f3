//! Random changes to a tree, of the sorts that people and programs make.

use std::{
    fs,
    path::{Path, PathBuf},
};

use testkit::{Content, Kind, Rng, Snapshot, TempTree};

use crate::grow::{Powers, attribute, content, dress, grow, mode, new_path, one, own, time};

/// Makes `changes` random changes. The times of changed files are new ones, but for some changes of content that leave
/// size and time as they were: these only a comparison by content can see.
pub(crate) fn mutate(tree: &TempTree, seed: u64, changes: u64, powers: Powers) {
    let mut rng = Rng::new(seed ^ 0x6d75_7461_7465);
    for _ in 0..changes {
        let snapshot = Snapshot::of(tree.path());
        let paths: Vec<&Path> = snapshot.paths().collect();
        if paths.is_empty() {
            grow(tree, rng.next_u64(), 4, powers);
            continue;
        }
        let path = rng.pick(&paths).to_path_buf();
        change(tree, &mut rng, &snapshot, &path, powers);
    }
}

fn change(tree: &TempTree, rng: &mut Rng, before: &Snapshot, path: &Path, powers: Powers) {
    let kind = before.node(path).kind;
    match rng.below(16) {
        0 | 1 => _ = tree.remove(path),
        2 => replace(tree, rng, path, kind, powers),
        3 => rename(tree, rng, before, path),
        4 => link(tree, rng, before, path, kind),
        5 => add(tree, rng, before, powers),
        6 => own(tree, rng, path, powers),
        7 if kind != Kind::Symlink => mode(tree, rng, path, kind, powers),
        8 | 9 => attribute(tree, rng, path, kind, powers),
        10 => time(tree, rng, path),
        11 if kind == Kind::File => in_secret(tree, path, before),
        _ if kind == Kind::File => rewrite(tree, rng, path),
        _ => dress(tree, rng, path, kind, powers),
    }
}

/// Something of another kind, or another one of the same kind.
fn replace(tree: &TempTree, rng: &mut Rng, path: &Path, kind: Kind, powers: Powers) {
    tree.remove(path);
    if kind != Kind::Directory && rng.below(2) == 0 {
        tree.dir(path).file(path.join("x.keep"), content(rng));
        dress(tree, rng, path, Kind::Directory, powers);
        return;
    }
    one(tree, rng, path, powers);
    let new = Snapshot::of(tree.path()).node(path).kind;
    dress(tree, rng, path, new, powers);
}

fn rename(tree: &TempTree, rng: &mut Rng, before: &Snapshot, path: &Path) {
    let to = new_path(rng, &folders(before));
    if !before.0.contains_key(&to) && !to.starts_with(path) && to.as_os_str() != "lost+found" {
        tree.rename(path, to);
    }
}

fn link(tree: &TempTree, rng: &mut Rng, before: &Snapshot, path: &Path, kind: Kind) {
    let to = new_path(rng, &folders(before));
    if kind != Kind::Directory && !before.0.contains_key(&to) && to.as_os_str() != "lost+found" {
        tree.hard_link(path, to);
    }
}

fn add(tree: &TempTree, rng: &mut Rng, before: &Snapshot, powers: Powers) {
    let path = new_path(rng, &folders(before));
    if !before.0.contains_key(&path) && path.as_os_str() != "lost+found" {
        one(tree, rng, &path, powers);
        let kind = Snapshot::of(tree.path()).node(&path).kind;
        dress(tree, rng, &path, kind, powers);
    }
}

/// Other content of the same size, under the same time.
fn in_secret(tree: &TempTree, path: &Path, before: &Snapshot) {
    let node = before.node(path);
    let mut bytes = fs::read(tree.at(path)).unwrap();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 0x55;
        let at = node.size - 1;
        tree.patch(path, at, &bytes[bytes.len() - 1..]);
        restore(tree, path, node.mode);
        tree.mtime(path, node.mtime.0, u32::try_from(node.mtime.1).unwrap());
    }
}

fn rewrite(tree: &TempTree, rng: &mut Rng, path: &Path) {
    let mode = Snapshot::of(tree.path()).node(path).mode;
    let old = fs::read(tree.at(path)).unwrap();
    let at = usize::try_from(rng.below(old.len() as u64 + 1)).unwrap();
    let old = Content::from(old);
    let new = match rng.below(5) {
        0 => old.insert(at, &rng.bytes(10)),
        1 => old.overwrite(at, &rng.bytes(10)),
        2 => Content::from(&old.bytes()[..at]),
        3 => {
            let end = old.bytes().len();
            old.overwrite(end, &rng.bytes(70_000))
        }
        _ => content(rng),
    };
    tree.file(path, new);
    restore(tree, path, mode);
    time(tree, rng, path);
}

/// Writing takes set-id bits away.
fn restore(tree: &TempTree, path: &Path, mode: u32) {
    tree.mode(path, mode);
}

fn folders(snapshot: &Snapshot) -> Vec<PathBuf> {
    let directories = snapshot.0.iter().filter(|(_, node)| node.kind == Kind::Directory);
    directories.map(|(path, _)| path.clone()).collect()
}
