//! The tunnel between stock programs: a stock rsync through it to a stock stunnel, and a stock stunnel to
//! a stock rsync daemon behind it.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use testkit::{Process, TempTree, assert_same, net, skip};

use crate::{pod::Pod, support::pvferry};

/// An rsync daemon with one module `vol`, in the foreground.
fn rsyncd(config: &Path, address: SocketAddr, volume: &Path) -> Process {
    let text = format!(
        "address = {}\nport = {}\nuse chroot = no\nreverse lookup = no\n\
         [vol]\npath = {}\nread only = no\nmunge symlinks = no\nuid = root\ngid = root\n",
        address.ip(),
        address.port(),
        volume.display()
    );
    fs::write(config, text).unwrap();
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--config"]).arg(config);
    let daemon = Process::start(command);
    net::wait_for(address);
    daemon
}

/// A stunnel in the foreground that accepts TLS at `accept` and passes plaintext to `connect`, or the other
/// way round where it is the client, and demands a certificate of the authority.
fn stunnel(
    config: &Path,
    identity: &Path,
    client: bool,
    accept: SocketAddr,
    connect: SocketAddr,
) -> Process {
    let at = |file: &str| identity.join(file).display().to_string();
    let text = format!(
        "foreground = yes\npid =\nsyslog = no\n[r]\nclient = {}\naccept = {accept}\n\
         connect = {connect}\ncert = {}\nkey = {}\nCAfile = {}\nverifyChain = yes\n\
         sslVersionMin = TLSv1.3\n",
        if client { "yes" } else { "no" },
        at("tls.crt"),
        at("tls.key"),
        at("ca.crt"),
    );
    fs::write(config, text).unwrap();
    let mut command = Command::new("stunnel");
    command.arg(config);
    let process = Process::start(command);
    process.wait_for_line("Configuration successful");
    net::wait_for(accept);
    process
}

fn rsync(source: &Path, port: u16) {
    let mut command = Command::new("rsync");
    command.args(["-aHAX", "--numeric-ids", "--delete", "--modify-window=-1"]);
    command.arg(format!("{}/", source.display()));
    command.arg(format!("rsync://127.0.0.1:{port}/vol/"));
    Process::run(command).expect(0);
}

#[test]
fn stock_rsync_through_our_tunnel_to_stock_stunnel() {
    if !(skip::root() && skip::commands(&["rsync", "stunnel"])) {
        return;
    }
    let (pod, dir) = (Pod::new(), TempTree::new());
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 100).file("large", testkit::Content::random(1, 20 << 20));
    let plain = net::free_address();
    let _daemon = rsyncd(&dir.at("rsyncd.conf"), plain, destination.path());
    let identity = pod.pki.destination();
    let _stunnel = stunnel(&dir.at("stunnel.conf"), &identity, false, pod.server, plain);
    let tunnel = pod.tunnel(&[]);

    for _ in 0..2 {
        rsync(source.path(), pod.local.port());
        assert_same(source.path(), destination.path());
        source.mutate(2, 10);
    }
    tunnel.terminate();
    tunnel.wait().expect(20);
}

#[test]
fn stock_stunnel_to_our_server_is_judged_by_its_certificate() {
    if !skip::commands(&["stunnel"]) {
        return;
    }
    let (pod, dir) = (Pod::new(), TempTree::new());
    let (source, destination) = (TempTree::new(), TempTree::new());
    source.populate(1, 50);
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let identity = pod.pki.source();
    let config = dir.at("stunnel.conf");
    let _stunnel = stunnel(&config, &identity, true, pod.local, pod.server);
    Process::run(pod.sync(source.path(), "a", &[])).expect(0);
    assert_same(source.path(), destination.path());
}

#[test]
fn openssl_is_refused_without_a_certificate_and_below_tls_1_3() {
    if !skip::commands(&["openssl"]) {
        return;
    }
    let pod = Pod::new();
    let destination = TempTree::new();
    let _serve = pod.serve(&[("a", destination.path())], &[]);
    let server = pod.server.to_string();
    let client = |more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &server, "-quiet"]).args(more);
        Process::run(command)
    };
    let identity = pod.pki.source();
    let (cert, key) = (identity.join("tls.crt"), identity.join("tls.key"));
    let own = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    let old = client(&[&own[..], &["-tls1_2"]].concat());
    assert_ne!(old.code(), 0, "{}", old.stderr);
    assert!(old.stderr.contains("alert protocol version"), "{}", old.stderr);
    let anonymous = client(&[]);
    assert!(anonymous.stderr.contains("certificate required"), "{}", anonymous.stderr);
}

#[test]
fn help_manual_and_completions_agree() {
    let manual = Process::run(pvferry(["man"]));
    let completions = Process::run(pvferry(["completions", "bash"]));
    for command in ["copy", "sync", "tunnel", "serve", "digest", "verify", "pki"] {
        let help = Process::run(pvferry([command, "--help"]));
        help.expect(0);
        // What is accepted out of habit is not offered for completion.
        let offered = help.stdout.split("Accepted for users of rsync").next().unwrap();
        for flag in offered.split_whitespace().filter(|word| word.starts_with("--")) {
            // A value, or one that may be left out, follows without a blank.
            let flag = flag.split(['[', '=']).next().unwrap();
            let flag = flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let escaped = flag.replace('-', "\\-");
            assert!(manual.stdout.contains(&escaped), "{command} {flag} is not in the manual");
            assert!(completions.stdout.contains(flag), "{command} {flag} is not completed");
        }
    }
}
