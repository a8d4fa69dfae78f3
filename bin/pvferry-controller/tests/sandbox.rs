//! What the process has given up, shown from within: the test loads hostile code into it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{fs::symlink, net},
    },
    path::{Path, PathBuf},
    process::{self, Command},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use testkit::{Process, skip};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// Numbers of errors.
const EPERM: i32 = 1;
const EACCES: i32 = 13;

/// An API server that answers nothing; it hands over the `Authorization` lines that it is sent.
fn server() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (sender, received) = mpsc::channel();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                for line in lines.filter(|line| line.to_ascii_lowercase().starts_with("authori")) {
                    let _ = sender.send(line);
                }
                thread::sleep(PATIENCE);
            });
        }
    });
    (port, received)
}

/// A directory with a kubeconfig, whose user has `credentials`, and a volume with a token, as the kubelet makes it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(port: u16, credentials: impl Fn(&Path) -> String) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(files.at("secrets")).unwrap();
        symlink("..data/token", files.token()).unwrap();
        files.rotate("first");
        fs::write(files.at("outside"), "secret").unwrap();
        let user = credentials(&files.token());
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        );
        fs::write(files.at("kubeconfig"), config).unwrap();
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn token(&self) -> PathBuf {
        self.at("secrets/token")
    }

    /// Replaces the token by way of the link `..data`.
    fn rotate(&self, version: &str) {
        let secrets = self.at("secrets");
        fs::create_dir(secrets.join(version)).unwrap();
        fs::write(secrets.join(version).join("token"), version).unwrap();
        symlink(version, secrets.join("..new")).unwrap();
        fs::rename(secrets.join("..new"), secrets.join("..data")).unwrap();
    }

    fn run(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvferry-controller"));
        command.args(["run", "--image", "i", "--metrics", "127.0.0.1:0"]);
        command.env("KUBECONFIG", self.at("kubeconfig")).env("RUST_LOG", "info");
        command
    }
}

fn token_file(token: &Path) -> String {
    format!("tokenFile: '{}'", token.display())
}

/// The hostile code as a shared library; `None` if no C compiler is installed.
fn hole(files: &Files) -> Option<PathBuf> {
    if !skip::commands(&["cc"]) {
        return None;
    }
    let library = files.at("hole.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hole.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl", "-pthread"]);
    assert!(cc.status().unwrap().success());
    Some(library)
}

/// The version of Landlock that a line of the log names.
fn landlock(line: &str) -> Option<u32> {
    let version = line.split_once("sandbox: Landlock ")?.1.split(';').next()?;
    Some(version.parse().unwrap())
}

/// What the hostile code has come to: numbers of errors by what it tried.
fn findings(report: &Path) -> BTreeMap<String, i32> {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(report).unwrap_or_default();
        if text.ends_with("end 0\n") {
            let lines = text.lines().map(|line| line.split_once(' ').unwrap());
            return lines.map(|(what, number)| (what.into(), number.parse().unwrap())).collect();
        }
        assert!(begun.elapsed() < PATIENCE, "no end: {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_hole_reads_its_token_and_nothing_else_and_writes_listens_and_executes_nothing() {
    let (port, _requests) = server();
    let files = Files::new(port, token_file);
    let Some(hole) = hole(&files) else { return };
    let name = format!("pvferry-test-{}", process::id());
    let address = net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = net::UnixListener::bind_addr(&address).unwrap();
    let mut command = files.run();
    command.env("LD_PRELOAD", hole).env("HOLE_SOCKET", name);
    for (variable, file) in [
        ("HOLE_REPORT", "report"),
        ("HOLE_GO", "go"),
        ("HOLE_TOKEN", "secrets/token"),
        ("HOLE_OUTSIDE", "outside"),
        ("HOLE_NEW", "secrets/new"),
    ] {
        command.env(variable, files.at(file));
    }
    command.env("HOLE_ROOT", "/").env("HOLE_SERVER", port.to_string());
    command.env("HOLE_PORT", testkit::net::free_address().port().to_string());
    command.env("HOLE_PROCESS", process::id().to_string());
    let controller = Process::start(command);
    let line = controller.wait_for_line("sandbox: ");
    files.rotate("second");
    let Some(version) = landlock(&line) else {
        // Any other reason would be one of the program's own.
        assert!(line.contains("kernel") || line.contains("forbids links"), "{line}");
        return skip::unsupported(&line);
    };
    fs::File::create(files.at("go")).unwrap().write_all(b"1").unwrap();
    let mut found = findings(&files.at("report"));
    drop(controller);
    for (what, since) in [("signal", 6), ("abstract-socket", 6), ("listen", 4)] {
        let number = found.remove(what).unwrap();
        let expected = if what == "listen" { EACCES } else { EPERM };
        assert!(version < since || number == expected, "{what}: {number}");
    }
    let expected = [
        ("connect", 0),
        ("create", EACCES),
        ("end", 0),
        ("execute", EACCES),
        ("list-root", EACCES),
        ("read-kubeconfig", EACCES),
        ("read-outside", EACCES),
        ("read-token", 0),
        ("remove", EACCES),
        ("truncate-token", EACCES),
        ("write-token", EACCES),
    ];
    assert_eq!(found, expected.map(|(what, number)| (what.to_owned(), number)).into());
    assert_eq!(fs::read_to_string(files.token()).unwrap(), "second");
}

#[test]
fn every_thread_has_no_capability_and_no_way_to_one() {
    let (port, requests) = server();
    let files = Files::new(port, token_file);
    let controller = Process::start(files.run());
    assert!(controller.wait_for_line("sandbox: ").contains("capabilities: none"));
    // All threads run by then.
    assert_eq!(
        requests.recv_timeout(PATIENCE).unwrap().split_once(": ").unwrap().1,
        "Bearer first"
    );
    let tasks = fs::read_dir(format!("/proc/{}/task", controller.id())).unwrap();
    let statuses: Vec<_> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .collect();
    assert!(statuses.len() > 2, "{statuses:?}");
    for status in statuses {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), 0, "{set} {status}");
        }
        assert_eq!(field("NoNewPrivs:"), 1, "{status}");
    }
}

#[test]
fn a_kubeconfig_whose_credentials_a_program_issues_works_without_landlock() {
    let (port, requests) = server();
    let credential = "{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \
                      \"status\": {\"token\": \"issued\"}}";
    let files = Files::new(port, |_| {
        format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/echo, args: ['{credential}'], \
             interactiveMode: Never}}"
        )
    });
    let controller = Process::start(files.run());
    let line = controller.wait_for_line("sandbox: ");
    assert!(line.contains("no Landlock: the kubeconfig names a program"), "{line}");
    assert!(requests.recv_timeout(PATIENCE).unwrap().ends_with("Bearer issued"));
}

#[test]
fn without_landlock_it_works_and_says_so() {
    if !skip::commands(&["strace"]) {
        return;
    }
    for (errno, said) in
        [("ENOSYS", "this kernel has no Landlock"), ("EOPNOTSUPP", "Landlock is disabled")]
    {
        let (port, requests) = server();
        let files = Files::new(port, token_file);
        let run = files.run();
        let mut strace = Command::new("strace");
        strace.args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=landlock_create_ruleset",
            "-e",
        ]);
        strace.arg(format!("inject=landlock_create_ruleset:error={errno}"));
        strace.arg(run.get_program()).args(run.get_args());
        strace.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let controller = Process::start(strace);
        controller.wait_for_line(said);
        assert!(requests.recv_timeout(PATIENCE).unwrap().ends_with("Bearer first"));
    }
}
