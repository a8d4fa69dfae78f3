use std::{fs, os::fd::AsFd as _, os::unix::fs::symlink, path::Path, process::Command};

use proptest::prelude::*;
use rustix::{fs::FileType, io::Errno};
use volume::{
    source::SourceFile,
    stat::{self, ReadOptions},
    xattr::{self, MAX_VALUE, XattrTarget},
};
use wire::Xattrs;

use super::support::{Mount, in_memory, name, node, root, run};

fn pairs(xattrs: &Xattrs) -> Vec<(&[u8], &[u8])> {
    xattrs.iter().map(|xattr| (&*xattr.name, &*xattr.value)).collect()
}

fn of(path: &Path, entry: &str) -> Xattrs {
    xattr::read(XattrTarget::At(&root(path), &name(entry)), false).unwrap()
}

#[test]
fn values_of_any_bytes_and_sizes_are_read_in_the_order_of_names() {
    let tmp = in_memory();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let dir = root(tmp.path());
    let (file, target) = (name("file"), name("file"));
    let at = XattrTarget::At(&dir, &file);
    let longest = vec![0xa5; MAX_VALUE];
    let longest_name = [&b"user."[..], &[b'n'; 250]].concat();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"trusted.b", b"\0binary\xff\0"),
        (b"user.a", b""),
        (b"user.middle", &[3; 700]),
        (&longest_name, b"n"),
        (b"user.z", &longest),
    ];
    for (name, value) in expected.iter().rev() {
        xattr::set(at, name, value).unwrap();
    }
    assert_eq!(pairs(&xattr::read(at, false).unwrap()), expected);
    let open = SourceFile::open(&dir, &target).unwrap();
    assert_eq!(pairs(&xattr::read(XattrTarget::Fd(open.as_fd()), false).unwrap()), expected);
    assert_eq!(pairs(&open.metadata(&ReadOptions::default()).unwrap().0.xattrs), expected);
    // As another tool reads it.
    let dump = Command::new("getfattr")
        .args(["--only-values", "-n", "user.z"])
        .arg(tmp.path().join("file"))
        .output()
        .unwrap();
    assert!(dump.stdout.starts_with(&longest));
}

#[test]
fn attributes_are_set_replaced_and_removed_by_name_and_by_descriptor() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let (dir, file) = (root(tmp.path()), name("file"));
    let open = SourceFile::open(&dir, &file).unwrap();
    for target in [XattrTarget::At(&dir, &file), XattrTarget::Fd(open.as_fd())] {
        xattr::set(target, b"user.a", b"1").unwrap();
        xattr::set(target, b"user.a", b"22").unwrap();
        assert_eq!(pairs(&of(tmp.path(), "file")), [(&b"user.a"[..], &b"22"[..])]);
        xattr::remove(target, b"user.a").unwrap();
        assert_eq!(of(tmp.path(), "file"), []);
        assert_eq!(xattr::remove(target, b"user.a"), Err(Errno::NODATA));
        assert_eq!(xattr::set(target, b"user.\0a", b""), Err(Errno::INVAL));
    }
}

#[test]
fn links_and_fifos_are_neither_followed_nor_opened() {
    let tmp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), b"").unwrap();
    symlink(outside.path().join("victim"), tmp.path().join("link")).unwrap();
    node(&tmp.path().join("fifo"), FileType::Fifo, (0, 0));
    run("setfattr", &["-n", "user.secret", "-v", "x"], &outside.path().join("victim"));
    let dir = root(tmp.path());
    for entry in ["link", "fifo"] {
        let entry_name = name(entry);
        let target = XattrTarget::At(&dir, &entry_name);
        assert_eq!(of(tmp.path(), entry), []);
        xattr::set(target, b"trusted.own", b"v").unwrap();
        assert_eq!(pairs(&of(tmp.path(), entry)), [(&b"trusted.own"[..], &b"v"[..])]);
        let (entry, _) = stat::read_entry(&dir, &entry_name, &ReadOptions::default()).unwrap();
        assert_eq!(pairs(&entry.meta.xattrs), [(&b"trusted.own"[..], &b"v"[..])]);
    }
    assert_eq!(pairs(&of(outside.path(), "victim")), [(&b"user.secret"[..], &b"x"[..])]);
}

#[test]
fn acls_and_capabilities_are_attributes() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("dir")).unwrap();
    fs::write(tmp.path().join("file"), b"").unwrap();
    run("setfacl", &["-m", "u:1234:rw,d:g:77:r"], &tmp.path().join("dir"));
    run("setcap", &["cap_net_raw=ep"], &tmp.path().join("file"));
    let names = |entry| -> Vec<String> {
        let xattrs = of(tmp.path(), entry);
        xattrs.iter().map(|xattr| String::from_utf8_lossy(&xattr.name).into_owned()).collect()
    };
    assert_eq!(names("dir"), ["system.posix_acl_access", "system.posix_acl_default"]);
    assert_eq!(names("file"), ["security.capability"]);
}

#[test]
fn more_than_a_mebibyte_on_one_entry_is_an_error() {
    let tmp = in_memory();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let (dir, file) = (root(tmp.path()), name("file"));
    let at = XattrTarget::At(&dir, &file);
    let set = |count: usize| {
        let name = format!("trusted.{count:02}");
        xattr::set(at, name.as_bytes(), &vec![1; MAX_VALUE]).unwrap();
    };
    (0..15).for_each(set);
    assert_eq!(xattr::read(at, false).unwrap().len(), 15);
    (15..17).for_each(set);
    assert_eq!(xattr::read(at, false), Err(Errno::TOOBIG));
    let error = stat::read_entry(&dir, &file, &ReadOptions::default()).unwrap_err();
    assert_eq!((error.errno, error.operation), (Errno::TOOBIG, "read extended attributes"));
}

#[test]
fn many_names_do_not_fit_the_short_list() {
    let tmp = in_memory();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let (dir, file) = (root(tmp.path()), name("file"));
    let names: Vec<String> = (0..300).map(|i| format!("user.{i:03}.{}", "x".repeat(60))).collect();
    for name in &names {
        xattr::set(XattrTarget::At(&dir, &file), name.as_bytes(), name.as_bytes()).unwrap();
    }
    let expected: Vec<_> = names.iter().map(|name| (name.as_bytes(), name.as_bytes())).collect();
    assert_eq!(pairs(&of(tmp.path(), "file")), expected);
}

#[test]
fn a_file_system_without_attributes_has_none() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new("ramfs", tmp.path()) else { return };
    for entry in ["one", "two"] {
        fs::write(tmp.path().join(entry), b"").unwrap();
    }
    let dir = root(tmp.path());
    for entry in ["one", "two"] {
        let (entry, _) = stat::read_entry(&dir, &name(entry), &ReadOptions::default()).unwrap();
        assert_eq!(entry.meta.xattrs, []);
    }
    let at = name("one");
    assert_eq!(xattr::set(XattrTarget::At(&dir, &at), b"user.a", b""), Err(Errno::OPNOTSUPP));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]
    #[test]
    fn what_was_set_is_what_is_read(
        wanted in prop::collection::btree_map("user\\.[a-zA-Z0-9._-]{1,20}",
            prop::collection::vec(any::<u8>(), 0..1200), 0..12),
    ) {
        let tmp = in_memory();
        fs::create_dir(tmp.path().join("entry")).unwrap();
        let (dir, entry) = (root(tmp.path()), name("entry"));
        for (name, value) in &wanted {
            xattr::set(XattrTarget::At(&dir, &entry), name.as_bytes(), value).unwrap();
        }
        let expected: Vec<_> =
            wanted.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let found = of(tmp.path(), "entry");
        prop_assert_eq!(pairs(&found), expected);
    }
}
