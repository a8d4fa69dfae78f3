//! Which entries of a snapshot are names of one inode.

use crate::engine::{LinkId, StoredEntry};

/// Equal for names of one inode. Numbers of inodes are not enough: other programs store those of several file systems without
/// their devices, so two files may have the same one. Names of one inode have the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LinkKey {
    inode: LinkId,
    content: blake3::Hash,
}

impl LinkKey {
    /// `None` where the inode has one name.
    pub(super) fn of(stored: &StoredEntry) -> Option<Self> {
        let inode = stored.link?;
        let (meta, mut hasher) = (&stored.entry.meta, blake3::Hasher::new());
        hasher.update(&[meta.kind as u8]);
        for number in [u64::from(meta.rdev.0), u64::from(meta.rdev.1), meta.size] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&stored.entry.target);
        for blob in &stored.content {
            hasher.update(blob.to_hex().as_bytes());
        }
        Some(Self { inode, content: hasher.finalize() })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Cursor, os::unix::fs::MetadataExt as _, sync::Arc};

    use volume::stat::{Inode, Lifetime};
    use wire::{Attributes, FileKind, Metadata, Timestamp};

    use crate::{
        Credentials, Location, Repository, RestoreOptions,
        engine::{Label, Offer, Opener, Source, encode},
    };

    /// A directory with files of one inode number.
    struct SameInode(std::vec::IntoIter<(&'static str, &'static str)>);

    struct Content(&'static str);

    impl Opener for Content {
        type Reader = Cursor<&'static str>;

        fn open(self) -> std::io::Result<Self::Reader> {
            Ok(Cursor::new(self.0))
        }
    }

    impl Source for SameInode {
        type Open = Content;
    }

    impl Iterator for SameInode {
        type Item = Offer<Content>;

        fn next(&mut self) -> Option<Self::Item> {
            let (name, content) = self.0.next()?;
            let kind = if name.is_empty() { FileKind::Directory } else { FileKind::File };
            let meta = Metadata {
                kind,
                mode: 0o755,
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                size: content.len() as u64,
                mtime: Timestamp { secs: 5, nanos: 0 },
                rdev: (0, 0),
                attributes: Attributes::default(),
                xattrs: Vec::new(),
            };
            let inode = Inode {
                dev: 0,
                ino: 9,
                since: Lifetime::Changed(Timestamp::default()),
                nlink: 2,
                size: meta.size,
                blocks: 0,
                ctime: Timestamp::default(),
                mount_root: false,
                subvolume_stub: false,
            };
            let path = std::path::Path::new("/data").join(name);
            let stored = path.file_name().unwrap().as_encoded_bytes();
            let node = encode(stored, &meta, b"", &inode).unwrap();
            let open = (kind == FileKind::File).then_some(Content(content));
            Some(Offer { path: path.clone(), node, open })
        }
    }

    #[test]
    fn files_with_one_inode_number_are_joined_only_if_their_content_is_equal() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, target) = (dir.path().join("credentials"), dir.path().join("target"));
        fs::create_dir(&credentials).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(credentials.join("RESTIC_PASSWORD"), "password").unwrap();
        let credentials = Credentials::read(&credentials).unwrap();
        let location = Location::Local(dir.path().join("repository"));
        Repository::init(&location, &credentials).unwrap();
        let repository = Repository::open(&location, &credentials).unwrap();
        let files = vec![("", ""), ("a", "one"), ("b", "two"), ("c", "one")];
        let label = Label { host: "host".into(), path: "/data".into(), tags: Vec::new() };
        let stored = repository.engine.store(SameInode(files.into_iter()), &label, None).unwrap();
        let snapshot = repository.engine.save(&stored).unwrap();
        let options = RestoreOptions { path: None, destination: target.clone(), verify: false };
        let summary = repository.restore(&snapshot, &options, &Arc::default()).unwrap();
        assert_eq!(summary.problems.exit_code(), 0, "{:?}", summary.problems);
        let content = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(["a", "b", "c"].map(content), ["one", "two", "one"]);
        let inode = |name: &str| fs::metadata(target.join(name)).unwrap().ino();
        assert_eq!(inode("a"), inode("c"));
    }
}
