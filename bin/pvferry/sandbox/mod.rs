//! What the process gives up before it hears of a peer.
//!
//! A hostile peer, or a hostile volume, that found a hole in this program would have what the process has. So each
//! role keeps no more than it works with:
//!
//! * **Files.** Landlock, where the kernel has it: the volumes, the identity and the few files around them can be opened,
//!   nothing else can, whatever links lead there; nothing can be executed. See [`rules`].
//! * **Network.** By Landlock too: `serve`, `digest` and `verify` connect to nobody, the others to the one port that they were told.
//! * **Capabilities.** Those that keep a volume whole, as far as they were given. See [`capabilities`].
//! * **No new privileges**, for good.
//!
//! All of that holds for the calling thread and those that it starts: [`Sandbox::enter`] comes before the runtime.

mod capabilities;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

use landlock::{AccessFs, BitFlags, make_bitflags};
use pod::ExitCode;
use rustix::thread::CapabilitySet;
use tunnel::Endpoint;

use crate::{
    cli::{CopyArgs, DigestArgs, ServeArgs, SyncArgs, TunnelArgs, VerifyArgs},
    commands::termination_log,
    outcome::Failure,
};
use rules::Rules;

/// Everything that a volume may be made of, and nothing that has to do with running it.
const WRITE_VOLUME: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | Refer | RemoveFile | RemoveDir | MakeReg | MakeDir
        | MakeSym | MakeFifo | MakeSock | MakeChar | MakeBlock
});
const READ_VOLUME: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const READ_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile});
const WRITE_FILE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate});
/// Markers and status files, each written beside and renamed.
const SHARE_FILES: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});
const HOLD_SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

/// What tells a process about itself: limits of processors, its user namespace, the start of the kernel, whether
/// it is a copy of a virtual machine. Other processes stay closed: Landlock forbids to look into those outside.
const MACHINE: [&str; 3] = ["/proc", "/sys/fs/cgroup", "/dev/sysgenid"];

/// What names are looked up with. The static program reads the first two of them.
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

/// What a role works with.
pub(crate) struct Sandbox {
    rules: Rules,
    keep: CapabilitySet,
    volumes: Vec<PathBuf>,
}

impl Sandbox {
    pub(crate) fn serve(args: &ServeArgs) -> Self {
        let mut sandbox = Self::new(capabilities::WRITE);
        for (_, path) in &args.volume {
            sandbox.volume(path, WRITE_VOLUME);
        }
        sandbox.identity(&args.identity);
        sandbox.termination_message(args.termination_log.as_ref());
        sandbox.rules.tcp.restricted = true;
        if args.listen.is_name() {
            sandbox.resolve();
        }
        sandbox.listen(args.listen.port());
        sandbox
    }

    pub(crate) fn sync(args: &SyncArgs) -> Self {
        let mut sandbox = Self::new(capabilities::READ);
        sandbox.volume(&args.source, READ_VOLUME);
        sandbox.termination_message(args.termination_log.as_ref());
        if let Some(dir) = &args.marker_dir {
            sandbox.rules.allow(dir, SHARE_FILES);
        }
        if let Some(dir) = &args.identity {
            sandbox.identity(dir);
        }
        sandbox.rules.tcp.restricted = true;
        if let Some(Endpoint::Tcp(address)) = &args.route.via {
            sandbox.rules.tcp.connect.push(address.port());
        }
        if let Some(target) = &args.route.connect {
            sandbox.rules.tcp.connect.push(target.port());
            sandbox.resolve();
        }
        sandbox
    }

    pub(crate) fn tunnel(args: &TunnelArgs) -> Self {
        let mut sandbox = Self::new(CapabilitySet::empty());
        sandbox.identity(&args.identity);
        sandbox.termination_message(args.termination_log.as_ref());
        if let Some(dir) = &args.marker_dir {
            sandbox.rules.allow(dir, SHARE_FILES);
        }
        sandbox.rules.tcp.restricted = true;
        sandbox.rules.tcp.connect.push(args.connect.port());
        sandbox.resolve();
        for (name, dir) in &args.volume {
            sandbox.rules.allow(dir, SHARE_FILES | HOLD_SOCKET);
            sandbox.identity(&args.identity.join(name.as_str()));
        }
        match &args.listen {
            Some(Endpoint::Tcp(address)) => sandbox.listen(address.port()),
            Some(Endpoint::Unix(path)) => sandbox.rules.allow(parent(path), HOLD_SOCKET),
            None => {}
        }
        sandbox
    }

    /// Both ends in one process, which connects to a port of its own that nobody knows beforehand.
    pub(crate) fn copy(args: &CopyArgs) -> Self {
        // A dry run keeps the capabilities, because it reports what the run would not keep for want of one.
        let mut sandbox = Self::new(capabilities::WRITE | capabilities::READ);
        let access = if args.transfer.dry_run { READ_VOLUME } else { WRITE_VOLUME };
        sandbox.volume(&args.source, READ_VOLUME);
        sandbox.volume(&args.destination, access);
        sandbox
    }

    pub(crate) fn digest(args: &DigestArgs) -> Self {
        Self::inspect(&[&args.path])
    }

    pub(crate) fn verify(args: &VerifyArgs) -> Self {
        Self::inspect(&[&args.a, &args.b])
    }

    /// Reads volumes, and does nothing with the network.
    fn inspect(volumes: &[&Path]) -> Self {
        let mut sandbox = Self::new(capabilities::READ);
        for path in volumes {
            sandbox.volume(path, READ_VOLUME);
        }
        sandbox.rules.tcp.restricted = true;
        sandbox
    }

    fn new(keep: CapabilitySet) -> Self {
        let mut sandbox = Self { rules: Rules::default(), keep, volumes: Vec::new() };
        for path in MACHINE {
            sandbox.rules.allow(path, READ_FILES);
        }
        sandbox
    }

    fn volume(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        self.rules.allow(path, access);
        self.volumes.push(path.to_owned());
    }

    /// The directory, whatever its files are swapped for in it, and the files, wherever they lie now.
    fn identity(&mut self, dir: &Path) {
        self.rules.allow(dir, READ_FILES);
        for name in [tunnel::CA_FILE, tunnel::CERTIFICATE_FILE, tunnel::KEY_FILE] {
            self.rules.allow(dir.join(name), READ_FILES);
        }
    }

    /// The file of the termination message, which exists by now: what is not there cannot be allowed.
    fn termination_message(&mut self, given: Option<&PathBuf>) {
        if let Some(path) = termination_log(given.map(PathBuf::as_path)) {
            self.rules.allow(path, WRITE_FILE);
        }
    }

    fn resolve(&mut self) {
        self.rules.tcp.connect.push(DNS_PORT);
        for path in RESOLVER {
            self.rules.allow(path, READ_FILES);
        }
        // Who keeps it elsewhere replaces it there, while this process runs.
        if let Ok(target) = fs::read_link(RESOLVER[0]) {
            self.rules.allow(parent(&Path::new("/etc").join(target)), READ_FILES);
        }
    }

    fn listen(&mut self, port: u16) {
        self.rules.tcp.bind.push(port);
        if (1..FIRST_OPEN_PORT).contains(&port) {
            self.keep |= CapabilitySet::NET_BIND_SERVICE;
        }
    }

    /// Gives everything else up, for this thread and those that it starts, and says in the log what holds now.
    ///
    /// # Errors
    /// A volume whose path leads through another process: Landlock closes that way, and not the volume itself. Without
    /// this check it would look like a volume that nobody may read.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let reached: Vec<&PathBuf> =
            self.volumes.iter().filter(|path| fs::metadata(path).is_ok()).collect();
        let left = capabilities::keep(self.keep);
        let files = self.rules.enforce();
        let left = left.map_or_else(|error| error.to_string(), capabilities::names);
        tracing::info!("sandbox: {files}; capabilities: {left}");
        match reached.into_iter().find(|path| fs::metadata(path).is_err()) {
            Some(path) => Err(Failure::new(
                ExitCode::Usage,
                format!(
                    "{}: the sandbox does not permit a path through another process, such as /proc/PID/root; \
                     use a path without it, or run pvferry in the mount namespace of that process (nsenter --mount)",
                    path.display()
                ),
            )),
            None => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use clap::Parser as _;

    use super::{
        rules::tests::{refused, refused_to_write, under},
        *,
    };
    use crate::cli::{Cli, Command};

    /// The sandbox of a command line.
    fn of(arguments: &[&str]) -> Sandbox {
        match Cli::try_parse_from([&["pvferry"], arguments].concat()).unwrap().command {
            Command::Serve(args) => Sandbox::serve(&args),
            Command::Sync(args) => Sandbox::sync(&args),
            Command::Tunnel(args) => Sandbox::tunnel(&args),
            Command::Digest(args) => Sandbox::digest(&args),
            Command::Verify(args) => Sandbox::verify(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_reads_a_volume_never_writes_to_it_and_calls_nobody_but_its_server() {
        let (volume, identity) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::NamedTempFile::new().unwrap();
        let file = volume.path().join("file");
        fs::write(&file, "text").unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [server, other] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let (path, keys) = (volume.path().to_str().unwrap(), identity.path().to_str().unwrap());
        let server_text = server.to_string();
        let sync = ["sync", path, "--volume", "a", "--connect", &server_text, "--identity", keys];
        for (arguments, calls) in
            [(&sync[..], true), (&["digest", path], false), (&["verify", path, path], false)]
        {
            under(&of(arguments).rules, || {
                assert_eq!(fs::read(&file).unwrap(), b"text");
                refused_to_write(&file);
                refused(fs::remove_file(&file));
                refused(fs::create_dir(volume.path().join("new")));
                refused(fs::read(outside.path()));
                if calls {
                    TcpStream::connect(server).unwrap();
                } else {
                    refused(TcpStream::connect(server));
                }
                refused(TcpStream::connect(other));
                refused(TcpListener::bind("127.0.0.1:0"));
            });
        }
    }

    #[test]
    fn what_receives_a_volume_writes_to_it_alone_and_calls_nobody() {
        let (volume, identity) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, keys) = (volume.path().to_str().unwrap(), identity.path().to_str().unwrap());
        fs::write(identity.path().join("tls.key"), "key").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let of_volume = format!("a={path}");
        let serve =
            ["serve", "--listen", "127.0.0.1:0", "--identity", keys, "--volume", &of_volume];
        under(&of(&serve).rules, || {
            fs::write(volume.path().join("file"), "text").unwrap();
            fs::read(identity.path().join("tls.key")).unwrap();
            refused(fs::write(identity.path().join("tls.key"), "changed"));
            refused(TcpStream::connect(listener.local_addr().unwrap()));
        });
    }
}
