//! The shape of the workspace, as rules: who may import whom, and where the risky things may be.
//!
//! Manifests are read through `cargo metadata`, which knows every form that a dependency can take;
//! what is activated in the end is read from `cargo tree`. Each rule is shown to bite on a made-up
//! workspace.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Which of our crates each package may import. `testkit` may be a dev-dependency of any.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("text", &[]),
    ("delta", &[]),
    ("wire", &["text"]),
    ("volume", &["wire"]),
    ("session", &["delta", "wire", "volume"]),
    ("tunnel", &[]),
    ("pod", &["text"]),
    ("telemetry", &["session", "text"]),
    ("sandbox", &[]),
    ("controller", &["pod"]),
    ("repository", &["volume", "wire"]),
    ("testkit", &["delta", "wire", "volume", "session", "tunnel", "pod", "telemetry"]),
    ("pvferry", &["delta", "wire", "volume", "session", "tunnel", "pod", "telemetry", "sandbox"]),
    ("pvferry-controller-bin", &["controller", "pod", "telemetry", "tunnel", "sandbox"]),
    ("pvferry-mover-bin", &["repository", "volume", "pod", "telemetry"]),
];

/// An outside package that only some of ours may import.
struct Confined {
    packages: &'static [&'static str],
    to: &'static [&'static str],
    /// Whether tests of other packages may import it all the same.
    free_in_tests: bool,
}

const CONFINED: [Confined; 7] = [
    Confined { packages: &["rustic_core", "opendal"], to: &["repository"], free_in_tests: false },
    Confined { packages: &["kube", "kube-runtime"], to: &["controller"], free_in_tests: false },
    Confined {
        packages: &["k8s-openapi"],
        to: &["controller", "pvferry-controller-bin"],
        free_in_tests: false,
    },
    Confined {
        packages: &["rustls", "tokio-rustls", "rustls-webpki", "rustls-pki-types", "rcgen"],
        to: &["tunnel"],
        free_in_tests: true,
    },
    Confined {
        packages: &["tokio"],
        to: &[
            "session",
            "tunnel",
            "pod",
            "telemetry",
            "controller",
            "repository",
            "testkit",
            "pvferry",
            "pvferry-controller-bin",
            "pvferry-mover-bin",
        ],
        free_in_tests: false,
    },
    Confined {
        packages: &["clap", "clap_complete", "clap_mangen"],
        to: &["pvferry", "pvferry-controller-bin", "pvferry-mover-bin"],
        free_in_tests: true,
    },
    Confined { packages: &["landlock"], to: &["sandbox"], free_in_tests: false },
];

/// Packages that a peer can talk to, or that hold credentials: without `unsafe`, for good.
const FORBID_UNSAFE: [&str; 8] =
    ["text", "wire", "session", "tunnel", "pod", "sandbox", "controller", "repository"];

/// Packages that may relax the workspace's `deny(unsafe_code)`, where it is measured to pay; the binary for its
/// allocator and the end of a process without memory.
const MAY_BE_UNSAFE: [&str; 3] = ["delta", "volume", "pvferry"];

/// The workspace of the mover.
const MOVER: &str = "bin/pvferry-mover/Cargo.toml";

#[test]
fn the_workspaces_keep_their_layers() {
    for (manifest, member) in [("Cargo.toml", "pvferry"), (MOVER, "repository")] {
        let packages = packages(&root().join(manifest));
        assert!(packages.iter().any(|package| package.name == member), "{manifest} lacks {member}");
        assert_eq!(complaints(&packages), Vec::<String>::new());
    }
}

#[test]
fn one_provider_of_cryptography_is_active() {
    let all = ["--workspace", "--all-features", "--edges", "normal,build,dev"];
    for tree in [tree(&all), tree(&[&all[..], &["--manifest-path", MOVER]].concat())] {
        for banned in ["ring", "openssl", "openssl-sys", "native-tls", "rsa"] {
            assert_eq!(versions(&tree, banned), [""; 0], "{banned} is in the tree");
        }
        for single in ["rustls", "aws-lc-rs", "aws-lc-sys"] {
            assert_eq!(versions(&tree, single).len(), 1, "{:?}", versions(&tree, single));
        }
    }
}

#[test]
fn the_data_plane_holds_no_client_of_kubernetes_or_s3() {
    let tree = tree(&["--package", "pvferry", "--edges", "normal"]);
    assert!(!versions(&tree, "tokio").is_empty(), "this is not the tree of the binary:\n{tree}");
    for foreign in [
        "kube",
        "k8s-openapi",
        "pvferry-controller",
        "pvferry-repository",
        "rustic_core",
        "opendal",
        "pvferry-testkit",
    ] {
        assert_eq!(versions(&tree, foreign), [""; 0], "{foreign} is in the data plane");
    }
}

/// A package of a workspace, as far as the rules look at it.
struct Package {
    name: String,
    manifest: String,
    dependencies: Vec<Dependency>,
    /// Root files of its library and binaries.
    roots: Vec<String>,
    /// Every other Rust file of it, with whether it is test code from its first line on.
    files: Vec<(String, bool)>,
}

struct Dependency {
    name: String,
    dev: bool,
}

fn complaints(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(complaints_about).collect()
}

fn complaints_about(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{name} is not in the table of layers")];
    };
    let mut complaints = Vec::new();
    let mut judge = |import: &str, dev: bool, how: &str| {
        if !may_import(name, allowed, import, dev) {
            complaints.push(format!("{name} {how} {import}"));
        }
    };
    for dependency in &package.dependencies {
        judge(&dependency.name, dependency.dev, "depends on");
    }
    for (text, test) in &package.files {
        for import in imports(text) {
            judge(&import.replace('_', "-"), *test || text.contains("#[cfg(test)]"), "uses");
        }
    }

    if FORBID_UNSAFE.contains(&name)
        && !package.roots.iter().all(|text| has_line(text, "#![forbid(unsafe_code)]"))
    {
        complaints.push(format!("{name} does not forbid unsafe code"));
    }
    if !MAY_BE_UNSAFE.contains(&name)
        && package.files.iter().any(|(text, test)| !test && text.contains("allow(unsafe_code"))
    {
        complaints.push(format!("{name} allows unsafe code"));
    }
    if !package.manifest.replace(' ', "").contains("[lints]\nworkspace=true") {
        complaints.push(format!("{name} does not take the lints of the workspace"));
    }
    complaints
}

/// Whether `package` may import `import`: one of ours by the table, anything else unless confined.
fn may_import(package: &str, allowed: &[&str], import: &str, dev: bool) -> bool {
    let import = import.strip_prefix("pvferry-").unwrap_or(import);
    if MAY_IMPORT.iter().any(|(ours, _)| *ours == import) {
        return allowed.contains(&import) || (dev && import == "testkit") || import == package;
    }
    CONFINED
        .iter()
        .filter(|rule| rule.packages.contains(&import))
        .all(|rule| rule.to.contains(&package) || (dev && rule.free_in_tests))
}

/// The first segment of each `use` and `extern crate` line.
fn imports(text: &str) -> Vec<&str> {
    let mut imports = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let line = line.strip_prefix("pub").map_or(line, |rest| {
            rest.trim_start_matches(|c| c != ' ').trim_start() // past a `(crate)`
        });
        let Some(path) = line.strip_prefix("use ").or(line.strip_prefix("extern crate ")) else {
            continue;
        };
        let path = path.trim_start_matches("::");
        let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        imports.push(&path[..end.unwrap_or(path.len())]);
    }
    imports.retain(|first| !["", "crate", "self", "super", "std", "core"].contains(first));
    imports
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim_end() == wanted)
}

/// Every package of the workspace, under the name that it has in the table.
fn packages(manifest: &Path) -> Vec<Package> {
    let manifest = manifest.to_str().unwrap();
    let metadata = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version=1",
        "--manifest-path",
        manifest,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    array(&metadata["packages"]).iter().map(package).collect()
}

fn package(package: &Value) -> Package {
    let full = text(&package["name"]);
    // The binaries keep their full names: they are no crates that others could import.
    let is_library = array(&package["targets"]).iter().any(|t| array(&t["kind"])[0] == "lib");
    let short = full.strip_prefix("pvferry-").filter(|_| is_library).unwrap_or(full);

    let dependencies = array(&package["dependencies"]).iter().map(|dependency| Dependency {
        name: text(&dependency["name"]).to_owned(),
        dev: dependency["kind"] == "dev",
    });
    let tests: Vec<_> = array(&package["targets"])
        .iter()
        .filter(|target| text(&array(&target["kind"])[0]) == "test")
        .map(|target| Path::new(text(&target["src_path"])).parent().unwrap())
        .collect();
    let (mut roots, mut files) = (Vec::new(), Vec::new());
    for target in array(&package["targets"]) {
        let kind = text(&array(&target["kind"])[0]);
        let root = Path::new(text(&target["src_path"]));
        let product = kind == "lib" || kind == "bin";
        if product {
            roots.push(fs::read_to_string(root).unwrap());
        }
        let folder = root.parent().unwrap();
        // Where a program has its tests in the same folder, they are other targets.
        let of_another = |file: &Path| product && tests.iter().any(|test| file.starts_with(test));
        for file in walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap) {
            let is_rust = file.path().extension().is_some_and(|extension| extension == "rs");
            if is_rust && !of_another(file.path()) {
                files.push((fs::read_to_string(file.path()).unwrap(), !product));
            }
        }
    }
    let manifest = fs::read_to_string(text(&package["manifest_path"])).unwrap();
    let dependencies = dependencies.collect();
    Package { name: short.to_owned(), manifest, dependencies, roots, files }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The packages that are active on this machine, one on a line: `name vVERSION …`.
fn tree(selection: &[&str]) -> String {
    let mut arguments = vec!["tree", "--locked", "--offline", "--prefix", "none"];
    arguments.extend(selection);
    cargo(&arguments)
}

/// The distinct versions of `package` in the output of [`tree`].
fn versions<'a>(tree: &'a str, package: &str) -> Vec<&'a str> {
    let mut versions: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| *name == package)
        .filter_map(|(_, rest)| rest.split(' ').next())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).current_dir(root()).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {}: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

mod bites {
    //! Made-up workspaces of one package each, and what the rules say about them.

    use super::{complaints, fs, imports, packages, versions};

    const FORBID: &str = "#![forbid(unsafe_code)]\n";

    /// Complaints about a workspace whose only member is `name` with this part of a manifest and this `lib.rs`.
    fn judged(name: &str, dependencies: &str, library: &str) -> Vec<String> {
        judged_whole(name, &format!("{dependencies}\n[lints]\nworkspace = true\n"), library)
    }

    fn judged_whole(name: &str, manifest: &str, library: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        fs::create_dir_all(member.join("src")).unwrap();
        let workspace = "[workspace]\nresolver = \"3\"\nmembers = [\"member\"]\n\
            [workspace.dependencies]\ntokio = \"1\"\n[workspace.lints.rust]\nunsafe_code = \"deny\"\n";
        let package = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n{manifest}");
        fs::write(dir.path().join("Cargo.toml"), workspace).unwrap();
        fs::write(member.join("Cargo.toml"), package).unwrap();
        fs::write(member.join("src/lib.rs"), library).unwrap();
        complaints(&packages(&dir.path().join("Cargo.toml")))
    }

    #[test]
    fn what_the_table_allows_passes() {
        let dependencies = "[dependencies]\ndelta = { package = \"pvferry-delta\", version = \"0.1\" }\n\
            tokio.workspace = true\n[dev-dependencies]\npvferry-testkit = \"0.1\"\n";
        let library = format!("{FORBID}use delta::Signature;\nuse tokio::io;\n");
        assert_eq!(judged("pvferry-session", dependencies, &library), [""; 0]);
    }

    #[test]
    fn an_import_against_the_layers() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let renamed =
                format!("[{section}]\nx = {{ package = \"pvferry-session\", version = \"0.1\" }}");
            assert_eq!(
                judged("pvferry-pod", &renamed, FORBID),
                ["pod depends on pvferry-session"],
                "{section}"
            );
        }
        let for_one_system = "[target.'cfg(unix)'.dependencies]\npvferry-volume = \"0.1\"";
        assert_eq!(
            judged("pvferry-delta", for_one_system, ""),
            ["delta depends on pvferry-volume"]
        );
        let testkit = "[dependencies]\npvferry-testkit = \"0.1\"";
        assert_eq!(judged("pvferry-volume", testkit, ""), ["volume depends on pvferry-testkit"]);
        let controller = "[dependencies]\npvferry-controller = \"0.1\"";
        assert_eq!(judged("pvferry", controller, ""), ["pvferry depends on pvferry-controller"]);
    }

    #[test]
    fn a_package_that_nobody_placed() {
        assert_eq!(judged("pvferry-misc", "", ""), ["misc is not in the table of layers"]);
    }

    #[test]
    fn tokio_below_the_drivers() {
        for name in ["delta", "wire", "volume"] {
            for section in ["dependencies", "dev-dependencies"] {
                let manifest = format!("[{section}]\ntokio = {{ workspace = true }}");
                let found = judged(&format!("pvferry-{name}"), &manifest, FORBID);
                assert_eq!(found, [format!("{name} depends on tokio")]);
            }
        }
    }

    #[test]
    fn kube_outside_the_controller() {
        let kube = "[dependencies]\nkube = { version = \"3\", optional = true }";
        assert_eq!(judged("pvferry-pod", kube, FORBID), ["pod depends on kube"]);
        assert_eq!(judged("pvferry", kube, ""), ["pvferry depends on kube"]);
        assert_eq!(judged("pvferry-controller", kube, FORBID), [""; 0]);
    }

    #[test]
    fn tls_outside_the_tunnel() {
        for package in ["rustls", "tokio-rustls", "rcgen"] {
            let dependency = format!("[dependencies]\n{package} = \"1\"");
            assert_eq!(
                judged("pvferry-session", &dependency, FORBID),
                [format!("session depends on {package}")]
            );
            assert_eq!(judged("pvferry-tunnel", &dependency, FORBID), [""; 0]);
            let in_tests = format!("[dev-dependencies]\n{package} = \"1\"");
            assert_eq!(judged("pvferry-session", &in_tests, FORBID), [""; 0]);
        }
    }

    #[test]
    fn unsafe_code_where_it_is_forbidden() {
        for name in super::FORBID_UNSAFE {
            let package = format!("pvferry-{name}");
            let expected = [format!("{name} does not forbid unsafe code")];
            assert_eq!(judged(&package, "", "//! Text.\n"), expected);
            assert_eq!(judged(&package, "", &format!("// {FORBID}")), expected);
        }
        let relaxed = "#![allow(unsafe_code, reason = \"fast\")]\n";
        assert_eq!(judged("pvferry-telemetry", "", relaxed), ["telemetry allows unsafe code"]);
        assert_eq!(judged("pvferry-delta", "", relaxed), [""; 0]);
    }

    #[test]
    fn lints_of_its_own() {
        assert_eq!(
            judged_whole("pvferry-delta", "[lints.rust]\nunsafe_code = \"allow\"\n", ""),
            ["delta does not take the lints of the workspace"]
        );
    }

    #[test]
    fn a_use_line_against_the_layers() {
        let library = "pub(crate) use tokio::io;\nuse crate::x;\n    pub use session::send;\n";
        assert_eq!(imports(library), ["tokio", "session"]);
        assert_eq!(
            judged("pvferry-volume", "", library),
            ["volume uses tokio", "volume uses session"]
        );
    }

    #[test]
    fn an_active_package_is_seen_in_the_tree() {
        let tree = "pvferry v0.1.0 (/x)\nring v0.17.14\nring-compat v1.0.0\nrustls v0.23.1 (*)\nrustls v0.22.4\nrustls v0.23.1\n";
        assert_eq!(versions(tree, "ring"), ["v0.17.14"]);
        assert_eq!(versions(tree, "rustls"), ["v0.22.4", "v0.23.1"]);
        assert_eq!(versions(tree, "openssl"), [""; 0]);
    }
}
