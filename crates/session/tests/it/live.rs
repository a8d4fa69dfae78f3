//! A source that changes while it is read: never a torn mix, and the rest arrives.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::support::*;

const LEN: usize = 3 << 20;

/// Runs `change` over and over while the pair is synced a few times, then once in peace.
fn while_changing(change: impl Fn(&Path, u64) + Send + Sync + 'static) {
    let pair = Pair::new();
    for name in ["a", "b", "c"] {
        write(pair.from.path(), &format!("live/{name}"), &noise(0, LEN));
    }
    for n in 0..30 {
        write(pair.from.path(), &format!("still/{n}"), &noise(n, 1000));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, root) = (Arc::clone(&stop), pair.from.path().join("live"));
    let changer = thread::spawn(move || {
        let mut round = 0;
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            thread::sleep(Duration::from_micros(300));
            change(&root, round);
        }
    });
    for _ in 0..4 {
        let outcome = pair.sync(delete());
        let code = outcome.summary().exit_code;
        assert!(matches!(code, 0 | 23 | 24), "{:?}", outcome.summary().problems);
        for n in 0..30 {
            let arrived = fs::read(pair.to.path().join(format!("still/{n}"))).unwrap();
            assert_eq!(arrived, noise(n, 1000));
        }
    }
    stop.store(true, Ordering::Relaxed);
    changer.join().unwrap();
    pair.converge_twice(delete());
}

#[test]
fn files_that_are_rewritten() {
    while_changing(|root, round| {
        for name in ["a", "b", "c"] {
            let file = fs::OpenOptions::new().write(true).open(root.join(name)).unwrap();
            let at = (round * 70_001) % (LEN as u64 - 10_000);
            file.write_all_at(&noise(round, 10_000), at).unwrap();
        }
    });
}

#[test]
fn files_that_grow_and_shrink() {
    while_changing(|root, round| {
        let mut file = fs::OpenOptions::new().append(true).open(root.join("a")).unwrap();
        if round % 500 == 0 {
            file.set_len(LEN as u64).unwrap();
        }
        file.write_all(&noise(round, 5000)).unwrap();
        let file = fs::OpenOptions::new().write(true).open(root.join("b")).unwrap();
        file.set_len(round * 99_991 % (2 * LEN as u64)).unwrap();
    });
}

#[test]
fn files_that_come_and_go_and_change_their_kind() {
    while_changing(|root, round| {
        let path = root.join("a");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        match round % 4 {
            0 => write(root, "a", &noise(round, LEN)),
            1 => write(root, "a/inner", b"a directory now"),
            2 => {
                let mode = rustix::fs::Mode::RUSR;
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
            }
            _ => std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
        }
        write(root, "small", &noise(round, 2000));
    });
}
