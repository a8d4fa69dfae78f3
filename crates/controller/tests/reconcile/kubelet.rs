//! What the rest of a cluster does between two steps of the controller: binds claims, scales workloads, runs pods.
//!
//! A volume is a map from names to content. A transfer reads the source when its container starts, and writes the destination when
//! it ends, as `pvferry sync` would: a controller that believes too early, or a pod that writes meanwhile, shows in the content.

use std::collections::{BTreeMap, HashMap, VecDeque};

use pod::{EntryError, ExitCode, Report};
use serde_json::{Value, json};

use super::{
    server::Server,
    serving::{Change, Serving},
};

/// The content of a volume.
pub(crate) type Files = BTreeMap<String, String>;

/// A claim: name of the cluster, namespace, name.
pub(crate) type ClaimKey = (&'static str, String, String);

#[derive(Default)]
pub(crate) struct Kubelet {
    pub(crate) contents: HashMap<ClaimKey, Files>,
    /// What sync containers read, by uid of the pod and name of the container.
    read: HashMap<(String, String), Files>,
    age: HashMap<String, u32>,
    /// Ticks that a transfer takes.
    pub(crate) duration: u32,
    /// Ticks that some transfers take longer than others.
    pub(crate) spread: u32,
    /// Ticks that the transfers of single volumes take, by their name in the pod.
    pub(crate) durations: HashMap<String, u32>,
    /// The garbage collector is down.
    pub(crate) collects_nothing: bool,
    /// How the next transfers of a volume end, where not well.
    pub(crate) endings: HashMap<String, VecDeque<Ending>>,
    /// What becomes of the messages of sync containers.
    pub(crate) change: Option<Change>,
    pub(crate) serving: Serving,
}

/// How a transfer ends that does not end well.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) code: ExitCode,
    /// Files that are not written, and reported as errors.
    pub(crate) missing: Vec<&'static str>,
    /// Every directory of the source was listed.
    pub(crate) all_listed: bool,
}

impl Kubelet {
    pub(crate) fn new(duration: u32) -> Self {
        Self { duration, ..Self::default() }
    }

    pub(crate) fn tick(&mut self, clusters: &[&Server]) {
        for cluster in clusters {
            bind_claims(cluster);
            scale(cluster, "deployments");
            scale(cluster, "statefulsets");
        }
        for cluster in clusters {
            if !self.collects_nothing {
                cluster.store.lock().collect();
            }
            for pod in list(cluster, "pods") {
                self.run(cluster, clusters, &pod);
            }
        }
        for cluster in clusters {
            self.serving.tick(cluster);
        }
    }

    fn run(&mut self, cluster: &Server, all: &[&Server], pod: &Value) {
        let key = key("pods", pod);
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                cluster.store.lock().remove(&key);
            }
            return;
        }
        let age = self.age.entry(text(&pod["metadata"]["uid"])).or_default();
        *age += 1;
        let (age, is_source) = (*age, pod["metadata"]["labels"]["pvferry.io/role"] == "source");
        if age == 1 {
            let status = self.start(cluster, pod, is_source);
            let is_transfer = !pod["metadata"]["labels"]["pvferry.io/role"].is_null();
            cluster.store.lock().change(&key, |pod| {
                pod["status"] = status;
                if is_transfer {
                    pod["spec"]["nodeName"] = json!("node-1");
                }
            });
        } else if is_source && pod["status"]["phase"] == "Running" {
            let status = self.advance(all, pod, age - 1);
            cluster.store.lock().change(&key, |pod| pod["status"] = status);
        } else if age == 2 && pod["metadata"]["annotations"]["test/ends"] == "true" {
            cluster
                .store
                .lock()
                .change(&key, |pod| pod["status"] = json!({ "phase": "Succeeded" }));
        }
    }

    fn extra(&self, pod: &Value) -> u32 {
        let name = text(&pod["metadata"]["name"]);
        let sum =
            name.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        sum % (self.spread + 1)
    }

    fn start(&mut self, cluster: &Server, pod: &Value, is_source: bool) -> Value {
        let name = cluster.store.lock().name;
        let mut statuses = Vec::new();
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let container = text(&container["name"]);
            if let (true, Some(volume)) = (is_source, container.strip_prefix("sync-")) {
                let files = self.contents.get(&claim_of(name, pod, volume)).cloned();
                let key = (text(&pod["metadata"]["uid"]), container.clone());
                self.read.insert(key, files.unwrap_or_default());
            }
            let now = cluster.store.lock().now.clone();
            statuses.push(status(&container, json!({ "running": { "startedAt": now } })));
        }
        if let Some(written) = pod["metadata"]["annotations"]["test/writes"].as_str() {
            let files = self.contents.entry(claim_of(name, pod, "data")).or_default();
            files.insert(written.into(), format!("by {}", pod["metadata"]["name"]));
        }
        json!({
            "phase": "Running", "containerStatuses": statuses,
            "conditions": [{ "type": "Ready", "status": "True" }],
        })
    }

    /// Containers of a source pod that have run for long enough end, and what they read is at the destination. The tunnel ends last.
    fn advance(&mut self, all: &[&Server], pod: &Value, ran: u32) -> Value {
        let mut statuses = pod["status"]["containerStatuses"].as_array().unwrap().clone();
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let name = text(&container["name"]);
            let Some(volume) = name.strip_prefix("sync-") else { continue };
            let place = statuses.iter_mut().find(|status| status["name"] == *name).unwrap();
            let usual = self.duration + self.extra(pod);
            let duration = self.durations.get(volume).copied().unwrap_or(usual);
            if ran >= duration && !place["state"]["running"].is_null() {
                let (code, report) = self.end(all, pod, container, volume);
                let mut message = serde_json::to_value(&report).unwrap();
                if let Some(change) = &self.change {
                    change(&mut message);
                }
                *place = status(&name, terminated(code, &message.to_string()));
            }
        }
        let runs = |status: &&Value| !status["state"]["running"].is_null();
        let syncs = |status: &&Value| text(&status["name"]).starts_with("sync-");
        let over = !statuses.iter().filter(syncs).any(|status| runs(&status));
        if over {
            for place in statuses.iter_mut().filter(|status| runs(&&**status)) {
                *place = status(&text(&place["name"]), terminated(0, ""));
            }
        }
        let phase = if over { "Succeeded" } else { "Running" };
        json!({ "phase": phase, "containerStatuses": statuses })
    }

    fn end(
        &mut self,
        all: &[&Server],
        pod: &Value,
        container: &Value,
        volume: &str,
    ) -> (i32, Report) {
        let Some((cluster, server)) = find_server(all, pod) else {
            return (12, Report::new(volume, ExitCode::Stream, "no server"));
        };
        let (code, report) = self.session(cluster, &server, pod, container, volume);
        let of = |server: &&&Server| server.store.lock().name == cluster;
        self.serving.received(all.iter().find(of).unwrap(), &server, &report);
        (code, report)
    }

    fn session(
        &mut self,
        cluster: &'static str,
        server: &Value,
        pod: &Value,
        container: &Value,
        volume: &str,
    ) -> (i32, Report) {
        let name = text(&container["name"]);
        let mut read = self.read[&(text(&pod["metadata"]["uid"]), name)].clone();
        let ending = self.endings.get_mut(volume).and_then(VecDeque::pop_front);
        let target = self.contents.entry(claim_of(cluster, server, volume)).or_default();
        let Some(ending) = ending else { return transfer(volume, &args(container), read, target) };
        read.retain(|name, _| !ending.missing.contains(&&**name));
        target.extend(read);
        let changed = |name: &&str| EntryError { name: (*name).into(), what: "changed".into() };
        let sessions = [ExitCode::SourceChanged, ExitCode::Partial].contains(&ending.code);
        let report = Report {
            digest: sessions.then(|| "00".repeat(32).into()),
            errors: ending.missing.iter().map(changed).collect(),
            all_listed: ending.all_listed,
            ..Report::new(volume, ending.code, "as the test wants it")
        };
        (i32::from(ending.code.number()), report)
    }
}

/// What `pvferry sync` with these arguments does to the destination.
fn transfer(volume: &str, args: &[String], read: Files, target: &mut Files) -> (i32, Report) {
    let delete = args.iter().any(|arg| arg == "--delete");
    let verified = args.iter().any(|arg| arg == "--verify");
    let limit = args.iter().find_map(|arg| arg.strip_prefix("--max-delete="));
    let limit: usize = limit.map_or(usize::MAX, |limit| limit.parse().unwrap());
    let extra: Vec<String> =
        target.keys().filter(|name| !read.contains_key(*name)).cloned().collect();
    let written = read.iter().filter(|(name, content)| target.get(*name) != Some(content)).count();
    target.extend(read);
    let counts = |code: ExitCode, reason: &str, deleted: usize| Report {
        files_written: written as u64,
        files_deleted: deleted as u64,
        bytes_total: 10,
        digest: (code == ExitCode::Ok).then(|| "00".repeat(32).into()),
        tree_digest: verified.then(|| "22".repeat(32).into()),
        ..Report::new(volume, code, reason)
    };
    if delete && extra.len() > limit {
        let left = extra.len();
        let reason = format!("stopped deleting; {left} left (--max-delete {limit})");
        return (25, counts(ExitCode::DeleteLimit, &reason, 0));
    }
    if delete {
        target.retain(|name, _| !extra.contains(name));
    }
    (0, counts(ExitCode::Ok, "", if delete { extra.len() } else { 0 }))
}

pub(crate) fn terminated(code: i32, message: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })
}

pub(crate) fn status(name: &str, state: Value) -> Value {
    json!({ "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state })
}

pub(crate) fn args(container: &Value) -> Vec<String> {
    container["args"].as_array().unwrap().iter().map(text).collect()
}

/// The claim behind a volume of a pod.
fn claim_of(cluster: &'static str, pod: &Value, volume: &str) -> ClaimKey {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let found = volumes.iter().find(|found| found["name"] == volume).unwrap();
    let claim = text(&found["persistentVolumeClaim"]["claimName"]);
    (cluster, text(&pod["metadata"]["namespace"]), claim)
}

/// The destination pod of a source pod, and the name of its cluster.
fn find_server(all: &[&Server], client: &Value) -> Option<(&'static str, Value)> {
    let labels = &client["metadata"]["labels"];
    all.iter().find_map(|cluster| {
        let server = list(cluster, "pods").into_iter().find(|pod| {
            let other = &pod["metadata"]["labels"];
            let same = |label: &str| other[label] == labels[label];
            other["pvferry.io/role"] == "destination"
                && same("pvferry.io/transfer")
                && same("pvferry.io/migration-uid")
                && pod["metadata"]["deletionTimestamp"].is_null()
        })?;
        Some((cluster.store.lock().name, server))
    })
}

/// Binds claims to the volume that was made for them by hand, if there is one, and to a new one else.
fn bind_claims(cluster: &Server) {
    for claim in list(cluster, "persistentvolumeclaims") {
        let held = claim["metadata"]["annotations"]["test/unbound"] == "true";
        if claim["status"]["phase"].is_null() && !held {
            let volume = volume_of(cluster, &claim);
            let size = claim["spec"]["resources"]["requests"]["storage"].clone();
            let status = json!({ "phase": "Bound", "capacity": { "storage": size } });
            cluster.store.lock().change(&key("persistentvolumeclaims", &claim), |claim| {
                claim["status"] = status;
                claim["spec"]["volumeName"] = json!(volume);
            });
        }
    }
}

/// The name of the volume that a claim is bound to.
fn volume_of(cluster: &Server, claim: &Value) -> String {
    let metadata = &claim["metadata"];
    let reserved = |volume: &Value| {
        let of = &volume["spec"]["claimRef"];
        of["name"] == metadata["name"]
            && of["namespace"] == metadata["namespace"]
            && (of["uid"].is_null() || of["uid"] == metadata["uid"])
    };
    let found = list(cluster, "persistentvolumes").into_iter().find(reserved);
    let uid = metadata["uid"].clone();
    if let Some(volume) = found {
        let key = key("persistentvolumes", &volume);
        cluster.store.lock().change(&key, |volume| volume["spec"]["claimRef"]["uid"] = uid);
        return key.2;
    }
    let name = format!("pvc-{}", text(&uid));
    let volume = json!({
        "metadata": {
            "name": name, "annotations": { "pv.kubernetes.io/provisioned-by": "csi.example" },
        },
        "spec": {
            "csi": { "driver": "csi.example", "volumeHandle": name },
            "claimRef": { "name": metadata["name"], "namespace": metadata["namespace"], "uid": uid },
        },
    });
    let key = ("persistentvolumes".to_owned(), String::new(), name.clone());
    cluster.store.lock().create(key, volume).unwrap();
    name
}

/// One pod for a workload with replicas, none for one without.
fn scale(cluster: &Server, plural: &str) {
    for workload in list(cluster, plural) {
        let metadata = &workload["metadata"];
        let name = format!("{}-0", text(&metadata["name"]));
        let key = ("pods".to_owned(), text(&metadata["namespace"]), name.clone());
        let there = cluster.store.lock().get(&key).is_ok();
        let wanted = workload["spec"]["replicas"].as_i64().unwrap_or(1) > 0;
        let kind = if plural == "deployments" { "Deployment" } else { "StatefulSet" };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"],
                "controller": true,
            }]},
            "spec": workload["spec"]["template"]["spec"],
        });
        let mut store = cluster.store.lock();
        match (wanted, there) {
            (true, false) => drop(store.create(key, pod).unwrap()),
            (false, true) => drop(store.delete(&key).unwrap()),
            _ => {}
        }
    }
}

pub(crate) fn list(cluster: &Server, plural: &str) -> Vec<Value> {
    cluster.store.lock().list(plural, "", &super::selector::Selector::default())
}

fn key(plural: &str, object: &Value) -> super::store::Key {
    (plural.into(), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}
