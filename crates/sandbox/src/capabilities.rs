//! Capabilities: what a process keeps of those that it was given.

use rustix::{
    io::Errno,
    thread::{self, CapabilitySet, CapabilitySets},
};

/// Gives up every capability but those in `keep`, in every set, and the way to get one back by executing a program. Answers
/// with those that are left.
pub(crate) fn keep(keep: CapabilitySet) -> Result<CapabilitySet, Errno> {
    thread::set_no_new_privs(true)?;
    let given = thread::capabilities(None)?;
    // Only for who may; for others there is nothing in it that could be had.
    if given.effective.contains(CapabilitySet::SETPCAP) {
        drop_from_bounding_set(keep);
    }
    thread::clear_ambient_capability_set()?;
    let left = CapabilitySets {
        effective: given.effective & keep,
        permitted: given.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, left)?;
    Ok(left.effective)
}

fn drop_from_bounding_set(keep: CapabilitySet) {
    let each = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in each.filter(|capability| !keep.contains(*capability)) {
        if thread::remove_capability_from_bounding_set(capability).is_err() {
            return; // beyond the last that this kernel knows
        }
    }
}

/// For people.
pub(crate) fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
