//! Podman, which plays pods as a kubelet would: a network, volumes and containers that do not outlive their test.

use std::{
    ffi::OsStr,
    fs,
    net::IpAddr,
    path::Path,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Finished, Process};

/// One test's share of the engine. What it makes carries its name, so that tests can run side by side.
pub(crate) struct Engine {
    name: String,
    images: [String; 2],
    dir: TempDir,
    pods: std::cell::RefCell<Vec<String>>,
}

impl Engine {
    /// A network of its own, without the engine's own name server.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let images = ["PVFERRY_IMAGE", "PVFERRY_CONTROLLER_IMAGE"].map(|name| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set: use tests/run --podman"))
        });
        let name = format!("pvferry-test-{}-{count}", process::id());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("containers.conf"), configuration()).unwrap();
        let engine = Self { name, images, dir, pods: Vec::default().into() };
        engine.podman(["network", "create", "--disable-dns", &engine.name]);
        engine
    }

    /// What names of this test begin with. It is also the name of the network.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The image of the data plane.
    pub(crate) fn image(&self) -> &str {
        &self.images[0]
    }

    /// The image of the controller.
    pub(crate) fn controller_image(&self) -> &str {
        &self.images[1]
    }

    /// A directory that goes with the test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A `podman` command, ready to start.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir().join("containers.conf"));
        // Here, a directory called like an image would be taken for its sources.
        command.current_dir(self.dir()).args(arguments);
        command
    }

    /// Runs `podman` to its end, which must be a good one, and returns what it printed.
    #[track_caller]
    pub(crate) fn podman<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        Process::run(self.command(arguments)).expect(0).stdout.trim().to_owned()
    }

    /// Runs a container to its end, with `options` for the engine and `arguments` for the program.
    pub(crate) fn container(&self, image: &str, options: &[&str], arguments: &[&str]) -> Finished {
        let mut run = self.command(["run", "--rm", "--read-only", "--cap-drop", "all"]);
        run.args(options).arg(image).args(arguments);
        Process::run(run)
    }

    /// Where the network of the test meets this machine.
    pub(crate) fn gateway(&self) -> IpAddr {
        let found = self.podman(["network", "inspect", &self.name]);
        let networks: Value = serde_json::from_str(&found).unwrap();
        networks[0]["subnets"][0]["gateway"].as_str().unwrap().parse().unwrap()
    }

    /// Starts a pod, and returns its name.
    pub(crate) fn play(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let path = self.dir().join(format!("{name}.yaml"));
        fs::write(&path, pod.to_string()).unwrap();
        self.pods.borrow_mut().push(name.clone());
        let play = ["play", "kube", "--log-driver", "k8s-file", "--network", &self.name];
        self.podman(play.iter().map(OsStr::new).chain([path.as_os_str()]));
        name
    }

    /// The address of a pod or container.
    pub(crate) fn address(&self, pod: &str) -> IpAddr {
        let infra = self.podman(["pod", "inspect", pod, "--format", "{{.InfraContainerID}}"]);
        self.address_of_container(&infra)
    }

    pub(crate) fn address_of_container(&self, container: &str) -> IpAddr {
        let found = self.podman(["container", "inspect", container]);
        let containers: Value = serde_json::from_str(&found).unwrap();
        let address = &containers[0]["NetworkSettings"]["Networks"][&self.name]["IPAddress"];
        address.as_str().unwrap().parse().unwrap()
    }

    /// Waits for the end of a container, and returns its exit code.
    #[track_caller]
    pub(crate) fn wait(&self, pod: &str, container: &str) -> i32 {
        self.podman(["wait", &format!("{pod}-{container}")]).parse().unwrap()
    }

    /// Waits until no container of a pod runs, as a kubelet would before it calls the pod ended.
    #[track_caller]
    pub(crate) fn wait_for_end(&self, pod: &str) {
        let infra = self.podman(["pod", "inspect", pod, "--format", "{{.InfraContainerID}}"]);
        self.podman(["wait", &infra]);
        let running = self.podman(["ps", "--quiet", "--filter", &format!("pod={pod}")]);
        assert_eq!(running, "", "containers of {pod} that still run");
    }

    /// What a container has written to its standard error and output so far.
    pub(crate) fn logs(&self, pod: &str, container: &str) -> String {
        let logs = Process::run(self.command(["logs", &format!("{pod}-{container}")]));
        logs.expect(0).stdout.clone() + &logs.stderr
    }

    /// Waits until a container has written `text`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, pod: &str, container: &str, text: &str) {
        self.wait_for_log_of(&format!("{pod}-{container}"), text);
    }

    /// The same by the full name of a container.
    #[track_caller]
    pub(crate) fn wait_for_log_of(&self, container: &str, text: &str) {
        Process::start(self.command(["logs", "--follow", container])).wait_for_line(text);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let quietly = |arguments: &[&str]| {
            let _ = Process::run(self.command(arguments));
        };
        for pod in self.pods.borrow().iter() {
            quietly(&["pod", "rm", "--force", "--time", "0", pod]);
        }
        // What the test started besides; there is no container without the network.
        quietly(&["network", "rm", "--force", &self.name]);
        let found = Process::run(self.command(["volume", "ls", "--quiet"])).stdout;
        for name in found.lines().filter(|name| name.starts_with(&format!("{}-", self.name))) {
            quietly(&["volume", "rm", name]);
        }
    }
}

/// The engine asks for more files and processes than a machine may allow; half of what is allowed is always granted. Debian's
/// crun refuses machines with control groups of both versions.
fn configuration() -> String {
    let limit = |name: &str, resource| {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(1 << 16) / 2;
        format!("\"{name}={most}:{most}\"")
    };
    let limits = [limit("nofile", Resource::Nofile), limit("nproc", Resource::Nproc)].join(", ");
    format!(
        "[containers]\ndefault_ulimits = [{limits}]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
    )
}
