//! A small file system of a given kind, mounted for one test.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::ioctl_ficlone;

use tempfile::TempDir;

use crate::skip;

/// A mounted file system; unmounted, with its loop device, when dropped.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    /// How a copy of the image is mounted beside it.
    beside: &'static str,
    /// Holds the image and the mount point; dropped after the file system is unmounted.
    dir: TempDir,
}

/// The file that a file system lies in.
const IMAGE: &str = "image";

impl Mount {
    /// An ext4 of `mebibytes`.
    #[must_use]
    pub fn ext4(mebibytes: u64) -> Option<Self> {
        Self::image(mebibytes, &["mkfs.ext4", "-q", "-F"])
    }

    /// An ext4 of `mebibytes` whose image lies in `dir`, and takes room there as it is written to.
    #[must_use]
    pub fn ext4_on(dir: &Path, mebibytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir_in(dir).unwrap();
        Self::image_in(dir, mebibytes, &["mkfs.ext4", "-q", "-F"])
    }

    /// An ext2 of `mebibytes` with blocks of 1 KiB, where no file is larger than 16 GiB.
    #[must_use]
    pub fn ext2(mebibytes: u64) -> Option<Self> {
        Self::image(mebibytes, &["mkfs.ext2", "-q", "-F", "-b", "1024"])
    }

    /// An ext4 of `mebibytes` with small inodes: times in whole seconds, and no time of birth.
    #[must_use]
    pub fn ext4_small_inodes(mebibytes: u64) -> Option<Self> {
        Self::image(mebibytes, &["mkfs.ext4", "-q", "-F", "-I", "128"])
    }

    /// An ext4 of `mebibytes`, whose directories can be told to ignore case (`chattr +F`).
    #[must_use]
    pub fn ext4_casefold(mebibytes: u64) -> Option<Self> {
        if !Path::new("/sys/fs/ext4/features/casefold").exists() {
            skip::unsupported("this kernel's ext4 folds no case");
            return None;
        }
        Self::image(mebibytes, &["mkfs.ext4", "-q", "-F", "-O", "casefold"])
    }

    /// An XFS with reflinks; no less than 300 MiB.
    #[must_use]
    pub fn xfs(mebibytes: u64) -> Option<Self> {
        Self::xfs_below(&env::temp_dir(), mebibytes)
    }

    /// The same with its image below `parent`, such as the root of another mount.
    #[must_use]
    pub fn xfs_below(parent: &Path, mebibytes: u64) -> Option<Self> {
        let mut mount = Self::image_below(parent, mebibytes, &["mkfs.xfs", "-q", "-f"])?;
        // The two have the same UUID, which XFS does not like.
        mount.beside = "loop,nouuid";
        Some(mount)
    }

    /// An ext4 of `mebibytes` with its image below `parent`.
    #[must_use]
    pub fn ext4_below(parent: &Path, mebibytes: u64) -> Option<Self> {
        Self::image_below(parent, mebibytes, &["mkfs.ext4", "-q", "-F"])
    }

    /// A btrfs; no less than 110 MiB.
    #[must_use]
    pub fn btrfs(mebibytes: u64) -> Option<Self> {
        Self::image(mebibytes, &["mkfs.btrfs", "-q", "-f"])
    }

    /// The same with its image below `parent`.
    #[must_use]
    pub fn btrfs_below(parent: &Path, mebibytes: u64) -> Option<Self> {
        Self::image_below(parent, mebibytes, &["mkfs.btrfs", "-q", "-f"])
    }

    /// An exFAT of `mebibytes` in user space: it sets no modification time without the time of access, and a file that
    /// is removed while it is open keeps a hidden name.
    #[must_use]
    pub fn exfat(mebibytes: u64) -> Option<Self> {
        if !(skip::root() && skip::commands(&["mkfs.exfat", "mount.exfat-fuse"])) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join(IMAGE);
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let made = Command::new("mkfs.exfat").arg(&image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::attach(dir, &["-t", "exfat-fuse", "-o", "loop", image.to_str().unwrap()])
    }

    /// An EROFS with what lies in `tree`.
    #[must_use]
    pub fn erofs(tree: &Path) -> Option<Self> {
        if !(skip::root() && skip::commands(&["mkfs.erofs"])) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join(IMAGE);
        let made = Command::new("mkfs.erofs").arg(&image).arg(tree).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::attach(dir, &["-t", "erofs", "-o", "loop,ro", image.to_str().unwrap()])
    }

    /// A tmpfs with these options, such as `size=1m,nr_inodes=100`.
    #[must_use]
    pub fn tmpfs(options: &str) -> Option<Self> {
        Self::attach(tempfile::tempdir().unwrap(), &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// A ramfs, which keeps no ACLs.
    #[must_use]
    pub fn ramfs() -> Option<Self> {
        Self::attach(tempfile::tempdir().unwrap(), &["-t", "ramfs", "ramfs"])
    }

    /// An overlay over an empty lower directory, all of it on a tmpfs.
    #[must_use]
    pub fn overlay() -> Option<Overlay> {
        let base = Self::tmpfs("size=256m")?;
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(base.path().join(name)).unwrap();
        }
        let at = |name: &str| base.path().join(name).to_str().unwrap().to_owned();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let dir = tempfile::tempdir().unwrap();
        let mount = Self::attach(dir, &["-t", "overlay", "-o", &options, "overlay"])?;
        Some(Overlay { mount, _base: base })
    }

    /// The root of the file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Makes it read-only.
    pub fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.point).status();
        assert!(status.unwrap().success(), "cannot remount {}", self.point.display());
    }

    /// Cuts the power: takes what is on the disk at this moment, in one step. The image has to lie on a file system that
    /// shares data between files.
    #[must_use]
    pub fn cut_power(&self) -> Disk {
        let dir = tempfile::tempdir_in(self.dir.path().parent().unwrap()).unwrap();
        let image = File::open(self.dir.path().join(IMAGE)).unwrap();
        ioctl_ficlone(File::create(dir.path().join(IMAGE)).unwrap(), image).unwrap();
        Disk { dir, options: self.beside }
    }

    /// Has an ext4 give up its journal, as after an error of its device: it cannot be written to any more.
    pub fn abort(&self) {
        let mut mount = Command::new("mount");
        let _ = mount.args(["-o", "remount,abort"]).arg(&self.point).output().unwrap();
    }

    /// Unmounts an ext4, has it checked, and mounts it again.
    pub fn repair(&mut self) {
        let run = |program: &str, arguments: &[&OsStr]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (image, point) = (self.dir.path().join(IMAGE), self.point.as_os_str());
        assert_eq!(run("umount", &[point]), (0, String::new()));
        let (code, told) = run("e2fsck", &["-fy".as_ref(), image.as_os_str()]);
        assert!(code < 4, "{code}: {told}");
        assert_eq!(run("mount", &["-oloop".as_ref(), image.as_os_str(), point]).0, 0);
    }

    fn image(mebibytes: u64, make: &[&str]) -> Option<Self> {
        Self::image_below(&env::temp_dir(), mebibytes, make)
    }

    fn image_below(parent: &Path, mebibytes: u64, make: &[&str]) -> Option<Self> {
        Self::image_in(tempfile::tempdir_in(parent).unwrap(), mebibytes, make)
    }

    fn image_in(dir: TempDir, mebibytes: u64, make: &[&str]) -> Option<Self> {
        if !skip::commands(&make[..1]) {
            return None;
        }
        let image = dir.path().join(IMAGE);
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let made = Command::new(make[0]).args(&make[1..]).arg(&image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::attach(dir, &["-o", "loop", image.to_str().unwrap()])
    }

    /// Mounts by the arguments, to which the mount point in `dir` is added.
    fn attach(dir: TempDir, arguments: &[&str]) -> Option<Self> {
        if !skip::root() {
            return None;
        }
        let point = dir.path().join("root");
        std::fs::create_dir(&point).unwrap();
        let output = Command::new("mount").args(arguments).arg(&point).output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            skip::skip(&format!("mount {}: {}", arguments.join(" "), why.trim()));
            return None;
        }
        Some(Self { point, beside: "loop", dir })
    }
}

/// What was on a disk when the power was cut.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    options: &'static str,
}

impl Disk {
    /// The file system on it, as the machine finds it that is started again.
    #[must_use]
    pub fn mount(self) -> Option<Mount> {
        let image = self.dir.path().join(IMAGE);
        Mount::attach(self.dir, &["-o", self.options, image.to_str().unwrap()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A process of a failed test may still be in there; then it goes when that process does.
        for arguments in [&[][..], &["--lazy"]] {
            let mut umount = Command::new("umount");
            umount.args(arguments).arg(&self.point).stderr(Stdio::null());
            if umount.status().is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

/// A mounted overlay, with the file system that its layers are on.
#[derive(Debug)]
pub struct Overlay {
    mount: Mount,
    _base: Mount,
}

impl Overlay {
    /// The root of the merged tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mount.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(path: &Path) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
    }

    #[test]
    fn comes_and_goes() {
        for mount in [Mount::tmpfs("size=1m"), Mount::ext4(16), Mount::xfs(300), Mount::btrfs(128)]
        {
            let Some(mount) = mount else { return };
            let path = mount.path().to_owned();
            assert!(mounted(&path));
            std::fs::write(path.join("file"), "text").unwrap();
            drop(mount);
            assert!(!mounted(&path));
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_power_cut_takes_what_was_not_flushed() {
        let Some(host) = Mount::xfs(1024) else { return };
        for disk in [Mount::xfs_below(host.path(), 320), Mount::ext4_below(host.path(), 64)] {
            let disk = disk.unwrap();
            let write = |name: &str| {
                let mut file = File::create(disk.path().join(name)).unwrap();
                std::io::Write::write_all(&mut file, b"text").unwrap();
                file
            };
            write("kept").sync_all().unwrap();
            let _lost = write("lost");
            let cut = disk.cut_power().mount().unwrap();
            let read = |name: &str| std::fs::read_to_string(cut.path().join(name)).ok();
            assert_eq!(read("kept").as_deref(), Some("text"));
            assert_ne!(read("lost").as_deref(), Some("text"));
        }
    }

    #[test]
    fn overlay() {
        let Some(overlay) = Mount::overlay() else { return };
        std::fs::write(overlay.path().join("file"), "text").unwrap();
        let path = overlay.path().to_owned();
        drop(overlay);
        assert!(!mounted(&path));
    }
}
