//! What a session with `--no-owner` keeps of the metadata of an entry.
//!
//! Both ends drop the same, so both know from the listing what is expected and their manifests agree.

use volume::capability::Preflight;
use wire::{FileKind, Metadata};

/// What a user is told before such a session.
pub(crate) const ANNOUNCEMENT: &str = "with --no-owner, set-id bits and file capabilities are not preserved: they would grant the permissions of another owner";

/// The same, where the root directory of the volume belongs to another user.
pub(crate) const FOREIGN_ROOT: &str = "with --no-owner, mode, times and attributes of the root directory are not preserved: it belongs to another user";

/// True where this process may write to a directory of `owner` at most, and not change its metadata. The root of a volume often is such
/// a directory, and nobody chose it: that its metadata stay as they are is announced, and is no failure.
pub(crate) fn is_foreign_root(owner: u32) -> bool {
    let may_change_any = || {
        let missing = Preflight::current().map(Preflight::check).unwrap_or_default();
        !missing.iter().any(|loss| loss.missing == "CAP_FOWNER")
    };
    owner != rustix::process::geteuid().as_raw() && !may_change_any()
}

/// setuid and setgid.
const SET_ID: u16 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";

/// Drops owner and group, and what lends their rights: set-id bits and capabilities. A directory keeps its bits: setgid
/// hands its group down to what is made in it and lends no rights.
pub(crate) fn drop_what_needs_it(meta: &mut Metadata) {
    (meta.uid, meta.gid) = (0, 0);
    drop_rights(meta);
}

/// Drops what lends the rights of owner and group.
pub(crate) fn drop_rights(meta: &mut Metadata) {
    if meta.kind != FileKind::Directory {
        meta.mode &= !SET_ID;
    }
    meta.xattrs.retain(|xattr| &*xattr.name != CAPABILITY);
}
