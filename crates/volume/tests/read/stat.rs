use std::{
    fs::{self, File, FileTimes},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::FileType;
use volume::{
    dir::is_mount_root,
    stat::{self, ReadOptions},
};
use walkdir::WalkDir;
use wire::{FileKind, Timestamp};

use super::support::{Mount, name, node, root, run};

/// One entry of every kind, with unusual bits, owners and times.
fn make_kinds(at: &Path) {
    fs::write(at.join("file"), vec![7; 5000]).unwrap();
    fs::hard_link(at.join("file"), at.join("second")).unwrap();
    chown(at.join("file"), Some(4_000_000_000), Some(70_000)).unwrap();
    fs::set_permissions(at.join("file"), fs::Permissions::from_mode(0o6751)).unwrap();
    let before_epoch = SystemTime::UNIX_EPOCH - Duration::new(86_400, 999_999_999);
    File::options()
        .write(true)
        .open(at.join("file"))
        .unwrap()
        .set_times(FileTimes::new().set_modified(before_epoch))
        .unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    fs::set_permissions(at.join("dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("t".repeat(4095), at.join("longest")).unwrap();
    symlink("../\u{1}dangling", at.join("link")).unwrap();
    node(&at.join("fifo"), FileType::Fifo, (0, 0));
    drop(UnixListener::bind(at.join("socket")).unwrap());
    node(&at.join("char"), FileType::CharacterDevice, (1, 3));
    node(&at.join("block"), FileType::BlockDevice, (259, 70_000));
}

/// Against what the standard library reads of the same entries.
#[test]
fn entries_are_what_lstat_says() {
    let tmp = tempfile::tempdir().unwrap();
    make_kinds(tmp.path());
    let dir = root(tmp.path());
    let mut kinds = Vec::new();
    for found in WalkDir::new(tmp.path()).min_depth(1).sort_by_file_name() {
        let found = found.unwrap();
        let expected = found.path().symlink_metadata().unwrap();
        let of = name(found.file_name().as_encoded_bytes());
        let (entry, inode) = stat::read_entry(&dir, &of, &ReadOptions::default()).unwrap();
        let meta = &entry.meta;
        assert_eq!(entry.name, of);
        assert_eq!(u32::from(meta.mode), expected.mode() & 0o7777);
        assert_eq!((meta.uid, meta.gid), (expected.uid(), expected.gid()));
        let mtime = Timestamp {
            secs: expected.mtime(),
            nanos: u32::try_from(expected.mtime_nsec()).unwrap(),
        };
        assert_eq!(meta.mtime, mtime);
        assert_eq!(meta.size, if expected.is_file() { expected.len() } else { 0 });
        assert_eq!((inode.dev, inode.ino), (expected.dev(), expected.ino()));
        assert_eq!((u64::from(inode.nlink), inode.blocks), (expected.nlink(), expected.blocks()));
        assert_eq!((inode.ctime.secs, inode.size), (expected.ctime(), expected.size()));
        assert!(!inode.mount_root);
        let target = fs::read_link(found.path()).map(|t| t.into_os_string().into_encoded_bytes());
        assert_eq!(*entry.target, target.unwrap_or_default());
        kinds.push((String::from_utf8_lossy(&of).into_owned(), meta.kind, meta.rdev));
    }
    let expected = [
        ("block", FileKind::BlockDevice, (259, 70_000)),
        ("char", FileKind::CharDevice, (1, 3)),
        ("dir", FileKind::Directory, (0, 0)),
        ("fifo", FileKind::Fifo, (0, 0)),
        ("file", FileKind::File, (0, 0)),
        ("link", FileKind::Symlink, (0, 0)),
        ("longest", FileKind::Symlink, (0, 0)),
        ("second", FileKind::File, (0, 0)),
        ("socket", FileKind::Socket, (0, 0)),
    ];
    assert_eq!(kinds, expected.map(|(name, kind, rdev)| (name.to_owned(), kind, rdev)));
}

#[test]
fn the_root_is_read_by_its_descriptor() {
    let tmp = tempfile::tempdir().unwrap();
    chown(tmp.path(), Some(12), Some(34)).unwrap();
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o2750)).unwrap();
    run("setfattr", &["-n", "user.root", "-v", "yes"], tmp.path());
    let meta = stat::root_entry(&root(tmp.path()), &ReadOptions::default()).unwrap();
    assert_eq!(meta.kind, FileKind::Directory);
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.size), (0o2750, 12, 34, 0));
    assert_eq!((&*meta.xattrs[0].name, &*meta.xattrs[0].value), (&b"user.root"[..], &b"yes"[..]));
    let plain = ReadOptions { xattrs: false, selinux: false };
    assert_eq!(stat::root_entry(&root(tmp.path()), &plain).unwrap().xattrs, []);
}

#[test]
fn inode_flags_are_seen() {
    let tmp = tempfile::tempdir().unwrap();
    let read = |of: &str| {
        let dir = root(tmp.path());
        stat::read_entry(&dir, &name(of), &ReadOptions::default()).unwrap().0.meta.attributes
    };
    for (file, flag) in [("immutable", "i"), ("append", "a")] {
        let path = tmp.path().join(file);
        fs::write(&path, b"").unwrap();
        assert_eq!(read(file), wire::Attributes::default());
        run("chattr", &[&format!("+{flag}")], &path);
        let attributes = read(file);
        run("chattr", &[&format!("-{flag}")], &path);
        assert_eq!((attributes.immutable, attributes.append_only), (flag == "i", flag == "a"));
    }
}

#[test]
fn mount_points_are_told_from_directories() {
    let tmp = tempfile::tempdir().unwrap();
    for dir in ["mounted", "plain"] {
        fs::create_dir(tmp.path().join(dir)).unwrap();
    }
    let Some(_mount) = Mount::new("tmpfs", &tmp.path().join("mounted")) else { return };
    let dir = root(tmp.path());
    let seen = |of: &str| {
        let (_, inode) = stat::read_entry(&dir, &name(of), &ReadOptions::default()).unwrap();
        (inode.mount_root, is_mount_root(&dir, &name(of)).unwrap())
    };
    assert_eq!(seen("mounted"), (true, true));
    assert_eq!(seen("plain"), (false, false));
}

#[test]
fn what_vanished_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    let error = stat::read_entry(&root(tmp.path()), &name("gone\x1b"), &ReadOptions::default())
        .unwrap_err();
    assert!(error.is_vanished());
    assert_eq!(error.to_string(), "gone\\x1b: stat: No such file or directory");
}
