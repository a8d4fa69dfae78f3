//! Each kind of work against `fast_rsync`, at the same block length: signature, unchanged content
//! and new content. `cargo bench -p pvferry-delta`; throughput is of the new file.

#![allow(missing_docs, reason = "criterion_group makes a public function")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use delta::{
    HashKey, Layout, Matcher, Op, Rolling, SearchIndex, Signature, block_len_for, digest_of,
    is_zero,
};

const LEN: usize = 64 << 20;
const PUSH: usize = 256 << 10;

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn search(index: &SearchIndex, key: &HashKey, new: &[u8]) -> u64 {
    let mut literal = 0;
    let mut sink = |op: Op<'_>| {
        if let Op::Literal(bytes) = op {
            literal += bytes.len() as u64;
        }
    };
    let mut matcher = Matcher::new(index, key);
    new.chunks(PUSH).for_each(|piece| matcher.push(piece, &mut sink));
    matcher.finish(&mut sink);
    literal
}

fn compare(c: &mut Criterion) {
    let (basis, new, key) = (noise(1), noise(2), HashKey::new([1; 32]));
    let block_len = block_len_for(LEN as u64);
    let options = fast_rsync::SignatureOptions { block_size: block_len, crypto_hash_size: 16 };
    let signature = Signature::compute(&key, block_len, &basis).unwrap();
    let index = SearchIndex::build(signature.blocks, block_len, 0..LEN as u64).unwrap();
    let reference = fast_rsync::Signature::calculate(&basis, options);
    let reference = reference.index();
    let mut out = Vec::with_capacity(LEN + LEN / 8);
    let mut diff = |new: &[u8]| {
        out.clear();
        fast_rsync::diff(&reference, new, &mut out).unwrap();
        out.len()
    };

    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("ours", |b| {
        b.iter(|| Signature::compute(&key, block_len, black_box(&basis)).unwrap());
    });
    group.bench_function("fast_rsync", |b| {
        b.iter(|| fast_rsync::Signature::calculate(black_box(&basis), options));
    });
    group.bench_function("weak only", |b| {
        let blocks = || black_box(&basis).chunks(block_len as usize);
        b.iter(|| blocks().map(|block| Rolling::new(block).value()).fold(0, |a, v| a ^ v));
    });
    group.finish();

    let mut group = c.benchmark_group("unchanged");
    group.throughput(Throughput::Bytes(LEN as u64));
    let layout = Layout::for_len(LEN as u64);
    group.bench_function("ours aligned", |b| {
        b.iter(|| digest_of(&key, layout, black_box(&basis)));
    });
    group.bench_function("ours search", |b| b.iter(|| search(&index, &key, black_box(&basis))));
    group.bench_function("fast_rsync", |b| b.iter(|| diff(black_box(&basis))));
    group.finish();

    let mut group = c.benchmark_group("all new");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("ours", |b| b.iter(|| search(&index, &key, black_box(&new))));
    // What is left before the search turns to samples: the price of one byte of rolling.
    let start = &new[..4 << 20];
    group.throughput(Throughput::Bytes(start.len() as u64));
    group.bench_function("ours, first 4 MiB", |b| b.iter(|| search(&index, &key, start)));
    group.bench_function("fast_rsync, first 4 MiB", |b| b.iter(|| diff(black_box(start))));
    group.finish();

    let zeros = vec![0; LEN];
    let mut group = c.benchmark_group("zeros");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("is_zero", |b| b.iter(|| is_zero(black_box(&zeros))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    targets = compare
}
criterion_main!(benches);
