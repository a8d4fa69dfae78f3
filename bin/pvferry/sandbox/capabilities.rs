//! Capabilities: what a role keeps of those that it was given.

use rustix::{
    io::Errno,
    thread::{self, CapabilitySet, CapabilitySets},
};

/// Writes anywhere in a volume, and gives entries their owners, modes, devices, file capabilities and flags. The last two are
/// for `trusted.*` attributes and for immutable files; the pods of the controller have neither.
pub(super) const WRITE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN);

/// Reads anything in a volume, without a trace in its times (`FOWNER`), `trusted.*` attributes included (`SYS_ADMIN`): without
/// it they would be passed over, and nobody would know.
pub(super) const READ: CapabilitySet = CapabilitySet::DAC_READ_SEARCH
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SYS_ADMIN);

/// Gives up every capability but those in `keep`, in every set, and the way to get one back by executing a program. Answers
/// with those that are left.
pub(super) fn keep(keep: CapabilitySet) -> Result<CapabilitySet, Errno> {
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
pub(super) fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
