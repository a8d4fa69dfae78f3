//! What must hold after a session, however it ended.

use std::path::Path;

use testkit::{Aspects, Kind, Node, Snapshot, differences};

use super::{
    attempt::{Attempt, Ended},
    world::World,
};

/// Smallest file that may be patched where it lies.
const IN_PLACE_MIN: u64 = 1 << 20;

/// How a session ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A success, and the trees are equal.
    Converged,
    /// It says that it failed.
    Failed,
}

/// Judges a session that found `before` at the destination.
pub(crate) fn judge(
    seed: u64,
    world: &World,
    attempt: &Attempt,
    before: &Snapshot,
    ended: &Ended,
) -> Verdict {
    let (from, to) = (Snapshot::of(world.from.path()), Snapshot::of(world.to.path()));
    let code = match &ended.sent {
        Ok(summary) => summary.exit_code,
        Err(error) => error.exit_code(),
    };
    let shown = || format!("seed {seed}: {attempt:?}\n{ended:?}");
    if attempt.options.dry_run {
        let untouched = Aspects { untouched: true, ..Aspects::default() };
        assert_eq!(differences(before, &to, untouched), [""; 0], "{}", shown());
        return Verdict::Failed;
    }
    if code == 0 {
        // A source that changes while it is read may be caught at any moment.
        if !attempt.changes_source() {
            // What stays where nothing is deleted may share an inode with what belongs there.
            let links = attempt.options.delete;
            let mut found = differences(&from, &to, Aspects { links, ..Aspects::default() });
            found.retain(|line| attempt.options.delete || !line.ends_with("only on the right"));
            assert_eq!(found, [""; 0], "a false success: {}", shown());
        }
        return Verdict::Converged;
    }
    if !attempt.spoils_content() && !attempt.changes_source() {
        let wrong = wrongly_published(&from, before, &to);
        assert_eq!(wrong, [""; 0], "{}", shown());
    }
    Verdict::Failed
}

/// What bears a final name and is neither what was there nor what the source has; and what the next run would take for
/// the source's and is not.
fn wrongly_published(from: &Snapshot, before: &Snapshot, to: &Snapshot) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in to.paths().filter(|path| !is_staged(path)) {
        let node = to.node(path);
        let (new, old) = (from.0.get(path), before.0.get(path));
        if new.is_none() && old.is_none() {
            wrong.push(format!("{}: was made up", path.display()));
        }
        if node.kind == Kind::File
            && let Some(what) = wrong_file(node, new, old)
        {
            wrong.push(format!("{}: {what}", path.display()));
        }
    }
    for path in before.paths() {
        let file = |tree: &Snapshot| tree.0.get(path).is_some_and(|node| node.kind == Kind::File);
        if file(before) && file(from) && !file(to) {
            wrong.push(format!("{}: is gone", path.display()));
        }
    }
    wrong
}

fn wrong_file(node: &Node, new: Option<&Node>, old: Option<&Node>) -> Option<&'static str> {
    let is_new = new.is_some_and(|new| new.content == node.content);
    let is_old = old.is_some_and(|old| old.content == node.content);
    let looks_new = new.is_some_and(|new| (new.size, new.mtime) == (node.size, node.mtime));
    let in_place = old.is_some_and(|old| old.size >= IN_PLACE_MIN) && new.is_some();
    match () {
        () if is_new => None,
        () if looks_new && old.is_none_or(|old| old.mtime != node.mtime) => {
            Some("passes for the source's")
        }
        () if is_old => None,
        () if in_place && old.is_some_and(|old| old.mtime != node.mtime) => None,
        () => Some("is neither the old nor the new"),
    }
}

fn is_staged(path: &Path) -> bool {
    path.iter().next().is_some_and(|name| name.to_string_lossy().starts_with(".pvferry-"))
}
