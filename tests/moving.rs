//! Trees that change under the run: by their owner, or by an enemy.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    path::Path,
    thread,
};

use testkit::{
    Content, Finished, Mount, OddMount, Process, Quirks, Snapshot, TempTree, assert_same,
};

use crate::support::{assert_untouched, copy, copy_command, during, report};

#[track_caller]
fn no_success_or_true(finished: &Finished, source: &Path, destination: &Path) {
    match finished.code() {
        0 => assert_same(source, destination),
        code => assert!([23, 24].contains(&code), "{code}: {}", finished.stderr),
    }
}

#[test]
fn with_verify_a_source_that_changes_is_exit_code_24_and_leaves_no_doubt_at_the_destination() {
    let source = TempTree::new();
    source.file("f", Content::random(1, 8 << 20)).file("g", "text");
    let file = fs::File::open(source.at("f")).unwrap();
    let mut time = 0;
    let mut changed = 0;
    for _ in 0..20 {
        let destination = TempTree::new();
        let finished = during(
            || {
                time += 1;
                let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
                file.set_modified(then).unwrap();
                thread::sleep(std::time::Duration::from_millis(3));
            },
            || copy(source.path(), destination.path(), &["--verify", "--progress", "none"]),
        );
        assert!(!finished.stderr.contains("os error 11"), "{}", finished.stderr);
        // A change between both readings shows in the digests alone.
        if !finished.stderr.contains("the digests of source and destination differ") {
            assert!([0, 24].contains(&finished.code()), "{}", finished.stderr);
        }
        changed += usize::from(finished.code() == 24);
    }
    assert!(changed > 0, "no change was met");
}

/// The sandbox judges a directory by where it is now, so that what was moved out of the source is out of reach.
#[test]
fn a_directory_that_is_moved_out_of_the_source_has_changed_like_one_that_is_removed() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for number in 0..10 {
        source.file(format!("s/a/{number}"), Content::random(number, 3 << 20));
        source.file(format!("s/keep/{number}"), Content::random(number, 1 << 20));
        source.file(format!("s/keep/below/{number}"), Content::random(number, 1 << 20));
    }
    let options = ["--progress", "none", "--bwlimit", "20M", "--delete"];
    let running = Process::start(copy_command(&source.at("s"), destination.path(), &options));
    while !destination.at("a/0").exists() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    source.rename("s/keep", "elsewhere");
    let finished = running.wait();
    assert!([0, 24].contains(&finished.code()), "{}: {}", finished.code(), finished.stderr);
    assert!(!finished.stderr.contains("Permission denied"), "{}", finished.stderr);
}

/// Btrfs lists such a file under neither of its places where it is replaced at the wrong moment.
#[test]
fn files_that_are_replaced_by_rename_while_they_are_listed_are_not_deleted() {
    let Some(volume) = Mount::btrfs(256) else { return };
    let source = TempTree::below(volume.path());
    for index in 0..5000 {
        source.file(format!("f{index}"), "");
    }
    let hot: Vec<_> = (0..20).map(|number| format!("hot{number}")).collect();
    for name in &hot {
        source.file(name, "precious");
    }
    let (mut turn, mut clean) = (0, 0);
    for round in 0..12 {
        let destination = TempTree::new();
        for name in &hot {
            destination.file(name, "old");
        }
        let finished = during(
            || {
                turn += 1;
                fs::write(source.at(".new"), "precious").unwrap();
                fs::rename(source.at(".new"), source.at(&hot[turn % hot.len()])).unwrap();
                thread::sleep(std::time::Duration::from_millis(2 << (round % 4)));
            },
            || copy(source.path(), destination.path(), &["--delete", "--progress", "none"]),
        );
        assert!([0, 24].contains(&finished.code()), "{}", finished.stderr);
        for name in &hot {
            assert!(destination.at(name).exists(), "{round}: {name} is gone\n{}", finished.stderr);
        }
        clean += usize::from(finished.code() == 0);
    }
    println!("{clean} of 12 runs ended with 0");
}

/// What a log is that is rotated, or two files that are exchanged: a name leads to another file when it is read, and the one
/// that was listed stands under a name that is in no listing.
#[test]
fn a_file_that_is_another_one_when_it_is_read_than_when_it_was_listed_is_reported() {
    for (name, size) in [("small", 1000), ("large", 3 << 20)] {
        for again in [false, true] {
            let (source, destination) = (TempTree::new(), TempTree::new());
            source.file("0", Content::random(1, 12 << 20));
            source.file(format!("log/{name}"), Content::random(2, size));
            if again {
                copy(source.path(), destination.path(), &[]).expect(0);
                source.file("0", Content::random(3, 12 << 20));
                source.patch(format!("log/{name}"), 0, b"more");
            }
            let options = ["--delete", "--bwlimit", "4M", "--progress", "none"];
            let command = copy_command(source.path(), destination.path(), &options);
            let running = Process::start(command);
            thread::sleep(std::time::Duration::from_millis(700));
            source.rename(format!("log/{name}"), "log/rotated");
            source.file(format!("log/{name}"), "new");
            let finished = running.wait();
            let met = finished.stderr.contains("was replaced after it was listed");
            let arrived = fs::read(destination.at(format!("log/{name}"))).ok();
            let rotated = destination.at("log/rotated").exists();
            match finished.code() {
                24 => assert!(met, "{name}: {}", finished.stderr),
                // It was read before it was rotated.
                0 => assert!(rotated || arrived.unwrap() != b"new", "{name}: {}", finished.stderr),
                code => panic!("{name}: {code}: {}", finished.stderr),
            }
            println!("{name}, destination has it: {again}: exit code {}", finished.code());
        }
    }
}

/// Both are met between the listing of the root and the opening of `z`.
#[test]
fn a_directory_that_is_replaced_or_closed_after_it_was_listed_is_named_and_not_read() {
    for replaced in [true, false] {
        let Some(odd) = OddMount::new(Quirks::default()) else { return };
        let (source, destination) = (odd.path(), TempTree::new());
        for dir in ["m", "z", "secret"] {
            fs::create_dir(source.join(dir)).unwrap();
        }
        fs::write(source.join("z/f"), "public").unwrap();
        copy(source, destination.path(), &[]).expect(0);
        fs::write(source.join("secret/f"), "private").unwrap();
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(source.join("secret"), closed).unwrap();
        odd.set(|quirks| {
            if replaced {
                fn in_root(name: &str) -> (OsString, OsString) {
                    (OsString::new(), name.into())
                }
                quirks.moved_when_listed = Some(("m".into(), in_root("secret"), in_root("z")));
            } else {
                quirks.closed_when_listed = Some(("m".into(), "z".into()));
            }
        });
        let finished = copy(source, destination.path(), &["--delete"]);
        assert_eq!(finished.code(), 24, "{replaced}: {}", finished.stderr);
        let why = if replaced {
            "was replaced during the transfer"
        } else {
            "mode, owner or attributes changed"
        };
        assert!(finished.stderr.contains(why), "{replaced}: {}", finished.stderr);
        assert_eq!(fs::read(destination.at("z/f")).unwrap(), b"public", "{replaced}");
    }
}

/// A file system gives the number of a file that is gone to the next one.
#[test]
fn a_file_that_has_the_inode_number_of_another_does_not_get_its_content() {
    let Some(volume) = Mount::ext4(64) else { return };
    let source = TempTree::below(volume.path());
    let files = 300;
    for number in 0..files {
        source.file(format!("hl/{number}"), format!("{number} first").as_str());
        source.hard_link(format!("hl/{number}"), format!("zz/{number}"));
    }
    for number in 0..5000 {
        source.file(format!("mid/{number}"), "");
    }
    let mut turn = 0;
    for options in [&["--progress", "none"][..], &["--progress", "none", "--atomic"]] {
        let destination = TempTree::new();
        copy(source.path(), destination.path(), options);
        let finished = during(
            || {
                turn += 7;
                let number = turn % files;
                fs::write(source.at("hl/.new"), format!("{number} turn {turn}")).unwrap();
                fs::rename(source.at("hl/.new"), source.at(format!("hl/{number}"))).unwrap();
                fs::hard_link(source.at(format!("hl/{number}")), source.at("zz/.new")).unwrap();
                fs::rename(source.at("zz/.new"), source.at(format!("zz/{number}"))).unwrap();
            },
            || copy(source.path(), destination.path(), options),
        );
        assert!([0, 23, 24].contains(&finished.code()), "{}", finished.stderr);
        for (dir, number) in (0..files).flat_map(|number| [("hl", number), ("zz", number)]) {
            let content = fs::read_to_string(destination.at(format!("{dir}/{number}"))).unwrap();
            let own = content.split(' ').next();
            assert_eq!(own, Some(&*number.to_string()), "{dir}/{number}: {}", finished.stderr);
        }
    }
}

#[test]
fn files_that_change_while_they_are_read() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    let path = source.at("m/changing");
    for index in 0..300 {
        source.file(format!("a/{index}"), Content::random(index, 4000));
        source.file(format!("z/{index}"), Content::random(index, 4000));
    }
    let contents = [Content::random(1, 3 << 20), Content::random(2, 3 << 20)];
    source.file("m/changing", contents[0].clone());
    let mut turn = 0_usize;
    let finished = during(
        || {
            turn += 1;
            match turn % 5 {
                0 => fs::write(&path, contents[turn % 2].bytes()).unwrap(),
                1 => fs::File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap(),
                2 => fs::write(&path, Content::random(3, 5 << 20).bytes()).unwrap(),
                3 => {
                    fs::remove_file(&path).unwrap();
                    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
                }
                _ => {
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, contents[0].bytes()).unwrap();
                }
            }
        },
        || copy(source.path(), destination.path(), &["--timeout", "20"]),
    );
    assert!([0, 23, 24].contains(&finished.code()), "{}", finished.stderr);
    // What did not change has arrived, also what comes after.
    let (left, right) = (Snapshot::of(source.path()), Snapshot::of(destination.path()));
    for (path, node) in left.0.iter().filter(|(path, _)| !path.starts_with("m")) {
        assert_eq!(node.content, right.node(path).content, "{path:?}");
    }
    // At rest the next run makes it exact.
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn a_hard_linked_file_that_is_written_to_ends_with_24_and_all_others_arrive() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    for index in 0..100 {
        source.file(format!("still/{index}"), Content::random(index, 4000));
    }
    source.file("d/first", Content::random(1, 8 << 20)).hard_link("d/first", "e/second");
    source.hard_link("d/first", "third");
    let names = ["d/first", "e/second", "third"];
    let path = source.at("d/first");
    let mut turn = 0_u64;
    let told = during(
        || {
            turn += 1;
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[7; 64], turn * 4096 % (8 << 20)).unwrap();
        },
        || {
            let runs = (0..50).map(|_| copy(source.path(), destination.path(), &[]));
            runs.map(|run| (run.code(), report(&run))).find(|(code, _)| *code != 0)
        },
    );
    let (code, told) = told.expect("fifty runs were quicker than the writer");
    assert_eq!((code, &told["retryable"]), (24, &true.into()), "{told}");
    let errors = told["errors"].as_array().unwrap();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(names.contains(&error["name"].as_str().unwrap()), "{told}");
    }
    assert_same(&source.at("still"), &destination.at("still"));
    copy(source.path(), destination.path(), &[]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn entries_that_come_and_go() {
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 200);
    let mut turn = 0_u64;
    let finished = during(
        || {
            turn += 1;
            let dir = source.at(format!("moving {}", turn % 3));
            if dir.exists() {
                fs::remove_dir_all(&dir).unwrap();
            } else {
                fs::create_dir(&dir).unwrap();
                for index in 0..20 {
                    fs::write(dir.join(index.to_string()), "text").unwrap();
                }
            }
        },
        || copy(source.path(), destination.path(), &["--delete"]),
    );
    assert!([0, 23, 24].contains(&finished.code()), "{}", finished.stderr);
    copy(source.path(), destination.path(), &["--delete"]).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn nothing_outside_is_touched_where_the_destination_flips_to_symlinks() {
    let outside = TempTree::new();
    outside.populate(5, 50).file("d/f0", "precious").file("f0", "precious");
    let before = Snapshot::of(outside.path());
    for round in 0..6 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for index in 0..60 {
            source.file(format!("d/d/f{index}"), Content::random(index + round, 3000));
            destination.file(format!("d/d/f{index}"), "old");
            destination.file(format!("d/d/extraneous {index}"), "old");
        }
        source.dir("d/d/new/er");
        let (dir, aside) = (destination.at("d"), destination.path().with_file_name("aside"));
        let finished = during(
            || {
                // The directory goes aside and a link to the outside takes its place, and back again.
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(outside.path(), &dir);
                    thread::yield_now();
                    if dir.is_symlink() {
                        let _ = fs::remove_file(&dir);
                    }
                    let _ = fs::rename(&aside, &dir);
                }
            },
            || {
                let command = copy_command(source.path(), destination.path(), &["--delete"]);
                Process::run(command)
            },
        );
        // Who wins is open; that the run ends, and where it wrote, is not.
        let _ = finished.code();
        assert_untouched(&before, outside.path());
    }
}

#[test]
fn nothing_outside_is_read_where_the_source_flips_to_symlinks() {
    let outside = TempTree::new();
    outside.file("secret", "not to be read").dir("d/deep");
    for _ in 0..6 {
        let (source, destination) = (TempTree::new(), TempTree::new());
        for index in 0..60 {
            source.file(format!("d/f{index}"), Content::random(index, 3000));
        }
        let (dir, aside) = (source.at("d"), source.path().with_file_name("aside"));
        let finished = during(
            || {
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(outside.path(), &dir);
                    thread::yield_now();
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                }
            },
            || copy(source.path(), destination.path(), &[]),
        );
        let _ = finished.code();
        assert!(!destination.at("d/secret").exists() || destination.at("d").is_symlink());
        for path in Snapshot::of(destination.path()).paths() {
            assert!(!path.ends_with("secret") && !path.ends_with("deep"), "{path:?}");
        }
    }
}

#[test]
fn a_symlink_where_a_directory_belongs_is_replaced_and_never_followed() {
    let (source, destination, outside) = (TempTree::new(), TempTree::new(), TempTree::new());
    outside.file("f", "precious").dir("sub");
    let before = Snapshot::of(outside.path());
    source.file("d/f", "new").file("e/sub/g", "new");
    destination.symlink("d", outside.path().to_str().unwrap());
    destination.dir("e").symlink("e/sub", outside.path().to_str().unwrap());
    let finished = copy(source.path(), destination.path(), &["--delete"]);
    no_success_or_true(&finished, source.path(), destination.path());
    finished.expect(0);
    assert_untouched(&before, outside.path());
}
