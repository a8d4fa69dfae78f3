//! Network policies of transfer pods. Transfers of a run share them: what a pod may talk to depends on its end, and at the source on the port.
//! They go with the run.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use super::{Step, objects};
use crate::{
    build::{self, Address, Names, Peer, Role},
    cluster::Cluster,
    error::Result,
    informers::Name,
};

/// The policies that this process has created, of the runs that are under way.
#[derive(Default)]
pub(crate) struct Policies {
    applied: Mutex<HashMap<Name, HashSet<String>>>,
}

impl Policies {
    pub(super) fn forget(&self, migration: &Name) {
        self.applied.lock().remove(migration);
    }

    fn is_applied(&self, migration: &Name, policy: &str) -> bool {
        self.applied.lock().get(migration).is_some_and(|applied| applied.contains(policy))
    }

    fn add(&self, migration: &Name, policy: String) {
        self.applied.lock().entry(migration.clone()).or_default().insert(policy);
    }
}

impl Step<'_> {
    /// Creates the policy of the pods at one end, before the first of them is made. `server` is the address of the server, and its namespace.
    pub(super) async fn apply_policy(
        &self,
        cluster: &Cluster,
        role: Role,
        namespace: &str,
        server: Option<(&Address, &str)>,
    ) -> Result<()> {
        let names = Names::of_run(&self.migration, self.status.run);
        let dns_ports = &self.context.defaults.pods.dns_ports;
        let address = server.map(|(address, _)| address);
        let of = |(address, of): (&Address, &str)| Peer::of(&self.migration, of, address);
        let peer = server.and_then(of);
        let mut policy =
            build::network_policy(&names, role, namespace, address, peer.as_ref(), dns_ports);
        policy.metadata.name = Some(name_of(&policy, address, peer.as_ref()));
        // Under the uid: a migration of the same name that was made anew has none yet.
        let uid = self.migration.metadata.uid.as_deref().unwrap_or_default();
        let key = format!("{uid} {namespace} {}", policy.name_any());
        if self.context.policies.is_applied(&self.name, &key) {
            return Ok(());
        }
        objects::create(cluster, &policy, uid).await?;
        self.context.policies.add(&self.name, key);
        Ok(())
    }
}

/// Policies that differ have different names.
fn name_of(policy: &NetworkPolicy, address: Option<&Address>, peer: Option<&Peer>) -> String {
    let name = policy.name_any();
    let name = peer.map_or_else(|| name.clone(), |peer| format!("{name}-{}", peer.label()));
    match address {
        Some(address) if address.is_a_name() => format!("{name}-{}-dns", address.port),
        Some(address) => format!("{name}-{}", address.port),
        None => name,
    }
}
