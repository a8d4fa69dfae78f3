//! A place for one test: namespaces, volumes, a controller.

use std::{
    env, fs,
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use controller::api::{
    DirectVolumeMigration, DirectVolumeMigrationProgress, DirectVolumeMigrationStatus, Phase,
};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use testkit::{TempTree, net};

use super::cluster::{Cluster, PATIENCE};

/// The place of one test.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    /// Where the migration is.
    pub(crate) home: String,
    /// Where its volumes are.
    pub(crate) source: String,
    /// Where they go.
    pub(crate) destination: String,
    tree: TempTree,
    controller: Option<Child>,
    metrics: u16,
    impersonating: PathBuf,
    /// More arguments of its controller.
    pub(crate) arguments: Vec<&'static str>,
}

static PLACES: AtomicU32 = AtomicU32::new(0);

/// Runs a test in a place of its own, where there is a cluster.
pub(crate) fn in_place<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match Cluster::of("PVFERRY_TEST_KUBECONFIG").await {
            Some(cluster) => test(Place::new(cluster).await).await,
            None => println!("SKIPPED: no cluster; `tests/run --cluster` brings one up"),
        }
    });
}

/// The other cluster.
pub(crate) async fn other_cluster() -> Option<Cluster> {
    Cluster::of("PVFERRY_TEST_KUBECONFIG_OTHER").await
}

impl Place {
    async fn new(cluster: Cluster) -> Self {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", std::process::id());
        let tree = TempTree::below(Path::new("/var/tmp"));
        let impersonating = tree.at("kubeconfig");
        let mut config = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
            user.impersonate = Some("system:serviceaccount:pvferry:pvferry-controller".into());
        }
        fs::write(&impersonating, serde_json::to_string(&config).unwrap()).unwrap();
        let place = Self {
            home: format!("home-{id}"),
            source: format!("source-{id}"),
            destination: format!("destination-{id}"),
            cluster,
            tree,
            controller: None,
            metrics: net::free_address().port(),
            impersonating,
            arguments: vec!["--allow-privileged-fields"],
        };
        place.cluster.namespace(&place.home, &[]).await;
        place.cluster.namespace(&place.source, &[]).await;
        place
    }

    /// Starts a controller for the migrations of this place.
    pub(crate) fn start_controller(&mut self) {
        self.kill_controller();
        let program = env::var_os("PVFERRY_TEST_CONTROLLER").expect("PVFERRY_TEST_CONTROLLER");
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(program);
        command
            .args([
                "run",
                "--metrics",
                &format!("127.0.0.1:{}", self.metrics),
                "--namespace",
                &self.home,
                "--image",
                &image(),
            ])
            .args(&self.arguments)
            .env("KUBECONFIG", &self.impersonating)
            .env("RUST_LOG", "debug,hyper=info,tower=info,rustls=info,kube=info")
            .stdout(Stdio::null())
            .stderr(log);
        self.controller = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.kill().unwrap();
            controller.wait().unwrap();
        }
    }

    /// Peak memory in KiB, and calls to API servers.
    pub(crate) async fn controller_figures(&self) -> (u64, f64) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let id = self.controller.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let calls =
            text.lines().find_map(|line| line.strip_prefix("pvferry_controller_api_calls_total "));
        (
            peak.trim().trim_end_matches(" kB").parse().unwrap(),
            calls.unwrap().trim().parse().unwrap(),
        )
    }

    fn log(&self) -> PathBuf {
        self.tree.at("controller.log")
    }

    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The directory of a volume at the source, which is there as a bound claim from now on.
    pub(crate) async fn source_volume(&self, claim: &str) -> PathBuf {
        let directory = self.directory("source", claim);
        self.cluster.volume(&self.source, claim, &directory).await;
        self.cluster.claim(&self.source, claim).await;
        directory
    }

    /// The directory of a volume that will be there for a claim at the destination.
    pub(crate) async fn target_volume(&self, claim: &str) -> PathBuf {
        let directory = self.directory("destination", claim);
        self.cluster.volume(&self.destination, claim, &directory).await;
        directory
    }

    pub(crate) fn directory(&self, end: &str, claim: &str) -> PathBuf {
        let directory = self.tree.at(format!("{end}-{claim}"));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Makes the migration `m` of these claims; `more` is merged into its specification.
    pub(crate) async fn migrate(&self, claims: &[&str], more: Value) {
        let volumes: Vec<_> = claims.iter().map(|claim| json!({ "name": claim })).collect();
        let mut spec = json!({
            "source": { "namespace": self.source },
            "destination": { "namespace": self.destination, "createNamespace": true },
            "volumes": volumes,
        });
        merge(&mut spec, more);
        self.cluster
            .create::<DirectVolumeMigration>(
                &self.home,
                json!({ "metadata": { "name": "m" }, "spec": spec }),
            )
            .await;
    }

    pub(crate) async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.migrations().patch("m", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) fn migrations(&self) -> Api<DirectVolumeMigration> {
        self.cluster.api(&self.home)
    }

    pub(crate) async fn status(&self) -> DirectVolumeMigrationStatus {
        self.migrations().get("m").await.unwrap().status.unwrap_or_default()
    }

    pub(crate) async fn progress(&self, claim: &str) -> Value {
        let api: Api<DirectVolumeMigrationProgress> = self.cluster.api(&self.home);
        let all = api.list(&ListParams::default()).await.unwrap();
        let claim = format!("{}/{claim}", self.source);
        let found = all.items.into_iter().find(|progress| progress.spec.claim == claim);
        serde_json::to_value(found.unwrap().status.unwrap()).unwrap()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&DirectVolumeMigrationStatus) -> bool,
    ) -> DirectVolumeMigrationStatus {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                let log = self.logged();
                let tail: Vec<_> = log.lines().rev().take(30).collect();
                panic!(
                    "no {what}: {status:#?}\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for the end of a run.
    pub(crate) async fn ends(&self, run: i64) -> DirectVolumeMigrationStatus {
        self.until("end", |status| status.run == run && status.phase.is_final()).await
    }

    /// Waits for the end of the first run, which must be good, and leave nothing behind.
    pub(crate) async fn completes(&self) -> DirectVolumeMigrationStatus {
        let status = self.ends(1).await;
        assert_eq!(status.phase, Phase::Completed, "{status:#?}");
        self.assert_clean().await;
        status
    }

    /// Nothing of the transfer is left in any namespace.
    pub(crate) async fn assert_clean(&self) {
        use k8s_openapi::api::{
            core::v1::{Secret, Service},
            networking::v1::NetworkPolicy,
        };
        for namespace in [&self.source, &self.destination] {
            let ours =
                ListParams::default().labels("app.kubernetes.io/managed-by=pvferry-controller");
            assert_eq!(
                self.cluster.api::<Pod>(namespace).list(&ours).await.unwrap().items.len(),
                0
            );
            assert_eq!(
                self.cluster.api::<Secret>(namespace).list(&ours).await.unwrap().items.len(),
                0
            );
            assert_eq!(
                self.cluster.api::<Service>(namespace).list(&ours).await.unwrap().items.len(),
                0
            );
            let policies = self.cluster.api::<NetworkPolicy>(namespace).list(&ours).await.unwrap();
            assert_eq!(policies.items.len(), 0);
        }
    }

    /// The reasons of all events of the migration.
    pub(crate) async fn events(&self) -> Vec<String> {
        self.all_events().await.into_iter().filter_map(|event| event.reason).collect()
    }

    /// All events of the migration.
    pub(crate) async fn all_events(&self) -> Vec<Event> {
        self.cluster.api::<Event>(&self.home).list(&ListParams::default()).await.unwrap().items
    }

    /// Waits for an event with this reason.
    pub(crate) async fn until_event(&self, reason: &str) {
        let begun = Instant::now();
        while !self.events().await.iter().any(|event| event == reason) {
            assert!(begun.elapsed() < PATIENCE, "no {reason}: {:?}", self.events().await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The status and reason of a condition.
    pub(crate) async fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status().await;
        let found = status.conditions.into_iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status, condition.reason)).unwrap_or_default()
    }

    /// Waits for a source pod, and for its container to run.
    pub(crate) async fn running_source(&self) -> Pod {
        let begun = Instant::now();
        loop {
            for pod in self.cluster.pods(&self.source, "source").await {
                if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running") {
                    return pod;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no source pod runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pod of the controller that leads.
    pub(crate) async fn leader(&self) -> String {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = self.cluster.api("pvferry");
        let begun = Instant::now();
        loop {
            let lease = leases.get_opt("pvferry-controller").await.unwrap();
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            if !holder.is_empty() {
                return holder;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes the migration, where there is one.
    pub(crate) async fn forget(&self) {
        let _ = self.migrations().delete("m", &DeleteParams::default()).await;
        let begun = Instant::now();
        while self.migrations().get_opt("m").await.unwrap().is_some() {
            assert!(begun.elapsed() < PATIENCE, "the migration does not go");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn until_api_is_back(&self) {
        let begun = Instant::now();
        while self.migrations().get("m").await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the API server does not come back");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    pub(crate) async fn delete_pod(&self, namespace: &str, name: &str) {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = self.cluster.api::<Pod>(namespace).delete(name, &now).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill_controller();
        if std::thread::panicking() {
            let log = self.logged();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- controller\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

pub(crate) fn image() -> String {
    env::var("PVFERRY_TEST_IMAGE").unwrap_or_else(|_| "localhost/pvferry:test".into())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
