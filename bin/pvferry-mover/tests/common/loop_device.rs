//! Loop devices.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::{Content, TempTree, skip};

/// A loop device over a file of its own, detached when dropped.
pub(crate) struct Loop {
    device: PathBuf,
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

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    /// What has reached the file below the device.
    pub(crate) fn content(&self) -> Vec<u8> {
        File::options().write(true).open(&self.device).unwrap().sync_all().unwrap();
        fs::read(&self.image).unwrap()
    }

    /// The file below the device.
    #[allow(dead_code, reason = "not every test damages a device")]
    pub(crate) fn image(&self) -> File {
        File::options().write(true).open(&self.image).unwrap()
    }

    /// Cuts the file below the device, so that reads beyond `len` fail.
    #[allow(dead_code, reason = "not every test damages a device")]
    pub(crate) fn cut(&self, len: u64) {
        self.image().set_len(len).unwrap();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}
