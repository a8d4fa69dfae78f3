//! Landlock: which files can be opened from now on, and which TCP ports used.
//!
//! A rule holds on to the inode that a path leads to now, and covers what lies below it. What cannot be opened is not
//! allowed: a path that appears later stays closed. Held descriptors stay as they are, and what takes no opening (`stat`,
//! `chmod`, extended attributes, Unix sockets) is not Landlock's business.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};

use crate::Access;

/// The newest version whose restrictions are known and tested. Newer kernels enforce these and no more.
const TESTED: ABI = ABI::V6;

/// What stays allowed.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    files: Vec<(PathBuf, BitFlags<AccessFs>)>,
    pub(crate) connect: Ports,
    pub(crate) bind: Ports,
}

/// TCP ports that stay usable, where they are limited at all.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) limited: bool,
    pub(crate) ports: Vec<u16>,
}

impl Rules {
    /// Allows `access` to what lies at `path` now, and below it.
    pub(crate) fn allow(&mut self, path: impl AsRef<Path>, access: Access) {
        self.files.push((path.as_ref().to_owned(), access.0));
    }

    /// Forbids everything else, as far as this kernel can; answers with whether it can at all, and with what holds, for the log.
    pub(crate) fn enforce(&self) -> (bool, String) {
        match self.restrict() {
            Ok((_, LandlockStatus::NotImplemented)) => {
                (false, "this kernel has no Landlock".into())
            }
            Ok((_, LandlockStatus::NotEnabled)) => {
                (false, "Landlock is disabled in this kernel".into())
            }
            Ok((status, LandlockStatus::Available { effective_abi, kernel_abi })) => {
                let version = kernel_abi.unwrap_or(effective_abi as i32);
                match status {
                    RulesetStatus::NotEnforced => {
                        let what = "forbids links between directories";
                        (false, format!("no Landlock: version {version} {what}"))
                    }
                    _ => (true, format!("Landlock {version}")),
                }
            }
            Err(error) => (false, format!("no Landlock: {error}")),
        }
    }

    fn restrict(&self) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
        // The first version of Landlock lets nothing be linked or renamed from one directory to another: better none.
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(TESTED))?
            .scope(Scope::from_all(TESTED))?;
        let tcp = [(&self.connect, AccessNet::ConnectTcp), (&self.bind, AccessNet::BindTcp)];
        for (_, access) in tcp.iter().filter(|(ports, _)| ports.limited) {
            rules = rules.handle_access(*access)?;
        }
        let mut rules = rules.create()?;
        for (path, access) in &self.files {
            rules = rules.add_rules(path_beneath_rules([path], *access))?;
        }
        for (ports, access) in tcp.iter().filter(|(ports, _)| ports.limited) {
            let ports = ports.ports.iter();
            let ports = ports.map(|port| Ok::<_, RulesetError>(NetPort::new(*port, *access)));
            rules = rules.add_rules(ports)?;
        }
        let status = rules.restrict_self()?;
        Ok((status.ruleset, status.landlock))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::ErrorKind,
        net::TcpStream,
        os::unix::fs::symlink,
        process::Command,
        thread,
    };

    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// Runs `work` on a thread of its own under `rules`. Skips it where this kernel has no Landlock, and fails where the
    /// kernel refuses the rules.
    fn under(rules: &Rules, work: impl FnOnce() + Send) {
        let thread = || match rules.restrict().expect("a ruleset that can be enforced") {
            (RulesetStatus::NotEnforced, status) => {
                testkit::skip::unsupported(&format!("Landlock: {status:?}"));
            }
            _ => work(),
        };
        thread::scope(|scope| scope.spawn(thread).join().unwrap());
    }

    #[track_caller]
    fn refused<T>(result: std::io::Result<T>) {
        let error = result.err().expect("it was allowed");
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::PermissionDenied | ErrorKind::CrossesDevices), "{error}");
    }

    /// Each of the two permissions that a change of `file` can need is missing by itself.
    #[track_caller]
    fn refused_to_write(file: &Path) {
        refused(File::options().write(true).open(file));
        let truncate = OFlags::RDONLY | OFlags::TRUNC;
        refused(rustix::fs::open(file, truncate, Mode::empty()).map_err(Into::into));
    }

    #[test]
    fn a_volume_is_open_and_what_lies_outside_is_not() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (volume, canary) = (dir.path(), outside.path().join("canary"));
        fs::write(&canary, "secret").unwrap();
        symlink(outside.path(), volume.join("link")).unwrap();
        let mut rules = Rules::default();
        rules.allow(volume, Access::WRITE_VOLUME);
        under(&rules, || {
            fs::create_dir_all(volume.join("a/b")).unwrap();
            fs::write(volume.join("a/f"), "text").unwrap();
            fs::write(volume.join("a/f"), "shorter").unwrap();
            fs::hard_link(volume.join("a/f"), volume.join("a/b/g")).unwrap();
            fs::rename(volume.join("a/b/g"), volume.join("g")).unwrap();
            fs::read_dir(volume).unwrap();
            fs::remove_dir_all(volume.join("a")).unwrap();

            refused(fs::read(&canary));
            refused(fs::write(&canary, "changed"));
            refused(fs::read(volume.join("link/canary")));
            refused(fs::write(volume.join("link/new"), "new"));
            refused(fs::read_dir(volume.join("link")));
            refused(fs::remove_file(&canary));
            refused(fs::rename(volume.join("g"), outside.path().join("g")));
            refused(fs::hard_link(&canary, volume.join("canary")));
            refused(fs::read(format!("/proc/self/root{}", canary.display())));
            refused(Command::new("/bin/true").status());
        });
        assert_eq!(fs::read_to_string(&canary).unwrap(), "secret");
    }

    #[test]
    fn a_source_is_read_and_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        let mut rules = Rules::default();
        rules.allow(dir.path(), Access::READ_VOLUME);
        under(&rules, || {
            assert_eq!(fs::read(&file).unwrap(), b"text");
            refused_to_write(&file);
            refused(fs::remove_file(&file));
            refused(fs::create_dir(dir.path().join("new")));
        });
    }

    #[test]
    fn one_port_can_be_connected_to_and_no_other() {
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [told, other] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let connect = Ports { limited: true, ports: vec![told.port()] };
        let bind = Ports { limited: true, ports: vec![] };
        let rules = Rules { connect, bind, ..Rules::default() };
        under(&rules, || {
            TcpStream::connect(told).unwrap();
            refused(TcpStream::connect(other));
            refused(std::net::TcpListener::bind("127.0.0.1:0"));
        });
        let free = Rules::default();
        under(&free, || drop(TcpStream::connect(other).unwrap()));
    }

    #[test]
    fn where_only_listening_is_limited_every_port_can_be_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = Ports { limited: true, ports: vec![] };
        under(&Rules { bind, ..Rules::default() }, || {
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            refused(std::net::TcpListener::bind("127.0.0.1:0"));
        });
    }

    #[test]
    fn what_is_not_there_is_passed_over() {
        let mut rules = Rules::default();
        rules.allow("/no/such/path", Access::WRITE_VOLUME);
        under(&rules, || refused(fs::read("/etc/passwd")));
    }
}
