//! The search: whatever a signature says, what comes of it is the new file and nothing else.

use std::ops::Range;

use arbitrary::Unstructured;
use delta::{
    HashKey, MAX_COPY, MAX_LITERAL, Matcher, Op, SearchIndex, Signature, SignatureBlock,
    SignatureBuilder, StrongHash, apply,
};

use crate::script::{byte, number, rarely, some_bytes};

/// Blocks as a peer may send them. Those of a basis find all that the basis has; those of nobody are refused, or
/// match only what really hashes to them.
pub fn signature(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let key = HashKey::new([byte(&mut u); 32]);
    let odd = rarely(&mut u, 32);
    let block_len = 1u32 << if odd { byte(&mut u) % 28 } else { 6 + byte(&mut u) % 5 };
    let start = number(&mut u);
    let count = usize::from(byte(&mut u));
    let covered = match odd {
        true => number(&mut u),
        // The last block may be short.
        false => (count as u64 * u64::from(block_len)).saturating_sub(u64::from(byte(&mut u) % 64)),
    };
    let end = start.wrapping_add(covered);
    let forged = byte(&mut u);
    let new = content(&mut u);
    let block = |index: usize| {
        // Some are blocks of the new file itself; the others have hashes that nothing has.
        let at = (index * 64) % (new.len() + 1);
        let piece = &new[at..new.len().min(at + block_len as usize)];
        let real = SignatureBlock::of(&key, piece);
        match forged & 3 {
            0 => real,
            1 => SignatureBlock { strong: StrongHash([forged; 16]), ..real },
            2 => SignatureBlock { weak: u32::from(forged) << 8, ..real },
            _ => SignatureBlock { weak: index as u32, strong: StrongHash([index as u8; 16]) },
        }
    };
    let blocks: Vec<_> = (0..count).map(block).collect();
    let built = SearchIndex::build(blocks.clone(), block_len, start..end);
    let fits = block_len.is_power_of_two()
        && (delta::MIN_BLOCK_LEN..=delta::MAX_BLOCK_LEN).contains(&block_len)
        && end >= start
        && (end - start).div_ceil(u64::from(block_len)) == count as u64;
    assert_eq!(built.is_ok(), fits);
    let Ok(index) = built else { return };
    let mut at = 0;
    search(&index, &key, &new, byte(&mut u), &mut |op| match op {
        Op::Literal(piece) => {
            assert!(!piece.is_empty() && piece.len() <= MAX_LITERAL);
            assert_eq!(piece, &new[at..at + piece.len()]);
            at += piece.len();
        }
        Op::Copy { offset, len } => {
            assert!(len > 0 && len <= MAX_COPY && offset >= start && len <= end - offset);
            let piece = &new[at..at + len as usize];
            check_copy(&key, &blocks, block_len, start..end, offset, piece);
            at += piece.len();
        }
    });
    assert_eq!(at, new.len());
}

/// Every block of a copy has the hash that the peer gave.
fn check_copy(
    key: &HashKey,
    blocks: &[SignatureBlock],
    block_len: u32,
    basis: Range<u64>,
    offset: u64,
    piece: &[u8],
) {
    let first = (offset - basis.start) / u64::from(block_len);
    assert!((offset - basis.start).is_multiple_of(u64::from(block_len)));
    for (block, piece) in blocks[first as usize..].iter().zip(piece.chunks(block_len as usize)) {
        assert_eq!(block.strong, key.hash(piece));
    }
}

/// A file that differs from its basis by a few edits is rebuilt from what the search says; and operations that
/// nobody searched for give what they say, or an error, and never a byte from elsewhere.
pub fn patch(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let key = HashKey::new([byte(&mut u); 32]);
    let block_len = 1u32 << (6 + byte(&mut u) % 5);
    let cut = byte(&mut u);
    let edits = byte(&mut u) % 8;
    let mut new = content(&mut u);
    let basis = new.clone();
    for _ in 0..edits {
        edit(&mut u, &mut new);
    }
    let signature =
        Signature::compute(&key, block_len, &basis).expect("a block length that is allowed");
    assert_eq!(streamed(&key, block_len, &basis, cut), signature.blocks);
    let index = SearchIndex::build(signature.blocks, block_len, 0..basis.len() as u64)
        .expect("a signature that was computed");
    let mut rebuilt = Vec::new();
    search(&index, &key, &new, cut, &mut |op| {
        rebuilt.extend(apply([op], &basis, u64::MAX).expect("within the basis"));
    });
    assert!(rebuilt == new, "the file that was rebuilt is another");
    forged_operations(&mut u, &basis);
}

fn forged_operations(u: &mut Unstructured<'_>, basis: &[u8]) {
    let mut expected = Some(Vec::new());
    let mut literals = Vec::new();
    let mut ops = Vec::new();
    for _ in 0..byte(u) % 16 {
        if byte(u).is_multiple_of(2) {
            literals.push(some_bytes(u, 64));
            ops.push(None);
        } else {
            ops.push(Some((number(u), number(u))));
        }
    }
    let limit = number(u);
    let mut left = literals.iter();
    let ops = ops.into_iter().map(|op| match op {
        None => Op::Literal(left.next().map_or(&[], |bytes| bytes)),
        Some((offset, len)) => Op::Copy { offset, len },
    });
    let ops: Vec<_> = ops.collect();
    for op in &ops {
        let piece = match op {
            Op::Literal(bytes) => Some(*bytes),
            Op::Copy { offset, len } => within(basis, *offset, *len),
        };
        expected = expected.zip(piece).map(|(out, piece)| [&out, piece].concat());
    }
    let expected = expected.filter(|out| out.len() as u64 <= limit);
    assert_eq!(apply(ops, basis, limit).ok(), expected);
}

fn within(basis: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let range = u128::from(offset)..u128::from(offset) + u128::from(len);
    (range.end <= basis.len() as u128).then(|| &basis[range.start as usize..range.end as usize])
}

/// Searches `new`, given in pieces whose lengths follow from `cut`.
fn search(index: &SearchIndex, key: &HashKey, new: &[u8], cut: u8, sink: &mut impl FnMut(Op<'_>)) {
    let mut matcher = Matcher::new(index, key);
    for piece in new.chunks(1 + usize::from(cut) * 7) {
        matcher.push(piece, sink);
    }
    matcher.finish(sink);
}

fn streamed(key: &HashKey, block_len: u32, basis: &[u8], cut: u8) -> Vec<SignatureBlock> {
    let mut blocks = Vec::new();
    let mut builder =
        SignatureBuilder::new(key, block_len).expect("a block length that is allowed");
    for piece in basis.chunks(1 + usize::from(cut) * 5) {
        builder.update(piece, &mut |block| blocks.push(block));
    }
    builder.finish(&mut |block| blocks.push(block));
    blocks
}

fn edit(u: &mut Unstructured<'_>, content: &mut Vec<u8>) {
    let at = number(u) as usize % (content.len() + 1);
    let end = (at + usize::from(byte(u))).min(content.len());
    match byte(u) % 4 {
        0 => drop(content.splice(at..at, some_bytes(u, 32))),
        1 => drop(content.drain(at..end)),
        2 => content[at..end].fill(byte(u)),
        _ => content.rotate_left(at),
    }
}

/// Content that repeats itself, as content does.
fn content(u: &mut Unstructured<'_>) -> Vec<u8> {
    let mut content = Vec::new();
    for _ in 0..byte(u) % 8 {
        let piece = some_bytes(u, 128);
        for _ in 0..byte(u) % 8 {
            content.extend_from_slice(&piece);
        }
    }
    content
}
