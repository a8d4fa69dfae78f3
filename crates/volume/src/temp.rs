//! The names under which unfinished entries lie beside the finished ones.
//!
//! A temporary name follows from the final one, so the next run finds what an interrupted one left:
//! a *part* of a file to go on from, or a directory that was being built. It is the word `.pvferry-`,
//! sixteen hexadecimal digits of the BLAKE3 hash of the final name, and `.part` or `.new`.
//!
//! Only this exact form is ours: a name that merely looks similar belongs to the volume. That two
//! names in one directory share a temporary name takes some 2³² hashes made on purpose, and spoils
//! nothing but the two entries of whoever made them.

use wire::Name;

const PREFIX: &[u8] = b".pvferry-";
const DIGITS: usize = 16;
const PART: &[u8] = b".part";
const NEW: &[u8] = b".new";

/// Where an entry that will be called `name` lies until it is whole; any kind but a directory.
#[must_use]
pub fn part_name(name: &Name) -> Name {
    temporary(name, PART)
}

/// Where a directory that will be called `name` lies until it is published.
#[must_use]
pub fn new_dir_name(name: &Name) -> Name {
    temporary(name, NEW)
}

/// True where `name` has the exact form of a temporary name.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let Some((digits, suffix)) = rest.split_at_checked(DIGITS) else { return false };
    let hexadecimal = digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    hexadecimal && (suffix == PART || suffix == NEW)
}

fn temporary(name: &Name, suffix: &[u8]) -> Name {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let bytes = [PREFIX, &hash.as_bytes()[..DIGITS], suffix].concat();
    // Some thirty bytes of a fixed form: always a name.
    Name::new(&bytes).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_in_their_exact_form_only() {
        let name = Name::new(&[0xff; 255]).unwrap();
        for ours in [part_name(&name), new_dir_name(&name)] {
            assert!(is_ours(&ours), "{ours}");
            assert_ne!(ours, name);
            for cut in 0..ours.len() {
                assert!(!is_ours(&ours[..cut]));
            }
            assert!(!is_ours(&[&ours[..], b"x"].concat()));
            assert!(!is_ours(&[b"x", &ours[..]].concat()));
        }
        assert!(!is_ours(b".pvferry-0123456789ABCDEF.part"));
        assert!(!is_ours(b".pvferry-0123456789abcdeg.part"));
        assert!(is_ours(b".pvferry-0123456789abcdef.new"));
    }

    #[test]
    fn a_name_always_has_the_same_part_and_two_names_have_two() {
        let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
        // Runs of other versions must find it too.
        assert_eq!(part_name(&a).as_bytes(), b".pvferry-17762fddd969a453.part");
        assert_eq!(new_dir_name(&a).as_bytes(), b".pvferry-17762fddd969a453.new");
        assert_ne!(part_name(&a), part_name(&b));
    }
}
