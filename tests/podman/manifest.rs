//! The two transfer pods as manifests, and what has to change in a manifest for podman.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use super::engine::Engine;

/// What a source and a destination pod are made of.
pub(crate) struct Plan<'a> {
    pub(crate) volumes: &'a [&'a str],
    /// Host and port of the server, as the tunnel is told.
    pub(crate) server: &'a str,
    /// The user of all containers; `None` for root with the capabilities that it needs.
    pub(crate) user: Option<u32>,
}

impl Plan<'_> {
    /// The pod that receives; its claims are called `to-VOLUME`.
    pub(crate) fn destination(&self) -> Value {
        let mut args = words("serve --listen 0.0.0.0:8443 --identity /identity --exit-when");
        args.push(self.volumes.len().to_string());
        for name in self.volumes {
            args.extend(["--volume".to_owned(), format!("{name}=/volumes/{name}")]);
        }
        let mut mounts = vec![mount("identity", "/identity", true)];
        mounts.extend(
            self.volumes.iter().map(|name| mount(name, &format!("/volumes/{name}"), false)),
        );
        let capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];
        let serve = self.container("serve", &args, &capabilities, &mounts);
        let mut volumes = vec![identity("destination")];
        volumes.extend(self.volumes.iter().map(|name| claim(name, "to")));
        self.pod("destination", &[serve], &volumes)
    }

    /// The pod that sends; its claims are called `from-VOLUME`.
    pub(crate) fn source(&self) -> Value {
        let run = mount("run", "/run/pvferry", false);
        let mut args = words("tunnel --listen unix:/run/pvferry/tunnel.sock --identity /identity");
        args.extend(words("--marker-dir /run/pvferry --exit-when"));
        args.extend([self.volumes.len().to_string(), "--connect".into(), self.server.into()]);
        let mounts = [mount("identity", "/identity", true), run.clone()];
        let mut containers = vec![self.container("tunnel", &args, &[], &mounts)];
        let mut volumes = vec![identity("source"), json!({"name": "run", "emptyDir": {}})];
        for name in self.volumes {
            let path = format!("/volumes/{name}");
            let mut args = vec!["sync".into(), path.clone(), "--volume".into(), (*name).into()];
            args.extend(words("--via unix:/run/pvferry/tunnel.sock --marker-dir /run/pvferry"));
            args.extend(words("--delete --json --progress none"));
            let mounts = [run.clone(), mount(name, &path, true)];
            let sync = format!("sync-{name}");
            containers.push(self.container(&sync, &args, &["DAC_READ_SEARCH"], &mounts));
            volumes.push(claim(name, "from"));
        }
        self.pod("source", &containers, &volumes)
    }

    fn container(&self, name: &str, args: &[String], add: &[&str], mounts: &[Value]) -> Value {
        let add = if self.user.is_some() { &[] } else { add };
        json!({
            "name": name,
            "args": args,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": add},
            },
            "volumeMounts": mounts,
        })
    }

    fn pod(&self, name: &str, containers: &[Value], volumes: &[Value]) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsUser": self.user.unwrap_or(0),
                    "runAsGroup": self.user.unwrap_or(0),
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": containers,
                "volumes": volumes,
            },
        })
    }
}

/// A container of a pod, to be changed.
pub(crate) fn container<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.iter_mut().find(|container| container["name"] == name).unwrap()
}

/// Gives a container further arguments.
pub(crate) fn add_args(pod: &mut Value, name: &str, args: &[&str]) {
    let all = container(pod, name)["args"].as_array_mut().unwrap();
    all.extend(args.iter().map(|arg| Value::from(*arg)));
}

/// Lets a pod resolve names by `server`, as one of the namespace `ns` does.
pub(crate) fn resolve_by(pod: &mut Value, server: std::net::IpAddr) {
    pod["spec"]["dnsPolicy"] = "None".into();
    pod["spec"]["dnsConfig"] = json!({
        "nameservers": [server.to_string()],
        "searches": super::SEARCH,
        "options": [{"name": "ndots", "value": "5"}],
    });
}

/// The documents that podman needs for `pod`: the Secret with the keys in `identity`, and the pod with names that are the
/// test's own. For podman, the volumes of all pods share one space of names, and no termination message is there by itself.
pub(crate) fn documents(engine: &Engine, mut pod: Value, identity: &Path) -> [Value; 2] {
    let own = |name: &Value| Value::from(format!("{}-{}", engine.name(), name.as_str().unwrap()));
    pod["metadata"] = json!({"name": own(&pod["metadata"]["name"])});
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let secret = format!("{name}-keys");
    let spec = pod["spec"].as_object_mut().unwrap();
    let of_pod = |volume: &Value| Value::from(format!("{name}-{}", volume.as_str().unwrap()));

    for volume in spec["volumes"].as_array_mut().unwrap() {
        volume["name"] = of_pod(&volume["name"]);
        if let Some(claim) = volume.get_mut("persistentVolumeClaim") {
            claim["claimName"] = own(&claim["claimName"]);
        } else if let Some(keys) = volume.get_mut("secret") {
            // Podman 4.3 fails where the last is left out.
            *keys = json!({"secretName": secret, "optional": false});
        }
    }
    let mut messages = Vec::new();
    for container in spec["containers"].as_array_mut().unwrap() {
        container["image"] = engine.image().into();
        container["imagePullPolicy"] = "Never".into();
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        for mount in mounts.iter_mut() {
            mount["name"] = of_pod(&mount["name"]);
        }
        let message = message_path(engine, &name, container["name"].as_str().unwrap());
        fs::write(&message, "").unwrap();
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
        let volume = format!("{name}-{}-message", container["name"].as_str().unwrap());
        mounts.push(json!({"name": volume, "mountPath": "/dev/termination-log"}));
        messages.push(json!({"name": volume, "hostPath": {"path": message, "type": "File"}}));
    }
    spec["volumes"].as_array_mut().unwrap().extend(messages);

    let read = |name: &str| fs::read_to_string(identity.join(name)).unwrap();
    let files = ["ca.crt", "tls.crt", "tls.key"].map(|name| (name.to_owned(), read(name).into()));
    let keys = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "stringData": Value::Object(files.into_iter().collect()),
    });
    [keys, pod]
}

/// Where the termination message of a container goes.
pub(crate) fn message_path(engine: &Engine, pod: &str, container: &str) -> std::path::PathBuf {
    engine.dir().join(format!("{pod}-{container}.message"))
}

/// Makes the volume behind the claim `name` of a directory.
pub(crate) fn bind_claim(engine: &Engine, name: &str, directory: &Path) {
    let device = format!("device={}", directory.display());
    let name = format!("{}-{name}", engine.name());
    engine.podman(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, &name]);
}

fn identity(role: &str) -> Value {
    json!({"name": "identity", "secret": {"secretName": role}})
}

fn claim(name: &str, end: &str) -> Value {
    json!({"name": name, "persistentVolumeClaim": {"claimName": format!("{end}-{name}")}})
}

fn mount(name: &str, path: &str, read_only: bool) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": read_only})
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
