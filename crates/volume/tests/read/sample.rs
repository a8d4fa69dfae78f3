//! A tree with one of everything, and every way to spoil a copy of it.

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, chown, lchown, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, CWD, FileType, Timespec, Timestamps, utimensat};
use tempfile::TempDir;
use volume::compare::{Side, What};
use walkdir::WalkDir;
use wire::FileKind;

use super::support::{node, run};

/// Seconds since the epoch of every entry of a sample.
const TIME: i64 = 1_600_000_000;

pub(crate) struct Sample(TempDir);

impl Sample {
    pub(crate) fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        fill(tmp.path());
        still(tmp.path());
        Self(tmp)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Another tree of the same content, made by another tool.
    pub(crate) fn copy(&self) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let of = self.path().join(".");
        run("cp", &["-a", "--sparse=never", of.to_str().unwrap()], tmp.path());
        Self(tmp)
    }
}

fn fill(at: &Path) {
    let file = |name: &[u8], content: &[u8]| {
        let path = at.join(OsStr::from_bytes(name));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    };
    fs::set_permissions(at, Permissions::from_mode(0o755)).unwrap();
    for dir in ["dir", "dir/deep", "dir/deep/er", "empty"] {
        fs::create_dir(at.join(dir)).unwrap();
        fs::set_permissions(at.join(dir), Permissions::from_mode(0o755)).unwrap();
    }
    file(b"file", b"some content");
    file(b"\xff\xfe\n", b"");
    file(&[b'x'; 255], b"long name");
    file(b"dir/deep/er/large", &[5; 700_000]);
    file(b"first", b"linked");
    file(b"other", b"linked");
    fs::hard_link(at.join("first"), at.join("dir/second")).unwrap();
    fs::hard_link(at.join("first"), at.join("third")).unwrap();
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.set_permissions(Permissions::from_mode(0o644)).unwrap();
    sparse.set_len(3_000_000).unwrap();
    sparse.write_all_at(b"data", 1_000_000).unwrap();
    symlink("../to nowhere", at.join("link")).unwrap();
    node(&at.join("fifo"), FileType::Fifo, (0, 0));
    node(&at.join("device"), FileType::CharacterDevice, (1, 3));
    run("setfattr", &["-n", "user.note", "-v", "text"], &at.join("file"));
    run("setfattr", &["-n", "trusted.note", "-v", "text"], &at.join("dir"));
    run("setfacl", &["-m", "u:1234:r"], &at.join("file"));
}

/// Gives every entry the same time.
fn still(at: &Path) {
    for entry in WalkDir::new(at).contents_first(true) {
        set_time(entry.unwrap().path(), 0);
    }
}

fn set_time(path: &Path, nanos: i64) {
    let time = Timespec { tv_sec: TIME, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One change to a tree, with what a comparison is to say about it and nothing else.
pub(crate) struct Spoil {
    pub(crate) what: &'static str,
    spoil: fn(&Path),
    pub(crate) expected: Vec<(&'static str, What)>,
}

impl Spoil {
    pub(crate) fn apply(&self, at: &Path) {
        let times: Vec<(PathBuf, SystemTime)> = WalkDir::new(at)
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_dir())
            .map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        (self.spoil)(at);
        // The directory that was changed would differ in its time as well.
        for (dir, time) in times.iter().filter(|(dir, _)| dir.is_dir()) {
            if self.what != "time of a directory" {
                File::open(dir).unwrap().set_times(FileTimes::new().set_modified(*time)).unwrap();
            }
        }
    }
}

/// Replaces `path` by what `make` makes there.
fn replace(path: PathBuf, make: impl FnOnce(&Path)) {
    fs::remove_file(&path).unwrap();
    make(&path);
    set_time(&path, 0);
}

fn write(path: &Path, content: &[u8]) {
    let mode = path.symlink_metadata().map_or(0o644, |meta| meta.permissions().mode());
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set_time(path, 0);
}

pub(crate) fn spoils() -> Vec<Spoil> {
    let time = |secs, nanos| wire::Timestamp { secs, nanos };
    let spoil = |what, expected, spoil| Spoil { what, spoil, expected };
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    vec![
        spoil("a name more", vec![("dir/new", What::OnlyInB)], |at| {
            write(&at.join("dir/new"), b"");
        }),
        spoil("a name less", vec![("file", What::OnlyInA)], |at| {
            fs::remove_file(at.join("file")).unwrap();
        }),
        spoil("a tree less", vec![("dir/deep", What::OnlyInA)], |at| {
            fs::remove_dir_all(at.join("dir/deep")).unwrap();
        }),
        spoil("another name", vec![("empty", What::OnlyInA), ("emptz", What::OnlyInB)], |at| {
            fs::rename(at.join("empty"), at.join("emptz")).unwrap();
        }),
        spoil("kind", vec![("fifo", What::Kind(FileKind::Fifo, FileKind::File))], |at| {
            replace(at.join("fifo"), |path| fs::write(path, b"").unwrap());
        }),
        spoil("mode", vec![("dir/deep/er", What::Mode(0o755, 0o2755))], |at| {
            fs::set_permissions(at.join("dir/deep/er"), Permissions::from_mode(0o2755)).unwrap();
        }),
        spoil("mode of the root", vec![(".", What::Mode(0o755, 0o700))], |at| {
            fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        }),
        spoil("owner", vec![("link", What::Owner((0, 0), (70_000, 0)))], |at| {
            lchown(at.join("link"), Some(70_000), None).unwrap();
        }),
        spoil("group", vec![("fifo", What::Owner((0, 0), (0, 9)))], |at| {
            chown(at.join("fifo"), None, Some(9)).unwrap();
        }),
        spoil("a nanosecond", vec![("file", What::Mtime(time(TIME, 0), time(TIME, 1)))], |at| {
            set_time(&at.join("file"), 1);
        }),
        spoil(
            "time of a directory",
            vec![("dir", What::Mtime(time(TIME, 0), time(TIME, 7)))],
            |at| {
                set_time(&at.join("dir"), 7);
            },
        ),
        spoil("size", vec![("file", What::Size(12, 13))], |at| {
            write(&at.join("file"), b"some content!");
        }),
        spoil("content", vec![("file", What::Content(5))], |at| {
            write(&at.join("file"), b"some CONTENT");
        }),
        spoil("content, late", vec![("dir/deep/er/large", What::Content(699_999))], |at| {
            let file = File::options().write(true).open(at.join("dir/deep/er/large")).unwrap();
            file.write_all_at(b"!", 699_999).unwrap();
            set_time(&at.join("dir/deep/er/large"), 0);
        }),
        spoil("content of a hole", vec![("sparse", What::Content(2_500_000))], |at| {
            let file = File::options().write(true).open(at.join("sparse")).unwrap();
            file.write_all_at(b"!", 2_500_000).unwrap();
            set_time(&at.join("sparse"), 0);
        }),
        spoil("content of three names", vec![("dir/second", What::Content(0))], |at| {
            write(&at.join("first"), b"LINKED");
        }),
        spoil("attribute's value", vec![("file", What::Xattr(bytes("user.note"), None))], |at| {
            run("setfattr", &["-n", "user.note", "-v", "TEXT"], &at.join("file"));
        }),
        spoil(
            "attribute less",
            vec![("dir", What::Xattr(bytes("trusted.note"), Some(Side::A)))],
            |at| {
                run("setfattr", &["-x", "trusted.note"], &at.join("dir"));
            },
        ),
        spoil(
            "attribute more",
            vec![("link", What::Xattr(bytes("trusted.more"), Some(Side::B)))],
            |at| {
                run("setfattr", &["-h", "-n", "trusted.more"], &at.join("link"));
            },
        ),
        spoil("ACL", vec![("file", What::Xattr(bytes("system.posix_acl_access"), None))], |at| {
            run("setfacl", &["-m", "u:1235:r"], &at.join("file"));
        }),
        spoil("target", vec![("link", What::Target(bytes("../to nowhere"), bytes("x")))], |at| {
            replace(at.join("link"), |path| symlink("x", path).unwrap());
        }),
        spoil("device", vec![("device", What::Device((1, 3), (1, 5)))], |at| {
            replace(at.join("device"), |path| node(path, FileType::CharacterDevice, (1, 5)));
        }),
        spoil("a link that is a copy", vec![("third", What::HardLinks(Some(Side::A)))], |at| {
            replace(at.join("third"), |path| write(path, b"linked"));
        }),
        spoil("a copy that is a link", vec![("other", What::HardLinks(Some(Side::B)))], |at| {
            replace(at.join("other"), |path| fs::hard_link(at.join("first"), path).unwrap());
        }),
    ]
}

/// A time that no sample has.
pub(crate) fn another_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(5)
}
