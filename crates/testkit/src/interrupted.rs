//! What a tree may look like when a run was interrupted.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use crate::snapshot::{Kind, Node, Snapshot, shown};

/// How the name of the directory begins, at the root of a volume, in which unfinished entries may lie.
const STAGING: &str = ".pvferry-";

/// The file in it that tells a crash from an orderly end.
const CRASH_MARKER: &str = "crash-marker";

/// Everything in `now` that passes for finished and is not, or is worse than both ends, one line each. `before` is the
/// tree as the run found it, `wanted` what it was to become. The files in `in_place` may be partly old and partly
/// new, unless they bear their final time.
#[must_use]
pub fn unfinished(
    wanted: &Snapshot,
    before: &Snapshot,
    now: &Snapshot,
    in_place: &[&str],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut paths: BTreeSet<&Path> = before.paths().collect();
    paths.extend(now.paths());
    for path in paths.into_iter().filter(|path| !is_staged(path)) {
        // A mode belongs to the inode: what is wanted of one of its names shows at all of them.
        let links = now.0.get(path).map_or(&[][..], |node| &node.links);
        let of_links = links.iter().filter_map(|link| wanted.0.get(link));
        let modes = of_links.fold(0, |modes, node| modes | node.mode);
        let [wanted, before, now] = [wanted, before, now].map(|tree| tree.0.get(path));
        let in_place = in_place.iter().any(|name| path == Path::new(name));
        if let Some(what) = objection(wanted, before, now, in_place) {
            found.push(format!("{}: {what}", shown(path)));
        } else if is_looser(wanted, before, now, modes) {
            found.push(format!("{}: has a mode looser than either", shown(path)));
        }
    }
    found
}

/// True for the staging directory and what is in it. `path` is relative to the root of the volume.
#[must_use]
pub fn is_staged(path: &Path) -> bool {
    let first = path.components().next();
    matches!(first, Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(STAGING.as_bytes()))
}

/// What a run that failed left in `tree` besides the crash marker.
#[must_use]
pub fn left_behind(tree: &Snapshot) -> Vec<&Path> {
    let is_marker = |path: &Path| {
        let mut below = path.components().skip(1);
        let name = below.next().map(|component| component.as_os_str().to_owned());
        name.is_none_or(|name| name == CRASH_MARKER) && below.next().is_none()
    };
    tree.paths().filter(|path| is_staged(path) && !is_marker(path)).collect()
}

fn objection(
    wanted: Option<&Node>,
    before: Option<&Node>,
    now: Option<&Node>,
    in_place: bool,
) -> Option<&'static str> {
    let Some(now) = now else {
        // One file takes the place of another in one step.
        let both = wanted.zip(before)?;
        let are_files = both.0.kind == Kind::File && both.1.kind == Kind::File;
        return are_files.then_some("is gone");
    };
    let is = |other: Option<&Node>| {
        other.is_some_and(|other| {
            (now.kind, now.content, &now.target, now.rdev)
                == (other.kind, other.content, &other.target, other.rdev)
        })
    };
    if wanted.is_none() && before.is_none() {
        return Some("is in neither tree");
    }
    if now.kind == Kind::File && stands_as(now, wanted) && !is(wanted) {
        // What size and time do not tell from the source stays as it is.
        if !(is(before) && stands_as(now, before)) {
            return Some("passes for finished");
        }
    }
    if !in_place && !is(wanted) && !is(before) {
        return Some("is neither old nor new");
    }
    None
}

/// What is being worked in may be open to its owner, and to nobody else.
fn is_looser(wanted: Option<&Node>, before: Option<&Node>, now: Option<&Node>, modes: u32) -> bool {
    let Some(now) = now else { return false };
    let either = [wanted, before].into_iter().flatten();
    let modes = either.fold(0o700 | modes, |modes, node| modes | node.mode);
    now.kind != Kind::Symlink && now.mode & !modes != 0
}

/// True where size and time are those of `other`, so that the next run takes it for unchanged.
fn stands_as(node: &Node, other: Option<&Node>) -> bool {
    other.is_some_and(|other| (node.size, node.mtime) == (other.size, other.mtime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempTree;

    /// What is found in a tree in which `change` was left behind.
    fn after(change: impl FnOnce(&TempTree) -> &TempTree) -> Vec<String> {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for tree in [&source, &destination] {
            tree.file("d/f", "old text")
                .mtime("d/f", 1, 1)
                .file("large", "old")
                .symlink("l", "old");
            tree.file("same", "as old").mtime("same", 1, 1).mode("same", 0o600);
        }
        source.file("d/f", "new text").mtime("d/f", 2, 2).file("new/f", "new").mtime("new/f", 3, 3);
        source.file("large", "new").mtime("large", 4, 4).remove("l").symlink("l", "new");
        source.file("same", "as new").mtime("same", 1, 1);
        let before = Snapshot::of(destination.path());
        change(&destination);
        unfinished(
            &Snapshot::of(source.path()),
            &before,
            &Snapshot::of(destination.path()),
            &["large"],
        )
    }

    #[test]
    fn old_new_and_temporary_may_be() {
        assert_eq!(after(|tree| tree), [""; 0]);
        assert_eq!(after(|tree| tree.file("d/f", "new text").mtime("d/f", 2, 2)), [""; 0]);
        assert_eq!(after(|tree| tree.file("d/f", "new text")), [""; 0]);
        assert_eq!(after(|tree| tree.file("large", "ned")), [""; 0]);
        assert_eq!(after(|tree| tree.remove("l").symlink("l", "new")), [""; 0]);
        assert_eq!(after(|tree| tree.file(".pvferry-1-2/f", "ne")), [""; 0]);
        assert_eq!(after(|tree| tree.file("new/f", "new")), [""; 0]);
    }

    #[test]
    fn anything_else_is_found() {
        let half = ["d/f: is neither old nor new"];
        assert_eq!(after(|tree| tree.file("d/f", "new t")), half);
        assert_eq!(after(|tree| tree.file("d/f", "new t\0\0\0")), half);
        let passes = ["d/f: passes for finished"];
        assert_eq!(after(|tree| tree.file("d/f", "new t\0\0\0").mtime("d/f", 2, 2)), passes);
        assert_eq!(after(|tree| tree.mtime("d/f", 2, 2)), passes);
        let passes = ["large: passes for finished"];
        assert_eq!(after(|tree| tree.file("large", "ned").mtime("large", 4, 4)), passes);
        assert_eq!(after(|tree| tree.file("new/f", "ne")), ["new/f: is neither old nor new"]);
        assert_eq!(after(|tree| tree.remove("d/f")), ["d/f: is gone"]);
        assert_eq!(after(|tree| tree.file("x", "")), ["x: is in neither tree"]);
        let deeper = after(|tree| tree.file("d/.pvferry-1.part", ""));
        assert_eq!(deeper, ["d/.pvferry-1.part: is in neither tree"]);
        assert_eq!(after(|tree| tree.remove("l").symlink("l", "x")), ["l: is neither old nor new"]);
        assert_eq!(after(|tree| tree.mode("same", 0o604)), ["same: has a mode looser than either"]);
    }
}
