//! Flushing, the lock of a volume, and the preflight.

use std::process::Command;

use rustix::thread::CapabilitySet;
use volume::{
    Dir, capability::Preflight, flush, lock::VolumeLock, metadata::ApplyOptions, writer::FileWriter,
};

use super::support::*;

/// True where blocks of the file wait to be allocated, which happens when they are written back: until
/// then they are in memory alone. `None`, said loudly, where that cannot be told.
fn delayed(scratch: &Scratch) -> Option<bool> {
    let output = Command::new("filefrag").arg("-v").arg(scratch.at("f")).output();
    let Ok(output) = output else {
        skip("filefrag is missing");
        return None;
    };
    assert!(output.status.success());
    Some(String::from_utf8_lossy(&output.stdout).contains("delalloc"))
}

/// A file on ext4, finished a moment ago.
fn written() -> Option<Scratch> {
    let scratch = Scratch::image("ext4")?;
    let writer = scratch.staged(&scratch.dir, "f").unwrap();
    writer.write_at(0, &vec![1; 1 << 20]).unwrap();
    writer.finish(&file(0o600, 1 << 20), ApplyOptions::default()).unwrap();
    delayed(&scratch)?.then_some(scratch)
}

#[test]
fn write_back_starts_when_told_and_for_the_range_alone() {
    let Some(scratch) = written() else { return };
    let open = std::fs::File::open(scratch.at("f")).unwrap();
    flush::start_writeback(&open, 0, 0);
    assert_eq!(delayed(&scratch), Some(true));
    flush::start_writeback(&open, 0, 1 << 20);
    assert_eq!(delayed(&scratch), Some(false));
}

#[test]
fn a_flush_leaves_nothing_in_memory() {
    let Some(scratch) = written() else { return };
    flush::file_system(&scratch.dir).unwrap();
    assert_eq!(delayed(&scratch), Some(false));
}

#[test]
fn a_file_that_was_patched_in_place_is_flushed_before_it_gets_its_time() {
    let Some(scratch) = written() else { return };
    let place = identity(&scratch.at("f"));
    let writer =
        FileWriter::in_place(&scratch.dir, &name("f"), place, &as_it_is(&scratch.at("f"))).unwrap();
    writer.write_at(1 << 20, &vec![1; 1 << 20]).unwrap();
    assert_eq!(delayed(&scratch), Some(true));
    writer.finish(&file(0o600, 2 << 20), ApplyOptions::default()).unwrap();
    assert_eq!(delayed(&scratch), Some(false));
}

#[test]
fn one_transfer_at_a_time() {
    let scratch = Scratch::disk();
    let again = Dir::open_root_writable(&scratch.path).unwrap();
    let first = VolumeLock::acquire(&scratch.dir).unwrap().unwrap();
    assert!(VolumeLock::acquire(&again).unwrap().is_none());
    assert!(VolumeLock::acquire(&scratch.dir).unwrap().is_none());
    let path = scratch.path.to_str().unwrap();
    assert!(!run(&["flock", "--nonblock", path, "true"]), "another process");
    // Another volume is another lock.
    assert!(VolumeLock::acquire(&Scratch::disk().dir).unwrap().is_some());
    drop(first);
    // Waits, since a process that another test is just starting may hold a copy until it runs.
    assert!(run(&["flock", "--timeout", "60", path, "true"]));
    assert!(VolumeLock::acquire(&again).unwrap().is_some());
}

#[test]
fn the_preflight_says_what_this_process_lacks() {
    let losses = || -> Vec<String> {
        let losses = Preflight::current().unwrap().check();
        losses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(losses(), [""; 0]);
    assert_eq!(
        without(CapabilitySet::MKNOD | CapabilitySet::CHOWN, losses),
        [
            "owners are not preserved: CAP_CHOWN is missing",
            "device nodes are not preserved: CAP_MKNOD is missing"
        ]
    );
    assert_eq!(as_user(losses).len(), 8);
}
