//! Which migrations a change concerns, and the queue of those that are due because of one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Changes that come within so long of one another are one step of a migration.
const TOGETHER: Duration = Duration::from_millis(100);

/// A migration by namespace and name.
pub(crate) type Name = (String, String);

/// What a migration can wait for in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    what: String,
    namespace: String,
    name: String,
}

impl Key {
    /// An object.
    pub(crate) fn object<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self { what: K::plural(&()).into(), namespace: namespace.into(), name: name.into() }
    }

    /// Every object of a kind.
    pub(crate) fn all<K: Resource<DynamicType = ()>>() -> Self {
        Self::object::<K>("", "")
    }

    /// The pods that mount a claim.
    pub(crate) fn users(namespace: &str, claim: &str) -> Self {
        Self { what: "users".into(), namespace: namespace.into(), name: claim.into() }
    }
}

/// The migrations that are due, each once.
#[derive(Default)]
pub(crate) struct Wakes {
    due: Mutex<BTreeSet<Name>>,
    some: Notify,
}

impl Wakes {
    pub(crate) fn wake(&self, migrations: impl IntoIterator<Item = Name>) {
        self.due.lock().extend(migrations);
        self.some.notify_one();
    }

    /// The next one, if there is one.
    pub(crate) fn take(&self) -> Option<Name> {
        self.due.lock().pop_first()
    }

    /// The next one, once there is one. What comes at the same time is one step.
    pub(crate) async fn next(&self) -> Name {
        loop {
            match self.take() {
                Some(next) => return next,
                None => {
                    self.some.notified().await;
                    tokio::time::sleep(TOGETHER).await;
                }
            }
        }
    }
}

/// What the migrations that are under way in a cluster wait for there.
pub(crate) struct Concerns {
    wakes: Arc<Wakes>,
    registered: Mutex<HashMap<Key, HashSet<Name>>>,
    under_way: Mutex<HashMap<Name, HashSet<Key>>>,
    times_needed: AtomicU64,
}

impl Concerns {
    pub(super) fn new(wakes: Arc<Wakes>) -> Self {
        Self {
            wakes,
            registered: Mutex::default(),
            under_way: Mutex::default(),
            times_needed: AtomicU64::new(0),
        }
    }

    pub(super) fn register(&self, key: Key, migration: &Name) {
        let new = self.under_way.lock().entry(migration.clone()).or_default().insert(key.clone());
        if new {
            self.registered.lock().entry(key).or_default().insert(migration.clone());
        }
    }

    pub(super) fn need(&self, migration: &Name) {
        self.times_needed.fetch_add(1, Ordering::Relaxed);
        self.under_way.lock().entry(migration.clone()).or_default();
    }

    pub(super) fn is_needed(&self) -> bool {
        !self.under_way.lock().is_empty()
    }

    /// Changes whenever a migration needs the cluster.
    pub(super) fn times_needed(&self) -> u64 {
        self.times_needed.load(Ordering::Relaxed)
    }

    /// True if the migration was under way here.
    pub(super) fn release(&self, migration: &Name) -> bool {
        let Some(keys) = self.under_way.lock().remove(migration) else { return false };
        let mut registered = self.registered.lock();
        for key in keys {
            if let Some(waiting) = registered.get_mut(&key) {
                waiting.remove(migration);
                if waiting.is_empty() {
                    registered.remove(&key);
                }
            }
        }
        true
    }

    /// Wakes the migrations that are registered for one of `keys`, and `owner`.
    pub(super) fn changed(&self, keys: &[Key], owner: Option<Name>) {
        let registered = self.registered.lock();
        let waiting = keys.iter().filter_map(|key| registered.get(key)).flatten().cloned();
        let due: Vec<Name> = waiting.chain(owner).collect();
        drop(registered);
        if !due.is_empty() {
            self.wakes.wake(due);
        }
    }

    /// Wakes every active migration: the watches of the cluster lost their server, or reached it again.
    pub(super) fn all_changed(&self) {
        let all: Vec<Name> = self.under_way.lock().keys().cloned().collect();
        self.wakes.wake(all);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

    use super::*;

    fn name(name: &str) -> Name {
        ("home".into(), name.into())
    }

    fn due(wakes: &Wakes) -> Vec<String> {
        std::iter::from_fn(|| wakes.take()).map(|(_, name)| name).collect()
    }

    #[test]
    fn a_change_wakes_those_that_are_registered_for_it_once_and_no_other() {
        let wakes = Arc::new(Wakes::default());
        let concerns = Concerns::new(Arc::clone(&wakes));
        let claim = |claim: &str| Key::object::<PersistentVolumeClaim>("shop", claim);
        for migration in ["one", "two", "three"] {
            concerns.register(claim("data"), &name(migration));
        }
        concerns.register(claim("other"), &name("four"));
        concerns.register(Key::users("shop", "data"), &name("five"));
        concerns.release(&name("two"));
        concerns.changed(&[claim("data"), claim("data")], Some(name("one")));
        assert_eq!(due(&wakes), ["one", "three"]);
        concerns.changed(&[claim("nobody's"), Key::object::<Pod>("shop", "data")], None);
        assert_eq!(due(&wakes), [""; 0]);
        concerns.all_changed();
        assert_eq!(due(&wakes), ["five", "four", "one", "three"]);
    }

    #[test]
    fn nothing_is_kept_of_a_migration_that_is_released() {
        let concerns = Concerns::new(Arc::default());
        concerns.need(&name("m"));
        concerns.register(Key::all::<Pod>(), &name("m"));
        assert!(concerns.is_needed());
        assert!(concerns.release(&name("m")) && !concerns.release(&name("m")));
        assert!(!concerns.is_needed() && concerns.registered.lock().is_empty());
    }
}
