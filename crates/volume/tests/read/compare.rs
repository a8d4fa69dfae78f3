use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use proptest::prelude::*;
use rustix::{fs::FileType, io::Errno};
use volume::{
    compare::{Side, What, compare},
    stat::ReadOptions,
    xattr::{self, MAX_VALUE, XattrTarget},
};

use super::{
    sample::{Sample, another_time, spoils},
    support::{Chain, Mount, differences, in_memory, name, root, run},
};

#[test]
fn a_copy_is_equal_and_every_spoil_is_named() {
    let a = Sample::new();
    let (found, counts) = differences(a.path(), a.copy().path());
    assert_eq!(found, []);
    assert!(counts.is_equal());
    assert_eq!(counts.entries, walkdir::WalkDir::new(a.path()).into_iter().count() as u64);
    assert_eq!(counts.bytes, 700_000 + 3_000_000 + 12 + 9 + 2 * 6);

    for spoil in spoils() {
        let b = a.copy();
        spoil.apply(b.path());
        let (found, counts) = differences(a.path(), b.path());
        let found: Vec<_> =
            found.into_iter().map(|difference| (difference.name, difference.what)).collect();
        let expected: Vec<_> =
            spoil.expected.into_iter().map(|(name, what)| (name.to_owned(), what)).collect();
        assert_eq!(found, expected, "{}", spoil.what);
        assert!(!counts.is_equal());
        assert_eq!(counts.unreadable, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    /// Blocks are holes where there is none, and otherwise filled with one byte, which may be zero.
    #[test]
    fn the_first_difference_is_found_whatever_is_allocated(
        a in prop::collection::vec(prop::option::of(0..2_u8), 6),
        b in prop::collection::vec(prop::option::of(0..2_u8), 6),
        shared in 0..=6_usize,
    ) {
        const BLOCK: usize = 4096;
        let b: Vec<_> = a[..shared].iter().chain(&b[shared..]).copied().collect();
        let (dir_a, dir_b) = (in_memory(), in_memory());
        for (dir, blocks) in [(&dir_a, &a), (&dir_b, &b)] {
            let file = File::create(dir.path().join("file")).unwrap();
            file.set_len((6 * BLOCK) as u64).unwrap();
            for (index, fill) in blocks.iter().enumerate().filter_map(|(i, f)| Some((i, (*f)?))) {
                file.write_all_at(&[fill; BLOCK], (index * BLOCK) as u64).unwrap();
            }
        }
        let byte = |block: &Option<u8>| block.unwrap_or(0);
        let expected = a.iter().zip(&b).position(|(a, b)| byte(a) != byte(b)).map(|i| i * BLOCK);
        let (found, _) = differences(dir_a.path(), dir_b.path());
        let found = found.iter().find_map(|difference| match difference.what {
            What::Content(offset) => Some(offset),
            _ => None,
        });
        prop_assert_eq!(found, expected.map(|offset| offset as u64));
    }
}

#[test]
fn differences_are_shown_escaped() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(a.path().join("x\x1b[2J"), b"").unwrap();
    let (found, _) = differences(a.path(), b.path());
    let shown: BTreeSet<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown.contains("x\\x1b[2J: only in A"), "{shown:?}");
}

#[test]
fn flags_are_compared() {
    let a = Sample::new();
    let b = a.copy();
    run("chattr", &["+i"], &b.path().join("file"));
    let (found, _) = differences(a.path(), b.path());
    run("chattr", &["-i"], &b.path().join("file"));
    assert_eq!(found.iter().map(|d| &d.what).collect::<Vec<_>>(), [&What::Attributes]);
}

#[test]
fn what_cannot_be_read_is_not_equal() {
    let (a, b) = (in_memory(), in_memory());
    let file = name("file");
    for tmp in [&a, &b] {
        fs::write(tmp.path().join("file"), b"").unwrap();
        File::open(tmp.path().join("file")).unwrap().set_modified(another_time()).unwrap();
        File::open(tmp.path()).unwrap().set_modified(another_time()).unwrap();
    }
    assert!(differences(a.path(), b.path()).1.is_equal());
    let dir = root(b.path());
    for i in 0..17 {
        let name = format!("trusted.{i}");
        xattr::set(XattrTarget::At(&dir, &file), name.as_bytes(), &[0; MAX_VALUE]).unwrap();
    }
    let (found, counts) = differences(a.path(), b.path());
    assert_eq!((counts.differences, counts.unreadable), (1, 1));
    assert!(matches!(&found[0].what, What::Unreadable(Side::B, e) if e.errno == Errno::TOOBIG));
    assert!(found[0].to_string().starts_with("file: not compared, B: read extended attributes"));
}

#[test]
fn deep_trees_are_compared() {
    let (a, b) = (Chain::new(b"d", 1100), Chain::new(b"d", 1100));
    let (found, counts) = differences(&a.path(), &b.path());
    assert_eq!(counts.entries, 1102);
    assert!(found.iter().all(|difference| matches!(difference.what, What::Mtime(..))));
}

#[test]
fn mounts_and_lost_and_found_are_left_out() {
    let a = Sample::new();
    let b = a.copy();
    let at = b.path().join("empty");
    let Some(_mount) = Mount::new("tmpfs", &at) else { return };
    fs::write(at.join("inside"), b"").unwrap();
    for side in [a.path(), b.path()] {
        let time = side.metadata().unwrap().modified().unwrap();
        fs::create_dir(side.join("lost+found")).unwrap();
        fs::write(side.join("lost+found/found"), side.as_os_str().as_encoded_bytes()).unwrap();
        File::open(side).unwrap().set_modified(time).unwrap();
    }
    let (found, _) = differences(a.path(), b.path());
    assert!(found.iter().all(|difference| difference.name == "empty"), "{found:?}");
    fs::remove_dir_all(a.path().join("lost+found")).unwrap();
    let (found, _) = differences(a.path(), b.path());
    assert!(found.iter().all(|d| matches!(d.name.as_str(), "empty" | ".")), "{found:?}");
}

#[test]
fn devices_are_compared_with_devices_only() {
    let Some((a, b)) = Loop::new(40_960).zip(Loop::new(40_960)) else { return };
    assert_eq!(differences(a.path(), b.path()).0, []);
    fs::write(b.path(), [&[0; 20_000][..], b"x"].concat()).unwrap();
    let (found, counts) = differences(a.path(), b.path());
    assert_eq!(found[0].what, What::Content(20_000));
    assert_eq!(counts.bytes, 40_960);

    let tmp = tempfile::tempdir().unwrap();
    let none = compare(a.path(), tmp.path(), &ReadOptions::default(), &mut |_| ());
    assert_eq!(none.unwrap_err().errno, Errno::NOTBLK);

    let large = Loop::new(81_920).unwrap();
    assert_eq!(differences(a.path(), large.path()).0[0].what, What::Size(40_960, 81_920));
    assert_ne!(super::support::digest(a.path()), super::support::digest(large.path()));
    assert_ne!(super::support::digest(a.path()), super::support::digest(b.path()));
    fs::write(b.path(), vec![0; 40_960]).unwrap();
    assert_eq!(super::support::digest(a.path()), super::support::digest(b.path()));
    let stat = rustix::fs::stat(a.path()).unwrap();
    assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::BlockDevice);
}

/// A block device over a file of zeros; `None`, loudly, where there is none to be had.
struct Loop {
    device: String,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new(size: u64) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let output =
            std::process::Command::new("losetup").args(["-f", "--show"]).arg(file.path()).output();
        let Some(output) = output.ok().filter(|output| output.status.success()) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI has loop devices");
            eprintln!("SKIPPED: no loop device");
            return None;
        };
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Some(Self { device, _file: file })
    }

    fn path(&self) -> &Path {
        Path::new(&self.device)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d"], self.path());
    }
}
