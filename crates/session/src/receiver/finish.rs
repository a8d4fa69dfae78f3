//! The phases at the end of a session, in order: renames, hard links, deletions, the flush, the commit.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use volume::{Dir, digest, flush, narrow, stat};
use wire::{Commit, EntryId, Name};

use super::{
    Received, deletions,
    dirs::{self, DirState},
    file::FileState,
    links, renames,
    state::{Known, Shared, TargetKindRef},
};
use crate::{Phase, control::Stopped, no_owner};

/// Runs the session from its first listing to the sender's goodbye.
pub(super) fn drive(shared: &Arc<Shared>) -> Result<Received, Stopped> {
    match shared.target_kind() {
        TargetKindRef::Device(_) | TargetKindRef::ReadOnlyDevice(_) => drive_device(shared)?,
        TargetKindRef::Tree(root) => drive_tree(shared, root)?,
    }
    shared.context.monitor.phase(Phase::Flush);
    flush(shared)?;
    let tree = tree_digest(shared)?;
    if !shared.dry_run() && !shared.target.is_at_its_path() {
        shared.control.fail(crate::Error::VolumeReplaced);
        return Err(Stopped);
    }
    let (manifest, entries) = shared.manifest.digest();
    let progress = shared.context.progress.snapshot();
    let problems = shared.problems.lock().count;
    shared.commit(Commit {
        manifest,
        entries,
        files_written: progress.files_written,
        files_deleted: progress.files_deleted,
        bytes_matched: progress.bytes_matched,
        problems,
        tree,
    })?;
    let goodbye = shared.wait_goodbye();
    if goodbye.is_some_and(|goodbye| goodbye.differs) {
        doubt(shared)?;
    }
    Ok(shared.received(manifest, tree, goodbye.map(|goodbye| goodbye.exit_code)))
}

/// What both ends hold differs for no reason that was reported: what has the right size and time here is not to be trusted
/// by the next session.
fn doubt(shared: &Shared) -> Result<(), Stopped> {
    let TargetKindRef::Tree(Some(root)) = shared.target_kind() else { return Ok(()) };
    if shared.dry_run() {
        return Ok(());
    }
    let marked =
        shared.staging().and_then(|staging| shared.crash_marker.manifests_differ(root, staging));
    marked.map_err(|error| {
        shared.control.fail(crate::Error::Volume(error));
        Stopped
    })
}

fn drive_tree(shared: &Arc<Shared>, root: Option<&Dir>) -> Result<(), Stopped> {
    let have = match root.map(|root| stat::root_entry(root, &shared.read_options)).transpose() {
        Ok(have) => have,
        Err(error) => {
            shared.control.fail(crate::Error::Volume(error));
            return Err(Stopped);
        }
    };
    let want = shared.wait_root()?;
    if let (Some(dir), Some(have), false) = (root, &have, shared.dry_run()) {
        let mut want = *want;
        if shared.options().no_owner {
            no_owner::drop_what_needs_it(&mut want);
            (want.uid, want.gid) = (have.uid, have.gid);
        }
        // Where that fails, so does setting its metadata in the end, and that is reported.
        let _ = narrow::directory(dir, have, &want);
    }
    let fresh = root.is_none();
    let state = Arc::new(DirState::root(root.cloned(), fresh, have));
    if let Some(reason) = shared.crash_marker.untrusted_reason() {
        shared.note(&format!("{reason}: comparing the content of all files"))?;
    }
    shared.register_directory(EntryId::ROOT, Known::Ready(Arc::clone(&state)));
    shared.wait_settled(false)?;
    renames::ask_for_postponed(shared)?;
    let root_meta = shared.wait_settled(true)?;
    shared.context.monitor.phase(Phase::Finish);
    links::link_groups(shared)?;
    let _ = deletions::delete(shared)?;
    deletions::report_kept(shared)?;
    clear_staging(shared)?;
    *state.want.lock() = Some(*root_meta);
    // The staging directory has moved its time.
    state.touch();
    dirs::release(shared, &state)
}

/// Removes what an earlier run left and this one did not go on with, without counting it as deletions.
fn clear_staging(shared: &Shared) -> Result<(), Stopped> {
    let Ok(staging) = shared.staging() else { return Ok(()) };
    let mut outcome = Ok(());
    staging.clear(&mut |error| {
        if outcome.is_ok() {
            outcome = shared.failed(&error);
        }
    });
    outcome
}

fn drive_device(shared: &Arc<Shared>) -> Result<(), Stopped> {
    let wire::RootKind::Device(size) = shared.agreed.hello.root else { return Ok(()) };
    if !shared.may_compare() {
        // All of a device is compared, so its sender was refused.
        return shared.broken("block device for a volume that is not compared");
    }
    let id = EntryId(1);
    let Some(file) = FileState::device(shared, id, crate::sender::device_entry(size)) else {
        return Ok(());
    };
    let file = Arc::new(file);
    shared.context.progress.bytes_total.store(size, Relaxed);
    shared.register_file(&file, false);
    shared.ask(vec![(id, file.want())])?;
    shared.queue_signature(&file);
    shared.wait_settled(true).map(drop)
}

fn flush(shared: &Shared) -> Result<(), Stopped> {
    if shared.dry_run() {
        return Ok(());
    }
    let flushed = match shared.target_kind() {
        TargetKindRef::Tree(Some(root)) => flush::file_system(root),
        TargetKindRef::Tree(None) => Ok(()),
        TargetKindRef::Device(device) => device.flush(),
        TargetKindRef::ReadOnlyDevice(_) => Ok(()),
    };
    flushed.map_err(|error| {
        shared.control.fail(crate::Error::Volume(error));
        Stopped
    })?;
    if shared.crash_marker.has_passed_over() {
        let what = "entries that only the destination has were not compared: until a run with --delete removes them, each run \
                    compares the content of all files";
        shared.note(what)?;
    }
    // What was not compared, because of some problem, is still not to be trusted.
    let reason = shared.crash_marker.untrusted_reason();
    let untrusted = reason.is_some() && shared.problems.lock().count > 0;
    let own = !shared.half_patched.lock().is_empty() || shared.problems.lock().count > 0;
    let looked_at_all = !own && shared.crash_marker.is_covered();
    let half_patched = !shared.half_patched.lock().is_empty()
        || (shared.crash_marker.was_left() && !looked_at_all);
    match (shared.staging(), shared.target_kind()) {
        (Ok(staging), TargetKindRef::Tree(Some(root))) if half_patched => {
            shared.crash_marker.keep(root, staging, own).or_else(|error| shared.failed(&error))
        }
        (Ok(staging), _) if !untrusted => {
            shared.crash_marker.end(staging).or_else(|error| shared.failed(&error))
        }
        _ => Ok(()),
    }
}

fn tree_digest(shared: &Shared) -> Result<Option<[u8; 32]>, Stopped> {
    if !shared.options().verify || shared.dry_run() {
        return Ok(None);
    }
    shared.context.monitor.phase(Phase::Verify);
    let digest = match shared.target_kind() {
        TargetKindRef::Tree(Some(root)) => {
            let kept = shared.deletions.kept();
            let left_out = |parent: &[Name], name: &Name| kept.contains(parent, name);
            let left_out: Option<digest::LeftOut<'_>> =
                if kept.is_empty() { None } else { Some(&left_out) };
            crate::verify::tree(root, shared.options(), left_out, shared.context.workers)
        }
        TargetKindRef::Tree(None) | TargetKindRef::ReadOnlyDevice(_) => return Ok(None),
        TargetKindRef::Device(device) => {
            let wire::RootKind::Device(size) = shared.agreed.hello.root else { return Ok(None) };
            digest::content_digest(size, |at, buffer| device.read_at(at, buffer))
        }
    };
    match digest {
        Ok(digest) => Ok(Some(digest)),
        Err(error) => shared.failed(&error).map(|()| None),
    }
}
