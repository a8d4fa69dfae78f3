//! An API server in memory: the requests of a client against a [`Store`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    calls::{Calls, Fate},
    selector::Selector,
    store::{Key, Refusal, Store},
    watch::Watch,
};

/// What becomes of the status of a migration that is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum StatusWrites {
    #[default]
    Accepted,
    /// With this HTTP status.
    Refused(u16),
    /// Another client has always just written.
    Raced,
    /// The schema does not have the field `runSpec`.
    Pruned,
}

/// A cluster: its objects behind an API server.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) calls: Arc<Calls>,
    /// A quota has no room for pods.
    pub(crate) quota_exhausted: Arc<Mutex<bool>>,
    /// What is to be deleted by its name is replaced by somebody else in the same moment.
    pub(crate) replaces: Arc<Mutex<bool>>,
    /// No call returns.
    pub(crate) blackholed: Arc<Mutex<bool>>,
    /// Nobody may list and watch objects of all namespaces, but for migrations.
    pub(crate) forbidden: Arc<Mutex<bool>>,
    pub(crate) status_writes: Arc<Mutex<StatusWrites>>,
}

impl Server {
    pub(crate) fn new(name: &'static str, calls: Arc<Calls>) -> Self {
        let store = Store::new(name);
        Self {
            store: Arc::new(Mutex::new(store)),
            calls,
            quota_exhausted: Arc::default(),
            replaces: Arc::default(),
            blackholed: Arc::default(),
            forbidden: Arc::default(),
            status_writes: Arc::default(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }
}

/// What the path of a request names.
#[derive(Debug)]
struct Target {
    key: Key,
    kind: String,
    part: String,
}

impl Target {
    fn parse(path: &str) -> Self {
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3 });
        let namespaced = parts[0] == "namespaces" && parts.len() > 2;
        let namespace = if namespaced { parts[1] } else { "" };
        let rest = &parts[if namespaced { 2 } else { 0 }..];
        let at = |n: usize| rest.get(n).copied().unwrap_or("").to_owned();
        let kind = format!("{}List", at(0));
        Self { key: (at(0), namespace.into(), at(1)), kind, part: at(2) }
    }
}

impl tower_service::Service<Request<Body>> for Server {
    type Response = Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let name = server.store.lock().name;
            if server.calls.is_broken(name) {
                return Err(std::io::Error::other("connection refused"));
            }
            server.answer(request).await
        })
    }
}

impl Server {
    async fn answer(
        &self,
        request: Request<Body>,
    ) -> std::io::Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if *self.blackholed.lock() {
            std::future::pending::<()>().await;
        }
        let query = Query::parse(head.uri.query().unwrap_or(""));
        let target = Target::parse(head.uri.path());
        let (plural, namespace, name) = &target.key;
        let everywhere = head.method == Method::GET && namespace.is_empty() && name.is_empty();
        if everywhere && *self.forbidden.lock() && plural != "directvolumemigrations" {
            let why = format!("cannot list {plural}");
            return Ok(refused(&Refusal(403, "Forbidden", why)));
        }
        if query.get("watch") == Some("true") || query.get("watch") == Some("1") {
            self.calls.watched();
            return Ok(self.watch(&target, &query));
        }
        let called = format!("{} {} {}", self.store.lock().name, head.method, head.uri.path());
        let fate = self.calls.next(&called);
        match fate {
            Fate::Lost => self.calls.stall().await,
            Fate::Refused => {
                let refusal = Refusal(500, "InternalError", "as the test wants it".into());
                return Ok(refused(&refusal));
            }
            Fate::Done | Fate::AnswerLost | Fate::TimedOut => {}
        }
        let agent = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let sent =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let answer = self.handle(&head.method, &target, &query, agent, sent);
        if matches!(fate, Fate::AnswerLost) {
            self.calls.stall().await;
        }
        if matches!(fate, Fate::TimedOut) {
            return Err(std::io::Error::other("deadline has elapsed"));
        }
        Ok(match answer {
            Ok(Value::String(text)) => response(200, text.into_bytes()),
            Ok(value) => response(200, serde_json::to_vec(&value).unwrap()),
            Err(refusal) => refused(&refusal),
        })
    }

    fn handle(
        &self,
        method: &Method,
        target: &Target,
        query: &Query,
        content: &str,
        mut sent: Value,
    ) -> Result<Value, Refusal> {
        let mut store = self.store.lock();
        let Target { key, kind, part } = target;
        match (method.as_str(), &*key.2, &**part) {
            ("GET", "", _) => {
                let selector = Selector::parse(query.get("labelSelector").unwrap_or(""));
                let items = store.list(&key.0, &key.1, &selector);
                let version = store.version().to_string();
                Ok(json!({ "kind": kind, "apiVersion": "v1",
                    "metadata": { "resourceVersion": version }, "items": items }))
            }
            ("GET", _, "log") => {
                let log = store.logs.get(key).cloned();
                let log = log.unwrap_or_else(|| progress(store.version()));
                store.get(key).map(|_| Value::String(log))
            }
            ("GET", ..) => store.get(key),
            ("POST", ..) if key.0 == "pods" && *self.quota_exhausted.lock() => {
                let what = "pods \"x\" is forbidden: exceeded quota: q, used: pods=1";
                Err(Refusal(403, "Forbidden", what.into()))
            }
            ("POST", ..) => {
                let name = sent["metadata"]["name"].as_str().unwrap_or("").to_owned();
                store.create((key.0.clone(), key.1.clone(), name), sent)
            }
            ("PUT", _, "status") if key.0 == "directvolumemigrations" => {
                match *self.status_writes.lock() {
                    StatusWrites::Accepted => {}
                    StatusWrites::Refused(code) => {
                        return Err(Refusal(code, "Refused", "as the test wants it".into()));
                    }
                    StatusWrites::Raced => {
                        let text = format!("version {}", store.version());
                        store.change(key, |object| object["status"]["message"] = json!(text));
                    }
                    StatusWrites::Pruned => {
                        sent["status"].as_object_mut().unwrap().remove("runSpec");
                    }
                }
                store.replace_status(key, &sent)
            }
            ("PUT", _, "status") => store.replace_status(key, &sent),
            ("PUT", ..) => store.replace(key, sent),
            ("PATCH", _, part) if content.contains("merge-patch") => {
                store.merge(key, &sent, part == "status")
            }
            ("PATCH", ..) if content.contains("apply-patch") => {
                sent["metadata"].as_object_mut().unwrap().remove("managedFields");
                store.apply(key, sent)
            }
            ("DELETE", "", _) => {
                let selector = Selector::parse(query.get("labelSelector").unwrap_or(""));
                let items = store.list(&key.0, &key.1, &selector);
                for object in &items {
                    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                    store.delete(&(key.0.clone(), key.1.clone(), name))?;
                }
                let version = store.version().to_string();
                Ok(json!({ "kind": kind, "apiVersion": "v1",
                    "metadata": { "resourceVersion": version }, "items": items }))
            }
            ("DELETE", ..) => {
                if *self.replaces.lock() {
                    store.replace_by_another(key);
                }
                store.delete_if(key, &sent)
            }
            other => panic!("no such call: {other:?} {content}"),
        }
    }

    fn watch(
        &self,
        target: &Target,
        query: &Query,
    ) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        // The watch of migrations is kube's own.
        let ours = target.key.0 == "directvolumemigrations";
        if !ours && from < self.store.lock().forgotten {
            return refused(&Refusal(410, "Expired", "too old resource version".into()));
        }
        let selector = Selector::parse(query.get("labelSelector").unwrap_or(""));
        let (plural, namespace) = (target.key.0.clone(), target.key.1.clone());
        let lasts = query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(290);
        let lasts = std::time::Duration::from_secs(lasts);
        let watch = Watch::new(Arc::clone(&self.store), plural, namespace, selector, from, lasts);
        Response::builder()
            .header("content-type", "application/json")
            .body(BodyExt::boxed(watch))
            .unwrap()
    }
}

/// The last line of a container that makes progress.
fn progress(bytes: u64) -> String {
    let line = json!({
        "bytes_done": bytes, "bytes_total": 1_000_000_000, "bytes_literal": bytes, "wire_sent": bytes,
        "wire_received": 0, "entries": 1, "files_written": 1, "files_deleted": 0,
        "bytes_per_second": 1, "eta_seconds": 1, "listing_complete": true,
    });
    format!("{line}\n")
}

fn refused(
    Refusal(code, reason, message): &Refusal,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
        "reason": reason, "code": code, "metadata": {},
    });
    response(*code, serde_json::to_vec(&status).unwrap())
}

fn response(
    code: u16,
    body: Vec<u8>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let body = http_body_util::Full::new(Bytes::from(body));
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(BodyExt::boxed(body))
        .unwrap()
}

/// The query of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        };
        Self(text.split('&').map(pair).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
