//! POSIX ACLs in the form of their extended attribute: a version, then entries of tag, permissions and id.

use wire::Metadata;

/// The attribute of the ACL that decides about access.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute with the ACL that entries of a directory are created with.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: usize = 4;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// The access ACL of an entry.
pub(crate) fn access(meta: &Metadata) -> Option<&[u8]> {
    meta.xattrs.iter().find(|xattr| &*xattr.name == ACCESS).map(|xattr| &*xattr.value)
}

/// Tag, permissions and id of each entry.
fn entries(acl: &[u8]) -> impl Iterator<Item = (u16, u16, u32)> {
    acl.get(VERSION..).unwrap_or_default().chunks_exact(8).map(|entry| {
        let short = |at| u16::from_le_bytes([entry[at], entry[at + 1]]);
        (short(0), short(2), u32::from(short(4)) | u32::from(short(6)) << 16)
    })
}

/// True where an entry is about a user or group that has no number here: all ones.
pub(crate) fn names_unmapped(acl: &[u8]) -> bool {
    entries(acl).any(|(tag, _, id)| matches!(tag, USER | GROUP) && id == u32::MAX)
}

/// What `mode` may grant without `acl`. With one, the bits of the group are its mask, which the owning group need not have.
/// Whom the ACL names is one of the owning group or of all others without it, and gets no more than before.
pub(crate) fn mode_without(acl: &[u8], mode: u16) -> u16 {
    let all = |tags: &[u16]| {
        let granted = entries(acl).filter(|(tag, ..)| tags.contains(tag));
        granted.fold(7, |least, (_, bits, _)| least & bits)
    };
    let has_group = entries(acl).any(|(tag, ..)| tag == OWNING_GROUP);
    let named = match all(&[MASK]) & all(&[USER, GROUP]) {
        _ if !entries(acl).any(|(tag, ..)| matches!(tag, USER | GROUP)) => 7,
        named => named,
    };
    let group = if has_group { all(&[MASK, OWNING_GROUP]) & named } else { 0 };
    mode & (!0o077 | group << 3 | named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(tag, bits, id)| {
            [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        [2, 0, 0, 0].into_iter().chain(entries).collect()
    }

    const NONE: u32 = u32::MAX;

    #[test]
    fn an_acl_that_names_a_user_or_group_without_a_number_is_found() {
        let named = |tag, id| acl(&[(1, 6, NONE), (tag, 6, id), (4, 0, NONE), (32, 0, NONE)]);
        assert!(names_unmapped(&named(USER, NONE)) && names_unmapped(&named(GROUP, NONE)));
        assert!(!names_unmapped(&named(USER, 1000)) && !names_unmapped(&[]));
    }

    #[test]
    fn without_its_acl_a_mode_grants_nobody_more_than_the_acl_does() {
        let with =
            |group, mask| acl(&[(1, 6, NONE), (2, 6, 5000), (4, group, NONE), (16, mask, NONE)]);
        assert_eq!(mode_without(&with(0, 6), 0o660), 0o600);
        assert_eq!(mode_without(&with(4, 6), 0o2664), 0o2644);
        assert_eq!(mode_without(&with(7, 5), 0o757), 0o744);
        assert_eq!(mode_without(&acl(&[(1, 6, NONE), (4, 4, NONE)]), 0o640), 0o640);
        let denied = acl(&[(1, 6, NONE), (8, 0, 5000), (4, 4, NONE), (16, 4, NONE), (32, 4, NONE)]);
        assert_eq!(mode_without(&denied, 0o644), 0o600);
        assert_eq!(mode_without(b"not an ACL", 0o777), 0o707);
    }
}
