//! Two clusters, a controller, a clock: the place of one scenario.

use std::sync::Arc;

use controller::{
    Clock, Parts, Reconciler,
    api::{DirectVolumeMigration, DirectVolumeMigrationStatus, Phase},
    build::Defaults,
    cluster::{Cluster, Clusters},
    identity::{Credentials, Identities, Issuer},
    metrics::Metrics,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    calls::Calls,
    kubelet::{Files, Kubelet, list, text},
    server::Server,
    store::Key,
};

/// How long the other cluster may take for a call.
pub(crate) const DEADLINE: std::time::Duration = std::time::Duration::from_millis(500);
/// Steps that no scenario needs.
const PATIENCE: usize = 400;

struct Nobody;

impl Issuer for Nobody {
    fn issue(&self, _: &str, volumes: &[&str]) -> Result<Identities, String> {
        let one = || Credentials { certificate: "c".into(), key: "k".into() };
        let volumes = volumes.iter().map(|volume| ((*volume).to_owned(), one())).collect();
        Ok(Identities { authority: "a".into(), volumes, destination: one() })
    }
}

pub(crate) struct World {
    pub(crate) calls: Arc<Calls>,
    pub(crate) home: Server,
    pub(crate) other: Server,
    pub(crate) kubelet: Kubelet,
    open: bool,
    leads_home: bool,
    /// Volumes that the controller lets move at a time.
    parallel: Option<usize>,
    clock: Arc<Mutex<Timestamp>>,
    pub(crate) metrics: Arc<Metrics>,
    reconciler: Reconciler,
    pub(crate) restarts: usize,
    /// The error of the last step.
    pub(crate) error: Option<String>,
}

impl World {
    /// Both clusters with the namespaces of the scenarios, and a bound claim `shop/data` with content.
    pub(crate) fn new() -> Self {
        let calls = Arc::new(Calls::default());
        let clock = Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let home = Server::new("home", Arc::clone(&calls));
        let other = Server::new("other", Arc::clone(&calls));
        let metrics = Arc::default();
        let reconciler = reconciler(&home, &other, &clock, &metrics, true, None);
        let kubelet = Kubelet::new(2);
        let mut world = Self {
            calls,
            home,
            other,
            kubelet,
            open: true,
            leads_home: false,
            parallel: None,
            clock,
            metrics,
            reconciler,
            restarts: 0,
            error: None,
        };
        world.tell_time();
        for cluster in [world.home.clone(), world.other.clone()] {
            for name in ["kube-system", "pvferry", "shop", "shop-new"] {
                add(&cluster, "namespaces", "", json!({ "metadata": { "name": name } }));
            }
            let class = json!({ "metadata": { "name": "standard" }, "provisioner": "none" });
            add(&cluster, "storageclasses", "", class);
        }
        let secret = json!({
            "metadata": { "name": "other" }, "data": { "kubeconfig": base64(KUBECONFIG) },
        });
        add(&world.home, "secrets", "pvferry", secret);
        world.claim("home", "shop", "data", &[("a", "1"), ("b", "2")]);
        world
    }

    /// Makes a claim with content.
    pub(crate) fn claim(
        &mut self,
        cluster: &'static str,
        namespace: &str,
        name: &str,
        files: &[(&str, &str)],
    ) {
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        add(self.cluster(cluster), "persistentvolumeclaims", namespace, claim);
        self.write(cluster, namespace, name, files);
        self.kubelet.tick(&[&self.home, &self.other]);
    }

    fn cluster(&self, name: &str) -> &Server {
        if name == "home" { &self.home } else { &self.other }
    }

    pub(crate) fn files(&self, cluster: &'static str, namespace: &str, name: &str) -> Files {
        let key = (cluster, namespace.to_owned(), name.to_owned());
        self.kubelet.contents.get(&key).cloned().unwrap_or_default()
    }

    /// A workload with one replica that mounts `shop/data`.
    pub(crate) fn workload(&mut self, plural: &str, name: &str) {
        let workload = json!({
            "metadata": { "name": name },
            "spec": {
                "replicas": 1, "selector": {}, "serviceName": name,
                "template": { "spec": pod_spec() },
            },
        });
        add(&self.home, plural, "shop", workload);
        self.tick();
    }

    /// A pod that no workload owns, which mounts `shop/data`, writes a file and ends.
    pub(crate) fn visitor(&mut self, name: &str, file: &str) {
        let pod = json!({
            "metadata": { "name": name, "annotations": { "test/writes": file, "test/ends": "true" } },
            "spec": pod_spec(),
        });
        add(&self.home, "pods", "shop", pod);
    }

    /// A pod that mounts another claim.
    pub(crate) fn bystander(&mut self, name: &str) {
        let mut spec = pod_spec();
        spec["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("another");
        add(&self.home, "pods", "shop", json!({ "metadata": { "name": name }, "spec": spec }));
    }

    /// Makes the migration `m` of `shop/data` to `shop-new`; `more` is merged into its specification.
    pub(crate) fn migrate(&self, more: Value) {
        self.migrate_as("m", more);
    }

    pub(crate) fn migrate_as(&self, name: &str, more: Value) {
        let mut spec = json!({
            "source": { "namespace": "shop" }, "destination": { "namespace": "shop-new" },
            "volumes": [{ "name": "data" }],
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        // With its defaults, as the schema gives them.
        let spec: controller::api::DirectVolumeMigrationSpec =
            serde_json::from_value(spec).unwrap();
        let migration = json!({
            "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
            "metadata": { "name": name }, "spec": spec,
        });
        add(&self.home, "directvolumemigrations", "pvferry", migration);
    }

    pub(crate) fn change(&mut self, spec: &Value) {
        let patch = json!({ "spec": spec });
        self.home.store.lock().merge(&migration_key("m"), &patch, false).unwrap();
    }

    pub(crate) fn migration(&self, name: &str) -> Option<DirectVolumeMigration> {
        let found = self.home.store.lock().get(&migration_key(name)).ok()?;
        Some(serde_json::from_value(found).unwrap())
    }

    pub(crate) fn status(&self) -> DirectVolumeMigrationStatus {
        self.migration("m").unwrap().status.unwrap_or_default()
    }

    /// The status and reason of a condition.
    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let found = self.status().conditions.into_iter().find(|c| c.type_ == kind);
        found.map(|c| (c.status, c.reason)).unwrap_or_default()
    }

    /// The controller does not permit migrations to choose images.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.restart();
    }

    /// The controller lets so many volumes move at a time.
    pub(crate) fn limit(&mut self, parallel: usize) {
        self.parallel = Some(parallel);
        self.restart();
    }

    /// Volumes are provisioned where their pods are, so that they can share one.
    pub(crate) fn bind_late(&mut self) {
        let key = key("storageclasses", "", "standard");
        self.home
            .store
            .lock()
            .change(&key, |class| class["volumeBindingMode"] = json!("WaitForFirstConsumer"));
    }

    pub(crate) fn set_access_mode(&mut self, namespace: &str, claim: &str, mode: &str) {
        let key = key("persistentvolumeclaims", namespace, claim);
        let modes = json!([mode]);
        self.home.store.lock().change(&key, |claim| claim["spec"]["accessModes"] = modes);
    }

    /// The pods of a role that transfers have in this cluster.
    pub(crate) fn transfer_pods(&self, role: &str) -> Vec<Value> {
        let of_role = |pod: &Value| pod["metadata"]["labels"]["pvferry.io/role"] == role;
        list(&self.home, "pods").into_iter().filter(of_role).collect()
    }

    /// The kubeconfig of the other cluster leads to this one.
    pub(crate) fn kubeconfig_leads_home(&mut self) {
        self.leads_home = true;
        self.restart();
    }

    pub(crate) fn exists(&self, plural: &str, namespace: &str, name: &str) -> bool {
        self.home.store.lock().get(&key(plural, namespace, name)).is_ok()
    }

    /// No watch of the first cluster can go on from a version before this one.
    pub(crate) fn forget_changes(&mut self) {
        let mut store = self.home.store.lock();
        store.forgotten = store.version();
    }

    /// Removes an object at once.
    pub(crate) fn remove(&mut self, plural: &str, namespace: &str, name: &str) {
        self.home.store.lock().remove(&key(plural, namespace, name));
    }

    /// Changes an object in a way that means nothing.
    pub(crate) fn touch(&mut self, plural: &str, namespace: &str, name: &str) {
        let key = key(plural, namespace, name);
        self.home
            .store
            .lock()
            .change(&key, |object| object["metadata"]["labels"]["x"] = json!("y"));
    }

    pub(crate) fn delete_migration(&mut self, name: &str) {
        self.home.store.lock().delete(&migration_key(name)).unwrap();
    }

    /// Replaces the content of a claim.
    pub(crate) fn write(
        &mut self,
        cluster: &'static str,
        namespace: &str,
        name: &str,
        files: &[(&str, &str)],
    ) {
        let files = files.iter().map(|(name, content)| ((*name).into(), (*content).into()));
        self.kubelet.contents.insert((cluster, namespace.into(), name.into()), files.collect());
    }

    /// Begins the controller anew.
    pub(crate) fn restart(&mut self) {
        self.restarts += 1;
        self.reconciler = {
            let other = if self.leads_home { &self.home } else { &self.other };
            reconciler(&self.home, other, &self.clock, &self.metrics, self.open, self.parallel)
        };
    }

    /// One step of a migration, and what the clusters do until the next one.
    pub(crate) async fn step_of(&mut self, name: &str) {
        if let Some(migration) = self.migration(name) {
            let calls = Arc::clone(&self.calls);
            let step = self.reconciler.step(Arc::new(migration));
            let stalled = tokio::select! {
                outcome = step => {
                    self.error = outcome.err().map(|error| error.to_string());
                    false
                }
                () = calls.until_stalled() => true,
            };
            if stalled {
                self.restart();
            }
        }
        settle().await;
        self.tick();
        settle().await;
    }

    /// Runs the process, watches and all, a second of its clock at a time, until `done`; how many seconds that took. The clock of
    /// tokio must be paused.
    pub(crate) async fn run(&mut self, patience: usize, done: impl Fn(&Self) -> bool) -> usize {
        let process = controller::serve(self.reconciler.clone(), self.home.client(), None);
        tokio::pin!(process);
        for second in 0..patience {
            if done(self) {
                return second;
            }
            tokio::select! {
                () = &mut process => panic!("the process has ended"),
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            }
            self.tick();
        }
        patience
    }

    /// Runs the process for so long while nothing changes in the clusters.
    pub(crate) async fn idle(&mut self, seconds: u64) {
        let process = controller::serve(self.reconciler.clone(), self.home.client(), None);
        tokio::pin!(process);
        for _ in 0..seconds / 30 {
            tokio::select! {
                () = &mut process => panic!("the process has ended"),
                () = tokio::time::sleep(std::time::Duration::from_secs(30)) => {}
            }
            self.pass(30);
        }
    }

    pub(crate) fn tick(&mut self) {
        self.pass(1);
        self.kubelet.tick(&[&self.home, &self.other]);
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, seconds: i64) {
        let mut clock = self.clock.lock();
        *clock += SignedDuration::from_secs(seconds);
        drop(clock);
        self.tell_time();
    }

    fn tell_time(&self) {
        let now = self.clock.lock().to_string();
        for cluster in [&self.home, &self.other] {
            cluster.store.lock().now.clone_from(&now);
        }
    }

    /// Where a migration is, and why.
    pub(crate) fn told(&self, name: &str) -> (Phase, String) {
        let status = self.migration(name).unwrap().status.unwrap_or_default();
        (status.phase, status.message)
    }

    /// Steps until the status is as wanted.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&DirectVolumeMigrationStatus) -> bool,
    ) -> DirectVolumeMigrationStatus {
        for _ in 0..PATIENCE {
            self.step_of("m").await;
            let status = self.status();
            if wanted(&status) {
                return status;
            }
        }
        panic!("no {what}: {:?} {:#?}", self.error, self.status());
    }

    /// Steps until a run has ended.
    pub(crate) async fn ends(&mut self, run: i64) -> DirectVolumeMigrationStatus {
        self.until("end", |status| status.run == run && status.phase.is_final()).await
    }

    pub(crate) async fn completes(&mut self, run: i64) -> DirectVolumeMigrationStatus {
        let status = self.ends(run).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        status
    }

    /// Nothing of a transfer is left in either cluster.
    pub(crate) fn assert_clean(&self) {
        for cluster in [&self.home, &self.other] {
            for plural in ["pods", "secrets", "services", "networkpolicies"] {
                let left: Vec<_> = list(cluster, plural)
                    .iter()
                    .filter(|object| !object["metadata"]["labels"]["pvferry.io/transfer"].is_null())
                    .map(|object| text(&object["metadata"]["name"]))
                    .collect();
                assert!(left.is_empty(), "{plural}: {left:?}");
            }
        }
    }

    pub(crate) fn replicas(&self, plural: &str, name: &str) -> i64 {
        let key = (plural.into(), "shop".into(), name.into());
        self.home.store.lock().get(&key).unwrap()["spec"]["replicas"].as_i64().unwrap()
    }

    /// The texts of all events.
    pub(crate) fn events(&self) -> Vec<String> {
        let event =
            |event: &Value| format!("{}: {}", text(&event["reason"]), text(&event["message"]));
        list(&self.home, "events").iter().map(event).collect()
    }
}

fn reconciler(
    home: &Server,
    other: &Server,
    clock: &Arc<Mutex<Timestamp>>,
    metrics: &Arc<Metrics>,
    open: bool,
    parallel: Option<usize>,
) -> Reconciler {
    let (far, time) = (other.clone(), Arc::clone(clock));
    let clock = Clock::new(move || *time.lock());
    let clusters = Clusters::new(Cluster::new(home.client(), Arc::clone(metrics)));
    let connect = move |_: kube::Config| Ok(far.client());
    Reconciler::new(Parts {
        clusters: clusters.connected_by(Arc::new(connect), DEADLINE, clock.clone()),
        issuer: Arc::new(Nobody),
        defaults: Defaults {
            image: "pvferry:1".into(),
            allow_privileged_fields: open,
            ..Defaults::default()
        },
        metrics: Arc::clone(metrics),
        instance: "test".into(),
        parallel,
        clock,
    })
}

/// Tasks of the controller beside its steps get their turn.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: c, \
    contexts: [{name: c, context: {cluster: c, user: u}}], \
    clusters: [{name: c, cluster: {server: 'https://other'}}], users: [{name: u, user: {token: t}}]}";

pub(crate) fn add(cluster: &Server, plural: &str, namespace: &str, object: Value) {
    let name = text(&object["metadata"]["name"]);
    cluster.store.lock().create((plural.into(), namespace.into(), name), object).unwrap();
}

fn migration_key(name: &str) -> Key {
    key("directvolumemigrations", "pvferry", name)
}

pub(crate) fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.into(), namespace.into(), name.into())
}

fn pod_spec() -> Value {
    json!({
        "containers": [{ "name": "app", "image": "app" }],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
    })
}

fn base64(text: &str) -> String {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(bytes).unwrap().as_str().unwrap().to_owned()
}
