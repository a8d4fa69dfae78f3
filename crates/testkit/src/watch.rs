//! Whether anybody touched a tree, be it by reading.

use std::{
    collections::HashMap,
    ffi::OsStr,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use walkdir::WalkDir;

/// Notices what happens to the entries of a tree from the moment on that it is made: that they are opened, read,
/// changed, made, renamed or removed. That somebody asks for their metadata it does not see.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Watches `root` and the directories below it that are there now.
    #[must_use]
    pub fn over(root: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let walk = WalkDir::new(root).into_iter().map(Result::unwrap);
        let found: Vec<_> = walk.filter(|entry| entry.file_type().is_dir()).collect();
        // Only now, for the walk opens what it reads.
        let directories = found.into_iter().map(|entry| {
            let watch = inotify::add_watch(&inotify, entry.path(), WatchFlags::ALL_EVENTS).unwrap();
            (watch, entry.path().strip_prefix(root).unwrap().to_owned())
        });
        let directories = directories.collect();
        Self { inotify, directories }
    }

    /// What happened since the last time: what, and to which entry below the root. At most some thousands.
    ///
    /// # Panics
    /// Where so much happened that the system has lost some of it.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut seen = Vec::new();
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return seen,
                Err(error) => panic!("{error}"),
            };
            assert!(
                !event.events().contains(ReadFlags::QUEUE_OVERFLOW),
                "more than the system keeps"
            );
            let name =
                event.file_name().map_or(OsStr::new(""), |name| OsStr::from_bytes(name.to_bytes()));
            let path = self.directories.get(&event.wd()).map(|dir| dir.join(name));
            seen.push(format!("{:?} {}", event.events(), path.unwrap_or_default().display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempTree;
    use std::fs;

    #[test]
    fn every_touch_is_seen_and_looking_is_not() {
        let tree = TempTree::new();
        tree.file("d/f", "text").symlink("l", "d");
        let watch = Watch::over(tree.path());
        assert_eq!(watch.seen(), [""; 0]);
        fs::symlink_metadata(tree.at("d/f")).unwrap();
        assert_eq!(watch.seen(), [""; 0]);
        type Touch = fn(&TempTree);
        let touches: [(&str, Touch); 5] = [
            ("OPEN", |tree| drop(fs::File::open(tree.at("l/f")).unwrap())),
            ("ACCESS", |tree| drop(fs::read(tree.at("d/f")).unwrap())),
            ("OPEN", |tree| drop(fs::read_dir(tree.at("l")).unwrap())),
            ("ATTRIB", |tree| _ = tree.mode("d/f", 0o600)),
            ("CREATE", |tree| _ = tree.file("d/g", "")),
        ];
        for (what, touch) in touches {
            touch(&tree);
            let seen = watch.seen();
            assert!(seen.iter().any(|seen| seen.contains(what)), "{what}: {seen:?}");
        }
    }
}
