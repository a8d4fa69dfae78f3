//! Extended attributes in a listing: short ones as they are, longer ones as a hash.
//!
//! Most runs change no attribute, and attributes may be larger than the files that have them. Both ends hash their own under
//! a key of the session; the values travel only where the hashes differ.

use wire::{Hash, Xattr, Xattrs};

/// Attributes of an entry that take no more, names and values together, travel as they are. In bytes.
const SHORT: usize = 64;

/// Hashes extended attributes under the key of a session.
pub(crate) struct XattrHasher {
    key: [u8; 32],
}

impl XattrHasher {
    pub(crate) fn new(session_key: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key("pvferry 2026 extended attributes", session_key) }
    }

    pub(crate) fn hash(&self, xattrs: &[Xattr]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for bytes in xattrs.iter().flat_map(|xattr| [&xattr.name, &xattr.value]) {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        let mut hash = Hash::default();
        hasher.finalize_xof().fill(&mut hash);
        hash
    }

    /// The hash that stands for the attributes in a listing; `None` where they travel as they are.
    pub(crate) fn listed(&self, xattrs: &[Xattr]) -> Option<Hash> {
        let len: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        (len > SHORT).then(|| self.hash(xattrs))
    }
}

/// What no entry has: an access ACL without a byte. It stands for attributes of which only the hash is known, and that it differs:
/// until they come, an entry is open to nobody whom an unknown ACL may shut out.
pub(crate) fn unlike_any() -> Xattrs {
    vec![Xattr { name: (*b"system.posix_acl_access").into(), value: Box::default() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(list: &[(&str, &str)]) -> Xattrs {
        let bytes = |text: &str| text.as_bytes().into();
        list.iter().map(|(name, value)| Xattr { name: bytes(name), value: bytes(value) }).collect()
    }

    #[test]
    fn hashes_tell_names_from_values_and_sessions_from_each_other() {
        let hasher = XattrHasher::new(&[1; 32]);
        let one = xattrs(&[("user.a", "bc")]);
        let hash = hasher.hash(&one);
        assert_eq!(hasher.hash(&one), hash);
        for other in [&[("user.ab", "c")][..], &[("user.a", "b"), ("c", "")], &[]] {
            assert_ne!(hasher.hash(&xattrs(other)), hash);
        }
        assert_ne!(XattrHasher::new(&[2; 32]).hash(&one), hash);
    }

    #[test]
    fn short_attributes_travel_as_they_are() {
        let hasher = XattrHasher::new(&[1; 32]);
        let (short, long) = ("x".repeat(SHORT - 6), "x".repeat(SHORT - 5));
        assert_eq!(hasher.listed(&xattrs(&[("user.a", &short)])), None);
        assert!(hasher.listed(&xattrs(&[("user.a", &long)])).is_some());
        assert_eq!(hasher.listed(&[]), None);
    }
}
