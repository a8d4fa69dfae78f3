//! Source and destination paths of this machine: what they must be, looked at before anything is created.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use pod::{ExitCode, VolumeName};
use session::Source;
use volume::{Dir, device, device::BlockSource};

use super::mounts::Place;
use crate::outcome::Failure;

fn unfit(what: String) -> Failure {
    Failure::new(ExitCode::Selection, what)
}

/// Opens the source of a transfer.
pub(super) fn open_source(path: &Path) -> Result<Source, Failure> {
    let shown = path.display();
    let cannot = |error: volume::Error| {
        unfit(match error.errno.kind() {
            io::ErrorKind::NotFound if is_remote(path) => format!(
                "{shown}: remote paths are not supported: run `pvferry serve` here and `pvferry sync --connect` on the remote host"
            ),
            io::ErrorKind::NotFound => format!("the source {shown} does not exist"),
            io::ErrorKind::NotADirectory if path.is_file() => regular_file(path),
            io::ErrorKind::NotADirectory => {
                format!("the source {shown} is not a directory or block device")
            }
            _ => format!("cannot open the source {shown}: {}", error.errno),
        })
    };
    if device::is_block_device(path).map_err(cannot)? {
        let device = BlockSource::open(path).map_err(cannot)?;
        return Ok(Source::Device(Arc::new(device)));
    }
    Dir::open_root(path).map(Source::Tree).map_err(cannot)
}

/// Checks that `path` can be read as a whole: a directory or a block device.
pub(super) fn check_readable(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() || meta.file_type().is_block_device() => Ok(()),
        Ok(_) => Err(unfit(format!("{shown} is not a directory or block device"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_remote(path) => {
            Err(unfit(format!("{shown}: remote paths are not supported: run pvferry on that host")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(unfit(format!("{shown} does not exist")))
        }
        Err(error) => Err(unfit(format!("cannot open {shown}: {error}"))),
    }
}

/// Checks that `source` can be copied to `destination`, and only then creates a destination whose last component is
/// missing. One that lies inside the source is refused, and the reverse: to copy would never end, to delete would destroy
/// the source.
pub(super) fn prepare(source: &Path, destination: &Path, dry_run: bool) -> Result<(), Failure> {
    let shown = destination.display();
    let from = fs::metadata(source)
        .map_err(|error| unfit(format!("cannot open the source {}: {error}", source.display())))?;
    match fs::metadata(destination) {
        Ok(to) if same_device(&from, &to) => {
            Err(unfit("source and destination are the same block device".into()))
        }
        // What a device can be copied to is the receiver's to say.
        Ok(_) if !from.is_dir() => Ok(()),
        Ok(to) if to.is_dir() => apart(source, destination),
        Ok(_) => Err(unfit(format!("the destination {shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !from.is_dir() {
                return Err(unfit(format!("the destination {shown} does not exist")));
            }
            can_be_created(source, destination)?;
            if dry_run {
                return Ok(());
            }
            fs::create_dir(destination)
                .map_err(|error| unfit(format!("cannot create {shown}: {error}")))
        }
        Err(error) => Err(unfit(format!("cannot open the destination {shown}: {error}"))),
    }
}

/// Checks a destination that does not exist.
fn can_be_created(source: &Path, destination: &Path) -> Result<(), Failure> {
    let shown = destination.display();
    if is_remote(destination) {
        return Err(unfit(format!(
            "{shown}: remote paths are not supported: run `pvferry serve` on the remote host and `pvferry sync --connect` here"
        )));
    }
    if fs::symlink_metadata(destination).is_ok() {
        return Err(unfit(format!("the destination {shown} is a dangling symbolic link")));
    }
    let parent = match destination.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match fs::metadata(parent) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = parent.display();
            return Err(unfit(format!(
                "cannot create {shown}: parent directory {parent} does not exist"
            )));
        }
        Err(error) => {
            return Err(unfit(format!("cannot create {shown}: {error}")));
        }
    }
    if lies_in(parent, source)? { Err(inside(destination, "source", source)) } else { Ok(()) }
}

/// How to copy one file: its directory is the source, and the filters leave out the rest.
fn regular_file(path: &Path) -> String {
    let (shown, name) = (path.display(), path.file_name().unwrap_or_default().display());
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = parent.display();
    format!(
        "{shown} is a regular file; pvferry copies directories and block devices. To copy this file only, use {parent} as the source with --include=/{name} --exclude='*'"
    )
}

/// True for `HOST:PATH`, which rsync and scp would take for a path on another machine.
fn is_remote(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let first = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
    first.contains(&b':')
}

/// Checks that neither of two directories lies in the other.
fn apart(source: &Path, destination: &Path) -> Result<(), Failure> {
    match (lies_in(destination, source)?, lies_in(source, destination)?) {
        (true, true) => Err(unfit("source and destination are the same directory".into())),
        (true, false) => Err(inside(destination, "source", source)),
        (false, true) => Err(inside(source, "destination", destination)),
        (false, false) => Ok(()),
    }
}

fn inside(inner: &Path, of: &str, outer: &Path) -> Failure {
    unfit(format!("{} is inside the {of} {}", inner.display(), outer.display()))
}

/// Checks the directory of the completion markers. One that is created later lies behind the sandbox.
pub(super) fn check_marker_dir(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let shown = path.display();
    let what = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => format!("the marker directory {shown} is not a directory"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("the marker directory {shown} does not exist")
        }
        Err(error) => format!("cannot open the marker directory {shown}: {error}"),
    };
    Err(Failure::new(ExitCode::StartUp, what))
}

/// Checks the directories of the sockets of a tunnel: two volumes that share one would not be kept apart.
pub(super) fn check_volume_dirs(volumes: &[(VolumeName, PathBuf)]) -> Result<(), Failure> {
    for (index, (name, dir)) in volumes.iter().enumerate() {
        check_marker_dir(Some(dir))?;
        for (other, of_other) in &volumes[..index] {
            if other == name {
                let what = format!("the volume {name} is given twice");
                return Err(Failure::new(ExitCode::Usage, what));
            }
            if lies_in(dir, of_other)? || lies_in(of_other, dir)? {
                let (a, b) = (of_other.display(), dir.display());
                let what =
                    format!("the directories of volumes {other} and {name} overlap: {a} and {b}");
                return Err(Failure::new(ExitCode::Usage, what));
            }
        }
    }
    Ok(())
}

/// Checks the volumes of a server: each must exist, and no two may hold the same entries.
pub(super) fn check_volumes(volumes: &[(VolumeName, PathBuf)]) -> Result<(), Failure> {
    for (index, (name, path)) in volumes.iter().enumerate() {
        if volumes[..index].iter().any(|(other, _)| other == name) {
            let what = format!("the volume {name} is given twice");
            return Err(Failure::new(ExitCode::Usage, what));
        }
        let shown = path.display();
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() || meta.file_type().is_block_device() => {}
            Ok(_) => {
                let what = format!("volume {name}: {shown} is not a directory or block device");
                return Err(unfit(what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(unfit(format!("volume {name}: {shown} does not exist")));
            }
            Err(error) => {
                return Err(unfit(format!("volume {name}: cannot open {shown}: {error}")));
            }
        }
    }
    for (index, (b, of_b)) in volumes.iter().enumerate() {
        for (a, of_a) in &volumes[..index] {
            if overlap(of_a, of_b)? {
                let (of_a, of_b) = (of_a.display(), of_b.display());
                return Err(unfit(format!("the volumes {a} and {b} overlap: {of_a} and {of_b}")));
            }
        }
    }
    Ok(())
}

/// Whether two volumes share entries. A mount point inside a volume is not part of it.
fn overlap(a: &Path, b: &Path) -> Result<bool, Failure> {
    let cannot = |path: &Path, error| unfit(format!("cannot open {}: {error}", path.display()));
    let of_a = fs::metadata(a).map_err(|error| cannot(a, error))?;
    let of_b = fs::metadata(b).map_err(|error| cannot(b, error))?;
    if !of_a.is_dir() || !of_b.is_dir() {
        return Ok(same_device(&of_a, &of_b));
    }
    let on_one_device = of_a.dev() == of_b.dev();
    Ok(on_one_device && (lies_in(a, b)? || lies_in(b, a)?))
}

fn same_device(a: &Metadata, b: &Metadata) -> bool {
    a.file_type().is_block_device() && b.file_type().is_block_device() && a.rdev() == b.rdev()
}

/// True where the directory `inner` is `outer` or below it: by walking up from the one to the root, or on the file system
/// that both lie on, which a bind mount shows in two places.
fn lies_in(inner: &Path, outer: &Path) -> Result<bool, Failure> {
    let walked = ancestry(inner).and_then(|of_inner| {
        let top = fs::metadata(outer)?;
        if of_inner.contains(&(top.dev(), top.ino())) {
            return Ok(true);
        }
        Ok(match (Place::of(inner)?, Place::of(outer)?) {
            (Some(inner), Some(outer)) => inner.lies_in(&outer),
            _ => false,
        })
    });
    walked.map_err(|error| {
        let (inner, outer) = (inner.display(), outer.display());
        unfit(format!("cannot determine whether {inner} is inside {outer}: {error}"))
    })
}

/// Device and inode of a directory and of all those above it.
fn ancestry(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut at = path.to_owned();
    let mut found: Vec<(u64, u64)> = Vec::new();
    loop {
        let meta = fs::metadata(&at)?;
        let here = (meta.dev(), meta.ino());
        if found.last() == Some(&here) {
            return Ok(found);
        }
        found.push(here);
        at.push("..");
    }
}
