//! A volume that was opened to be read refuses every change, whoever asks for it.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use volume::{
    Dir, create, metadata,
    remove::{self, Removal},
    small,
    staging::{Place, Staging},
    stat, unlock,
    writer::FileWriter,
    xattr::{self, XattrTarget},
};
use wire::{Entry, FileKind, Metadata, Name, Timestamp};

use super::support::{Scratch, name};

/// Keeps what could not be removed.
#[derive(Default)]
struct Log(Vec<Errno>);

impl Removal for Log {
    fn removed(&mut self, _dir: &Dir, name: &Name, _is_dir: bool) {
        panic!("{name} was removed");
    }

    fn failed(&mut self, error: volume::Error) {
        self.0.push(error.errno);
    }
}

fn entry(at: &str, meta: &Metadata, kind: FileKind) -> Entry {
    let target = if kind == FileKind::Symlink { b"x"[..].into() } else { Box::default() };
    let size = if kind == FileKind::File { 3 } else { 0 };
    let (rdev, xattrs) = ((1, 3), Vec::new());
    let meta = Metadata { kind, size, rdev, xattrs, mode: 0o611, ..meta.clone() };
    Entry { name: name(at), meta, target }
}

#[test]
fn every_change_of_a_volume_that_is_read_only_is_refused() {
    let scratch = Scratch::disk();
    std::fs::create_dir(scratch.at("d")).unwrap();
    for file in ["f", "d/g"] {
        std::fs::write(scratch.at(file), "old").unwrap();
    }
    let root = Dir::open_root(&scratch.path).unwrap();
    let before = look(&root);
    let d = root.open_child(&name("d")).unwrap();
    let (f, new) = (name("f"), name("new"));
    let (_, inode) = stat::read_entry(&root, &f, &stat::ReadOptions::default()).unwrap();
    let hints = create::ParentHints::of(&root).unwrap();
    let options = metadata::ApplyOptions::default();
    let meta = stat::root_entry(&root, &stat::ReadOptions::default()).unwrap();
    let file = entry("new", &meta, FileKind::File);
    let staging = Staging::find(&root, &volume::list::NameList::read(&root).unwrap()).unwrap();
    let over = Place { staging: &staging, dir: &root, name: &f, occupied: true, hints };
    let onto = Place { name: &new, occupied: false, ..over };
    let refused = |what: &str, error: Option<volume::Error>| {
        assert_eq!(error.map(|error| error.errno), Some(Errno::ROFS), "{what}");
    };

    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::CREATE, OFlags::TRUNC] {
        refused("open", root.open_at(&f, flags, Mode::RUSR).err());
    }
    refused("create directory", create::directory(&root, &new, hints).err());
    for kind in [FileKind::Symlink, FileKind::Fifo, FileKind::Socket, FileKind::CharDevice] {
        let node = entry("new", &meta, kind);
        refused("make node", create::node(&root, &node, options).err());
        let node = Entry { name: f.clone(), ..node };
        refused("replace by node", create::replace_node(over, &node, options).err());
    }
    refused("link", create::link(&root, &f, onto).err());
    refused("rename away", create::adopt(&root, &f, onto).err());
    refused("stage directory", create::staged_directory(onto).err());
    let (want, content) = (&file.meta, b"new");
    refused("write", small::write_new(&root, &new, want, content, hints, options).err());
    refused("write over", small::write_over(over, want, content, options).err());
    refused("stage", FileWriter::staged(onto).err());
    refused("patch", FileWriter::in_place(&root, &f, (inode.dev, inode.ino), want).err());
    refused("clear flags", unlock::unlocking(&root, None, || Ok(())).map_err(in_root).err());
    let at = XattrTarget::At(&root, &f);
    refused("set attribute", xattr::set(at, b"user.a", b"1").map_err(in_root).err());
    refused("remove attribute", xattr::remove(at, b"user.a").map_err(in_root).err());
    for dir in [&root, &d] {
        let mut log = Log::default();
        for entry in ["f", "d", "g"] {
            let _ = remove::remove_tree(dir, &name(entry), remove::Mode::Remove, &mut log);
        }
        assert!(
            !log.0.is_empty() && log.0.iter().all(|&errno| errno == Errno::ROFS),
            "{:?}",
            log.0
        );
    }
    // What cannot be set is a problem that names the reason, and not an error.
    let moved = Metadata { mtime: Timestamp { secs: 7, nanos: 7 }, mode: 0o600, uid: 7, ..meta };
    let applied = metadata::apply_dir(&root, &moved, options).unwrap();
    assert!(!applied.changed && applied.problems.iter().any(|p| p.errno == Some(Errno::ROFS)));
    let moved = Metadata { kind: FileKind::File, ..moved };
    let applied = metadata::apply_at(&root, &f, &moved, options).unwrap();
    assert!(!applied.changed && applied.problems.iter().any(|p| p.errno == Some(Errno::ROFS)));

    assert_eq!(look(&root), before);
}

fn in_root(errno: Errno) -> volume::Error {
    volume::Error::new("change", ".", errno)
}

/// Names and times of change.
fn look(root: &Dir) -> Vec<(Vec<u8>, Timestamp)> {
    let mut seen = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        let names = volume::list::NameList::read(&dir).unwrap();
        for index in 0..names.len() {
            let name = names.name(index).unwrap();
            let (entry, inode) =
                stat::read_entry(&dir, &name, &stat::ReadOptions::default()).unwrap();
            seen.push((name.as_bytes().to_vec(), inode.ctime));
            if entry.meta.kind == FileKind::Directory {
                pending.push(dir.open_child(&name).unwrap());
            }
        }
    }
    seen
}
