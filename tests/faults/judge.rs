//! What a run that was broken off may leave, and when it is over.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use testkit::{Snapshot, interrupted::is_staged};

/// Everything that `now` shows under a final name and that is neither as it was in `before` nor as it is to be in
/// `wanted`, or that is gone though it was to stay. `in_place` may be half patched, if it is marked so.
pub(crate) fn wrongly_shown(
    before: &Snapshot,
    wanted: &Snapshot,
    now: &Snapshot,
    in_place: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in now.0.iter().filter(|(path, _)| !is_staged(path)) {
        let mut complain = |what: &str| found.push(format!("{}: {what}", path.display()));
        let known = [before.0.get(path), wanted.0.get(path)]
            .map(|known| known.filter(|known| known.kind == node.kind));
        let mut known = known.into_iter().flatten().peekable();
        if known.peek().is_none() {
            complain("is nothing that was there or that was sent");
            continue;
        }
        let modes = known.clone().fold(0, |modes, known| modes | known.mode);
        if node.mode & !modes != 0 {
            complain("has a looser mode than ever");
        }
        // Nobody has set its time since its content changed.
        let marked = path == Path::new(in_place) && node.mtime == node.ctime;
        if !known.any(|known| (&known.content, &known.target) == (&node.content, &node.target))
            && !marked
        {
            complain("has neither the old nor the new content");
        }
    }
    for (path, node) in &before.0 {
        let stays = wanted.0.get(path).is_some_and(|wanted| wanted.kind == node.kind);
        if stays && !now.0.contains_key(path) {
            found.push(format!("{}: is gone", path.display()));
        }
    }
    found
}

/// Waits until the server has let go of a volume.
pub(crate) fn wait_until_free(root: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let root = volume::Dir::open_root(root).unwrap();
    while volume::lock::VolumeLock::acquire(&root).unwrap().is_none() {
        assert!(Instant::now() < deadline, "the server does not let go");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_wrong_is_seen_and_what_is_not_is_not() {
    use testkit::{Content, TempTree};

    let (source, tree) = (TempTree::new(), TempTree::new());
    tree.file("f", "old").mode("f", 0o600).file("gone", "1").file("large", "old");
    source.file("f", "new").mode("f", 0o640).file("d/new", "2").file("large", "new");
    let (before, wanted) = (Snapshot::of(tree.path()), Snapshot::of(source.path()));
    let found = || wrongly_shown(&before, &wanted, &Snapshot::of(tree.path()), "large");
    assert_eq!(found(), [""; 0]);
    tree.file("f", "new").mode("f", 0o640).file("d/new", "2").remove("gone");
    tree.file(".pvferry-1-2/part", "half");
    assert_eq!(found(), [""; 0]);

    type Change = fn(&TempTree) -> &TempTree;
    let changes: [(&str, Change); 6] = [
        ("f: has neither", |tree| tree.file("f", "ne")),
        ("f: has a looser", |tree| tree.file("f", "new").mode("f", 0o644)),
        ("f: is gone", |tree| tree.remove("f")),
        ("x: is nothing", |tree| tree.file("f", "new").mode("f", 0o640).file("x", "new")),
        ("d/new: is nothing", |tree| tree.remove("x").remove("d/new").symlink("d/new", "2")),
        ("large: has neither", |tree| {
            tree.remove("d/new").file("large", "half").mtime("large", 5, 0)
        }),
    ];
    for (complaint, change) in changes {
        change(&tree);
        let found = found();
        assert!(matches!(&found[..], [one] if one.starts_with(complaint)), "{found:?}");
    }
    tree.file("large", Content::from("half"));
    assert_eq!(found(), [""; 0]);
}
