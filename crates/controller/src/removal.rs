//! Objects are deleted here and nowhere else, and only those of the migration: none because of its name.

use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Preconditions},
};

use crate::{
    build,
    cluster::{Cluster, Kind},
    error::{Error, Result},
};

impl Cluster {
    /// Deletes an object that was read or listed, if it is of the migration with the uid `migration`: what is there of it until it is gone,
    /// `None` from then on. One that has taken its place since stays.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn delete<K: Kind>(&self, object: &K, migration: &str) -> Result<Option<K>> {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        let Some(uid) = object.uid().filter(|_| build::is_of(object, migration)) else {
            return Ok(None);
        };
        let preconditions = Preconditions { uid: Some(uid), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        match self.api::<K>(&namespace).delete(&name, &params).await {
            Ok(outcome) => Ok(outcome.left()),
            // Gone, or replaced.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => {
                Err(Error::api(format!("delete {} {namespace}/{name}", K::kind(&())))(error))
            }
        }
    }

    /// Deletes the objects of a kind that bear the labels, of a kind whose objects are not read. The server looks at the labels.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn delete_labelled(
        &self,
        kind: &ApiResource,
        namespace: &str,
        labels: &str,
    ) -> Result<()> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), namespace, kind);
        let which = ListParams::default().labels(labels);
        match api.delete_collection(&DeleteParams::background(), &which).await {
            Ok(_) => Ok(()),
            // The cluster does not know the kind.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::api(format!("delete {} of {namespace}", kind.plural))(error)),
        }
    }
}
