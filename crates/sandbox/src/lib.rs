//! What a process gives up before it hears of a peer.
//!
//! A hostile peer that found a hole in a program would have what its process has. So each process keeps no more than it
//! works with. What that is, its [`Sandbox`], is the policy of each program; here it is enforced:
//!
//! * **Files.** Landlock, where the kernel has it: paths that are allowed can be opened, nothing else can, whatever links
//!   lead there; nothing can be executed.
//! * **TCP.** By Landlock too: ports to connect to and to listen on, each of them where it is limited.
//! * **Signals and abstract sockets.** By Landlock too: those of the process itself.
//! * **Capabilities.** Those that are kept, as far as they were given.
//! * **No new privileges**, for good.
//!
//! All of that holds for the calling thread and those that it starts: [`Sandbox::enter`] comes before the runtime.
#![forbid(unsafe_code)]

mod access;
mod capabilities;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use access::Access;
use rules::Rules;
pub use rustix::thread::CapabilitySet;

/// What tells a process about itself: limits of processors, its user namespace, the start of the kernel, whether
/// it is a copy of a virtual machine. Other processes stay closed: Landlock forbids to look into those outside.
const MACHINE: [&str; 3] = ["/proc", "/sys/fs/cgroup", "/dev/sysgenid"];

/// What names are looked up with. A static program reads the first two of them.
const RESOLVER: [&str; 9] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
];
/// Long answers come by TCP.
const DNS_PORT: u16 = 53;
/// Ports below take a capability to listen on.
const FIRST_OPEN_PORT: u16 = 1024;

/// What a process works with.
#[derive(Debug)]
pub struct Sandbox {
    rules: Rules,
    keep: CapabilitySet,
    volumes: Vec<PathBuf>,
    without_landlock: Option<&'static str>,
}

/// A volume whose path leads through another process: Landlock closes that way, and not the volume itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreachable(pub PathBuf);

impl Sandbox {
    /// Keeps the capabilities in `keep`, and reads what tells the process about itself. TCP is not limited.
    #[must_use]
    pub fn keeping(keep: CapabilitySet) -> Self {
        let rules = Rules::default();
        let mut sandbox = Self { rules, keep, volumes: Vec::new(), without_landlock: None };
        for path in MACHINE {
            sandbox.allow(path, Access::READ_FILES);
        }
        sandbox
    }

    /// Allows `access` to what lies at `path` now, and below it. What is not there is not allowed later either.
    pub fn allow(&mut self, path: impl AsRef<Path>, access: Access) {
        self.rules.allow(path, access);
    }

    /// Allows `access` to the directory that `path` lies in, whatever its entries are replaced with.
    pub fn allow_beside(&mut self, path: &Path, access: Access) {
        self.rules.allow(parent(path), access);
    }

    /// The same as [`allow`](Self::allow), for a path without which the process has nothing to do: see [`Unreachable`].
    pub fn allow_volume(&mut self, path: &Path, access: Access) {
        self.allow(path, access);
        self.volumes.push(path.to_owned());
    }

    /// Allows to look up names.
    pub fn allow_resolver(&mut self) {
        self.connect_to(DNS_PORT);
        for path in RESOLVER {
            self.allow(path, Access::READ_FILES);
        }
        // Who keeps it elsewhere replaces it there, while this process runs.
        if let Ok(target) = fs::read_link(RESOLVER[0]) {
            self.allow_beside(&Path::new("/etc").join(target), Access::READ_FILES);
        }
    }

    /// Limits TCP to the ports of [`connect_to`](Self::connect_to) and [`listen_on`](Self::listen_on).
    pub fn limit_tcp(&mut self) {
        self.rules.connect.limited = true;
        self.limit_listening();
    }

    /// Limits TCP to connections, and to the ports of [`listen_on`](Self::listen_on).
    pub fn limit_listening(&mut self) {
        self.rules.bind.limited = true;
    }

    /// Allows connections to `port`, where they are limited.
    pub fn connect_to(&mut self, port: u16) {
        self.rules.connect.ports.push(port);
    }

    /// Allows to listen on `port`, with the capability that it takes.
    pub fn listen_on(&mut self, port: u16) {
        self.rules.bind.ports.push(port);
        if (1..FIRST_OPEN_PORT).contains(&port) {
            self.keep |= CapabilitySet::NET_BIND_SERVICE;
        }
    }

    /// Leaves Landlock alone, for a reason that the log shows.
    pub fn without_landlock(&mut self, why: &'static str) {
        self.without_landlock = Some(why);
    }

    /// Gives everything else up, for this thread and those that it starts, and says in the log what holds now. Answers with
    /// whether Landlock does.
    ///
    /// # Errors
    /// A volume that was there and is out of reach now: without this check it would look like one that nobody may read.
    pub fn enter(&self) -> Result<bool, Unreachable> {
        let reached: Vec<&PathBuf> =
            self.volumes.iter().filter(|path| fs::metadata(path).is_ok()).collect();
        let left = capabilities::keep(self.keep);
        let (enforced, files) = match self.without_landlock {
            Some(why) => (false, format!("no Landlock: {why}")),
            None => self.rules.enforce(),
        };
        let left = left.map_or_else(|error| error.to_string(), capabilities::names);
        tracing::info!("sandbox: {files}; capabilities: {left}");
        match reached.into_iter().find(|path| fs::metadata(path).is_err()) {
            Some(path) => Err(Unreachable(path.clone())),
            None => Ok(enforced),
        }
    }
}

/// The directory that `path` lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
