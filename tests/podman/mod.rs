//! The image, and the two pods of a transfer made of it, played by podman: what a cluster would run, without one.
//!
//! These tests need root, podman and a built image, and so run only when asked for: `tests/run --podman`.

mod dns;
mod engine;
mod manifest;

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use testkit::{Content, Process, TempTree, assert_same, pki::Pki};
use tunnel::{Role, pki::LeafRequest};

use self::{
    dns::Dns,
    engine::Engine,
    manifest::{args, bind_claim, for_podman, message_path, resolve_by, shared_directory},
};
use crate::support::{assert_rsync_finds_nothing, pvferry};

/// The most that an image may hold, in bytes: 10 to 20 % above what they hold.
const IMAGE_LIMIT: u64 = 24 << 20;
/// What the controller calls the volumes behind the claims `a` and `b`.
const VOLUMES: [&str; 2] = ["a-0", "b-1"];
/// Where a pod of the namespace `ns` looks for names that are not whole.
const SEARCH: [&str; 3] = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"];
const SERVICE: &str = "data.ns.svc.cluster.local";

/// Two pods, ready to be played, with two volumes, and the keys for them.
struct Transfer {
    engine: Engine,
    pki: Pki,
    from: [TempTree; 2],
    to: [TempTree; 2],
    user: Option<u32>,
}

/// An identity of the source for each volume, below one directory.
fn identities(pki: &Pki) -> PathBuf {
    for volume in VOLUMES {
        let _ =
            pki.issue(&format!("volumes/{volume}"), &LeafRequest::new(Role::Source).volume(volume));
    }
    pki.path().join("volumes")
}

/// Pods that were played.
struct Played {
    source: String,
    destination: String,
    /// The name that the source looks up, in full.
    service: String,
    dns: Dns,
}

impl Transfer {
    fn new(user: Option<u32>) -> Self {
        let trees = || [TempTree::new(), TempTree::new()];
        let transfer = Self {
            engine: Engine::new(),
            pki: Pki::new("podman"),
            from: trees(),
            to: trees(),
            user,
        };
        for (claims, trees) in [(["a", "b"], &transfer.from), (["to-a", "to-b"], &transfer.to)] {
            for (claim, tree) in claims.iter().zip(trees) {
                bind_claim(&transfer.engine, claim, tree.path());
            }
        }
        transfer
    }

    /// Starts both pods; `change` may do something to the source before, and `identity` holds its keys.
    fn play(&self, identity: &Path, change: impl FnOnce(&mut Value)) -> Played {
        let engine = &self.engine;
        let [destination, mut source] = manifest::render(engine, self.user);
        let destination = engine.play(&for_podman(engine, destination, &self.pki.destination()));
        let address = engine.address(&destination);
        let service = format!("{}.cluster.local", manifest::server(&mut source));
        let dns = Dns::start(engine.gateway(), &[(&service, &[address])]);
        resolve_by(&mut source, engine.gateway());
        change(&mut source);
        let source = engine.play(&for_podman(engine, source, identity));
        Played { source, destination, service, dns }
    }

    /// What a container left as its termination message.
    fn message(&self, pod: &str, container: &str) -> Value {
        let text = fs::read_to_string(message_path(&self.engine, pod, container)).unwrap();
        assert!(text.len() <= 4096, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error} in {text:?}\n{}", self.engine.logs(pod, container))
        })
    }

    /// The completion marker of a volume.
    fn marker(&self, pods: &Played, volume: &str) -> Value {
        let path = self.shared(pods, volume).join(format!("{volume}.done"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// What the sync container of a volume shares with the tunnel.
    fn shared(&self, pods: &Played, volume: &str) -> PathBuf {
        shared_directory(&self.engine, &pods.source, &format!("run-{volume}"))
    }

    /// Waits for a container, and fails with all that its pod has said where it does not end with `code`.
    #[track_caller]
    fn expect(&self, pod: &str, container: &str, code: i32) {
        let found = self.engine.wait(pod, container);
        assert!(
            found == code,
            "{container} ended with {found} in place of {code}:\n{}",
            self.engine.logs(pod, container)
        );
    }

    /// Fails unless both volumes arrived and every container of both pods says so.
    #[track_caller]
    fn expect_success(&self, pods: &Played) {
        for container in ["sync-a-0", "sync-b-1", "tunnel"] {
            self.expect(&pods.source, container, 0);
        }
        self.expect(&pods.destination, "serve", 0);
        for pod in [&pods.source, &pods.destination] {
            self.engine.wait_for_end(pod);
        }
        for volume in VOLUMES {
            let message = self.message(&pods.source, &format!("sync-{volume}"));
            assert_eq!(
                (&message["outcome"], &message["exit_code"]),
                (&"completed".into(), &0.into())
            );
            assert_eq!((&message["volume"], &message["errors"]), (&volume.into(), &json!([])));
            assert_eq!(self.marker(pods, volume), message);
        }
        let received = self.message(&pods.destination, "serve");
        assert_eq!(
            (&received["outcome"], &received["volume"]),
            (&"completed".into(), &VOLUMES.join(",").into())
        );
        for (from, to) in self.from.iter().zip(&self.to) {
            assert_same(from.path(), to.path());
            assert_rsync_finds_nothing(from.path(), to.path());
            let mut verify = pvferry(["verify"]);
            verify.arg(from.path()).arg(to.path());
            Process::run(verify).expect(0);
        }
    }
}

#[test]
#[ignore = "tests/run --podman"]
fn an_image_holds_one_small_program_for_nobody_in_particular() {
    let engine = Engine::new();
    for (image, program) in
        [(engine.image(), "pvferry"), (engine.controller_image(), "pvferry-controller")]
    {
        let found = engine.podman(["image", "inspect", image]);
        let found = &serde_json::from_str::<Value>(&found).unwrap()[0];
        assert!(found["Size"].as_u64().unwrap() < IMAGE_LIMIT, "{} bytes", found["Size"]);
        assert_eq!(found["Config"]["User"], "65532:65532");
        assert_eq!(found["Config"]["Entrypoint"], json!([format!("/{program}")]));

        let layers = engine.dir().join(program);
        engine.podman(["save", "--format=docker-dir", "--output", layers.to_str().unwrap(), image]);
        assert_eq!(files_in_layers(&layers), [program]);

        let version = engine.container(image, &["--network", "none"], &["--version"]);
        let expected = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(version.expect(0).stdout, expected);
    }
}

/// What the layers of a saved image hold.
fn files_in_layers(image: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(image.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let names = layers.flat_map(|layer| {
        let digest = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let mut list = std::process::Command::new("tar");
        list.arg("tf").arg(image.join(digest));
        let listed = Process::run(list);
        listed.expect(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
#[ignore = "tests/run --podman"]
fn two_volumes_from_pod_to_pod_as_root() {
    let transfer = Transfer::new(None);
    // cap_net_bind_service, permitted and effective, as setcap writes it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    transfer.from[0].everything().file("bind", "x").xattr(
        "bind",
        "security.capability",
        &capability,
    );
    transfer.from[1].populate(1, 200).file("large", Content::random(9, 20 << 20));
    transfer.from[1].file("mine alone", "x").owner("mine alone", 4321, 4321).mode("mine alone", 0);
    transfer.to[1].populate(2, 50).file("large", Content::random(9, 19 << 20)).file("extra", "x");
    let pods = transfer.play(&identities(&transfer.pki), |_| {});
    transfer.expect_success(&pods);
    let asked = pods.dns.asked();
    assert!(asked.contains(&pods.service), "{asked:?}");
}

#[test]
#[ignore = "tests/run --podman"]
fn two_volumes_from_pod_to_pod_as_an_ordinary_user() {
    const USER: u32 = 65_532;
    let transfer = Transfer::new(Some(USER));
    transfer.from[0].populate(1, 100).file("f", Content::random(3, 1 << 20)).hard_link("f", "g");
    transfer.from[1].populate(2, 100).sparse("hollow", 8 << 20, &[(1 << 20, b"x")]);
    for tree in transfer.from.iter().chain(&transfer.to) {
        for path in testkit::Snapshot::of(tree.path()).0.keys() {
            tree.owner(path, USER, USER);
        }
    }
    let pods = transfer.play(&identities(&transfer.pki), |_| {});
    transfer.expect_success(&pods);
}

#[test]
#[ignore = "tests/run --podman"]
fn a_killed_sync_ends_its_pod() {
    let transfer = Transfer::new(None);
    transfer.from[0].file("large", Content::random(1, 8 << 20));
    transfer.from[1].populate(1, 20);
    let pods = transfer.play(&identities(&transfer.pki), |source| {
        args(source, "sync-a-0").extend(["--bwlimit=100K".into(), "--compress=never".into()]);
        let idle = |arg: &&mut Value| arg.as_str().unwrap().starts_with("--idle=");
        *args(source, "tunnel").iter_mut().find(idle).unwrap() = "--idle=5".into();
    });
    transfer.expect(&pods.source, "sync-b-1", 0);
    transfer.engine.wait_for_log(&pods.destination, "serve", "\"a-0\"");
    let sync = format!("{}-sync-a-0", pods.source);
    transfer.engine.podman(["kill", "--signal", "KILL", &sync]);
    transfer.expect(&pods.source, "sync-a-0", 137);
    transfer.expect(&pods.source, "tunnel", 30);
    transfer.engine.wait_for_end(&pods.source);
    assert_eq!(transfer.marker(&pods, "b-1")["outcome"], "completed");
    assert!(!transfer.shared(&pods, "a-0").join("a-0.done").exists());
    assert_eq!(
        fs::read_to_string(message_path(&transfer.engine, &pods.source, "sync-a-0")).unwrap(),
        ""
    );
    // Nothing passes for the file that was under way.
    assert!(!transfer.to[0].at("large").exists());
}

#[test]
#[ignore = "tests/run --podman"]
fn keys_of_another_migration_are_refused_by_name() {
    let transfer = Transfer::new(None);
    for tree in &transfer.from {
        tree.file("f", "x");
    }
    let stranger = Pki::new("another");
    let pods = transfer.play(&identities(&stranger), |_| {});
    for volume in VOLUMES {
        let sync = format!("sync-{volume}");
        transfer.expect(&pods.source, &sync, 5);
        let message = transfer.message(&pods.source, &sync);
        assert_eq!((&message["outcome"], &message["retryable"]), (&"failed".into(), &false.into()));
        assert!(message["reason"].as_str().unwrap().contains("certificate"), "{message}");
        assert_eq!(transfer.marker(&pods, volume), message);
    }
    transfer.expect(&pods.source, "tunnel", 0);
    transfer.engine.wait_for_end(&pods.source);
    assert!(transfer.to.iter().all(|tree| !tree.at("f").exists()));
}

#[test]
#[ignore = "tests/run --podman"]
fn a_sync_that_asks_for_another_volume_is_refused_and_the_other_arrives() {
    let transfer = Transfer::new(None);
    for tree in &transfer.from {
        tree.file("f", "x");
    }
    let pods = transfer.play(&identities(&transfer.pki), |source| {
        let volume = args(source, "sync-a-0").iter_mut().find(|arg| *arg == "a-0");
        *volume.unwrap() = "b-1".into();
        let idle = |arg: &&mut Value| arg.as_str().unwrap().starts_with("--idle=");
        *args(source, "tunnel").iter_mut().find(idle).unwrap() = "--idle=5".into();
    });
    transfer.expect(&pods.source, "sync-a-0", 5);
    transfer.expect(&pods.source, "sync-b-1", 0);
    // What the first container has left is a marker of another volume than its own: it counts for none.
    transfer.expect(&pods.source, "tunnel", 30);
    transfer.engine.wait_for_end(&pods.source);
    let message = transfer.message(&pods.source, "sync-a-0");
    let reason = message["reason"].as_str().unwrap();
    assert!(reason.contains("/source/a-0 is not authorized for volume b-1"), "{message}");
    assert!(transfer.shared(&pods, "a-0").join("b-1.done").exists());
    assert_same(transfer.from[1].path(), transfer.to[1].path());
    assert!(!transfer.to[0].at("f").exists());
}

#[test]
#[ignore = "tests/run --podman"]
fn names_are_looked_up_as_in_a_pod() {
    let engine = Engine::new();
    let (pki, from, to) = (Pki::new("names"), TempTree::new(), TempTree::new());
    from.file("f", "x");
    let gateway = engine.gateway().to_string();
    let bind = |path: &Path, at: &str| format!("{}:{at}", path.display());
    let serve = format!("{}-serve", engine.name());
    let mut options = vec!["run", "--detach", "--name", &serve, "--network", engine.name()];
    options.extend(["--user", "0", "--dns", &gateway, "--dns-opt", "ndots:5"]);
    options.extend(SEARCH.iter().flat_map(|domain| ["--dns-search", domain]));
    let keys = bind(&pki.destination(), "/identity:ro");
    let volume = bind(to.path(), "/volumes/a");
    options.extend(["--volume", &keys, "--volume", &volume, engine.image(), "serve"]);
    options.extend([
        "--listen",
        "[::]:8443",
        "--identity",
        "/identity",
        "--volume",
        "a=/volumes/a",
    ]);
    engine.podman(options);
    engine.wait_for_log_of(&serve, "listening on");

    let here = engine.address_of_container(&serve);
    let crowd: Vec<_> = (0..200).map(|_| here).collect();
    let dns = Dns::start(
        engine.gateway(),
        &[
            (SERVICE, &[here]),
            ("six.ns.svc.cluster.local", &[IpAddr::V6(Ipv6Addr::LOCALHOST)]),
            ("both.ns.svc.cluster.local", &[here, IpAddr::V6(Ipv6Addr::LOCALHOST)]),
            ("crowd.ns.svc.cluster.local", &crowd),
            ("ferry.example.net", &[here]),
        ],
    );
    let keys = bind(&pki.source(), "/identity:ro");
    let volume = bind(from.path(), "/volumes/a:ro");
    let network = format!("container:{serve}");
    let sync = |host: &str| {
        let options =
            ["--network", &network, "--user", "0", "--volume", &keys, "--volume", &volume];
        let server = format!("{host}:8443");
        let mut arguments = vec!["sync", "/volumes/a", "--volume", "a", "--connect", &server];
        arguments.extend(["--identity", "/identity", "--wait", "1", "--json"]);
        engine.container(engine.image(), &options, &arguments)
    };
    let below = |host: &str| SEARCH.map(|domain| format!("{host}.{domain}"));
    for (host, looked_up) in [
        ("data", below("data")[..1].to_vec()),
        ("data.ns", below("data.ns")[..2].to_vec()),
        ("data.ns.svc", below("data.ns.svc").to_vec()),
        (SERVICE, [&below(SERVICE)[..], &[SERVICE.into()]].concat()),
        ("six", below("six")[..1].to_vec()),
        ("both", below("both")[..1].to_vec()),
        ("crowd", below("crowd")[..1].to_vec()),
        (
            "ferry.example.net",
            [&below("ferry.example.net")[..], &["ferry.example.net".into()]].concat(),
        ),
    ] {
        let finished = sync(host);
        finished.expect(0);
        assert_eq!(dns.asked(), looked_up, "for {host}");
    }
    let finished = sync("nowhere");
    let report: Value = serde_json::from_str(finished.expect(35).stdout.trim()).unwrap();
    assert!(report["reason"].as_str().unwrap().contains("DNS"), "{report}");
    engine.podman(["rm", "--force", "--time", "0", &serve]);
}
