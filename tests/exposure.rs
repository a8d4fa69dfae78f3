//! While a run goes on, and after it was stopped, nobody may do more than before the run or than at the source.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use testkit::{Content, Process, TempTree, skip};

use crate::support::{copy, copy_command};

/// A large file, equal at both ends but for a few pages.
fn patched(source: &TempTree, destination: &TempTree) {
    for tree in [source, destination] {
        tree.file("d/large", Content::random(1, 8 << 20)).mtime("d/large", 1000, 0);
    }
    for page in 0..200 {
        source.patch("d/large", 40_960 * page, &[page as u8 ^ 0x55; 4096]);
    }
}

/// How a run is ended before its end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Signal,
    Kill,
    Regular,
}

/// Runs slowly, has `look` judge the destination all the time, and once more when the run has ended by `end`.
fn watched(source: &TempTree, destination: &TempTree, end: End, look: impl Fn() -> bool) {
    let rate = if end == End::Regular { "2M" } else { "400K" };
    let options = ["--bwlimit", rate];
    let mut process = Process::start(copy_command(source.path(), destination.path(), &options));
    let mut begun = 0;
    while process.is_running() && begun < 20 {
        // Some time after the first content came.
        begun += usize::from(look() && end != End::Regular);
        thread::sleep(Duration::from_millis(2));
    }
    match end {
        End::Signal => process.terminate(),
        End::Kill => process.kill(),
        End::Regular => {}
    }
    let finished = process.wait();
    if end == End::Regular {
        finished.expect(0);
    }
    assert!(look(), "something was written");
}

#[test]
fn a_file_patched_in_place_is_never_more_open_than_its_source() {
    if !(skip::root() && skip::commands(&["setfacl"])) {
        return;
    }
    type Prepare = fn(&TempTree, &TempTree);
    // What differs, and the bits that nobody but root may have while the file is patched.
    let cases: [(&str, Prepare, u32); 5] = [
        ("mode", |s, d| _ = (s.mode("d/large", 0o600), d.mode("d/large", 0o644)), 0o077),
        ("set-id", |s, d| _ = (s.mode("d/large", 0o755), d.mode("d/large", 0o6755)), 0o6000),
        ("owner", |s, _| _ = s.owner("d/large", 1234, 0).mode("d/large", 0o644), 0o077),
        ("group", |s, _| _ = s.owner("d/large", 0, 1234).mode("d/large", 0o644), 0o077),
        ("acl", |_, d| _ = d.mode("d/large", 0o644).acl("d/large", "u:1234:rw"), 0o077),
    ];
    for (what, prepare, forbidden) in cases {
        for end in [End::Signal, End::Kill, End::Regular] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            patched(&source, &destination);
            prepare(&source, &destination);
            let file = fs::File::open(destination.at("d/large")).unwrap();
            let old = fs::read(destination.at("d/large")).unwrap();
            watched(&source, &destination, end, || {
                let mut now = vec![0; old.len()];
                file.read_exact_at(&mut now, 0).unwrap();
                let meta = file.metadata().unwrap();
                let whole = meta.mtime() == source.at("d/large").metadata().unwrap().mtime();
                let changed = now != old;
                assert!(
                    !changed || whole || meta.mode() & forbidden == 0,
                    "{what} {end:?}: {:o} {}:{} with new content",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                );
                changed
            });
            copy(source.path(), destination.path(), &[]).expect(0);
            testkit::assert_same(source.path(), destination.path());
        }
    }
}

#[test]
fn an_owner_who_loses_a_file_cannot_read_what_is_patched_into_it() {
    if !skip::root() {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    patched(&source, &destination);
    source.owner("d/large", 1234, 1234).mode("d/large", 0o600);
    destination.owner("d/large", 4321, 4321).mode("d/large", 0o600);
    let old = fs::read(destination.at("d/large")).unwrap();
    let path = destination.at("d/large");
    watched(&source, &destination, End::Kill, || {
        let meta = fs::metadata(&path).unwrap();
        let changed = fs::read(&path).unwrap() != old;
        assert!(!changed || meta.uid() == 0, "owner {} sees new content", meta.uid());
        changed
    });
    copy(source.path(), destination.path(), &[]).expect(0);
    testkit::assert_same(source.path(), destination.path());
}

#[test]
fn a_directory_is_closed_before_content_comes_into_it() {
    closed_before_content("d");
}

#[test]
fn the_root_of_a_volume_is_closed_before_content_comes_into_it() {
    closed_before_content("");
}

fn closed_before_content(path: &str) {
    if !(skip::root() && skip::commands(&["setfacl"])) {
        return;
    }
    type Prepare = fn(&TempTree, &TempTree, &str);
    let cases: [(&str, Prepare); 4] = [
        ("mode", |s, d, at| _ = (s.mode(at, 0o700), d.mode(at, 0o755))),
        ("owner", |s, d, at| _ = (s.owner(at, 1234, 1234).mode(at, 0o755), d.owner(at, 5, 5))),
        ("group", |s, d, at| _ = (s.owner(at, 0, 1234).mode(at, 0o750), d.mode(at, 0o750))),
        ("acl", |_, d, at| _ = d.mode(at, 0o750).acl(at, "u:1234:rwx")),
    ];
    for (what, prepare) in cases {
        for end in [End::Signal, End::Kill, End::Regular] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            destination.dir(path).mode(path, 0o755);
            let at = Path::new(path);
            for number in 0..100 {
                source.file(at.join(format!("{number:03}")), Content::random(number, 20_000));
            }
            source.dir(path).mode(path, 0o755);
            prepare(&source, &destination, path);
            let is_content = |entry: &io::Result<fs::DirEntry>| {
                entry.as_ref().is_ok_and(|entry| entry.file_name().len() == 3)
            };
            watched(&source, &destination, end, || {
                let dir = fs::metadata(destination.at(path)).unwrap();
                let content = fs::read_dir(destination.at(path)).unwrap().filter(is_content);
                let count = content.count();
                let again = fs::metadata(destination.at(path)).unwrap();
                let unchanged = (dir.mode(), dir.uid()) == (again.mode(), again.uid());
                if (1..100).contains(&count) && unchanged {
                    assert_eq!(dir.mode() & 0o077, 0, "{what} {end:?}: {:o}", dir.mode());
                    assert_eq!(dir.uid(), 0, "{what} {end:?}");
                }
                count > 0
            });
            copy(source.path(), destination.path(), &[]).expect(0);
            testkit::assert_same(source.path(), destination.path());
        }
    }
}

#[test]
fn a_dry_run_narrows_nothing() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    patched(&source, &destination);
    source.mode("d/large", 0o600).mode("d", 0o700);
    let before = testkit::Snapshot::of(destination.path());
    copy(source.path(), destination.path(), &["--dry-run"]).expect(0);
    copy(source.path(), destination.path(), &["--dry-run", "--checksum"]).expect(0);
    crate::support::assert_untouched(&before, destination.path());
}

/// Reads as an ordinary user would.
#[test]
fn a_mode_is_narrowed_before_the_owner_changes() {
    if !(skip::root() && skip::commands(&["strace"])) {
        return;
    }
    let (source, destination) = (TempTree::new(), TempTree::new());
    for tree in [&source, &destination] {
        tree.file("f", "same").mtime("f", 1000, 0);
    }
    source.owner("f", 1, 1).mode("f", 0o604);
    destination.owner("f", 2, 2).mode("f", 0o660);
    let log = source.path().parent().unwrap().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=chmod,fchmod,fchmodat,fchownat,fchown", "-o"]).arg(&log);
    let run = copy_command(source.path(), destination.path(), &[]);
    strace.arg(run.get_program()).args(run.get_args());
    Process::run(strace).expect(0);
    let calls = fs::read_to_string(log).unwrap();
    let owner = calls.lines().position(|line| line.contains("chown") && line.contains(" 1, 1"));
    let narrow = calls.lines().position(|line| line.contains("chmod") && line.contains("0600"));
    assert!(narrow.is_some() && narrow < owner, "{calls}");
    let mode = fs::metadata(destination.at("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o604);
}
