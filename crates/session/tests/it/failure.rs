//! What breaks: never a success that is none, and the next run converges.

use std::{fs, path::Path, time::Duration};

use session::handshake;
use wire::Options;

use super::support::*;

/// A pair with something of every way that content takes.
fn mixed() -> Pair {
    let pair = Pair::new();
    let (from, to) = (pair.from.path(), pair.to.path());
    for n in 0..12 {
        write(from, &format!("new{}/f{n}", n % 3), &noise(n, 3000));
        write(to, &format!("gone/f{n}"), &noise(n, 50));
    }
    let mut large = noise(1, 2 << 20);
    write(to, "patched", &large);
    large[1 << 20] ^= 1;
    write(from, "patched", &large);
    set_mtime(&to.join("patched"), 4, 4);
    write(from, "small", b"new");
    write(to, "small", b"older");
    write(from, "shifted", &[&b"!"[..], &noise(7, 600_000)].concat());
    write(to, "shifted", &noise(7, 600_000));
    write(from, "whole", &noise(8, 300_000));
    pair
}

fn options() -> Options {
    Options { delete: true, verify: true, ..Options::default() }
}

/// Bytes that a session over `mixed` sends and receives, handshake included.
fn length() -> (u64, u64) {
    let outcome = mixed().converge(options());
    (outcome.sender.wire_sent + 200, outcome.sender.wire_received + 200)
}

fn points(length: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..40).map(|n| n * 9).chain((0..count).map(move |n| n * length / count))
}

#[test]
fn a_connection_cut_at_any_byte_is_an_error_and_the_next_run_converges() {
    let (sent, received) = length();
    let after_written =
        points(sent, 60).map(|at| Faults { cut_after_written: Some(at), ..Faults::default() });
    let after_read =
        points(received, 60).map(|at| Faults { cut_after_read: Some(at), ..Faults::default() });
    for faults in after_written.chain(after_read) {
        let pair = mixed();
        let outcome = sync_over(pair.from.path(), pair.to.path(), options(), faults);
        if outcome.sent.is_ok() {
            // All that was lost is what comes behind the commit record.
            assert_eq!(outcome.exit_code(), 0);
            pair.assert_equal();
        }
        pair.converge(options());
    }
}

#[test]
fn a_byte_changed_anywhere_is_never_a_success_with_other_content() {
    let (sent, received) = length();
    let written = points(sent, 40).map(|at| Faults { flip_written: Some(at), ..Faults::default() });
    let read = points(received, 40).map(|at| Faults { flip_read: Some(at), ..Faults::default() });
    for faults in written.chain(read) {
        let pair = mixed();
        let (from, to) = (pair.from.path(), pair.to.path());
        let outcome = sync_with(from, to, options(), faults, Some(Duration::from_secs(1)));
        if outcome.exit_code() == 0 {
            pair.assert_equal();
        }
    }
}

#[test]
fn a_cancelled_session_says_so_at_both_ends_and_resumes() {
    let pair = Pair::new();
    for n in 0..20 {
        write(pair.from.path(), &format!("f{n}"), &noise(n, 400_000));
    }
    let context = context(20);
    context.cancel.cancel();
    let (sent, received) = block_on(async {
        let (a, b) = tokio::io::duplex(1 << 16);
        let near = send(a, pair.from.path(), Options::default(), context);
        tokio::join!(near, receive(b, pair.to.path(), self::context(20)))
    });
    assert!(matches!(sent, Err(session::Error::Cancelled)));
    assert!(matches!(received, Err(session::Error::Aborted(20, _))), "{:?}", received.err());
    pair.converge(Options::default());
}

fn context(io_timeout: u32) -> session::Context {
    super::support::context(io_timeout)
}

#[test]
fn a_full_volume_ends_the_session_with_its_reason_at_both_ends() {
    let pair = Pair::new();
    let target = pair.to.path().join("volume");
    fs::create_dir(&target).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(&target)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI mounts file systems");
        eprintln!("SKIPPED: may not mount tmpfs");
        return;
    }
    write(pair.from.path(), "large", &noise(1, 3 << 20));
    let outcome = sync(pair.from.path(), &target, Options::default());
    // What may stay is the staging directory with the crash marker.
    let left = fs::read_dir(&target).unwrap().flatten().map(|entry| {
        let staging = volume::staging::inode_number(entry.file_name().as_encoded_bytes());
        let names = fs::read_dir(entry.path()).map(|names| names.flatten().collect::<Vec<_>>());
        staging.is_some() && names.is_ok_and(|n| n.iter().all(|n| n.file_name() == "crash-marker"))
    });
    let tidy = left.collect::<Vec<_>>().into_iter().all(|tidy| tidy);
    assert!(std::process::Command::new("umount").arg(&target).status().unwrap().success());
    assert_eq!(outcome.received.as_ref().map_or_else(session::Error::exit_code, |_| 0), 11);
    let error = outcome.sent.unwrap_err();
    assert_eq!(error.exit_code(), 11);
    assert!(error.to_string().contains("large"), "{error}");
    assert!(tidy, "unfinished entries are gone");
}

#[test]
fn a_second_session_to_the_same_volume_is_refused_and_the_first_leaves_it_free() {
    let pair = Pair::new();
    write(pair.from.path(), "a", b"a");
    let asked = hello(Options::default(), 2);
    let first = session::Target::open(pair.to.path(), &asked).unwrap();
    let refused = session::Target::open(pair.to.path(), &asked).err().unwrap();
    assert_eq!(refused.0, wire::Refusal::Busy);
    drop(first);
    for _ in 0..20 {
        pair.converge(Options::default());
    }
}

#[test]
fn a_stream_that_finds_its_session_gone_ends_it_for_another_try() {
    let pair = Pair::new();
    write(pair.from.path(), "a", b"a");
    let source = session::Source::Tree(volume::Dir::open_root(pair.from.path()).unwrap());
    let sent = block_on(async {
        let (mut first, far) = tokio::io::duplex(1 << 20);
        let (late, mut refusing) = tokio::io::duplex(1 << 20);
        let receiver = tokio::spawn(async move {
            let pair = Pair::new();
            let _ = receive(far, pair.to.path(), context(5)).await;
        });
        let agreed = handshake::open(&mut first, hello(Options::default(), 5)).await.unwrap();
        let refusal = wire::Refusal::UnknownSession;
        let why = "unknown session".to_owned();
        handshake::reply(&mut refusing, &wire::Reply::Refused(refusal, why.into())).await.unwrap();
        let sent = session::send(vec![first, late], agreed, source, context(5)).await;
        receiver.abort();
        sent
    });
    let error = sent.unwrap_err();
    assert!(matches!(error, session::Error::Refused(..)), "{error}");
    assert!(error.is_retryable());
}

#[test]
fn what_became_a_file_takes_the_place_of_what_an_interrupted_run_made_of_it() {
    let pair = Pair::new();
    let unfinished = staging(pair.to.path()).join(staged(pair.to.path(), "dir", "-dir"));
    fs::create_dir(&unfinished).unwrap();
    for (name, content) in [("small", &b"small"[..]), ("large", &noise(1, 200_000)), ("empty", b"")]
    {
        write(pair.from.path(), &format!("dir/{name}"), content);
        std::os::unix::fs::symlink("elsewhere", unfinished.join(name)).unwrap();
    }
    pair.converge_twice(delete());
}

#[test]
fn an_unreadable_root_is_an_error_of_the_volume() {
    let pair = Pair::new();
    write(pair.from.path(), "dir/a", b"a");
    let gone = pair.from.path().join("dir");
    let outcome = block_on(async {
        let (a, b) = tokio::io::duplex(1 << 16);
        let source = session::Source::Tree(volume::Dir::open_root(&gone).unwrap());
        fs::remove_dir_all(&gone).unwrap();
        let near = async {
            let mut a = a;
            let agreed = session::handshake::open(&mut a, hello(delete(), 2)).await?;
            session::send(vec![a], agreed, source, context(2)).await
        };
        tokio::join!(near, receive(b, pair.to.path(), context(2)))
    });
    // Linux lists a removed directory as empty.
    assert!(matches!(outcome.0, Err(session::Error::EmptySource | session::Error::Volume(_))));
    assert!(matches!(outcome.1, Err(session::Error::Aborted(..))));
}

/// What this start of the machine and this mount of the volume are called.
fn here(root: &Path) -> String {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let unique = StatxFlags::from_bits_retain(0x4000);
    let stat = statx(CWD, root, AtFlags::empty(), unique).unwrap();
    format!("{} {}", boot.trim(), stat.stx_mnt_id)
}

/// A volume whose files have the right size and time and not the right content, and what the
/// crash marker in it says.
fn after_a_power_cut(marker: impl FnOnce(&Path) -> String) -> Pair {
    let pair = Pair::new();
    for (name, len) in [("small", 100), ("dir/large", 2 << 20)] {
        write(pair.from.path(), name, &noise(1, len));
        write(pair.to.path(), name, &vec![0; len]);
        set_mtime(&pair.from.path().join(name), 5, 5);
        set_mtime(&pair.to.path().join(name), 5, 5);
    }
    let marker = marker(pair.to.path());
    write(&staging(pair.to.path()), "crash-marker", marker.as_bytes());
    pair
}

#[test]
fn a_crash_marker_of_another_start_or_mount_has_everything_compared_by_content() {
    let start = |_: &Path| "another start".to_owned();
    let mount = |root: &Path| here(root) + "1";
    for pair in [after_a_power_cut(start), after_a_power_cut(mount)] {
        let outcome = pair.converge(delete());
        assert_eq!(outcome.summary().files_written, 2);
        assert!(outcome.actions[0].contains("a crash or a remount"), "{:?}", outcome.actions);
        assert_eq!(crash_marker(pair.to.path()), None);
        assert_eq!(pair.converge(delete()).actions, Vec::<String>::new());
    }
}

/// What the source does not have now, it may have again.
#[test]
fn a_crash_marker_stays_while_entries_of_the_destination_were_not_compared() {
    for entry in ["small", "dir/large", "dir"] {
        // A process that died leaves no doubt.
        let pair = after_a_power_cut(here);
        fs::rename(pair.from.path().join(entry), Pair::new().to.path().join("away")).unwrap();
        pair.sync(Options::default()).assert_clean();
        assert_eq!(crash_marker(pair.to.path()), None, "{entry}");

        let pair = after_a_power_cut(|_| "another start".to_owned());
        let away = Pair::new();
        let (here, there) = (pair.from.path().join(entry), away.from.path().join("away"));
        fs::rename(&here, &there).unwrap();
        pair.sync(Options::default()).assert_clean();
        assert!(crash_marker(pair.to.path()).is_some(), "{entry}");
        fs::rename(&there, &here).unwrap();
        pair.converge(Options::default());
        assert_eq!(crash_marker(pair.to.path()), None, "{entry}");
    }
}

#[test]
fn a_crash_marker_of_this_start_and_mount_means_nothing() {
    let pair = after_a_power_cut(here);
    let outcome = pair.sync(delete());
    outcome.assert_clean();
    assert_eq!(outcome.summary().files_written, 0);
    assert_eq!(crash_marker(pair.to.path()), None);
}

/// What the next session writes may be lost with a power cut, whatever the marker said before.
#[test]
fn content_that_is_written_beside_half_patched_files_is_marked_with_this_start_and_mount() {
    let pair = Pair::new();
    write(pair.from.path(), "new", &noise(1, 5_000_000));
    write(&staging(pair.to.path()), "crash-marker", b"files are half patched");
    let marker = here(pair.to.path());
    let seen = block_on(async {
        let (a, b) = tokio::io::duplex(1 << 16);
        let near = async { send(a, pair.from.path(), delete(), context(20)).await };
        let watch = async {
            loop {
                let found = crash_marker(pair.to.path());
                if found.as_deref() == Some(marker.as_bytes()) {
                    return true;
                }
                if found.is_none() {
                    return false;
                }
                tokio::task::yield_now().await;
            }
        };
        let both = async { tokio::join!(near, receive(b, pair.to.path(), context(20))) };
        tokio::join!(both, watch).1
    });
    assert!(seen, "content was written under a marker of an earlier session");
}

/// Neither size nor time would tell that it is not what was sent, were it put in place, and the goodbye may be lost.
#[test]
fn content_that_was_spoilt_on_the_way_is_reported_and_not_put_in_place() {
    let pair = Pair::new();
    write(pair.from.path(), "small", &noise(1, 3000));
    write(pair.to.path(), "old", b"old");
    let faults = Faults { flip_written: Some(1500), ..Faults::default() };
    let outcome = sync_over(pair.from.path(), pair.to.path(), Options::default(), faults);
    outcome.assert_problem(23, "small");
    assert!(!pair.to.path().join("small").exists());
    let outcome = pair.sync(Options::default());
    outcome.assert_clean();
    assert_eq!(outcome.actions, Vec::<String>::new(), "nothing else is in doubt");
    assert_eq!(fs::read(pair.to.path().join("small")).unwrap(), noise(1, 3000));
}

#[test]
fn a_session_that_is_cut_flushes_and_leaves_no_crash_marker_but_an_older_one() {
    for older in [None, Some(b"another start")] {
        let pair = Pair::new();
        for n in 0..30 {
            write(pair.from.path(), &format!("f{n}"), &noise(n, 500_000));
        }
        write(pair.to.path(), "old", b"old");
        if let Some(older) = older {
            write(&staging(pair.to.path()), "crash-marker", older);
        }
        let faults = Faults { cut_after_written: Some(5_000_000), ..Faults::default() };
        assert!(sync_over(pair.from.path(), pair.to.path(), delete(), faults).sent.is_err());
        let left = crash_marker(pair.to.path());
        assert_eq!(left.as_deref(), older.map(|older| &older[..]));
        pair.converge_twice(delete());
    }
}

#[test]
fn a_source_that_holds_the_name_of_the_staging_directory_is_reported() {
    let pair = Pair::new();
    let name = staging(pair.to.path()).file_name().unwrap().to_str().unwrap().to_owned();
    write(pair.from.path(), &format!("{name}/f"), b"of its own");
    write(pair.from.path(), "a", b"a");
    pair.sync(delete()).assert_problem(23, &name);
    pair.converge(delete());
}

#[test]
fn a_file_larger_than_can_be_moved_is_reported_and_the_rest_arrives() {
    let pair = Pair::new();
    write(pair.to.path(), "dir/extraneous", b"stays, for the listing is not complete");
    write(pair.from.path(), "dir/a", b"a");
    let huge = fs::File::create(pair.from.path().join("dir/huge")).unwrap();
    huge.set_len((1 << 46) + 1).unwrap();
    write(pair.from.path(), "z", b"z");
    let outcome = pair.sync(delete());
    outcome.assert_problem(23, "dir/huge");
    assert_eq!(fs::read(pair.to.path().join("dir/a")).unwrap(), b"a");
    assert_eq!(fs::read(pair.to.path().join("z")).unwrap(), b"z");
    assert!(pair.to.path().join("dir/extraneous").exists());
}

#[test]
fn a_symbolic_link_with_an_empty_target_is_reported_and_the_rest_arrives() {
    let Some(odd) = testkit::OddMount::new(testkit::Quirks::default()) else { return };
    let to = tempfile::tempdir_in("/dev/shm").unwrap();
    write(to.path(), "dir/extraneous", b"stays, for the listing is not complete");
    write(odd.path(), "dir/a", b"a");
    write(odd.path(), "z", b"z");
    std::os::unix::fs::symlink("target", odd.path().join("dir/empty")).unwrap();
    odd.set(|quirks| quirks.empty_targets = vec!["empty".into()]);
    let outcome = sync(odd.path(), to.path(), delete());
    outcome.assert_problem(23, "dir/empty");
    assert_eq!(fs::read(to.path().join("dir/a")).unwrap(), b"a");
    assert_eq!(fs::read(to.path().join("z")).unwrap(), b"z");
    assert!(to.path().join("dir/extraneous").exists());
}
