//! The objects of one cluster, with the rules of an API server: versions, preconditions, finalizers, a log of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
};

use serde_json::{Value, json};

use super::selector::Selector;

/// Where an object is: kind in the plural, namespace (empty for those of the cluster), name.
pub(crate) type Key = (String, String, String);

/// A change, as a watch reports it.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

/// A refusal: HTTP status, reason, message.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

type Outcome = Result<Value, Refusal>;

#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    made: u64,
    /// Every change since the cluster began.
    pub(crate) log: Vec<Change>,
    /// Watches that wait for the next change.
    pub(crate) waiting: Vec<Waker>,
    /// Watches report nothing.
    pub(crate) frozen: bool,
    pub(crate) watches_open: usize,
    /// Changes up to this version are forgotten.
    pub(crate) forgotten: u64,
    /// What containers have written to their logs.
    pub(crate) logs: BTreeMap<Key, String>,
    /// The time, as text.
    pub(crate) now: String,
    /// Tells the uids of this cluster from those of another one.
    pub(crate) name: &'static str,
}

impl Store {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Outcome {
        self.objects.get(key).cloned().ok_or_else(|| missing(key))
    }

    pub(crate) fn list(&self, plural: &str, namespace: &str, selector: &Selector) -> Vec<Value> {
        let wanted = |(key, object): &(&Key, &Value)| {
            key.0 == plural
                && (namespace.is_empty() || key.1 == namespace)
                && selector.matches(object)
        };
        self.objects.iter().filter(wanted).map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn create(&mut self, mut key: Key, mut object: Value) -> Outcome {
        self.made += 1;
        if key.2.is_empty() {
            let prefix = object["metadata"]["generateName"].as_str().unwrap_or("x-").to_owned();
            key.2 = format!("{prefix}{}", self.made);
        }
        if self.objects.contains_key(&key) {
            let what = format!("{} \"{}\" already exists", key.0, key.2);
            return Err(Refusal(409, "AlreadyExists", what));
        }
        let namespace = ("namespaces".to_owned(), String::new(), key.1.clone());
        if !key.1.is_empty() && !self.objects.contains_key(&namespace) {
            return Err(missing(&namespace));
        }
        if key.0.starts_with("directvolumemigration") {
            object.as_object_mut().unwrap().remove("status");
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(key.2);
        if !key.1.is_empty() {
            metadata["namespace"] = json!(key.1);
        }
        metadata["uid"] = json!(format!("{}-{:08}", self.name, self.made));
        metadata["creationTimestamp"] = json!(self.now);
        metadata["generation"] = json!(1);
        if key.0 == "services" {
            object["spec"]["clusterIP"] = json!("10.0.0.1");
            object["spec"]["ports"][0]["nodePort"] = json!(30001);
        }
        Ok(self.write(key, object, "ADDED"))
    }

    /// Replaces the status alone, if nobody wrote in between.
    pub(crate) fn replace_status(&mut self, key: &Key, object: &Value) -> Outcome {
        let mut there = self.get(key)?;
        check_version(&there, object)?;
        there["status"] = object["status"].clone();
        Ok(self.update(key, there))
    }

    pub(crate) fn replace(&mut self, key: &Key, object: Value) -> Outcome {
        let there = self.get(key)?;
        check_version(&there, &object)?;
        Ok(self.update(key, object))
    }

    pub(crate) fn merge(&mut self, key: &Key, patch: &Value, status: bool) -> Outcome {
        let mut there = self.get(key)?;
        check_version(&there, patch)?;
        if status {
            merge(&mut there["status"], &patch["status"]);
        } else {
            merge(&mut there, patch);
        }
        Ok(self.update(key, there))
    }

    pub(crate) fn apply(&mut self, key: &Key, object: Value) -> Outcome {
        if self.objects.contains_key(key) {
            self.merge(key, &object, false)
        } else {
            self.create(key.clone(), object)
        }
    }

    /// Removes the object; a pod, and what has finalizers, is only marked.
    pub(crate) fn delete(&mut self, key: &Key) -> Outcome {
        self.delete_if(key, &Value::Null)
    }

    /// The same, with the preconditions of a call.
    pub(crate) fn delete_if(&mut self, key: &Key, options: &Value) -> Outcome {
        let mut there = self.get(key)?;
        let wanted = &options["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != there["metadata"]["uid"] {
            return Err(Refusal(409, "Conflict", "the UID in the precondition differs".into()));
        }
        let held = finalizers(&there) > 0;
        if !held && key.0 != "pods" {
            self.remove(key);
            return Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }));
        }
        if there["metadata"]["deletionTimestamp"].is_null() {
            there["metadata"]["deletionTimestamp"] = json!(self.now);
            return Ok(self.update(key, there));
        }
        Ok(there)
    }

    /// Somebody removes an object and creates one of the same name.
    pub(crate) fn replace_by_another(&mut self, key: &Key) {
        if self.get(key).is_ok() {
            self.remove(key);
            let spec = json!({ "of": "another", "ports": [{}], "containers": [] });
            self.create(key.clone(), json!({ "metadata": {}, "spec": spec })).unwrap();
        }
    }

    /// Removes what is owned by objects that are gone, as the garbage collector does.
    pub(crate) fn collect(&mut self) {
        let uid = |object: &Value| object["uid"].as_str().unwrap_or_default().to_owned();
        let there: BTreeSet<String> =
            self.objects.values().map(|object| uid(&object["metadata"])).collect();
        let is_orphan = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().all(|owner| !there.contains(&uid(owner))))
        };
        let orphans = self.objects.iter().filter(|(_, object)| is_orphan(object));
        let orphans: Vec<Key> = orphans.map(|(key, _)| key.clone()).collect();
        for key in orphans {
            let _ = self.delete(&key);
        }
    }

    /// Removes the object at once.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.log(key, object, "DELETED");
        }
    }

    /// A write of somebody who has read it in the same breath.
    pub(crate) fn change(&mut self, key: &Key, how: impl FnOnce(&mut Value)) {
        let mut object = self.get(key).unwrap();
        how(&mut object);
        self.update(key, object);
    }

    fn update(&mut self, key: &Key, mut object: Value) -> Value {
        let there = self.objects.get(key).cloned().unwrap_or_default();
        object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
        if object == there {
            return there;
        }
        let generation = there["metadata"]["generation"].as_i64().unwrap_or(1);
        let changed = object["spec"] != there["spec"];
        object["metadata"]["generation"] = json!(generation + i64::from(changed));
        let going = !object["metadata"]["deletionTimestamp"].is_null();
        if going && finalizers(&object) == 0 && key.0 != "pods" {
            self.remove(key);
            return object;
        }
        self.write(key.clone(), object, "MODIFIED")
    }

    fn write(&mut self, key: Key, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log(&key, object.clone(), kind);
        self.objects.insert(key, object.clone());
        object
    }

    fn log(&mut self, key: &Key, object: Value, kind: &'static str) {
        self.waiting.drain(..).for_each(Waker::wake);
        self.log.push(Change { version: self.version, key: key.clone(), kind, object });
    }
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

fn check_version(there: &Value, wanted: &Value) -> Result<(), Refusal> {
    let wanted = &wanted["metadata"]["resourceVersion"];
    if wanted.is_null() || *wanted == there["metadata"]["resourceVersion"] {
        return Ok(());
    }
    Err(Refusal(409, "Conflict", "the object has been modified".into()))
}

fn missing(key: &Key) -> Refusal {
    Refusal(404, "NotFound", format!("{} \"{}\" not found", key.0, key.2))
}

/// A JSON merge patch.
fn merge(into: &mut Value, from: &Value) {
    let Value::Object(from) = from else {
        *into = from.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in from {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name], value);
        }
    }
}
