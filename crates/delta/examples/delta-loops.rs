//! One of the hot loops over so many bytes, for a tool that counts instructions:
//! `cargo run --example delta-loops -- weak|signature|aligned|search BYTES`.
//!
//! Everything around the loop costs the same for any number of bytes, so that the difference of two runs is the loop's
//! alone. `tests/budget` holds it against its budget.

use std::{env, error::Error, hint::black_box};

use delta::{HashKey, Layout, Matcher, Op, Rolling, SearchIndex, Signature, digest_of};

/// What all loops work on; no loop is given more.
const LEN: usize = 4 << 20;
const BLOCK_LEN: u32 = 8 << 10;
const PUSH: usize = 256 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let bytes: usize = arguments.next().unwrap_or_default().parse()?;
    let (key, basis, new) = (HashKey::new([1; 32]), noise(1), noise(2));
    let new = new.get(..bytes).ok_or("more bytes than there are")?;

    match &*name {
        "weak" => new.chunks(BLOCK_LEN as usize).for_each(|block| {
            black_box(Rolling::new(block).value());
        }),
        "signature" => drop(black_box(Signature::compute(&key, BLOCK_LEN, new)?)),
        "aligned" => {
            black_box(digest_of(&key, Layout::for_len(LEN as u64), new));
        }
        "search" => {
            let blocks = Signature::compute(&key, BLOCK_LEN, &basis)?.blocks;
            let index = SearchIndex::build(blocks, BLOCK_LEN, 0..LEN as u64)?;
            let mut matcher = Matcher::new(&index, &key);
            let mut sink = |op: Op<'_>| {
                black_box(op);
            };
            new.chunks(PUSH).for_each(|piece| matcher.push(piece, &mut sink));
            matcher.finish(&mut sink);
        }
        _ => return Err("no such loop".into()),
    }
    Ok(())
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
