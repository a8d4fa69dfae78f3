//! Block devices as targets, on loop devices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use rustix::io::Errno;
use tempfile::TempDir;
use volume::target_device::TargetDevice;

use super::support::*;

const SIZE: u64 = 1 << 20;

/// A loop device over a file full of ones.
struct Loop {
    device: PathBuf,
    image: PathBuf,
    _temp: TempDir,
}

impl Loop {
    fn new() -> Option<Self> {
        let temp = TempDir::new_in("/tmp").unwrap();
        let image = temp.path().join("image");
        fs::write(&image, vec![1; SIZE as usize]).unwrap();
        let output =
            Command::new("losetup").args(["--find", "--show"]).arg(&image).output().ok()?;
        if !output.status.success() {
            skip("no loop device");
            return None;
        }
        let device = String::from_utf8(output.stdout).unwrap().trim().into();
        Some(Self { device, image, _temp: temp })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(&["losetup", "--detach", self.device.to_str().unwrap()]);
    }
}

fn errno(path: &Path) -> Option<Errno> {
    TargetDevice::open(path).err().map(|error| error.errno)
}

#[test]
fn only_a_block_device_that_nobody_uses_is_opened() {
    let Some(target) = Loop::new() else { return };
    assert_eq!(errno(&target.image), Some(Errno::NOTBLK));
    assert_eq!(errno(Path::new("/dev/null")), Some(Errno::NOTBLK));
    assert_eq!(errno(Path::new("/dev/none")), Some(Errno::NOENT));

    let open = TargetDevice::open(&target.device).unwrap();
    assert_eq!(open.size(), SIZE);
    assert_eq!(errno(&target.device), Some(Errno::BUSY), "another transfer");
    drop(open);
    assert_eq!(errno(&target.device), None);

    if let Some(mounted) = Scratch::image("ext4") {
        let output = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&mounted.path).output();
        let device = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(errno(Path::new(device.trim())), Some(Errno::BUSY), "{device}");
    }
}

#[test]
fn nothing_is_written_beyond_the_end() {
    let Some(target) = Loop::new() else { return };
    let device = TargetDevice::open(&target.device).unwrap();
    let errno = |result: volume::Result<()>| result.unwrap_err().errno;
    assert_eq!(errno(device.write_at(SIZE - 1, b"xy")), Errno::NOSPC);
    assert_eq!(errno(device.zero_range(SIZE - 1, 2)), Errno::NOSPC);
    assert_eq!(errno(device.zero_range(u64::MAX, 2)), Errno::NOSPC);
    assert_eq!(errno(device.zero_range(SIZE - 5000, 6000)), Errno::NOSPC);
    let mut buffer = [0; 10];
    assert_eq!(device.read_at(SIZE - 4, &mut buffer).unwrap(), 4);
    // A range that does not fit is not begun either; a write is, as the kernel has it.
    let mut content = vec![0; SIZE as usize];
    device.read_at(0, &mut content).unwrap();
    assert!(content[..SIZE as usize - 1].iter().all(|&byte| byte == 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn content_is_what_was_written(
        steps in prop::collection::vec((any::<bool>(), 0..SIZE, 0..300_000_u64), 1..8),
    ) {
        let Some(target) = Loop::new() else { return Ok(()) };
        let device = TargetDevice::open(&target.device).unwrap();
        let mut expected = vec![1; SIZE as usize];
        for (i, (zero, offset, len)) in steps.into_iter().enumerate() {
            let len = len.min(SIZE - offset);
            let byte = if zero { 0 } else { i as u8 + 2 };
            expected[offset as usize..][..len as usize].fill(byte);
            if zero {
                device.zero_range(offset, len).unwrap();
            } else {
                device.write_at(offset, &vec![byte; len as usize]).unwrap();
            }
        }
        let mut read = vec![0; SIZE as usize];
        prop_assert_eq!(device.read_at(0, &mut read).unwrap(), SIZE as usize);
        prop_assert!(read == expected);
        device.flush().unwrap();
        prop_assert!(fs::read(&target.image).unwrap() == expected);
    }
}
