//! A migration that this version cannot read: a newer definition can hold values that it does not know.
//!
//! Its condition and an event say so, and other migrations go on. It is not touched otherwise, but for one that is being deleted: that is
//! kept for as long as a cluster that does not answer would keep it.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::{PartialObjectMeta, PartialObjectMetaExt as _},
    runtime::controller::Action,
};
use serde_json::{Value, json};

use super::{AGAIN, Context, FINALIZER, cleanup, conditions};
use crate::{
    api::DirectVolumeMigration,
    error::{Error, Result},
    observe,
};

/// The reason of the condition and of the event.
const REASON: &str = "NotReadable";

/// Reports the migration with this metadata, which cannot be read because of `why`.
pub(crate) async fn report(context: &Context, metadata: &ObjectMeta, why: &str) -> Result<Action> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let kind = ApiResource::erase::<DirectVolumeMigration>(&());
    let client = context.clusters.home().client();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let read = api.get_opt(&name).await;
    let Some(object) = read.map_err(Error::api(format!("read {namespace}/{name}")))? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return release(context, &api, object).await;
    }
    let text =
        format!("cannot parse this migration: {why}; correct the field or upgrade the controller");
    let mut written = object.clone();
    if !condition(&mut written, &text, context.clock.now()) {
        return Ok(Action::await_change());
    }
    context.events.warning(&about(&object), REASON, text).await;
    let saved = api.replace_status(&name, &PostParams::default(), &written).await;
    if let Err(error) = saved.map_err(Error::StatusNotWritten) {
        context.report_unwritten(&about(&object), &error).await;
        return Err(error);
    }
    Ok(Action::await_change())
}

/// Sets the condition; false where it says so already. What else is in the status stays as it is.
fn condition(object: &mut DynamicObject, text: &str, now: Timestamp) -> bool {
    let generation = object.metadata.generation.unwrap_or_default();
    let before = object.data["status"]["conditions"].clone();
    let mut all: Vec<Condition> = serde_json::from_value(before).unwrap_or_default();
    let says_so = |c: &Condition| {
        c.type_ == conditions::VALIDATED
            && c.reason == REASON
            && c.message == text
            && c.observed_generation == Some(generation)
    };
    if all.iter().any(says_so) {
        return false;
    }
    conditions::set(&mut all, conditions::VALIDATED, Some(false), REASON, text, generation, now);
    if !object.data["status"].is_object() {
        object.data["status"] = json!({});
    }
    object.data["status"]["conditions"] = serde_json::to_value(all).unwrap_or(Value::Null);
    object.data["status"]["message"] = json!(text);
    true
}

/// Lets a migration go that is being deleted, after the time that is given to clusters.
async fn release(
    context: &Context,
    api: &Api<DynamicObject>,
    object: DynamicObject,
) -> Result<Action> {
    let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
    let since = object.metadata.deletion_timestamp.as_ref();
    let waited = since.map_or(0, |since| observe::seconds_since(since, context.clock.now()));
    if !finalizers.iter().any(|held| held == FINALIZER) {
        return Ok(Action::await_change());
    }
    if waited <= cleanup::DEADLINE {
        return Ok(Action::requeue(AGAIN * 10));
    }
    let note =
        "objects with the labels of this migration may remain: the migration cannot be parsed";
    context.events.warning(&about(&object), "CleanupFailed", note.into()).await;
    let others: Vec<_> = finalizers.iter().filter(|held| *held != FINALIZER).collect();
    let patch = json!({ "metadata": {
        "finalizers": others, "resourceVersion": object.metadata.resource_version,
    }});
    let name = object.metadata.name.clone().unwrap_or_default();
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map_err(Error::api("set finalizers"))?;
    Ok(Action::await_change())
}

fn about(object: &DynamicObject) -> PartialObjectMeta<DirectVolumeMigration> {
    object.metadata.clone().into_response_partial()
}
