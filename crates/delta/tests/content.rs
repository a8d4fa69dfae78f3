//! The content digest: independent of fragmentation and of who folds what, dependent on the rest.

use delta::{
    ContentDigest, ContentFold, HashKey, Layout, RangeFold, SEGMENTS_PER_RANGE, SegmentFold,
    SegmentHasher, StrongHash, digest_of,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SEGMENT: usize = 64 << 10;

fn key() -> HashKey {
    HashKey::new([5; 32])
}

fn layout() -> Layout {
    Layout::for_len(0)
}

/// Digest and segment hashes, by the definition.
fn by_definition(content: &[u8]) -> (ContentDigest, Vec<(u64, StrongHash)>) {
    let key = key();
    let hashes: Vec<StrongHash> = content.chunks(SEGMENT).map(|s| key.hash(s)).collect();
    let mut fold = ContentFold::new(&key, layout());
    for segments in hashes.chunks(SEGMENTS_PER_RANGE as usize) {
        let mut range = RangeFold::new(&key);
        segments.iter().for_each(|&hash| range.push(hash));
        fold.push_range(range.finish());
    }
    (fold.finish(content.len() as u64), (0..).zip(hashes).collect())
}

/// What a file is made of: so many bytes of a value, or of a hole.
#[derive(Debug, Clone)]
enum Piece {
    Bytes(u8, usize),
    Hole(usize),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let len = || prop_oneof![1usize..5000, Just(SEGMENT), Just(3 * SEGMENT - 1), Just(SEGMENT + 1)];
    let piece = prop_oneof![
        (any::<u8>(), len()).prop_map(|(value, len)| Piece::Bytes(value, len)),
        len().prop_map(Piece::Hole),
    ];
    vec(piece, 0..12)
}

proptest! {
    #[test]
    fn streamed_in_pieces_and_holes_is_by_definition(pieces in pieces()) {
        let (mut content, mut hashes) = (Vec::new(), Vec::new());
        let mut hasher = SegmentHasher::new(&key(), layout());
        let mut on_segment = |index, hash| hashes.push((index, hash));
        for piece in &pieces {
            match *piece {
                Piece::Bytes(value, len) => {
                    content.extend((0..len).map(|i| value.wrapping_add((i / 7) as u8)));
                    hasher.update(&content[content.len() - len..], &mut on_segment);
                }
                Piece::Hole(len) => {
                    content.resize(content.len() + len, 0);
                    hasher.update_zeros(len as u64, &mut on_segment);
                }
            }
        }
        let digest = hasher.finish(&mut on_segment);
        let expected = by_definition(&content);
        prop_assert_eq!(digest_of(&key(), layout(), &content), expected.0);
        prop_assert_eq!((digest, hashes), expected);
    }
}

#[test]
fn a_fold_in_sequence_is_a_fold_by_ranges() {
    let hash = |i: u64| key().hash(&i.to_le_bytes());
    for count in [0, 1, SEGMENTS_PER_RANGE - 1, SEGMENTS_PER_RANGE, SEGMENTS_PER_RANGE * 2 + 1] {
        let mut sequence = SegmentFold::new(&key(), layout());
        let mut fold = ContentFold::new(&key(), layout());
        (0..count).for_each(|i| sequence.push(hash(i)));
        for start in (0..count).step_by(SEGMENTS_PER_RANGE as usize) {
            let mut range = RangeFold::new(&key());
            (start..count.min(start + SEGMENTS_PER_RANGE)).for_each(|i| range.push(hash(i)));
            fold.push_range(range.finish());
        }
        assert_eq!(sequence.finish(count), fold.finish(count));
    }
}

#[test]
fn zeros_in_one_go_are_zeros_one_by_one() {
    const RANGE: u64 = SEGMENTS_PER_RANGE;
    for before in [0, 1, RANGE - 1] {
        for count in [0, 1, RANGE - 1, RANGE, 3 * RANGE + 5] {
            let (mut one_by_one, mut at_once) =
                (SegmentFold::new(&key(), layout()), SegmentFold::new(&key(), layout()));
            for fold in [&mut one_by_one, &mut at_once] {
                (0..before).for_each(|i| fold.push(key().hash(&i.to_le_bytes())));
            }
            (0..count).for_each(|_| one_by_one.push(key().zero_segment(layout())));
            at_once.push_zeros(count);
            for fold in [&mut one_by_one, &mut at_once] {
                fold.push(key().hash(b"behind"));
            }
            assert_eq!(one_by_one.finish(7), at_once.finish(7), "{before} {count}");
        }
    }
}

#[test]
fn holes_of_different_lengths_are_different_pieces() {
    let of = |lens: &[u64]| {
        let mut fold = RangeFold::new(&key());
        lens.iter().for_each(|&len| fold.push_hole(&key(), len));
        fold.finish()
    };
    assert_ne!(of(&[1]), of(&[2]));
    assert_ne!(of(&[1, 1]), of(&[2]));
    let mut zeros = RangeFold::new(&key());
    zeros.push(key().hash(&[0]));
    assert_ne!(of(&[1]), zeros.finish());
}

#[test]
fn order_length_layout_and_key_matter() {
    let content: Vec<u8> = (0..3 * SEGMENT).map(|i| (i / SEGMENT) as u8).collect();
    let mut swapped = content.clone();
    swapped.rotate_left(SEGMENT);
    let digests = [
        digest_of(&key(), layout(), &content),
        digest_of(&key(), layout(), &swapped),
        digest_of(&key(), layout(), &content[..2 * SEGMENT]),
        digest_of(&key(), layout(), &[]),
        digest_of(&key(), layout(), &[0]),
        digest_of(&key(), Layout::from_wire(17).unwrap(), &content),
        digest_of(&HashKey::new([6; 32]), layout(), &content),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(!digests[..i].contains(digest), "{i}");
    }
    let of_len = |len| SegmentFold::new(&key(), layout()).finish(len);
    assert_ne!(of_len(0), of_len(1));
}
