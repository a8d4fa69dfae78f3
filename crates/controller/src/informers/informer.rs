//! The watch of one kind in a whole cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use parking_lot::Mutex;
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::{Concerns, Watched, kinds::owner};
use crate::build::MANAGER;

/// Objects that one call of a list returns. An object has up to 1.5 MiB, and is trimmed only once its page is read.
const PAGE: u32 = 50;
/// How long a step waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(5);
/// A watch that is not refused within so long is accepted.
const ACCEPTED: Duration = Duration::from_secs(1);
/// The pause after the first call that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether what is known is what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first list has not been answered.
    Beginning,
    Current,
    /// The server does not answer, or does not permit the watch.
    Lost,
}

/// An object by namespace and name.
type At = (String, String);

/// A kind of object, as a watch knows it.
pub(crate) struct Informer<K> {
    known: Arc<Known<K>>,
    task: Mutex<Option<AbortHandle>>,
}

struct Known<K> {
    objects: Mutex<Objects<K>>,
    state: watch::Sender<State>,
}

struct Objects<K> {
    all: BTreeMap<At, Arc<K>>,
    /// The watch has come to this version.
    seen: u64,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), seen: 0 }
    }
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        let known =
            Known { objects: Mutex::default(), state: watch::Sender::new(State::Beginning) };
        Self { known: Arc::new(known), task: Mutex::default() }
    }
}

impl<K> Drop for Informer<K> {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl<K: Watched> Informer<K> {
    pub(super) fn begin(&self, client: &Client, call: u32, concerns: &Arc<Concerns>) {
        let mut task = self.task.lock();
        if task.is_none() {
            let follow = follow(
                Api::all(client.clone()),
                call,
                Arc::clone(&self.known),
                Arc::clone(concerns),
            );
            *task = Some(tokio::spawn(follow).abort_handle());
        }
    }

    pub(super) fn end(&self) {
        let mut task = self.task.lock();
        if let Some(task) = task.take() {
            task.abort();
        }
        self.known.state.send_replace(State::Beginning);
        *self.known.objects.lock() = Objects::default();
    }

    /// Whether it knows what there is; waits a while for the first list.
    pub(super) async fn is_current(&self) -> bool {
        let mut state = self.known.state.subscribe();
        let begun = state.wait_for(|state| *state != State::Beginning);
        let state = tokio::time::timeout(FIRST_LIST, begun).await;
        matches!(state, Ok(Ok(state)) if *state == State::Current)
    }

    /// Whether it has not begun, or its server answers.
    pub(super) fn is_not_lost(&self) -> bool {
        *self.known.state.borrow() != State::Lost
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.known.objects.lock().all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The server has answered with this object: it is known from now on, unless the watch has come as far. So what was there once, and is
    /// not known, is gone.
    pub(crate) fn learn(&self, object: &K) {
        let Some(version) = version_of(object) else { return };
        let mut object = object.clone();
        object.trim();
        let mut objects = self.known.objects.lock();
        let older = |known: &Arc<K>| version_of(&**known).is_some_and(|known| known < version);
        if version > objects.seen && objects.all.get(&at(&object)).is_none_or(older) {
            objects.all.insert(at(&object), Arc::new(object));
        }
    }

    /// All of a namespace at the version to which the watch has come, and that version; `None` if it has not come to any. A watch from there
    /// misses nothing.
    pub(crate) fn list_at(&self, namespace: &str) -> Option<(Vec<Arc<K>>, String)> {
        // What is added in between is listed, and seen once more.
        let seen = self.known.objects.lock().seen;
        (seen > 0).then(|| (self.list(namespace), seen.to_string()))
    }

    /// All of a namespace; of every one, where it is empty.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.known.objects.lock();
        if namespace.is_empty() {
            return objects.all.values().cloned().collect();
        }
        let from = (namespace.to_owned(), String::new());
        let all = objects.all.range((Bound::Included(from), Bound::Unbounded));
        all.take_while(|((of, _), _)| of == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }
}

impl<K: Watched> Known<K> {
    fn set(&self, state: State, concerns: &Concerns) {
        let before = self.state.send_replace(state);
        if before != state && before != State::Beginning {
            concerns.all_changed();
        }
    }

    /// An object is there, or has changed.
    fn apply(&self, mut object: K, concerns: &Concerns) {
        let version = version_of(&object);
        object.trim();
        let object = Arc::new(object);
        let mut objects = self.objects.lock();
        objects.seen = objects.seen.max(version.unwrap_or(0));
        let before = objects.all.insert(at(&*object), Arc::clone(&object));
        drop(objects);
        if before.as_ref().is_none_or(|before| *before != object) {
            let mut keys = object.keys();
            keys.extend(before.iter().flat_map(|before| before.keys()));
            concerns.changed(&keys, owner(&*object));
        }
    }

    /// An object is gone.
    fn remove(&self, at: &At, version: Option<u64>, concerns: &Concerns) {
        let mut objects = self.objects.lock();
        objects.seen = objects.seen.max(version.unwrap_or(0));
        let before = objects.all.remove(at);
        drop(objects);
        if let Some(before) = before {
            concerns.changed(&before.keys(), owner(&*before));
        }
    }

    /// These were all that there were at `version`.
    fn replace(&self, all: Vec<K>, version: Option<u64>, concerns: &Concerns) {
        let there: BTreeSet<At> = all.iter().map(at).collect();
        let objects = self.objects.lock();
        let later = |object: &K| version_of(object) > version;
        let gone = objects.all.iter().filter(|(at, known)| !there.contains(at) && !later(known));
        let gone: Vec<At> = gone.map(|(at, _)| at.clone()).collect();
        drop(objects);
        for at in &gone {
            self.remove(at, version, concerns);
        }
        for object in all {
            self.apply(object, concerns);
        }
        self.reach(version);
    }

    /// Every change up to this version is known.
    fn reach(&self, version: Option<u64>) {
        let mut objects = self.objects.lock();
        objects.seen = objects.seen.max(version.unwrap_or(0));
    }
}

fn version_of<K: Watched>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

fn at<K: Watched>(object: &K) -> At {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Why a watch has ended.
enum Ended {
    /// After its time, or with its connection: it goes on from the version that it has seen.
    Over,
    /// The server has forgotten the versions since.
    Forgotten,
    /// The server does not answer, or refuses.
    Failed(kube::Error),
}

/// Follows all objects of the kind, for ever.
async fn follow<K: Watched>(api: Api<K>, call: u32, known: Arc<Known<K>>, concerns: Arc<Concerns>) {
    let mut version = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let (begun, watched) = (Instant::now(), version.is_some());
        let ended = match version.take() {
            None => match list(&api).await {
                Ok((objects, at)) => {
                    known.replace(objects, at.parse().ok(), &concerns);
                    known.set(State::Current, &concerns);
                    (Ended::Over, Some(at))
                }
                Err(error) => (Ended::Failed(error), None),
            },
            Some(at) => watch_from(&api, call, at, &known, &concerns).await,
        };
        version = ended.1;
        match ended.0 {
            Ended::Over => {
                if watched {
                    pause = FIRST_PAUSE;
                }
                // One that ends at once is not called again at once.
                if begun.elapsed() < FIRST_PAUSE && watched {
                    tokio::time::sleep(jittered(FIRST_PAUSE)).await;
                }
            }
            Ended::Forgotten => {
                version = None;
                // A server that forgets what it has just listed is not asked again and again.
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ended::Failed(error) => {
                tracing::debug!("watch of {}: {error}", K::plural(&()));
                known.set(State::Lost, &concerns);
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// All objects, page by page, each trimmed.
pub(crate) async fn list<K: Watched>(api: &Api<K>) -> kube::Result<(Vec<K>, String)> {
    let mut params = ListParams::default().labels(&selector::<K>()).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items.into_iter().map(|mut object| {
            object.trim();
            object
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// One call of a watch: how it ended, and the version that it has seen.
async fn watch_from<K: Watched>(
    api: &Api<K>,
    call: u32,
    mut version: String,
    known: &Known<K>,
    concerns: &Concerns,
) -> (Ended, Option<String>) {
    let params = WatchParams::default().labels(&selector::<K>()).timeout(call);
    let changes = match api.watch(&params, &version).await {
        Ok(changes) => changes,
        Err(error) => return (failed(error), Some(version)),
    };
    pin_mut!(changes);
    // A refusal comes as the first change.
    let mut accepted = false;
    loop {
        let next = if accepted {
            changes.next().await
        } else {
            let first = tokio::time::timeout(ACCEPTED, changes.next()).await;
            if !matches!(first, Ok(None | Some(Err(_) | Ok(WatchEvent::Error(_))))) {
                known.set(State::Current, concerns);
                accepted = true;
            }
            let Ok(first) = first else { continue };
            first
        };
        match next {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                version = object.resource_version().unwrap_or(version);
                known.apply(object, concerns);
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                version = object.resource_version().unwrap_or(version);
                known.remove(&at(&object), version_of(&object), concerns);
            }
            Some(Ok(WatchEvent::Bookmark(mark))) => {
                version = mark.metadata.resource_version;
                known.reach(version.parse().ok());
            }
            Some(Ok(WatchEvent::Error(status))) => {
                return (failed(kube::Error::Api(status)), Some(version));
            }
            Some(Err(error @ kube::Error::Api(_))) => return (failed(error), Some(version)),
            // A connection that breaks says nothing about the server: the next call does.
            Some(Err(error)) => {
                tracing::debug!("watch of {}: {error}", K::plural(&()));
                return (Ended::Over, Some(version));
            }
            None => return (Ended::Over, Some(version)),
        }
    }
}

fn failed(error: kube::Error) -> Ended {
    match error {
        kube::Error::Api(status) if status.code == 410 => Ended::Forgotten,
        error => Ended::Failed(error),
    }
}

fn selector<K: Watched>() -> String {
    if K::OURS { format!("app.kubernetes.io/managed-by={MANAGER}") } else { String::new() }
}

/// Between one and one and a half times as long: what many wait for does not come at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause + pause.mul_f64(random as f64 / 2000.0)
}
