//! The commands of README and OPERATIONS work: each is run, or checked as far as a machine without a cluster can.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use testkit::{Content, Process, TempTree, assert_same, net, skip};

use crate::support::pvferry;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The command blocks of a document, which are indented by four columns; each as its lines.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let (mut fenced, mut within) = (false, false);
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let command = (!fenced).then(|| line.strip_prefix("    ")).flatten();
        match command {
            Some(command) if within => blocks.last_mut().unwrap().push(command.to_owned()),
            Some(command) => blocks.push(vec![command.to_owned()]),
            None => {}
        }
        within = command.is_some();
    }
    blocks
}

/// A command without the explanation beside it, which two spaces set apart.
fn words(line: &str) -> Vec<&str> {
    line.split("  ").next().unwrap().split_whitespace().collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Checks one command outside the demonstration; an unknown one fails, so that nothing new goes unchecked.
fn check(line: &str) {
    match words(line)[..] {
        ["cargo", "run", "--release", "--", "copy", "SRC", "DST"] => {
            let (source, destination) = (TempTree::new(), TempTree::new());
            source.everything();
            let mut copy = pvferry(["copy"]);
            copy.arg(source.path()).arg(destination.path());
            Process::run(copy).expect(0);
            assert_same(source.path(), destination.path());
        }
        ["cargo", "run", "--release", "--", "verify", "SRC", "DST"] => {
            let (source, destination) = (TempTree::new(), TempTree::new());
            for tree in [&source, &destination] {
                tree.file("f", "1").mtime("f", 1, 1).mtime("", 1, 1);
            }
            let mut verify = pvferry(["verify"]);
            verify.arg(source.path()).arg(destination.path());
            Process::run(verify).expect(0);
        }
        ["cargo", "build", "--release"] => {}
        ["kubectl", .., "-k", directory] => builds(&root().join(directory)),
        ["kubectl", .., "-f", file] => {
            assert!(root().join(file).is_file(), "{line}");
        }
        // Run by the tests of that program, bin/pvferry-mover/tests/readme.rs.
        ["pvferry-mover", ..] => {}
        // What it names lives on a cluster.
        ["kubectl", ..] => {}
        [
            program @ ("benches/versus" | "tests/run" | "deploy/image" | "deploy/kubeconfig"),
            ref arguments @ ..,
        ] => {
            let path = root().join(program);
            assert!(is_executable(&path), "{line}");
            let script = fs::read_to_string(&path).unwrap();
            for option in arguments.iter().filter(|argument| argument.starts_with("--")) {
                assert!(
                    script.contains(&format!("{option})"))
                        || script.contains(&format!("{option}|"))
                        || script.contains(&format!("|{option}"))
                        || script.contains(&format!("| {option}")),
                    "{line}"
                );
            }
        }
        _ => panic!("not checked: {line}"),
    }
}

/// Every resource that a kustomization lists exists; built by kubectl, if it is installed.
fn builds(directory: &Path) {
    let text = fs::read_to_string(directory.join("kustomization.yaml")).unwrap();
    let resources = text.lines().skip_while(|line| *line != "resources:").skip(1);
    for resource in resources.map_while(|line| line.strip_prefix("- ")) {
        let path = directory.join(resource);
        assert!(path.exists(), "{}", path.display());
        if path.is_dir() {
            builds(&path);
        }
    }
    if skip::commands(&["kubectl"]) {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("kustomize").arg(directory);
        let built = Process::run(kubectl);
        assert!(built.expect(0).stdout.contains("kind: "), "{}", directory.display());
    }
}

#[test]
fn every_command_of_readme_and_operations_is_checked() {
    let mut checked = 0;
    for name in ["README.md", "docs/OPERATIONS.md"] {
        for block in blocks(&document(name)) {
            if block.iter().any(|line| line.starts_with("pvferry ")) {
                continue; // the demonstration
            }
            for line in block.iter().filter(|line| !line.trim().is_empty()) {
                check(line.trim());
                checked += 1;
            }
        }
    }
    assert!(checked >= 15, "only {checked} commands were found");
}

#[test]
fn demonstration_of_readme_runs_as_it_stands() {
    let blocks = blocks(&document("README.md"));
    let demonstrations: Vec<_> = blocks
        .iter()
        .filter(|block| block.iter().any(|line| line.starts_with("pvferry ")))
        .collect();
    let [demonstration] = demonstrations[..] else { panic!("{demonstrations:?}") };
    let work = TempTree::new();
    work.dir("bin").file("docs/a", "text").file("docs/sub/b", Content::random(1, 300_000));
    symlink(env!("CARGO_BIN_EXE_pvferry"), work.at("bin/pvferry")).unwrap();
    let (server, tunnel) = (net::free_address().port(), net::free_address().port());
    let script = format!("set -euo pipefail\n{}\n", demonstration.join("\n"))
        .replace("8443", &server.to_string())
        .replace("2222", &tunnel.to_string());
    let mut path = OsString::from(work.at("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(script).current_dir(work.path()).env("PATH", path).env_remove("RUST_LOG");
    Process::run(bash).expect(0);
    assert_same(&work.at("demo/old"), &work.at("demo/new"));
    assert!(work.at("demo/markers/data.done").exists());
}

#[test]
fn options_and_links_of_readme_exist() {
    let text = document("README.md");
    let manual = document("docs/pvferry.1").replace("\\-", "-");
    let own = [
        "--quick",
        "--help",
        "--dir",
        "--podman",
        "--cluster",
        "--faults",
        "--release",
        "--from",
        "--save",
        "--push",
        "--smoke",
        "--repository",
        "--credentials",
        "--host",
        "--path",
    ];
    let theirs = ["--append-verify", "--inplace", "--no-inc-recursive", "--numeric-ids"];
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    for (at, _) in text.match_indices("--") {
        let preceded =
            text[..at].chars().next_back().is_some_and(|c| !matches!(c, ' ' | '`' | '\n'));
        let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
        if preceded || name.trim_matches('-').is_empty() {
            continue;
        }
        let known = own.contains(&&*name) || theirs.contains(&&*name) || manual.contains(&name);
        assert!(known, "README names {name}, which pvferry does not have");
    }
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split([')', '#']).next().unwrap();
        if !target.is_empty() && !target.contains("://") {
            assert!(root().join(target).exists(), "README links to {target}");
        }
    }
}

#[test]
fn images_of_the_deployment_are_those_that_deploy_image_builds() {
    let script = document("deploy/image");
    assert!(script.contains("\nprefix=localhost/ ") && script.contains("echo dev"));
    let kustomization = document("deploy/kustomization.yaml");
    for name in ["pvferry", "pvferry-controller"] {
        let entry = format!("- name: {name}\n  newName: localhost/{name}\n  newTag: dev\n");
        assert!(kustomization.contains(&entry), "{entry}{kustomization}");
    }
    if skip::commands(&["kubectl"]) {
        let built = kustomized(&root().join("deploy"));
        assert_eq!(images(&built), ["localhost/pvferry-controller:dev", "localhost/pvferry:dev"]);
        assert!(built.contains("value: localhost/pvferry:dev\n"), "PVFERRY_IMAGE");
    }
}

/// An image of another name reaches the controller, its init container and the transfer pods from one list.
#[test]
fn pushed_images_are_those_that_the_kustomization_deploys() {
    if !skip::commands(&["kubectl"]) {
        return;
    }
    let work = TempTree::new();
    let copy = |from: &str| {
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(root().join(from)).arg(work.path());
        Process::run(cp).expect(0);
    };
    copy("deploy");
    copy("Dockerfile");
    work.dir("bin").file("programs/pvferry", "").file("programs/pvferry-controller", "");
    work.file("bin/podman", "#!/bin/sh\necho \"$@\" >>calls\n");
    fs::set_permissions(work.at("bin/podman"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut image = Command::new(work.at("deploy/image"));
    image.args(["--push", "registry.example/team", "--tag", "1.2", "--binaries"]);
    image.arg(work.at("programs")).env("IMAGE_BUILDER", "podman");
    image.env("PATH", paths(&[&work.at("bin")]));
    Process::run(image).expect(0);
    let calls = fs::read_to_string(work.at("calls")).unwrap();
    for name in ["pvferry", "pvferry-controller"] {
        let image = format!("registry.example/team/{name}:1.2");
        assert!(calls.contains(&format!("push {image} docker://{image}\n")), "{calls}");
    }
    let built = kustomized(&work.at("deploy"));
    let expected =
        ["registry.example/team/pvferry-controller:1.2", "registry.example/team/pvferry:1.2"];
    assert_eq!(images(&built), expected);
    assert!(built.contains("value: registry.example/team/pvferry:1.2\n"), "PVFERRY_IMAGE");
}

/// The directories before those of `PATH`.
fn paths(first: &[&Path]) -> OsString {
    let mut path = OsString::new();
    for directory in first {
        path.push(directory);
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap());
    path
}

fn kustomized(directory: &Path) -> String {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("kustomize").arg(directory);
    Process::run(kubectl).expect(0).stdout.clone()
}

/// The images of the containers of all objects, in order.
fn images(manifests: &str) -> Vec<&str> {
    manifests.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect()
}

#[test]
fn blocks_are_found_and_fences_are_not() {
    let text = "a\n\n    one\n    two\n\n```text\n    no\n```\n    three\n";
    assert_eq!(blocks(text), [vec!["one", "two"], vec!["three"]]);
    assert_eq!(words("tests/run --podman       and the pods"), ["tests/run", "--podman"]);
}
