//! A resource that this version cannot read beside one that it can, at an API server of this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use controller::{
    Settings,
    build::Defaults,
    identity::{Identities, Issuer},
    metrics::Metrics,
};
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// What was written: method, path, body.
type Writes = Arc<Mutex<Vec<(String, String, Value)>>>;

fn migration(name: &str, more: Value) -> Value {
    let mut spec = json!({
        "source": { "namespace": "a" }, "destination": { "namespace": "b" },
        "volumes": [{ "name": "data" }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
        "metadata": {
            "name": name, "namespace": "home", "uid": name, "resourceVersion": "1", "generation": 1,
        },
        "spec": spec,
        "status": { "conditions": [{
            "type": "Other", "status": "True", "reason": "Kept", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    })
}

/// A migration that this version can read, with a field that it does not know, and one that it cannot read.
fn migrations() -> [Value; 2] {
    [
        migration("good", json!({ "colour": "blue", "transfer": { "speed": 11 } })),
        migration("bad", json!({ "mode": "Sideways" })),
    ]
}

/// Answers one request after another of a connection.
async fn serve(stream: TcpStream, writes: Writes) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        stream.read_line(&mut head).await.ok().filter(|n| *n > 0)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let mut words = head.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        if path.contains("watch=true") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            tokio::time::sleep(Duration::from_secs(60)).await;
            return None;
        }
        let answer = match (&*method, &*path) {
            ("GET", path) if path.contains("/directvolumemigrations/") => {
                let named = |m: &&Value| path.ends_with(m["metadata"]["name"].as_str().unwrap());
                migrations().iter().find(named).cloned().unwrap()
            }
            ("GET", path) => {
                let ours = path.contains("directvolumemigrations");
                let items = if ours { migrations().to_vec() } else { Vec::new() };
                json!({ "metadata": { "resourceVersion": "1" }, "items": items })
            }
            _ => {
                let body: Value = serde_json::from_slice(&body).unwrap();
                writes.lock().push((method, path.clone(), body.clone()));
                let is_event = path.contains("/events");
                if is_event { body } else { migrations()[0].clone() }
            }
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

struct NoIssuer;

impl Issuer for NoIssuer {
    fn issue(&self, _: &str, _: &[&str]) -> Result<Identities, String> {
        Err("none here".into())
    }
}

#[tokio::test]
async fn a_migration_that_cannot_be_read_gets_a_condition_and_an_event_and_others_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let writes = Writes::default();
    let server = tokio::spawn({
        let writes = Arc::clone(&writes);
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&writes)));
            }
        }
    });
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let settings = Settings {
        defaults: Defaults::default(),
        issuer: Arc::new(NoIssuer),
        metrics: Arc::new(Metrics::default()),
        lease_namespace: None,
        instance: "test".into(),
        namespace: None,
        parallel: None,
    };
    let running = tokio::spawn(async move {
        controller::work(&settings, client).await;
    });
    let written = |method: &str, part: &str| {
        let all = writes.lock();
        all.iter().find(|(m, path, _)| m == method && path.contains(part)).map(|w| w.2.clone())
    };
    let begun = Instant::now();
    let (good, bad, event) = loop {
        let found = (
            written("PATCH", "/directvolumemigrations/good"),
            written("PUT", "/directvolumemigrations/bad/status"),
            written("POST", "/namespaces/home/events"),
        );
        if let (Some(good), Some(bad), Some(event)) = found {
            break (good, bad, event);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:#?}", writes.lock());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    running.abort();
    server.abort();
    assert_eq!(good["metadata"]["finalizers"], json!(["pvferry.io/cleanup"]));
    let conditions = bad["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions[0]["reason"], "Kept");
    assert_eq!(
        (&conditions[1]["type"], &conditions[1]["status"]),
        (&json!("Validated"), &json!("False"))
    );
    assert_eq!(conditions[1]["reason"], "NotReadable");
    assert!(conditions[1]["message"].as_str().unwrap().contains("Sideways"), "{bad}");
    // What it does not know stays as it is.
    assert_eq!(bad["spec"], migrations()[1]["spec"]);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("NotReadable")));
    assert_eq!(event["involvedObject"]["name"], "bad");
}
