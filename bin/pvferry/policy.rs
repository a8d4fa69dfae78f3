//! What each role keeps, by [`Sandbox`]: a hostile peer, or a hostile volume, that found a hole in this program would have that.
//!
//! * **Files.** The volumes, the identity and the few files around them.
//! * **Network.** `serve`, `digest` and `verify` connect to nobody, the others to the one port that they were told.
//! * **Capabilities.** Those that keep a volume whole.

use std::path::{Path, PathBuf};

use pod::ExitCode;
use sandbox::{Access, CapabilitySet, Sandbox, Unreachable};
use tunnel::Endpoint;

use crate::{
    cli::{CopyArgs, DigestArgs, ServeArgs, SyncArgs, TunnelArgs, VerifyArgs},
    commands::termination_log,
    outcome::Failure,
};

/// Writes anywhere in a volume, and gives entries their owners, modes, devices, file capabilities and flags. The last two are
/// for `trusted.*` attributes and for immutable files; the pods of the controller have neither.
const WRITE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN);

/// Reads anything in a volume, without a trace in its times (`FOWNER`), `trusted.*` attributes included (`SYS_ADMIN`): without
/// it they would be passed over, and nobody would know.
const READ: CapabilitySet = CapabilitySet::DAC_READ_SEARCH
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SYS_ADMIN);

pub(crate) fn serve(args: &ServeArgs) -> Sandbox {
    let mut sandbox = Sandbox::keeping(WRITE);
    for (_, path) in &args.volume {
        sandbox.allow_volume(path, Access::WRITE_VOLUME);
    }
    identity(&mut sandbox, &args.identity);
    termination_message(&mut sandbox, args.termination_log.as_ref());
    sandbox.limit_tcp();
    if args.listen.is_name() {
        sandbox.allow_resolver();
    }
    sandbox.listen_on(args.listen.port());
    sandbox
}

pub(crate) fn sync(args: &SyncArgs) -> Sandbox {
    let mut sandbox = Sandbox::keeping(READ);
    sandbox.allow_volume(&args.source, Access::READ_VOLUME);
    termination_message(&mut sandbox, args.termination_log.as_ref());
    if let Some(dir) = &args.marker_dir {
        sandbox.allow(dir, Access::SHARE_FILES);
    }
    if let Some(dir) = &args.identity {
        identity(&mut sandbox, dir);
    }
    sandbox.limit_tcp();
    if let Some(Endpoint::Tcp(address)) = &args.route.via {
        sandbox.connect_to(address.port());
    }
    if let Some(target) = &args.route.connect {
        sandbox.connect_to(target.port());
        sandbox.allow_resolver();
    }
    sandbox
}

pub(crate) fn tunnel(args: &TunnelArgs) -> Sandbox {
    let mut sandbox = Sandbox::keeping(CapabilitySet::empty());
    identity(&mut sandbox, &args.identity);
    termination_message(&mut sandbox, args.termination_log.as_ref());
    if let Some(dir) = &args.marker_dir {
        sandbox.allow(dir, Access::SHARE_FILES);
    }
    sandbox.limit_tcp();
    sandbox.connect_to(args.connect.port());
    sandbox.allow_resolver();
    for (name, dir) in &args.volume {
        sandbox.allow(dir, Access::SHARE_FILES);
        sandbox.allow(dir, Access::HOLD_SOCKET);
        identity(&mut sandbox, &args.identity.join(name.as_str()));
    }
    match &args.listen {
        Some(Endpoint::Tcp(address)) => sandbox.listen_on(address.port()),
        Some(Endpoint::Unix(path)) => sandbox.allow_beside(path, Access::HOLD_SOCKET),
        None => {}
    }
    sandbox
}

/// Both ends in one process, which connects to a port of its own that nobody knows beforehand.
pub(crate) fn copy(args: &CopyArgs) -> Sandbox {
    // A dry run keeps the capabilities, because it reports what the run would not keep for want of one.
    let mut sandbox = Sandbox::keeping(WRITE | READ);
    let access = if args.transfer.dry_run { Access::READ_VOLUME } else { Access::WRITE_VOLUME };
    sandbox.allow_volume(&args.source, Access::READ_VOLUME);
    sandbox.allow_volume(&args.destination, access);
    sandbox
}

pub(crate) fn digest(args: &DigestArgs) -> Sandbox {
    inspect(&[&args.path])
}

pub(crate) fn verify(args: &VerifyArgs) -> Sandbox {
    inspect(&[&args.source, &args.destination])
}

/// Reads volumes, and does nothing with the network.
fn inspect(volumes: &[&Path]) -> Sandbox {
    let mut sandbox = Sandbox::keeping(READ);
    for path in volumes {
        sandbox.allow_volume(path, Access::READ_VOLUME);
    }
    sandbox.limit_tcp();
    sandbox
}

/// The directory, whatever its files are swapped for in it, and the files, wherever they lie now.
fn identity(sandbox: &mut Sandbox, dir: &Path) {
    sandbox.allow(dir, Access::READ_FILES);
    for name in [tunnel::CA_FILE, tunnel::CERTIFICATE_FILE, tunnel::KEY_FILE] {
        sandbox.allow(dir.join(name), Access::READ_FILES);
    }
}

/// The file of the termination message, which exists by now: Landlock rules need an existing file.
fn termination_message(sandbox: &mut Sandbox, given: Option<&PathBuf>) {
    if let Some(path) = termination_log(given.map(PathBuf::as_path)) {
        sandbox.allow(path, Access::WRITE_FILE);
    }
}

/// Enters `sandbox`, for this thread and those that it starts.
///
/// # Errors
/// A volume whose path leads through another process.
pub(crate) fn enter(sandbox: &Sandbox) -> Result<(), Failure> {
    sandbox.enter().map(|_| ()).map_err(|Unreachable(path)| {
        Failure::new(
            ExitCode::Usage,
            format!(
                "{}: the sandbox does not permit a path through another process, such as /proc/PID/root; \
                 use a path without it, or run pvferry in the mount namespace of that process (nsenter --mount)",
                path.display()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{self, ErrorKind},
        net::{TcpListener, TcpStream},
        thread,
    };

    use clap::Parser as _;
    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::cli::{Cli, Command};

    /// The sandbox of a command line.
    fn of(arguments: &[&str]) -> Sandbox {
        match Cli::try_parse_from([&["pvferry"], arguments].concat()).unwrap().command {
            Command::Serve(args) => serve(&args),
            Command::Sync(args) => sync(&args),
            Command::Tunnel(args) => tunnel(&args),
            Command::Digest(args) => digest(&args),
            Command::Verify(args) => verify(&args),
            other => panic!("{other:?}"),
        }
    }

    /// Runs `work` on a thread of its own in `sandbox`, where this kernel has Landlock.
    fn under(sandbox: &Sandbox, work: impl FnOnce() + Send) {
        let thread = || match sandbox.enter().unwrap() {
            false => testkit::skip::unsupported("this kernel has no Landlock"),
            true => work(),
        };
        thread::scope(|scope| scope.spawn(thread).join().unwrap());
    }

    #[track_caller]
    fn refused<T>(result: io::Result<T>) {
        let error = result.err().expect("it was allowed");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }

    /// Each of the two permissions that a change of `file` can need is missing by itself.
    #[track_caller]
    fn refused_to_write(file: &Path) {
        refused(File::options().write(true).open(file));
        let truncate = OFlags::RDONLY | OFlags::TRUNC;
        refused(rustix::fs::open(file, truncate, Mode::empty()).map_err(Into::into));
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
            under(&of(arguments), || {
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
        under(&of(&serve), || {
            fs::write(volume.path().join("file"), "text").unwrap();
            fs::read(identity.path().join("tls.key")).unwrap();
            refused(fs::write(identity.path().join("tls.key"), "changed"));
            refused(TcpStream::connect(listener.local_addr().unwrap()));
        });
    }
}
