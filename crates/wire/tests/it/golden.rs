//! The bytes of every message, as version 2 of the protocol fixed them.
//!
//! `golden/v2.txt` holds one frame a line: a name, and the frame in hexadecimal. Lines are added,
//! never changed: a message that must change gets a new number, or the protocol a new version.

use std::collections::{BTreeMap, BTreeSet};

use wire::VERSION;

use crate::{
    samples::{all_labels, labels_of, samples},
    support::{decode, take_frame},
};

const GOLDEN: &str = include_str!("../golden/v2.txt");

fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let mut lines = BTreeMap::new();
    for line in GOLDEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').expect("name and bytes");
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        };
        assert_eq!(hex.len() % 2, 0, "{name}");
        let bytes = hex.as_bytes().chunks(2).map(byte).collect();
        assert!(lines.insert(name, bytes).is_none(), "{name} twice");
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_are_those_of_version_2() {
    assert_eq!(VERSION, 2, "a new version has a file of its own, and this one stays");
    let golden = golden();
    let mut wrong = Vec::new();
    for (name, message) in samples() {
        let bytes = message.bytes();
        match golden.get(&*name) {
            Some(kept) if *kept == bytes => {
                assert_eq!(decode(message.side(), take_frame(kept)), Ok(message), "{name}");
            }
            _ => wrong.push(format!("{name} {}", hex(&bytes))),
        }
    }
    assert!(wrong.is_empty(), "not as in golden/v2.txt:\n{}", wrong.join("\n"));
}

#[test]
fn every_variant_and_every_line_is_covered() {
    let samples = samples();
    let covered: BTreeSet<_> = samples.iter().flat_map(|(_, m)| labels_of(m)).collect();
    let missing: Vec<_> = all_labels().into_iter().filter(|l| !covered.contains(l)).collect();
    assert!(missing.is_empty(), "no golden bytes for {missing:?}");

    let names: BTreeSet<_> = samples.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names.len(), samples.len(), "a name twice");
    let kept: BTreeSet<_> = golden().into_keys().collect();
    assert_eq!(names, kept);
}
