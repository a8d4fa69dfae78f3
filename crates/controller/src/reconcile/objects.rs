//! The objects of a transfer beside its pods: created, and never adopted from somebody else.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{ApiResource, DynamicObject},
};

use crate::{
    build::{Names, Role},
    cluster::{Cluster, Kind},
    error::{Error, Result},
};

/// Whether an object bears the labels of one end of a transfer; among them is one that nobody could know before the transfer began.
pub(super) fn is_ours(object: &impl ResourceExt, names: &Names, role: Role) -> bool {
    has_labels(object, &names.labels(role))
}

fn has_labels(object: &impl ResourceExt, labels: &BTreeMap<String, String>) -> bool {
    let has = object.labels();
    labels.iter().all(|(key, value)| has.get(key) == Some(value))
}

/// Creates an object of the migration with this uid, unless an earlier step has done so.
pub(super) async fn create<K: Kind>(cluster: &Cluster, object: &K, migration: &str) -> Result<()> {
    // One that is just going makes room for another one.
    for _ in 0..2 {
        if cluster.create(object).await? {
            return Ok(());
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        match cluster.get::<K>(&namespace, &name).await? {
            Some(found) if !has_labels(&found, object.labels()) => break,
            // Its Secret was replaced: the garbage collector is about to delete it.
            Some(found) if found.owner_references() != object.owner_references() => {
                cluster.delete(&found, migration).await?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
    }
    Err(taken(&K::kind(&()), object))
}

/// As [`create`], of a kind that the cluster may not know. `labels` select the objects of the transfer.
pub(super) async fn create_dynamic(
    cluster: &Cluster,
    object: &DynamicObject,
    kind: &ApiResource,
    labels: &str,
) -> Result<()> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    for _ in 0..2 {
        if cluster.create_dynamic(object, kind).await? {
            return Ok(());
        }
        match cluster.get_dynamic(&namespace, &name, kind).await? {
            Some(found) if !has_labels(&found, object.labels()) => break,
            Some(found) if found.owner_references() != object.owner_references() => {
                cluster.delete_labelled(kind, &namespace, labels).await?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
    }
    Err(taken(&kind.kind, object))
}

/// Creates a Secret. One that an earlier step has left is replaced: its keys are lost. It is known by its labels, because the controller
/// does not read the Secrets of other namespaces. Returns the uid.
pub(super) async fn create_secret(
    cluster: &Cluster,
    secret: &Secret,
    names: &Names,
) -> Result<String> {
    let mut created = cluster.create_new(secret).await?;
    if created.is_none() {
        let namespace = secret.namespace().unwrap_or_default();
        delete_secrets(cluster, &namespace, &names.selector()).await?;
        created = cluster.create_new(secret).await?;
    }
    created.and_then(|secret| secret.uid()).ok_or_else(|| taken("Secret", secret))
}

/// Deletes the Secrets that bear the labels.
pub(super) async fn delete_secrets(cluster: &Cluster, namespace: &str, labels: &str) -> Result<()> {
    cluster.delete_labelled(&ApiResource::erase::<Secret>(&()), namespace, labels).await
}

fn taken(kind: &str, object: &impl ResourceExt) -> Error {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let what = format!("{kind} {namespace}/{name} exists and was not created by this migration");
    Error::Invalid("NameConflict", what)
}
