//! Volumes as raw block devices.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
};

use testkit::{Content, Process, TempTree, skip};

use crate::support::{assert_explains, copy, pvferry, report};

/// A loop device over a file of its own, detached when dropped.
pub(crate) struct Loop {
    pub(crate) device: PathBuf,
    image: PathBuf,
    _dir: TempTree,
}

impl Loop {
    pub(crate) fn new(content: &Content) -> Option<Self> {
        if !(skip::root() && skip::commands(&["losetup"])) {
            return None;
        }
        let dir = TempTree::new();
        dir.file("image", content.clone());
        let image = dir.at("image");
        let output =
            Command::new("losetup").args(["--find", "--show"]).arg(&image).output().unwrap();
        if !output.status.success() {
            skip::skip(&format!("losetup: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        let device = String::from_utf8(output.stdout).unwrap().trim().into();
        Some(Self { device, image, _dir: dir })
    }

    /// What has reached the file below the device.
    pub(crate) fn content(&self) -> Vec<u8> {
        let device = File::options().read(true).write(true).open(&self.device).unwrap();
        rustix::fs::fsync(&device).unwrap();
        fs::read(&self.image).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

const SIZE: usize = 24 << 20;

#[test]
fn to_an_equal_and_to_a_larger_device() {
    let content = Content::random(1, SIZE).overwrite(4 << 20, &[0; 1 << 20]);
    let tail = vec![7; 1 << 20];
    let larger = Content::random(2, SIZE).overwrite(SIZE, &tail);
    let (Some(from), Some(to), Some(large)) =
        (Loop::new(&content), Loop::new(&Content::random(3, SIZE)), Loop::new(&larger))
    else {
        return;
    };
    for target in [&to, &large] {
        copy(&from.device, &target.device, &["--verify"]).expect(0);
        assert_eq!(&target.content()[..SIZE], content.bytes());
    }
    assert_eq!(&large.content()[SIZE..], tail, "what lies beyond the source is not its business");

    // The second run finds all of it there, and a changed page costs about itself.
    let file = File::options().write(true).open(&from.device).unwrap();
    file.write_all_at(&Content::random(9, 8192).bytes()[..8192], 8 << 20).unwrap();
    rustix::fs::fsync(&file).unwrap();
    drop(file);
    let report = report(copy(&from.device, &to.device, &["--compress", "never"]).expect(0));
    assert!(report["bytes_literal"].as_u64().unwrap() <= 128 << 10, "{report}");
    assert_eq!(to.content(), from.content());
}

/// There is no place to build a device anew: content that has moved is content that differs.
#[test]
fn content_that_moved_within_a_device() {
    let old = Content::random(1, SIZE);
    let moved = [&vec![7; 1 << 20][..], &old.bytes()[..SIZE - (1 << 20)]].concat();
    let (Some(from), Some(to)) = (Loop::new(&Content::from(moved)), Loop::new(&old)) else {
        return;
    };
    copy(&from.device, &to.device, &["--verify"]).expect(0);
    assert_eq!(to.content(), from.content());
}

#[test]
fn a_smaller_device_is_refused_before_a_byte_is_written() {
    let old = Content::random(2, SIZE - 4096);
    let (Some(from), Some(to)) = (Loop::new(&Content::random(1, SIZE)), Loop::new(&old)) else {
        return;
    };
    let finished = copy(&from.device, &to.device, &[]);
    finished.expect(3);
    assert_explains(&finished, &[]);
    assert_eq!(to.content(), old.bytes());
}

#[test]
fn a_device_and_a_directory_do_not_go_together() {
    let old = Content::random(2, 1 << 20);
    let Some(device) = Loop::new(&old) else { return };
    let tree = TempTree::new();
    tree.file("f", "1");
    for (from, to) in [(&device.device, &tree.path().into()), (&tree.path().into(), &device.device)]
    {
        let finished = copy(from, to, &["--delete"]);
        finished.expect(3);
        assert_explains(&finished, &[]);
    }
    assert_eq!(device.content(), old.bytes());
    assert_eq!(fs::read_to_string(tree.at("f")).unwrap(), "1");
}

#[test]
fn digest_and_verify_of_devices() {
    let content = Content::random(1, 4 << 20);
    let (Some(a), Some(b)) = (Loop::new(&content), Loop::new(&content)) else { return };
    let verify = || {
        let mut command = pvferry(["verify"]);
        command.arg(&a.device).arg(&b.device);
        Process::run(command)
    };
    verify().expect(0);
    File::options().write(true).open(&b.device).unwrap().write_all_at(b"#", 3 << 20).unwrap();
    let finished = verify();
    finished.expect(23);
    assert!(!finished.stdout.is_empty());
}
