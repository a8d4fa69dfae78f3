//! Where a case takes place: two trees that are emptied for the next one.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::TempTree;

use crate::attributes::clear_flags;

/// A source and a destination.
pub(crate) struct Stage {
    pub(crate) source: TempTree,
    pub(crate) destination: TempTree,
}

impl Stage {
    /// Both in memory.
    pub(crate) fn new() -> Self {
        Self::between(Path::new("/dev/shm"), Path::new("/dev/shm"))
    }

    /// The source below one directory, and the destination below another.
    pub(crate) fn between(source: &Path, destination: &Path) -> Self {
        let [source, destination] = [source, destination].map(TempTree::below);
        for tree in [&source, &destination] {
            // Others than root have to come by.
            let parent = tree.path().parent().unwrap();
            std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { source, destination }
    }

    /// Puts copies of both where `PVFERRY_KEEP` says, for a look at a case that failed.
    pub(crate) fn keep(&self) {
        let Some(dir) = env::var_os("PVFERRY_KEEP").map(PathBuf::from) else { return };
        for (tree, name) in [(&self.source, "s"), (&self.destination, "d")] {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(tree.path()).arg(dir.join(name));
            assert!(copy.status().unwrap().success());
        }
    }

    /// Empties both, and gives their roots ordinary properties.
    pub(crate) fn clear(&self) {
        for tree in [&self.source, &self.destination] {
            clear_flags(tree.path());
            tree.clear();
            for name in xattr_names(tree.path()) {
                let _ = rustix::fs::lremovexattr(tree.path(), name);
            }
            tree.owner("", 0, 0).mode("", 0o755);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clear();
        }
    }
}

fn xattr_names(path: &Path) -> Vec<std::ffi::OsString> {
    testkit::Snapshot::of(path).node("").xattrs.keys().cloned().collect()
}
