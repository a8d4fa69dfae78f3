//! The transfer pods that the controller would make, and what has to change in them for podman.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::engine::Engine;

/// The pods of a migration of the claims `a` and `b` from the namespace `old` to `to-a` and `to-b` in `new`, destination first,
/// as the controller's image prints them.
pub(crate) fn render(engine: &Engine, user: Option<u32>) -> [Value; 2] {
    let migration = json!({
        "apiVersion": "pvferry.io/v1alpha1",
        "kind": "DirectVolumeMigration",
        "metadata": {"name": "move"},
        "spec": {
            "source": {"namespace": "old"},
            "destination": {"namespace": "new"},
            "volumes": [
                {"name": "a", "target": {"name": "to-a"}},
                {"name": "b", "target": {"name": "to-b"}},
            ],
            "transfer": {"delete": true},
            "pods": {"user": user.map_or(json!({}), |id| json!({"id": id})), "imagePullPolicy": "Never"},
        },
    });
    let path = engine.dir().join("migration.yaml");
    fs::write(&path, migration.to_string()).unwrap();
    fs::set_permissions(engine.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/migration.yaml:ro", path.display());
    let options = ["--network", "none", "--volume", &volume];
    let arguments = ["render", "--from", "/migration.yaml", "--image", engine.image()];
    let rendered = engine.container(engine.controller_image(), &options, &arguments);
    let pods: Vec<Value> = serde_saphyr::from_multiple(&rendered.expect(0).stdout).unwrap();
    pods.try_into().unwrap()
}

/// A container of a pod, to be changed.
pub(crate) fn container<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.iter_mut().find(|container| container["name"] == name).unwrap()
}

/// The arguments of a container, to be changed.
pub(crate) fn args<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    container(pod, name)["args"].as_array_mut().unwrap()
}

/// Where the tunnel of a pod connects to, without the port.
pub(crate) fn server(pod: &mut Value) -> String {
    let args = args(pod, "tunnel");
    let connect = args.iter().position(|arg| arg == "--connect").unwrap();
    args[connect + 1].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned()
}

/// Lets a pod resolve names by `server`, as the pods of a cluster do.
pub(crate) fn resolve_by(pod: &mut Value, server: IpAddr) {
    pod["spec"]["dnsPolicy"] = "None".into();
    pod["spec"]["dnsConfig"] = json!({
        "nameservers": [server.to_string()],
        "searches": super::SEARCH,
        "options": [{"name": "ndots", "value": "5"}],
    });
}

/// `pod` for podman, with the files below `identity` as its Secret, in the places where the pod wants them.
///
/// What a cluster does by itself has to be said: volumes of all pods share one space of names there, and an emptyDir is not
/// open to everybody; Secrets are decoded in some versions only; no termination message is there. Podman mounts each
/// directory that stands in as a kubelet would have prepared it.
pub(crate) fn for_podman(engine: &Engine, mut pod: Value, identity: &Path) -> Value {
    let own = |name: &Value| format!("{}-{}", engine.name(), name.as_str().unwrap());
    let name = own(&pod["metadata"]["name"]);
    pod["metadata"] = json!({"name": name});
    let group = pod["spec"]["securityContext"]["fsGroup"].as_u64().unwrap_or(0);
    let stand_in = |kind: &str, path: PathBuf| json!({"path": path, "type": kind});

    for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
        if let Some(claim) = volume.get_mut("persistentVolumeClaim") {
            claim["claimName"] = own(&claim["claimName"]).into();
        } else if volume.get("emptyDir").is_some() {
            let path = shared_directory(engine, &name, volume["name"].as_str().unwrap());
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            *volume = json!({"name": volume["name"], "hostPath": stand_in("Directory", path)});
        } else if let Some(secret) = volume.get("secret") {
            let mode = u32::try_from(secret["defaultMode"].as_u64().unwrap()).unwrap();
            let path = engine.dir().join(format!("{name}-keys"));
            let files = match secret.get("items").and_then(Value::as_array) {
                Some(items) => items.iter().map(|i| i["path"].as_str().unwrap()).collect(),
                None => vec!["ca.crt", "tls.crt", "tls.key"],
            };
            lay_out_secret(&path, identity, &files, mode, u32::try_from(group).unwrap());
            *volume = json!({"name": volume["name"], "hostPath": stand_in("Directory", path)});
        }
    }
    let mut messages = Vec::new();
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        // Podman would open these on the machine, too.
        container.as_object_mut().unwrap().remove("ports");
        let message = message_path(engine, &name, container["name"].as_str().unwrap());
        fs::write(&message, "").unwrap();
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
        let volume = format!("message-{}", container["name"].as_str().unwrap());
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": volume, "mountPath": "/dev/termination-log"}));
        messages.push(json!({"name": volume, "hostPath": stand_in("File", message)}));
    }
    pod["spec"]["volumes"].as_array_mut().unwrap().extend(messages);
    pod
}

/// Where the termination message of a container goes.
pub(crate) fn message_path(engine: &Engine, pod: &str, container: &str) -> PathBuf {
    engine.dir().join(format!("{pod}-{container}.message"))
}

/// The directory that stands for an emptyDir of a pod.
pub(crate) fn shared_directory(engine: &Engine, pod: &str, volume: &str) -> PathBuf {
    engine.dir().join(format!("{pod}-{volume}"))
}

/// Makes a directory the volume behind the claim `name`.
pub(crate) fn bind_claim(engine: &Engine, name: &str, directory: &Path) {
    let device = format!("device={}", directory.display());
    let name = format!("{}-{name}", engine.name());
    engine.podman(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, &name]);
}

/// Files by links through `..data`, which a kubelet swaps when a Secret changes.
fn lay_out_secret(path: &Path, identity: &Path, files: &[&str], mode: u32, group: u32) {
    fs::create_dir_all(path.join("..1")).unwrap();
    symlink("..1", path.join("..data")).unwrap();
    for name in files {
        let file = path.join("..1").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(identity.join(name), &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chown(&file, Some(0), Some(group)).unwrap();
        let top = Path::new(name).iter().next().unwrap();
        // Once for each, also where several files are in one directory.
        let _ = symlink(Path::new("..data").join(top), path.join(top));
    }
}
