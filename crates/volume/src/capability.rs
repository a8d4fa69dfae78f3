//! What this process may not keep of a volume, known before it starts.
//!
//! Some metadata takes a capability to be set. What is missing is not an error as long as nothing in
//! the volume needs it; where something does, [`metadata`](crate::metadata) reports it entry by entry.
//! The preflight says it once and in advance.

use std::fmt;

use rustix::thread::{self, CapabilitySet};

use crate::{Dir, Error, Result, unmapped};

/// Something that is not kept, and the capability that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// What is not preserved.
    pub what: &'static str,
    /// What is missing: `CAP_CHOWN`.
    pub missing: &'static str,
}

impl Loss {
    /// True where nothing but owners is lost.
    #[must_use]
    pub fn is_of_owners(&self) -> bool {
        [UNMAPPED, UNMAPPED_BY_MOUNT].contains(self) || self.missing == "CAP_CHOWN"
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} are not preserved: {} is missing", self.what, self.missing)
    }
}

/// Each capability that matters, and what does not work without it.
const NEEDS: &[(CapabilitySet, Loss)] = &[
    need(CapabilitySet::CHOWN, "CAP_CHOWN", "owners"),
    need(
        CapabilitySet::DAC_OVERRIDE,
        "CAP_DAC_OVERRIDE",
        "entries without permission for this user",
    ),
    need(CapabilitySet::FOWNER, "CAP_FOWNER", "metadata of entries of other users"),
    need(CapabilitySet::FSETID, "CAP_FSETID", "setgid bits of other groups"),
    need(CapabilitySet::SETFCAP, "CAP_SETFCAP", "file capabilities"),
    need(CapabilitySet::MKNOD, "CAP_MKNOD", "device nodes"),
    need(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "trusted.* attributes"),
    need(CapabilitySet::LINUX_IMMUTABLE, "CAP_LINUX_IMMUTABLE", "immutable flags"),
];

const fn need(
    capability: CapabilitySet,
    missing: &'static str,
    what: &'static str,
) -> (CapabilitySet, Loss) {
    (capability, Loss { what, missing })
}

/// The losses as sentences: all capabilities that are missing in one. `ask_for_no_owner` where that option would help.
#[must_use]
pub fn sentences(losses: &[Loss], ask_for_no_owner: bool) -> Vec<String> {
    let (unmapped, missing): (Vec<Loss>, Vec<Loss>) =
        losses.iter().partition(|loss| **loss == UNMAPPED);
    let mut sentences = Vec::new();
    match &missing[..] {
        [] => {}
        [only] => sentences.push(only.to_string()),
        [first @ .., last] => {
            let what: Vec<_> = first.iter().map(|loss| loss.what).collect();
            let uid = rustix::process::geteuid();
            // Only root can be expected to have them: there the names say what to add to a container.
            let without = if uid.is_root() {
                let names: Vec<_> = missing.iter().map(|loss| loss.missing).collect();
                format!(" without {}", names.join(", "))
            } else {
                String::new()
            };
            sentences.push(format!(
                "running as uid {}{without}: {} and {} are not preserved",
                uid.as_raw(),
                what.join(", "),
                last.what,
            ));
        }
    }
    if ask_for_no_owner && missing.iter().any(Loss::is_of_owners) {
        sentences[0] += " (run as root at the destination, or use --no-owner)";
    }
    sentences.extend(unmapped.iter().map(ToString::to_string));
    sentences
}

/// Capabilities that count only outside of user namespaces.
const INITIAL_ONLY: CapabilitySet =
    CapabilitySet::MKNOD.union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::LINUX_IMMUTABLE);

/// In a user namespace that maps a part of all ids, every other owner reads as the same one: see [`unmapped`]. It is announced
/// once, since not each such entry can be told from one of that owner.
const UNMAPPED: Loss =
    Loss { what: "owners that this user namespace does not map", missing: "a map of all ids" };

/// The same of a volume whose mount translates ids, as it is made for a pod with a user namespace.
const UNMAPPED_BY_MOUNT: Loss =
    Loss { what: "owners that the mount of the source does not map", missing: "a map of all ids" };

/// The rights of a process, as far as they concern volumes.
#[derive(Debug, Clone, Copy)]
pub struct Preflight {
    effective: CapabilitySet,
    /// Some owners cannot be told apart.
    unmapped: bool,
}

impl Preflight {
    /// The rights of the calling thread.
    ///
    /// # Errors
    /// Where the kernel does not tell them.
    pub fn current() -> Result<Self> {
        let sets = thread::capabilities(None)
            .map_err(|e| Error::new("read capabilities", "this process", e))?;
        let mut effective = sets.effective;
        if in_user_namespace() {
            effective.remove(INITIAL_ONLY);
        }
        Ok(Self { effective, unmapped: unmapped::in_this_process() })
    }

    /// What is lost wherever this process reads an owner, at a source as well.
    #[must_use]
    pub fn of_reading(self) -> Option<Loss> {
        self.unmapped.then_some(UNMAPPED)
    }

    /// The same, of the volume `source`.
    #[must_use]
    pub fn of_reading_at(self, source: &Dir) -> Option<Loss> {
        let by_mount = || unmapped::is_mapped_mount(source).then_some(UNMAPPED_BY_MOUNT);
        self.of_reading().or_else(by_mount)
    }

    /// Everything that is not kept, the weightiest first; empty where all is.
    #[must_use]
    pub fn check(self) -> Vec<Loss> {
        let missing = NEEDS.iter().filter(|(needed, _)| !self.effective.contains(*needed));
        missing.map(|(_, loss)| *loss).chain(self.of_reading()).collect()
    }
}

/// True where this process may give the group `gid` to a file of its own.
pub(crate) fn may_give_group(gid: u32) -> bool {
    let member = rustix::process::getgroups()
        .is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid));
    member || thread::capabilities(None).is_ok_and(|s| s.effective.contains(CapabilitySet::CHOWN))
}

/// True where user ids mean something else here than on the node. Where `/proc` does not say, they
/// are taken to be the same.
fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    let mut fields = map.split_ascii_whitespace();
    let whole = [Some("0"), Some("0"), Some("4294967295")];
    whole.iter().any(|&field| fields.next() != field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_one_loss_and_says_so() {
        let check = |effective| Preflight { effective, unmapped: false }.check();
        assert_eq!(check(CapabilitySet::all()), []);
        assert_eq!(check(CapabilitySet::empty()).len(), NEEDS.len());
        let lost = check(CapabilitySet::all().difference(CapabilitySet::CHOWN));
        assert_eq!(
            lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["owners are not preserved: CAP_CHOWN is missing"]
        );
    }

    #[test]
    fn several_missing_capabilities_are_one_sentence() {
        let check = |effective, unmapped| Preflight { effective, unmapped }.check();
        let all = sentences(&check(CapabilitySet::empty(), true), true);
        assert_eq!(all.len(), 2, "{all:?}");
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(all[0].contains(" without CAP_CHOWN, CAP_DAC_OVERRIDE, "), is_root, "{all:?}");
        assert!(all[0].contains(": owners, entries "), "{all:?}");
        assert!(
            all[0].ends_with(
                " are not preserved (run as root at the destination, or use --no-owner)"
            ),
            "{all:?}"
        );
        let one =
            sentences(&check(CapabilitySet::all().difference(CapabilitySet::MKNOD), false), true);
        assert_eq!(one, ["device nodes are not preserved: CAP_MKNOD is missing"]);
        assert_eq!(sentences(&[], true), [""; 0]);
    }

    #[test]
    fn a_user_namespace_that_maps_a_part_of_all_ids_is_a_loss() {
        let of = |unmapped| Preflight { effective: CapabilitySet::all(), unmapped };
        assert_eq!((of(false).check(), of(true).check()), (vec![], vec![UNMAPPED]));
    }
}
