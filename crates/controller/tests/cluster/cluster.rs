//! A cluster that tests make objects in.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Longer than anything takes that goes well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that a variable points to; `None` where it points to none.
    pub(crate) async fn of(variable: &str) -> Option<Self> {
        let path = PathBuf::from(env::var_os(variable)?);
        let config = Kubeconfig::read_from(&path).unwrap();
        let config =
            Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        Some(Self { client: Client::try_from(config).unwrap(), kubeconfig: path })
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace = json!({ "metadata": { "name": name, "labels": labels } });
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    /// A volume of this cluster that the claim will get, whenever it is made.
    pub(crate) async fn volume(&self, namespace: &str, claim: &str, directory: &Path) {
        let volume = json!({
            "metadata": { "name": format!("{namespace}-{claim}") },
            "spec": {
                "capacity": { "storage": "1Gi" },
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "standard",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": { "namespace": namespace, "name": claim },
                "hostPath": { "path": directory },
            },
        });
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    }

    pub(crate) async fn claim(&self, namespace: &str, name: &str) {
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "standard",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        self.create::<PersistentVolumeClaim>(namespace, claim).await;
    }

    /// Waits until a volume is bound to each of the claims of these names.
    pub(crate) async fn bound(&self, namespace: &str, names: &[&str]) {
        let claims = self.api::<PersistentVolumeClaim>(namespace);
        let begun = Instant::now();
        for name in names {
            loop {
                let status = claims.get(name).await.unwrap().status.unwrap_or_default();
                if status.phase.as_deref() == Some("Bound") {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{namespace}/{name}: {status:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Transfer pods, running or not, of one role.
    pub(crate) async fn pods(&self, namespace: &str, role: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("pvferry.io/role={role}"));
        self.api::<Pod>(namespace).list(&params).await.unwrap().items
    }
}
