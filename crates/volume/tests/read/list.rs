use std::{collections::BTreeSet, ffi::OsStr, fs, os::unix::ffi::OsStrExt, thread};

use rustix::fs::FileType;
use volume::list::NameList;
use wire::FileKind;

use super::support::{in_memory, name, node, root};

#[test]
fn two_hundred_thousand_names_come_sorted_and_whole() {
    let tmp = in_memory();
    let original = tmp.path().join("0");
    fs::write(&original, b"").unwrap();
    let mut expected = BTreeSet::from([b"0".to_vec()]);
    for i in 0_u32..200_000 {
        let name = format!("some common prefix {:x}", i.wrapping_mul(0x9e37_79b9));
        fs::hard_link(&original, tmp.path().join(&name)).unwrap();
        expected.insert(name.into_bytes());
    }
    let dir = root(tmp.path());
    let list = NameList::read(&dir).unwrap();
    assert!(list.complete() && list.failure().is_none() && !list.is_empty());
    assert_eq!(list.len(), expected.len());
    assert!(list.iter().eq(expected.iter().map(Vec::as_slice)));

    // Readers of one directory do not take names from each other.
    let lens: Vec<usize> = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| NameList::read(&dir).unwrap().len())).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    assert_eq!(lens, [expected.len(); 2]);
}

#[test]
fn names_are_bytes_and_come_with_their_kind() {
    let tmp = tempfile::tempdir().unwrap();
    let longest = [b'\xfe'; 255];
    for file in [&b"new\nline"[..], b"\xff\xc3\x28", b"...", &longest] {
        fs::write(tmp.path().join(OsStr::from_bytes(file)), b"").unwrap();
    }
    fs::create_dir(tmp.path().join("dir")).unwrap();
    node(&tmp.path().join("fifo"), FileType::Fifo, (0, 0));
    let list = NameList::read(&root(tmp.path())).unwrap();
    let expected = [&b"..."[..], b"dir", b"fifo", b"new\nline", &longest, b"\xff\xc3\x28"];
    assert_eq!(list.iter().collect::<Vec<_>>(), expected);
    assert_eq!(list.name(4), Some(name(longest)));
    assert_eq!(list.name(6), None);
    let hints: Vec<_> = (0..4).map(|at| list.kind_hint(at)).collect();
    // A file system may keep no kinds; one that is there is right.
    let right = [FileKind::File, FileKind::Directory, FileKind::Fifo, FileKind::File];
    assert!(hints.iter().zip(right).all(|(hint, right)| hint.is_none_or(|hint| hint == right)));
}

#[test]
fn an_empty_directory_is_a_complete_listing() {
    let tmp = tempfile::tempdir().unwrap();
    let list = NameList::read(&root(tmp.path())).unwrap();
    assert!(list.is_empty() && list.complete());
}
