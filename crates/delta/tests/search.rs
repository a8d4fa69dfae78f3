//! The search as a whole: signature, index, matcher and patch against each other, against random
//! edits, against `fast_rsync`, and against signatures that a hostile peer could send.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]

use delta::{
    Error, HashKey, MAX_BLOCKS, MAX_COPY, MAX_LITERAL, Matcher, Op, Rolling, SearchIndex,
    Signature, SignatureBlock, StrongHash, apply,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const MIB: usize = 1 << 20;

/// An [`Op`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Copy { offset: u64, len: u64 },
    Literal(Vec<u8>),
}

fn key() -> HashKey {
    HashKey::new([42; 32])
}

/// Searches `new`, cut into `pieces`, for what the index knows; neighbouring literals are joined.
fn search<'p>(index: &SearchIndex, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Owned> {
    let (key, mut ops) = (key(), Vec::new());
    let mut sink = |op: Op<'_>| match op {
        Op::Copy { offset, len } => {
            assert!(len > 0 && len <= MAX_COPY);
            ops.push(Owned::Copy { offset, len });
        }
        Op::Literal(bytes) => {
            assert!(!bytes.is_empty() && bytes.len() <= MAX_LITERAL);
            match ops.last_mut() {
                Some(Owned::Literal(last)) => last.extend_from_slice(bytes),
                _ => ops.push(Owned::Literal(bytes.to_vec())),
            }
        }
    };
    let mut matcher = Matcher::new(index, &key);
    for piece in pieces {
        matcher.push(piece, &mut sink);
    }
    matcher.finish(&mut sink);
    ops
}

fn index_of(basis: &[u8], block_len: u32) -> SearchIndex {
    let signature = Signature::compute(&key(), block_len, basis).unwrap();
    SearchIndex::build(signature.blocks, block_len, 0..basis.len() as u64).unwrap()
}

fn diff(basis: &[u8], new: &[u8], block_len: u32) -> Vec<Owned> {
    search(&index_of(basis, block_len), [new])
}

fn rebuild(ops: &[Owned], basis: &[u8]) -> Vec<u8> {
    let borrowed = ops.iter().map(|op| match op {
        Owned::Copy { offset, len } => Op::Copy { offset: *offset, len: *len },
        Owned::Literal(bytes) => Op::Literal(bytes),
    });
    apply(borrowed, basis, u64::MAX).unwrap()
}

fn literal_bytes(ops: &[Owned]) -> usize {
    let literal = |op: &Owned| match op {
        Owned::Literal(bytes) => bytes.len(),
        Owned::Copy { .. } => 0,
    };
    ops.iter().map(literal).sum()
}

/// Bytes without structure, the same for the same seed (SplitMix64).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| word().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    Replace(Index, Vec<u8>),
    Move(Index, Index, usize),
    Repeat(Index, usize),
    Zero(Index, usize),
    Append(Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let bytes = || vec(any::<u8>(), 1..200);
    vec(
        prop_oneof![
            (at(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (at(), 1usize..1500).prop_map(|(at, len)| Edit::Delete(at, len)),
            (at(), bytes()).prop_map(|(at, bytes)| Edit::Replace(at, bytes)),
            (at(), at(), 1usize..1500).prop_map(|(from, to, len)| Edit::Move(from, to, len)),
            (at(), 1usize..1500).prop_map(|(at, len)| Edit::Repeat(at, len)),
            (at(), 1usize..1500).prop_map(|(at, len)| Edit::Zero(at, len)),
            bytes().prop_map(Edit::Append),
        ],
        0..6,
    )
}

fn edited(basis: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut new = basis.to_vec();
    for edit in edits {
        let place = |at: &Index| at.index(new.len() + 1);
        let stretch = |at: &Index, len: usize| place(at)..(place(at) + len).min(new.len());
        match edit {
            Edit::Insert(at, bytes) => drop(new.splice(place(at)..place(at), bytes.clone())),
            Edit::Delete(at, len) => drop(new.drain(stretch(at, *len))),
            Edit::Replace(at, bytes) => drop(new.splice(stretch(at, bytes.len()), bytes.clone())),
            Edit::Move(from, to, len) => {
                let moved: Vec<u8> = new.drain(stretch(from, *len)).collect();
                let to = to.index(new.len() + 1);
                new.splice(to..to, moved);
            }
            Edit::Repeat(at, len) => {
                let again = new[stretch(at, *len)].to_vec();
                new.splice(place(at)..place(at), again);
            }
            Edit::Zero(at, len) => {
                let stretch = stretch(at, *len);
                new[stretch].fill(0);
            }
            Edit::Append(bytes) => new.extend_from_slice(bytes),
        }
    }
    new
}

/// A basis of some character: random, of few symbols, of zeros, periodic, or with long zero runs.
fn basis() -> impl Strategy<Value = Vec<u8>> {
    let len = || 0usize..12_000;
    prop_oneof![
        (any::<u64>(), len()).prop_map(|(seed, len)| noise(seed, len)),
        vec(0u8..2, len()),
        len().prop_map(|len| vec![0; len]),
        (vec(any::<u8>(), 1..300), len()).prop_map(|(unit, len)| unit
            .iter()
            .copied()
            .cycle()
            .take(len)
            .collect()),
        (any::<u64>(), len(), len()).prop_map(|(seed, data, hole)| {
            [noise(seed, data / 2), vec![0; hole], noise(seed ^ 1, data / 2)].concat()
        }),
    ]
}

/// Sizes of at most `whole` bytes in turn, over and over.
fn cut<'a>(whole: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = whole;
    sizes.iter().cycle().map_while(move |&size| {
        let (head, tail) = rest.split_at(size.min(rest.len()));
        rest = tail;
        (!head.is_empty()).then_some(head)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_applied_is_what_was_searched(
        basis in basis(), edits in edits(), log2 in 6u32..12,
    ) {
        let new = edited(&basis, &edits);
        let ops = diff(&basis, &new, 1 << log2);
        prop_assert_eq!(rebuild(&ops, &basis), new);
    }

    #[test]
    fn unrelated_content_is_rebuilt(basis in basis(), new in basis(), log2 in 6u32..12) {
        prop_assert_eq!(rebuild(&diff(&basis, &new, 1 << log2), &basis), new);
    }

    #[test]
    fn how_the_input_is_cut_changes_nothing(
        basis in basis(), edits in edits(), log2 in 6u32..12,
        sizes in vec(1usize..5000, 1..10),
    ) {
        let new = edited(&basis, &edits);
        let index = index_of(&basis, 1 << log2);
        prop_assert_eq!(search(&index, cut(&new, &sizes)), search(&index, [new.as_slice()]));
    }

    #[test]
    fn any_signature_is_indexed_or_refused(
        weak in vec(0u32..4, 0..60), strong in vec(0u8..3, 60),
        block_len: u32, log2 in 0u32..32, exact: bool, start: u64, end: u64,
        new in vec(0u8..2, 0..2000),
    ) {
        let block_len = if exact { 1 << log2 } else { block_len };
        let blocks: Vec<_> = weak.iter().zip(&strong)
            .map(|(&weak, &strong)| SignatureBlock { weak, strong: StrongHash([strong; 16]) })
            .collect();
        let fitting = start.saturating_add(blocks.len() as u64 * u64::from(block_len));
        for range in [start..end, start..fitting, start..fitting.saturating_sub(1)] {
            if let Ok(index) = SearchIndex::build(blocks.clone(), block_len, range) {
                let ops = search(&index, [new.as_slice()]);
                prop_assert_eq!(rebuild(&ops, &[]), new.clone());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_more_literal_bytes_than_fast_rsync(
        basis in basis(), edits in edits(), log2 in 6u32..12,
    ) {
        let new = edited(&basis, &edits);
        let block_len = 1u32 << log2;
        let ours = literal_bytes(&diff(&basis, &new, block_len));
        let theirs = fast_rsync_literal_bytes(&basis, &new, block_len);
        // It may reach a block of ours a few bytes earlier by luck, once for each edit.
        let slack = edits.len() * block_len as usize;
        prop_assert!(ours <= theirs + slack, "{ours} > {theirs} + {slack}");
    }
}

/// The literal bytes of a delta by `fast_rsync`, read from its output, which is librsync's format:
/// a magic number, then commands of one byte with big-endian parameters.
fn fast_rsync_literal_bytes(basis: &[u8], new: &[u8], block_len: u32) -> usize {
    let options = fast_rsync::SignatureOptions { block_size: block_len, crypto_hash_size: 16 };
    let signature = fast_rsync::Signature::calculate(basis, options);
    let mut delta = Vec::new();
    fast_rsync::diff(&signature.index(), new, &mut delta).unwrap();
    let mut rebuilt = Vec::new();
    fast_rsync::apply(basis, &delta, &mut rebuilt).unwrap();
    assert_eq!(rebuilt, new);

    let mut rest = &delta[4..];
    let mut take = |bytes: usize| {
        let (head, tail) = rest.split_at(bytes);
        rest = tail;
        head.iter().fold(0, |value, &byte| value << 8 | usize::from(byte))
    };
    let mut literal = 0;
    loop {
        match take(1) {
            0 => return literal,
            short @ 1..=64 => {
                take(short);
                literal += short;
            }
            command @ 65..=68 => {
                let len = take(1 << (command - 65));
                take(len);
                literal += len;
            }
            command @ 69..=84 => {
                let (offset, len) = ((command - 69) / 4, (command - 69) % 4);
                take(1 << offset);
                take(1 << len);
            }
            other => panic!("command {other}"),
        }
    }
}

#[test]
fn unchanged_content_is_all_copies_with_its_short_end() {
    let basis = noise(1, 100_000);
    assert_eq!(diff(&basis, &basis, 1024), [Owned::Copy { offset: 0, len: 100_000 }]);
    let empty: [Owned; 0] = [];
    assert_eq!(diff(&basis, &[], 1024), empty);
    assert_eq!(diff(&[], &basis[..500], 1024), [Owned::Literal(basis[..500].to_vec())]);
}

#[test]
fn an_insertion_into_content_that_repeats_costs_no_more_than_with_fast_rsync_and_a_block() {
    // A period next to the length of a block: almost every full block has a place in each repetition, and so has the
    // short last one, in the middle of a full one.
    for (period, len, log2) in [(257, 10_556, 8), (258, 9_934, 7), (129, 8_004, 7), (193, 644, 6)] {
        let basis: Vec<u8> = noise(6, period).into_iter().cycle().take(len).collect();
        let new = [&basis[..len / 2], noise(7, 25).as_slice(), &basis[len / 2..]].concat();
        let ours = literal_bytes(&diff(&basis, &new, 1 << log2));
        let theirs = fast_rsync_literal_bytes(&basis, &new, 1 << log2);
        assert!(ours <= theirs + (1 << log2), "period {period}: {ours}, fast_rsync {theirs}");
    }
}

#[test]
fn an_insertion_costs_itself_and_the_block_it_splits() {
    let basis = noise(2, 100_000);
    let new = [&basis[..5 * 1024], b"new".as_slice(), &basis[5 * 1024..]].concat();
    let expected = [
        Owned::Copy { offset: 0, len: 5 * 1024 },
        Owned::Literal(b"new".to_vec()),
        Owned::Copy { offset: 5 * 1024, len: 100_000 - 5 * 1024 },
    ];
    assert_eq!(diff(&basis, &new, 1024), expected);
}

#[test]
fn the_short_end_of_the_basis_is_found_before_what_was_appended() {
    let basis = noise(3, 10_300);
    let new = [basis.as_slice(), b"appended"].concat();
    let expected = [Owned::Copy { offset: 0, len: 10_300 }, Owned::Literal(b"appended".to_vec())];
    assert_eq!(diff(&basis, &new, 1024), expected);
}

#[test]
fn the_short_end_of_the_basis_is_found_at_the_end_alone() {
    let basis = noise(4, 10_300);
    let new = [noise(5, 777), basis[10_240..].to_vec()].concat();
    let expected = [Owned::Literal(noise(5, 777)), Owned::Copy { offset: 10_240, len: 60 }];
    assert_eq!(diff(&basis, &new, 1024), expected);
}

#[test]
fn a_part_of_the_basis_gives_offsets_of_the_whole() {
    let basis = noise(6, 64 * 1024);
    let part = Signature::compute(&key(), 1024, &basis[10_000..]).unwrap();
    let index = SearchIndex::build(part.blocks, 1024, 10_000..basis.len() as u64).unwrap();
    let ops = search(&index, [&basis[10_000..]]);
    assert_eq!(ops, [Owned::Copy { offset: 10_000, len: 64 * 1024 - 10_000 }]);
}

#[test]
fn among_equal_blocks_the_one_in_place_is_copied() {
    let mut basis = vec![0; 64 * 1024];
    basis[..1024].copy_from_slice(&noise(7, 1024));
    let mut new = basis.clone();
    new[20 * 1024..21 * 1024].copy_from_slice(&noise(8, 1024));
    let expected = [
        Owned::Copy { offset: 0, len: 20 * 1024 },
        Owned::Literal(noise(8, 1024)),
        Owned::Copy { offset: 21 * 1024, len: 43 * 1024 },
    ];
    assert_eq!(diff(&basis, &new, 1024), expected);
}

#[test]
fn long_copies_are_cut() {
    let basis = vec![7; 3 * MAX_COPY as usize + 5];
    let ops = diff(&basis, &basis, 64 << 10);
    let lens: Vec<u64> = ops
        .iter()
        .map(|op| match op {
            Owned::Copy { len, .. } => *len,
            Owned::Literal(_) => 0,
        })
        .collect();
    assert_eq!(lens, [MAX_COPY, MAX_COPY, MAX_COPY, 5]);
}

#[test]
fn after_much_new_content_a_sample_finds_the_way_back() {
    let basis = noise(9, 4 * MIB);
    let new = [noise(10, 12 * MIB + 4321), basis.clone(), basis.clone(), basis.clone()].concat();
    let index = index_of(&basis, 16 << 10);
    let ops = search(&index, [new.as_slice()]);
    assert_eq!(rebuild(&ops, &basis), new);
    // Nothing is searched from 4 to 8 MiB and from 9 to 16 MiB of the new file.
    let Owned::Literal(first) = &ops[0] else { panic!("{:?}", ops[0]) };
    assert!(first.len() > 16 * MIB - 1 && first.len() < 16 * MIB + (16 << 10));
    assert_eq!(literal_bytes(&ops), first.len() + literal_bytes(&ops[1..]));
    assert!(literal_bytes(&ops[1..]) == 0);

    let sizes = [1, 300_000, 16 << 10, 70_001, 5 * MIB, 2];
    assert_eq!(search(&index, cut(&new, &sizes)), ops);
    // Found at once where no quiet stretch comes before.
    let near = [&noise(11, 3 * MIB + 77), basis.as_slice()].concat();
    assert_eq!(literal_bytes(&search(&index, [near.as_slice()])), 3 * MIB + 77);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let block = SignatureBlock { weak: 0, strong: StrongHash([0; 16]) };
    let build = |count, block_len, range| {
        SearchIndex::build(vec![block; count], block_len, range).map(|_| ()).unwrap_err()
    };
    for block_len in [0, 1, 32, 1000, 3 << 20, 1 << 31, u32::MAX] {
        assert_eq!(build(1, block_len, 0..1), Error::BlockLen(block_len));
    }
    #[expect(clippy::reversed_empty_ranges, reason = "what a peer may send")]
    let reversed = 9..8;
    assert_eq!(build(0, 1024, reversed.clone()), Error::BasisRange(reversed));
    assert_eq!(build(2, 1024, 0..1024), Error::BlockCount { got: 2, expected: 1 });
    assert_eq!(build(0, 64, 0..u64::MAX), Error::BlockCount { got: 0, expected: 1 << 58 });
    let many = MAX_BLOCKS + 1;
    assert_eq!(build(many as usize, 64, 0..many * 64), Error::TooManyBlocks(many));
}

#[test]
fn a_signature_that_always_hits_and_never_matches_is_bounded() {
    // Every offset of the new file has a weak value that every block claims to have.
    let new = vec![b'x'; 8 * MIB];
    let block_len = 16usize << 10;
    let weak = Rolling::new(&new[..block_len]).value();
    let block = |i: u32| SignatureBlock {
        weak,
        strong: StrongHash([i.to_le_bytes(); 4].concat().try_into().unwrap()),
    };
    let count = 100_000;
    let blocks = (0..count).map(block).collect();
    let index =
        SearchIndex::build(blocks, block_len as u32, 0..u64::from(count) * block_len as u64)
            .unwrap();
    // Without its budget this hashes 64 GiB.
    assert_eq!(search(&index, [new.as_slice()]), [Owned::Literal(new)]);
}

#[test]
fn a_basis_of_one_block_over_and_over_is_not_quadratic() {
    // Compared pairwise, these blocks would take 10^12 steps.
    let block = SignatureBlock::of(&key(), &[0; 64]);
    let index =
        SearchIndex::build(vec![block; MAX_BLOCKS as usize], 64, 0..MAX_BLOCKS * 64).unwrap();
    let ops = search(&index, [vec![0; MIB].as_slice()]);
    assert_eq!(ops, [Owned::Copy { offset: 0, len: MIB as u64 }]);
}
