//! A pod for one test: `serve`, `tunnel` and `sync` as processes that know each other by the command line
//! alone, with certificates made by `pvferry pki`.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Process, net, pki::Pki};

use crate::support::pvferry;

/// What the processes of a transfer share: keys, addresses, and the directories of the pod.
pub(crate) struct Pod {
    pub(crate) pki: Pki,
    /// Where `serve` listens.
    pub(crate) server: SocketAddr,
    /// Where `tunnel` listens.
    pub(crate) local: SocketAddr,
    dir: TempDir,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("markers")).unwrap();
        let (server, local) = (net::free_address(), net::free_address());
        Self { pki: Pki::new("4f1c-test"), server, local, dir }
    }

    /// The directory of the completion markers.
    pub(crate) fn markers(&self) -> PathBuf {
        self.dir.path().join("markers")
    }

    /// Where the container `name` leaves its termination message.
    pub(crate) fn message_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.message"))
    }

    /// The termination message of the container `name`.
    #[track_caller]
    pub(crate) fn message(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.message_path(name)).unwrap();
        assert!(text.len() <= 4096, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap()
    }

    /// The completion marker of `volume`.
    #[track_caller]
    pub(crate) fn marker(&self, volume: &str) -> Value {
        let path = self.markers().join(format!("{volume}.done"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Starts `serve` with these volumes, and waits until it listens.
    pub(crate) fn serve(&self, volumes: &[(&str, &Path)], options: &[&str]) -> Process {
        self.serve_as(&self.pki.destination(), volumes, options)
    }

    /// The same with the keys in `identity`.
    pub(crate) fn serve_as(
        &self,
        identity: &Path,
        volumes: &[(&str, &Path)],
        options: &[&str],
    ) -> Process {
        let serve = Process::start(self.serve_command(identity, volumes, options));
        serve.wait_for_line("listening on");
        serve
    }

    /// Starts `serve` that permits a source no more than these options do, and waits until it listens.
    pub(crate) fn serve_strict(&self, volumes: &[(&str, &Path)], options: &[&str]) -> Process {
        let identity = self.pki.destination();
        let serve = Process::start(self.serve_command_strict(&identity, volumes, options));
        serve.wait_for_line("listening on");
        serve
    }

    /// `serve` with these volumes and the keys in `identity`, ready to start. It permits a source everything.
    pub(crate) fn serve_command(
        &self,
        identity: &Path,
        volumes: &[(&str, &Path)],
        options: &[&str],
    ) -> Command {
        let mut command = self.serve_command_strict(identity, volumes, options);
        command.args(["--allow-delete", "--allow-empty-source"]);
        command
    }

    /// The same that permits a source no more than these options do.
    pub(crate) fn serve_command_strict(
        &self,
        identity: &Path,
        volumes: &[(&str, &Path)],
        options: &[&str],
    ) -> Command {
        let mut command = pvferry(["serve", "--listen", &self.server.to_string()]);
        command.arg("--identity").arg(identity);
        command.arg("--termination-log").arg(self.message_path("serve"));
        for (name, path) in volumes {
            let mut volume = OsString::from(format!("{name}="));
            volume.push(path);
            command.arg("--volume").arg(volume);
        }
        command.args(options);
        command
    }

    /// Starts `tunnel` to the server, and waits until it listens.
    pub(crate) fn tunnel(&self, options: &[&str]) -> Process {
        self.tunnel_to(self.server, &self.pki.source(), options)
    }

    /// Starts `tunnel` to `target` with the keys in `identity`, and waits until it listens.
    pub(crate) fn tunnel_to(
        &self,
        target: SocketAddr,
        identity: &Path,
        options: &[&str],
    ) -> Process {
        let tunnel = Process::start(self.tunnel_command(target, identity, options));
        tunnel.wait_for_line("listening on");
        tunnel
    }

    /// `tunnel` to `target` with the keys in `identity`, ready to start.
    pub(crate) fn tunnel_command(
        &self,
        target: SocketAddr,
        identity: &Path,
        options: &[&str],
    ) -> Command {
        let mut command = pvferry(["tunnel", "--listen", &self.local.to_string()]);
        command.args(["--connect", &target.to_string(), "--identity"]).arg(identity);
        command.arg("--marker-dir").arg(self.markers()).args(options);
        command
    }

    /// `sync` through the tunnel, ready to start.
    pub(crate) fn sync(&self, source: &Path, volume: &str, options: &[&str]) -> Command {
        self.sync_by(&["--via", &self.local.to_string()], source, volume, options)
    }

    /// `sync` that speaks TLS to `target` itself with the keys in `identity`, ready to start.
    pub(crate) fn direct(
        &self,
        target: SocketAddr,
        identity: &Path,
        source: &Path,
        options: &[&str],
    ) -> Command {
        let identity = identity.to_str().unwrap();
        let route = ["--connect", &target.to_string(), "--identity", identity];
        self.sync_by(&route, source, "a", options)
    }

    /// `sync` by a route, ready to start.
    pub(crate) fn sync_by(
        &self,
        route: &[&str],
        source: &Path,
        volume: &str,
        options: &[&str],
    ) -> Command {
        let mut command = pvferry(["sync", "--json", "--progress", "none", "--volume", volume]);
        command.args(route).arg("--marker-dir").arg(self.markers());
        command.arg("--termination-log").arg(self.message_path(volume));
        if !options.contains(&"--wait") {
            command.args(["--wait", "30"]);
        }
        command.args(options).arg(source);
        command
    }
}
