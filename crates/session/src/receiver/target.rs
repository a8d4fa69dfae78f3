//! The volume that becomes like the source: opened, locked and found fit before anything is said.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use volume::{
    Dir,
    capability::{self, Preflight},
    device,
    device::BlockSource,
    list::NameList,
    lock::VolumeLock,
    read_only::is_read_only,
    staging::Staging,
    target_device::TargetDevice,
};
use wire::{Hello, Refusal, RootKind, Text};

use crate::no_owner;

/// A volume that a session may write to.
pub struct Target {
    pub(super) kind: TargetKind,
    path: PathBuf,
    /// Nothing is in it: the sender need not ask.
    pub(crate) fresh: bool,
    /// Where unfinished entries of a tree lie.
    pub(super) staging: Option<Staging>,
    losses: Vec<Text>,
    /// In a dry run: what the run after it would find out by writing.
    pub(super) would_fail: WouldFail,
    _lock: Option<VolumeLock>,
}

/// What a run cannot do here, as far as that is known without writing.
#[derive(Clone, Copy, Default)]
pub(super) struct WouldFail {
    /// The file system, its mount or its subvolume is read-only.
    pub(super) read_only: bool,
    /// This process may not make device nodes.
    pub(super) devices: bool,
}

impl WouldFail {
    fn find(root: &Dir) -> volume::Result<Self> {
        let lost = Preflight::current().map(Preflight::check).unwrap_or_default();
        Ok(Self {
            read_only: is_read_only(root)?,
            devices: lost.into_iter().any(|loss| loss.missing == "CAP_MKNOD"),
        })
    }
}

pub(super) enum TargetKind {
    /// A directory tree; `None` where it does not exist, in a dry run.
    Tree(Option<Dir>),
    Device(Arc<TargetDevice>),
    /// A device in a dry run: it is open for reading only.
    ReadOnlyDevice(Arc<BlockSource>),
}

/// Why a volume cannot be the target of a session.
type Refused = (Refusal, String);

impl Target {
    /// Opens the volume at `at` for the session that `hello` asks for.
    ///
    /// # Errors
    /// The refusal to answer with, and a sentence for people.
    pub fn open(at: &Path, hello: &Hello) -> Result<Self, Refused> {
        let path = at.to_owned();
        let losses = losses(hello);
        // The other end knows the volume by its name; where it lies here is none of its business.
        let unavailable = |e: volume::Error| {
            let why = format!("cannot open the volume: {}", e.what());
            (Refusal::Unavailable, why)
        };
        let is_device = match device::is_block_device(at) {
            Ok(is_device) => is_device,
            Err(e) if hello.options.dry_run && e.is_vanished() => {
                let kind = TargetKind::Tree(None);
                let would_fail = WouldFail::default();
                return Ok(Self {
                    kind,
                    path,
                    fresh: false,
                    staging: None,
                    losses,
                    would_fail,
                    _lock: None,
                });
            }
            Err(e) => return Err(unavailable(e)),
        };
        match (hello.root, is_device) {
            (RootKind::Tree, false) => {}
            (RootKind::Device(size), true) => {
                let (kind, have) = if hello.options.dry_run {
                    let device = BlockSource::open_exclusive(at).map_err(unavailable)?;
                    let have = device.size();
                    (TargetKind::ReadOnlyDevice(Arc::new(device)), have)
                } else {
                    let device = TargetDevice::open(at).map_err(unavailable)?;
                    let have = device.size();
                    (TargetKind::Device(Arc::new(device)), have)
                };
                if have < size {
                    let why = format!(
                        "the destination is too small: it has {have} bytes, the source {size} bytes"
                    );
                    return Err((Refusal::Unfit, why));
                }
                let losses = Vec::new();
                let would_fail = WouldFail::default();
                return Ok(Self {
                    kind,
                    path,
                    fresh: false,
                    staging: None,
                    losses,
                    would_fail,
                    _lock: None,
                });
            }
            (RootKind::Tree, true) => {
                return Err((
                    Refusal::Unfit,
                    "the source is a directory, but the destination is a block device".into(),
                ));
            }
            (RootKind::Device(_), false) => {
                return Err((
                    Refusal::Unfit,
                    "the source is a block device, but the destination is not".into(),
                ));
            }
        }
        // A dry run cannot write: what it has of the destination refuses every change.
        let open = if hello.options.dry_run { Dir::open_root } else { Dir::open_root_writable };
        let root = open(at).map_err(|e| match e.errno {
            rustix::io::Errno::NOTDIR => {
                (Refusal::Unfit, "the destination is not a directory".into())
            }
            _ => unavailable(e),
        })?;
        let Some(lock) = VolumeLock::acquire(&root).map_err(unavailable)? else {
            return Err((Refusal::Busy, "another transfer is writing to this volume".into()));
        };
        let mut losses = losses;
        let owner = || fs::metadata(at).map(|meta| meta.uid());
        let is_foreign = hello.options.no_owner && owner().is_ok_and(no_owner::is_foreign_root);
        if is_foreign {
            losses.push(no_owner::FOREIGN_ROOT.into());
        }
        let names = NameList::read(&root).map_err(unavailable)?;
        // A dry run has no use for content, so nothing may come unasked.
        let fresh = !hello.options.dry_run
            && names.complete()
            && names.iter().all(|name| name == b"lost+found");
        let mut staging = Staging::find(&root, &names).map_err(unavailable)?;
        if is_foreign {
            staging = staging.without_root_metadata();
        }
        let staging = Some(staging);
        let would_fail = if hello.options.dry_run {
            WouldFail::find(&root).map_err(unavailable)?
        } else {
            WouldFail::default()
        };
        let kind = TargetKind::Tree(Some(root));
        Ok(Self { kind, path, fresh, staging, losses, would_fail, _lock: Some(lock) })
    }

    /// True where the path of the volume still leads to the directory that the session writes to.
    pub(super) fn is_at_its_path(&self) -> bool {
        let TargetKind::Tree(Some(root)) = &self.kind else { return true };
        fs::metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == root.identity())
    }

    /// True where the volume is empty.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What this process cannot keep of a source, one sentence each.
    #[must_use]
    pub fn losses(&self) -> &[Text] {
        &self.losses
    }
}

fn losses(hello: &Hello) -> Vec<Text> {
    let mut lost = Preflight::current().map(Preflight::check).unwrap_or_default();
    let no_owner = hello.options.no_owner;
    lost.retain(|loss| !(no_owner && loss.is_of_owners()));
    let sentences = capability::sentences(&lost, !no_owner);
    let mut losses: Vec<Text> = sentences.into_iter().map(Text::from).collect();
    if no_owner {
        losses.push(no_owner::ANNOUNCEMENT.into());
    }
    losses
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use wire::Options;

    use super::*;

    fn open(at: &Path, dry_run: bool) -> Dir {
        let hello = Hello {
            versions: (wire::VERSION, wire::VERSION),
            nonce: [0; 32],
            volume: "a".into(),
            root: RootKind::Tree,
            probe: false,
            window: 4 << 20,
            streams: 1,
            io_timeout: 5,
            options: Options { dry_run, ..Options::default() },
        };
        match Target::open(at, &hello).map(|target| target.kind) {
            Ok(TargetKind::Tree(Some(root))) => root,
            _ => panic!("not a tree"),
        }
    }

    /// The last thing that keeps a dry run from writing, if everything before has forgotten that it is one.
    #[test]
    fn the_volume_of_a_dry_run_refuses_every_change() {
        let volume = tempfile::tempdir().unwrap();
        assert_eq!(open(volume.path(), true).check_writable(), Err(Errno::ROFS));
        assert_eq!(open(volume.path(), false).check_writable(), Ok(()));
    }
}
