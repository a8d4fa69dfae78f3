//! A cluster that objects are made in: this one, or another one by its kubeconfig.

use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::ClusterReference,
    build::MANAGER,
    error::{Error, Result},
    guard::Guard,
    informers::{self, Informers, Key, Name, Wakes, Watched},
    metrics::Metrics,
    reconciler::Clock,
};

/// How long another cluster may be silent within an answer.
const CALL: Duration = Duration::from_secs(30);

/// How long another cluster may take to begin an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Other clusters whose connections are kept though no migration is under way in them.
const OTHERS: usize = 64;

/// For so long a kubeconfig is used without a look at its Secret.
const KUBECONFIG: SignedDuration = SignedDuration::from_secs(30);

/// Seconds that a call of a watch lasts: of the cluster of the controller, and of another one. A server that is gone is noticed when it
/// has not ended the call.
const WATCH: (u32, u32) = (290, 25);
/// How long a watch of another cluster may be silent.
const WATCH_SILENCE: Duration = Duration::from_secs(40);

/// One cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    metrics: Arc<Metrics>,
    informers: Arc<Informers>,
}

/// An object that lives in a namespace and has a kind known at compile time.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

impl Cluster {
    /// A cluster behind a client.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let informers = Informers::new(client.clone(), WATCH.0, Arc::default());
        Self { client, metrics, informers: Arc::new(informers) }
    }

    /// What watches know of it.
    pub(crate) fn informers(&self) -> &Informers {
        &self.informers
    }

    /// The object as its watch knows it, for the migration `by`, which is woken by its changes. It can be old. That there is none is
    /// confirmed by the server.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn look<K: Watched>(
        &self,
        by: &Name,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>> {
        match self.known(by, namespace, name).await {
            Some(known) => Ok(Some(known)),
            None => self.read(namespace, name).await,
        }
    }

    /// The object if its watch knows one, for the migration `by`, which is woken by its changes.
    pub(crate) async fn known<K: Watched>(
        &self,
        by: &Name,
        namespace: &str,
        name: &str,
    ) -> Option<K> {
        self.informers.register(Key::object::<K>(namespace, name), by);
        let known = self.informers.current::<K>().await?.get(namespace, name)?;
        Some(K::clone(&known))
    }

    /// All of a namespace, or of the cluster, as their watch knows them.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn look_at_all<K: Watched>(&self, namespace: &str) -> Result<Vec<Arc<K>>> {
        if let Some(informer) = self.informers.current::<K>().await {
            return Ok(informer.list(namespace));
        }
        Ok(self.list_trimmed(namespace).await?.into_iter().map(Arc::new).collect())
    }

    /// All of a namespace, or of the cluster, as the server has them, without what no step reads.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn list_trimmed<K: Watched>(&self, namespace: &str) -> Result<Vec<K>> {
        let listed = informers::list(&K::api(self.client(), namespace)).await;
        let (items, _) = listed.map_err(Error::api(format!("list {}", K::plural(&()))))?;
        Ok(items)
    }

    /// The object as the server has it, or `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn read<K: Watched>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let what = format!("read {} {place}{name}", K::kind(&()));
        let api = K::api(self.client(), namespace);
        let read = api.get_opt(name).await.map_err(Error::api(what))?;
        if let Some(object) = &read {
            self.informers.learn(object);
        }
        Ok(read)
    }

    /// As [`Self::create`]; the watch of the kind knows the object from now on.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn create_watched<K: Kind + Watched>(&self, object: &K) -> Result<bool> {
        let created = self.create_new(object).await?;
        if let Some(object) = &created {
            self.informers.learn(object);
        }
        Ok(created.is_some())
    }

    /// Its client, for what has no method here; the call is counted.
    pub fn client(&self) -> Client {
        self.metrics.called();
        self.client.clone()
    }

    /// The objects of one kind in a namespace.
    pub fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client(), namespace)
    }

    /// The object, or `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        let what = format!("read {} {namespace}/{name}", K::kind(&()));
        self.api::<K>(namespace).get_opt(name).await.map_err(Error::api(what))
    }

    /// All that bear the labels, in every namespace or in one.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn list<K: Kind>(&self, namespace: Option<&str>, selector: &str) -> Result<Vec<K>> {
        self.list_with_version(namespace, selector).await.map(|(items, _)| items)
    }

    /// As [`Self::list`], with the version at which a watch goes on from it.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn list_with_version<K: Kind>(
        &self,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<(Vec<K>, String)> {
        let api: Api<K> = match namespace {
            Some(namespace) => self.api(namespace),
            None => Api::all(self.client()),
        };
        let what = format!("list {}", K::plural(&()));
        let listed = api.list(&ListParams::default().labels(selector)).await;
        let listed = listed.map_err(Error::api(what))?;
        Ok((listed.items, listed.metadata.resource_version.unwrap_or_default()))
    }

    /// Makes the object; `false` where one of that name is there already.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn create<K: Kind>(&self, object: &K) -> Result<bool> {
        Ok(self.create_new(object).await?.is_some())
    }

    /// Makes the object and returns it as the server has it; `None` if one of that name exists.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub(crate) async fn create_new<K: Kind>(&self, object: &K) -> Result<Option<K>> {
        let (namespace, name) = place(object);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let created = self.api::<K>(&namespace).create(&params, object).await;
        created_or_exists(created, &K::kind(&()), &namespace, &name)
    }

    /// As [`Self::create`], of a kind that this cluster may not know.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn create_dynamic(&self, object: &DynamicObject, kind: &ApiResource) -> Result<bool> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), &namespace, kind);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let created = api.create(&params, object).await;
        created_or_exists(created, &kind.kind, &namespace, &name).map(|created| created.is_some())
    }

    /// As [`Self::get`], of a kind that this cluster may not know.
    ///
    /// # Errors
    /// [`Error::Api`].
    pub async fn get_dynamic(
        &self,
        namespace: &str,
        name: &str,
        kind: &ApiResource,
    ) -> Result<Option<DynamicObject>> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), namespace, kind);
        let what = format!("read {} {namespace}/{name}", kind.kind);
        api.get_opt(name).await.map_err(Error::api(what))
    }
}

/// The object that was created; `None` where one of that name exists.
fn created_or_exists<K>(
    created: kube::Result<K>,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<K>> {
    match created {
        Ok(created) => Ok(Some(created)),
        Err(error) => match Error::api(format!("create {kind} {namespace}/{name}"))(error) {
            exists if exists.already_exists() => Ok(None),
            error => Err(error),
        },
    }
}

fn place<K: Resource>(object: &K) -> (String, String) {
    (object.meta().namespace.clone().unwrap_or_default(), object.name_any())
}

/// A Secret by namespace and name, and a key in it.
type Found = (String, String, String);

/// What a Secret led to, with the version that it was read in, and when that was.
struct Other {
    version: String,
    read: Timestamp,
    cluster: Cluster,
}

/// Makes a client for a cluster.
pub type Connect = Arc<dyn Fn(Config) -> Result<Client, kube::Error> + Send + Sync>;

/// The clusters that migrations refer to.
pub struct Clusters {
    home: Cluster,
    connect: Connect,
    deadline: Duration,
    clock: Clock,
    others: Mutex<HashMap<Found, Other>>,
    wakes: Arc<Wakes>,
}

impl Clusters {
    /// `home` is the cluster that the migrations are in.
    #[must_use]
    pub fn new(home: Cluster) -> Self {
        let wakes = Arc::default();
        let informers = Informers::new(home.client.clone(), WATCH.0, Arc::clone(&wakes));
        Self {
            home: Cluster { informers: Arc::new(informers), ..home },
            wakes,
            connect: Arc::new(Client::try_from),
            deadline: DEADLINE,
            clock: Clock::default(),
            others: Mutex::default(),
        }
    }

    /// The same, with clients of other clusters made by `connect`, each call of which has a deadline by `clock`.
    #[must_use]
    pub fn connected_by(self, connect: Connect, deadline: Duration, clock: Clock) -> Self {
        Self { connect, deadline, clock, ..self }
    }

    /// The cluster that the migrations are in.
    #[must_use]
    pub fn home(&self) -> &Cluster {
        &self.home
    }

    /// The migrations that changes make due.
    pub(crate) fn wakes(&self) -> &Arc<Wakes> {
        &self.wakes
    }

    /// A migration waits for nothing any more, in no cluster.
    pub(crate) fn release(&self, migration: &Name) {
        self.home.informers.release(migration);
        for other in self.others.lock().values() {
            other.cluster.informers.release(migration);
        }
    }

    /// The cluster that a migration in `namespace` refers to.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the Secret is missing or invalid, [`Error::Api`] if it cannot be read.
    pub async fn find(
        &self,
        namespace: &str,
        wanted: Option<&ClusterReference>,
    ) -> Result<Cluster> {
        let Some(wanted) = wanted else { return Ok(self.home.clone()) };
        let name = &wanted.kubeconfig_secret;
        let invalid = |why: String| {
            Error::Invalid("ClusterNotUsable", format!("Secret {namespace}/{name} {why}"))
        };
        let key = (namespace.to_owned(), name.clone(), wanted.key.clone());
        let now = self.clock.now();
        if let Some(other) = self.others.lock().get(&key)
            && now.duration_since(other.read).abs() < KUBECONFIG
        {
            return Ok(other.cluster.clone());
        }
        let secret: Option<Secret> = self.home.get(namespace, name).await?;
        let secret = secret.ok_or_else(|| invalid("not found".into()))?;
        let version = secret.resource_version().unwrap_or_default();
        if let Some(other) = self.others.lock().get_mut(&key)
            && other.version == version
        {
            other.read = now;
            return Ok(other.cluster.clone());
        }
        let data = secret.data.unwrap_or_default();
        let bytes =
            data.get(&wanted.key).ok_or_else(|| invalid(format!("has no key {}", wanted.key)))?;
        // What is wrong with a kubeconfig may be quoted in an error, and must not be: it holds credentials.
        let text =
            std::str::from_utf8(&bytes.0).map_err(|_| invalid("does not contain text".into()))?;
        let config = Kubeconfig::from_yaml(text)
            .map_err(|_| invalid("does not contain a valid kubeconfig".into()))?;
        refuse_helpers(&config).map_err(invalid)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|_| {
            invalid("contains a kubeconfig without a usable current context".into())
        })?;
        config.connect_timeout = Some(CALL);
        config.read_timeout = Some(CALL);
        config.write_timeout = Some(CALL);
        let client = |config| {
            let made = (self.connect)(config);
            let client = made.map_err(|_| invalid("contains invalid credentials".into()))?;
            let called = format!("the cluster of Secret {namespace}/{name}");
            Ok(Guard::client(client, &called, self.deadline, self.clock.clone()))
        };
        let mut watching = config.clone();
        watching.read_timeout = Some(WATCH_SILENCE);
        let informers = Informers::new(client(watching)?, WATCH.1, Arc::clone(&self.wakes));
        let cluster = Cluster {
            client: client(config)?,
            metrics: Arc::clone(&self.home.metrics),
            informers: Arc::new(informers),
        };
        let mut others = self.others.lock();
        if others.len() >= OTHERS {
            others.retain(|_, other| other.cluster.informers.is_needed());
        }
        let other = Other { version, read: now, cluster: cluster.clone() };
        if let Some(before) = others.insert(key, other) {
            // They are woken by the new cluster from their next step on.
            before.cluster.informers.wake_all();
        }
        drop(others);
        Ok(cluster)
    }
}

/// A kubeconfig may name programs to run and files to read. Whoever writes a Secret must not thereby run programs and read
/// files of the controller.
fn refuse_helpers(config: &Kubeconfig) -> Result<(), String> {
    for user in config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("uses an exec or auth-provider plugin; embed a client certificate or a token in the kubeconfig".into());
        }
        if user.token_file.is_some()
            || user.client_certificate.is_some()
            || user.client_key.is_some()
        {
            return Err("refers to files; embed the credentials in the kubeconfig (kubectl config view --raw --flatten)".into());
        }
    }
    for cluster in config.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.certificate_authority.is_some() {
            return Err("refers to files; embed the certificate authority in the kubeconfig (kubectl config view --raw --flatten)".into());
        }
        if !cluster.server.as_deref().is_some_and(|server| server.starts_with("https://")) {
            return Err("has a server URL without TLS (https)".into());
        }
        if cluster.proxy_url.is_some() {
            return Err("sets proxy-url, which is not supported".into());
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err("sets insecure-skip-tls-verify, which is not permitted".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_files_and_proxies_are_refused() {
        let config = |cluster: &str, user: &str| {
            let text = format!(
                "clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
            );
            refuse_helpers(&Kubeconfig::from_yaml(&text).unwrap())
        };
        let server = "server: 'https://a'";
        assert_eq!(config(server, "token: t, client-key-data: k"), Ok(()));
        for (cluster, user, why) in [
            (server.to_owned(), "exec: {command: sh}", "plugin"),
            (server.to_owned(), "auth-provider: {name: x, config: {}}", "plugin"),
            (server.to_owned(), "tokenFile: /etc/passwd", "files"),
            (server.to_owned(), "client-key: /etc/passwd", "files"),
            (server.to_owned(), "client-certificate: /etc/passwd", "files"),
            (format!("{server}, certificate-authority: /etc/passwd"), "", "files"),
            (format!("{server}, proxy-url: 'http://b'"), "", "proxy"),
            (format!("{server}, insecure-skip-tls-verify: true"), "", "verify"),
            ("server: 'http://a'".to_owned(), "", "TLS"),
        ] {
            let told = config(&cluster, user).unwrap_err();
            assert!(told.contains(why), "{cluster} {user}: {told}");
        }
    }
}
