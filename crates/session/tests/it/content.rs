//! Content arrives byte for byte, whatever the way it takes.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use wire::Options;

use super::support::*;

const MIB: usize = 1 << 20;

/// A pair whose destination has `old` and whose source has `new` as the file `big`.
fn changed(old: &[u8], new: &[u8]) -> Pair {
    let pair = Pair::new();
    write(pair.from.path(), "big", old);
    write(pair.from.path(), "dir/small", b"small");
    pair.converge(Options::default());
    write(pair.from.path(), "big", new);
    pair
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_full_copy_and_then_nothing_to_do() {
    let pair = Pair::new();
    write(pair.from.path(), "empty", b"");
    for n in 0..40 {
        write(
            pair.from.path(),
            &format!("d{}/e{}/f{n}", n % 3, n % 7),
            &noise(n, 1 + 700 * n as usize),
        );
    }
    write(pair.from.path(), "d1/large", &noise(99, 3 * MIB + 17));
    fs::create_dir_all(pair.from.path().join("d1/none/within")).unwrap();
    fs::create_dir_all(pair.from.path().join("d2/nothing")).unwrap();
    let verify = Options { delete: true, verify: true, ..Options::default() };
    let outcome = pair.converge_twice(verify);
    let total = outcome.sender.bytes_total;
    assert_eq!((outcome.sender.bytes_literal, outcome.sender.bytes_matched), (total, 0));
    assert_eq!((outcome.receiver.bytes_literal, outcome.receiver.bytes_matched), (total, 0));
    let again = pair.converge(Options::default());
    assert_eq!((again.sender.bytes_literal, again.sender.bytes_matched), (0, total));
    assert_eq!((again.receiver.bytes_literal, again.receiver.bytes_matched), (0, total));
}

#[test]
fn many_large_files_into_an_empty_volume_do_not_starve_the_listings() {
    let pair = Pair::new();
    for n in 0..120 {
        write(pair.from.path(), &format!("d{n:03}/large"), &noise(n, 300_000));
        write(pair.from.path(), &format!("d{n:03}/small"), &noise(n, 60_000));
    }
    for _ in 0..5 {
        fs::remove_dir_all(pair.to.path()).unwrap();
        fs::create_dir(pair.to.path()).unwrap();
        pair.converge(Options::default());
    }
}

#[test]
fn empty_directories_in_a_row_keep_their_plans() {
    let pair = Pair::new();
    for n in 0..20 {
        fs::create_dir_all(pair.from.path().join(format!("e{n:02}"))).unwrap();
        write(pair.from.path(), &format!("e{n:02}x/file"), b"content");
    }
    pair.converge(Options::default());
    write(pair.from.path(), "e05x/file", b"changed");
    pair.converge_twice(delete());
}

#[test]
fn rewritten_pages_of_a_large_file_are_patched_in_place() {
    let mut content = noise(1, 24 * MIB);
    let pair = changed(&content, &content);
    let before = inode(&pair.to.path().join("big"));
    for page in [3, 700, 1500, 2999] {
        content[page * 8192..(page + 1) * 8192].copy_from_slice(&noise(page as u64, 8192));
    }
    write(pair.from.path(), "big", &content);
    let outcome = pair.converge_twice(Options::default());
    assert_eq!(outcome.sender.bytes_literal, 4 * 8192);
    assert_eq!(outcome.receiver.bytes_matched, outcome.receiver.bytes_total - 4 * 8192);
    assert_eq!(inode(&pair.to.path().join("big")), before, "in place");
}

/// The receiver hashes holes faster than the sender gets answers: what comes long before it is needed
/// is kept.
#[test]
fn hashes_that_run_far_ahead_are_kept() {
    const LEN: u64 = 1 << 30;
    const SEGMENTS: usize = 320;
    let (head, tail) = (noise(1, SEGMENTS << 16), noise(2, MIB));
    let pair = Pair::new();
    let data = [(0, head.clone()), (LEN - MIB as u64, tail.clone())];
    sparse(&pair.to.path().join("big"), LEN, &data);
    let (mut new_head, mut new_tail) = (head, tail);
    for segment in 0..SEGMENTS {
        new_head[(segment << 16) + 5000] ^= 1;
    }
    new_tail[300_000] ^= 1;
    let data = [(0, new_head), (LEN - MIB as u64, new_tail)];
    sparse(&pair.from.path().join("big"), LEN, &data);
    let outcome = pair.converge(Options::default());
    assert_eq!(outcome.sender.bytes_literal, (SEGMENTS as u64 + 1) * 4096);
}

#[test]
fn an_atomic_patch_makes_a_new_file() {
    let mut content = noise(1, 4 * MIB);
    let pair = changed(&content, &content);
    let before = inode(&pair.to.path().join("big"));
    content[2 * MIB] ^= 1;
    write(pair.from.path(), "big", &content);
    pair.converge(Options { atomic: true, ..Options::default() });
    assert_ne!(inode(&pair.to.path().join("big")), before);
}

#[test]
fn an_append_sends_what_was_appended() {
    let content = noise(1, 9 * MIB + 1234);
    let pair = changed(&content[..6 * MIB + 77], &content);
    let outcome = pair.converge_twice(Options::default());
    assert!(outcome.sender.bytes_literal < 3 * MIB as u64 + 80_000);
}

#[test]
fn a_truncated_file_is_cut() {
    let content = noise(1, 9 * MIB + 1234);
    let pair = changed(&content, &content[..5 * MIB + 3]);
    let outcome = pair.converge_twice(Options::default());
    assert!(outcome.sender.bytes_literal < 10_000);
}

#[test]
fn insertions_are_found_at_any_offset() {
    let old = noise(1, 12 * MIB);
    let mut new = old.clone();
    for at in [MIB, 5 * MIB + 13, 9 * MIB + 1] {
        new.splice(at..at, noise(at as u64, 100));
    }
    let pair = changed(&old, &new);
    let outcome = pair.converge_twice(Options::default());
    assert!(outcome.sender.bytes_literal < MIB as u64, "{}", outcome.sender.bytes_literal);
}

/// Content that has moved far, back and forth, in part, and again: whatever the shift, what arrives is
/// the file.
#[test]
fn content_moves_in_every_way() {
    for seed in 0..40 {
        let mut rng = testkit::Rng::new(seed);
        let old = noise(seed, (1 + rng.below(12) as usize) * MIB + rng.below(70_000) as usize);
        let mut new = old.clone();
        for _ in 0..1 + rng.below(if seed % 8 == 0 { 300 } else { 12 }) {
            let at = rng.below(new.len() as u64 + 1) as usize;
            let most = *rng.pick(&[100, 5000, 70_000, 3 * MIB as u64]);
            let len = 1 + rng.below(most) as usize;
            let end = (at + len).min(new.len());
            match rng.below(5) {
                0 => drop(new.splice(at..at, rng.bytes(len))),
                1 => drop(new.drain(at..end)),
                2 => new[at..end].fill(0),
                3 => {
                    let taken: Vec<u8> = new.drain(at..end).collect();
                    let to = rng.below(new.len() as u64 + 1) as usize;
                    new.splice(to..to, taken);
                }
                _ => {
                    let fresh = rng.bytes(end - at);
                    new[at..end].copy_from_slice(&fresh);
                }
            }
        }
        for atomic in [false, true] {
            changed(&old, &new).converge_twice(Options { atomic, ..Options::default() });
        }
    }
}

/// Far more places than are looked at one by one, in a file that is shifted as a whole.
#[test]
fn pages_that_change_in_shifted_content_cost_themselves() {
    let old = noise(1, 24 * MIB);
    let mut new = noise(2, 100);
    new.extend_from_slice(&old);
    for n in 0..200 {
        let at = n * 120_000 + 777;
        new[at..at + 4096].copy_from_slice(&noise(n as u64, 4096));
    }
    let outcome = changed(&old, &new).converge_twice(Options::default());
    let limit = 200 * (24 << 10) + MIB as u64;
    assert!(outcome.sender.bytes_literal < limit, "{}", outcome.sender.bytes_literal);
}

/// Long enough for several frames of signatures.
#[test]
fn a_log_whose_beginning_was_cut_off_keeps_its_rest() {
    let old = noise(1, 200 * MIB);
    let outcome = changed(&old, &old[71 * MIB + 17..]).converge_twice(Options::default());
    assert!(outcome.sender.bytes_literal < MIB as u64, "{}", outcome.sender.bytes_literal);
}

/// 64 MiB are one range of a digest.
#[test]
fn sizes_around_that_of_a_range() {
    let pair = Pair::new();
    for (name, len) in [("a", 64 * MIB - 100), ("b", 64 * MIB), ("c", 64 * MIB + 1)] {
        write(pair.from.path(), name, &noise(len as u64, len));
    }
    pair.converge_twice(Options::default());
}

#[test]
fn a_total_rewrite_arrives_whole() {
    for (old, new) in [(9, 9), (9, 5), (5, 9)] {
        let pair = changed(&noise(1, old * MIB), &noise(2, new * MIB));
        let outcome = pair.converge_twice(Options::default());
        assert_eq!(outcome.sender.bytes_literal, (new * MIB) as u64);
    }
}

#[test]
fn a_file_that_becomes_small_or_large() {
    for (old, new) in [(3 * MIB, 100), (100, 3 * MIB), (3 * MIB, 0), (0, 3 * MIB), (0, 7), (7, 0)] {
        changed(&noise(1, old), &noise(2, new)).converge_twice(Options::default());
    }
}

fn sparse(path: &Path, len: u64, data: &[(u64, Vec<u8>)]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in data {
        file.write_all_at(bytes, *at).unwrap();
    }
}

#[test]
fn holes_stay_holes_and_new_ones_are_made() {
    let pair = Pair::new();
    let (from, to) = (pair.from.path().join("sparse"), pair.to.path().join("sparse"));
    let gib = 1u64 << 30;
    sparse(&from, gib, &[(0, noise(1, 4096)), (gib / 2, noise(2, MIB)), (gib - 5, noise(3, 5))]);
    let outcome = pair.converge_twice(Options::default());
    assert!(outcome.sender.wire_sent < 3 * MIB as u64);
    let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
    assert!(blocks(&to) <= blocks(&from) + 3 * 8, "{} {}", blocks(&to), blocks(&from));
    // A hole where data was, and data where a hole was.
    sparse(&from, gib, &[(0, noise(1, 4096)), (gib / 4, noise(4, MIB))]);
    pair.converge_twice(Options::default());
    assert!(blocks(&to) <= blocks(&from) + 3 * 8, "{} {}", blocks(&to), blocks(&from));
}

#[test]
fn other_content_of_the_same_size_and_time_is_found_by_checksum_alone() {
    let pair = Pair::new();
    for (name, len) in [("small", 100), ("medium", 200_000), ("large", 3 * MIB)] {
        write(pair.from.path(), name, &noise(1, len));
        set_mtime(&pair.from.path().join(name), 1_000_000, 5);
    }
    pair.converge(Options::default());
    for name in ["small", "medium", "large"] {
        let path = pair.to.path().join(name);
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(50)).unwrap();
        file.write_all(b"other").unwrap();
        set_mtime(&path, 1_000_000, 5);
    }
    let outcome = pair.sync(Options::default());
    outcome.assert_clean();
    assert_eq!(outcome.summary().files_written, 0);
    assert_eq!(pair.differences().len(), 3);
    let outcome = pair.converge(Options { checksum: true, ..Options::default() });
    assert_eq!(outcome.summary().files_written, 3);
    let again = pair.converge(Options { checksum: true, ..Options::default() });
    assert_eq!((again.summary().files_written, again.summary().bytes_literal), (0, 0));
}

#[test]
fn a_part_of_an_earlier_run_is_gone_on_from() {
    let pair = Pair::new();
    let content = noise(1, 16 * MIB);
    write(pair.from.path(), "big", &content);
    write(pair.to.path(), "other", b"so that it is not fresh");
    let part = staged(pair.to.path(), "big", "");
    write(&staging(pair.to.path()), &part, &content[..10 * MIB]);
    let outcome = pair.converge_twice(delete());
    assert_eq!(outcome.sender.bytes_literal, 6 * MIB as u64);
    assert_eq!(outcome.summary().files_deleted, 1);
}

#[test]
fn a_stale_staging_directory_goes_and_similar_names_stay() {
    let pair = Pair::new();
    write(pair.from.path(), "a", b"a");
    pair.converge(Options::default());
    let stale = staging(pair.to.path());
    write(&stale, "part", b"stale");
    write(&stale, "new-dir/x", b"stale");
    write(pair.to.path(), ".pvferry-2-0123456789abcdef/x", b"data");
    write(pair.to.path(), ".pvferry-mine", b"data");
    pair.sync(Options::default()).assert_clean();
    let kept = [".pvferry-2-0123456789abcdef: only in B", ".pvferry-mine: only in B"];
    assert_eq!(pair.differences(), kept);
}

#[test]
fn a_renamed_directory_of_large_files_sends_almost_nothing() {
    let pair = Pair::new();
    for n in 0..5 {
        write(pair.from.path(), &format!("old/f{n}"), &noise(n, 2 * MIB));
    }
    pair.converge(delete());
    fs::rename(pair.from.path().join("old"), pair.from.path().join("new")).unwrap();
    let outcome = pair.converge_twice(delete());
    assert_eq!(outcome.sender.bytes_literal, 0);
    assert!(outcome.sender.wire_sent < 20_000, "{}", outcome.sender.wire_sent);
}

#[test]
fn a_rename_onto_other_content_of_the_same_size_and_time_is_not_believed() {
    let pair = Pair::new();
    write(pair.from.path(), "old", &noise(1, 2 * MIB));
    set_mtime(&pair.from.path().join("old"), 7, 7);
    pair.converge(delete());
    fs::remove_file(pair.from.path().join("old")).unwrap();
    write(pair.from.path(), "new", &noise(2, 2 * MIB));
    set_mtime(&pair.from.path().join("new"), 7, 7);
    pair.converge_twice(delete());
}

#[test]
fn deep_and_long_paths_arrive() {
    let pair = Pair::new();
    let long = "n".repeat(175);
    write(pair.from.path(), &format!("{long}/{long}/{long}/file"), b"three long names");
    let deep: Vec<_> = (0..90).map(|n| format!("d{n}")).collect();
    write(pair.from.path(), &format!("{}/file", deep.join("/")), b"ninety down");
    pair.converge_twice(delete());
}

#[test]
fn a_path_longer_than_any_path_may_be() {
    let pair = Pair::new();
    let name = wire::Name::new(&[b'x'; 200]).unwrap();
    let mut at = volume::Dir::open_root(pair.from.path()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(at.descriptor().unwrap(), name.as_bytes(), rustix::fs::Mode::RWXU)
            .unwrap();
        at = at.open_child(&name).unwrap();
    }
    let outcome = pair.converge_twice(delete());
    assert_eq!(outcome.summary().entries, 40);
    for dir in [&pair.from, &pair.to] {
        let done = std::process::Command::new("rm").arg("-rf").arg(dir.path()).status();
        assert!(done.unwrap().success());
    }
}

#[test]
fn a_large_directory_takes_several_frames() {
    let pair = Pair::new();
    for n in 0..2048 {
        write(pair.from.path(), &format!("many/f{n}"), n.to_string().as_bytes());
    }
    pair.converge(Options::default());
    for n in (0..2048).step_by(100) {
        write(pair.from.path(), &format!("many/f{n}"), b"changed");
    }
    let outcome = pair.converge_twice(delete());
    assert_eq!(outcome.summary().files_written, 21);
}

/// A pair whose destination has a file of 100 kB, which has grown to `len` by a hole at the source.
fn grown_by_a_hole(len: u64) -> Pair {
    let content = noise(1, 100_000);
    let pair = changed(&content, &content);
    fs::OpenOptions::new()
        .write(true)
        .open(pair.from.path().join("big"))
        .unwrap()
        .set_len(len)
        .unwrap();
    pair
}

#[test]
fn a_file_that_grows_by_a_hole_costs_one_message() {
    let pair = grown_by_a_hole(1 << 30);
    let outcome = pair.converge_twice(Options::default());
    assert!(outcome.sender.wire_sent < 6000, "{} bytes", outcome.sender.wire_sent);
    assert!(fs::metadata(pair.to.path().join("big")).unwrap().blocks() * 512 < 200_000);
}

#[test]
fn a_file_that_grows_by_a_hole_to_the_largest_size_takes_no_time() {
    // Reading as many zeros would take hours.
    let pair = grown_by_a_hole(1 << 46);
    let outcome = pair.sync(Options::default());
    outcome.assert_clean();
    assert_eq!(fs::metadata(pair.to.path().join("big")).unwrap().len(), 1 << 46);
    assert!(outcome.sender.wire_sent < 6000, "{} bytes", outcome.sender.wire_sent);
}

#[test]
fn content_that_has_moved_before_a_large_hole_costs_one_message_for_the_hole() {
    let old = noise(1, 2 * MIB);
    let pair = changed(&old, &[&noise(2, 5000)[..], &old].concat());
    let file = fs::OpenOptions::new().write(true).open(pair.from.path().join("big")).unwrap();
    file.set_len(8 << 30).unwrap();
    file.write_all_at(b"the end", (8 << 30) - 7).unwrap();
    let outcome = pair.sync(Options::default());
    outcome.assert_clean();
    assert!(outcome.sender.wire_sent < 300_000, "{} bytes", outcome.sender.wire_sent);
    let arrived = fs::File::open(pair.to.path().join("big")).unwrap();
    let mut end = [0; 7];
    arrived.read_exact_at(&mut end, (8 << 30) - 7).unwrap();
    assert_eq!((&end, arrived.metadata().unwrap().len()), (b"the end", 8 << 30));
}
