//! What destination pods do: they count what they receive, and report it when they end.

use std::collections::HashMap;

use pod::{ExitCode, Report, VolumeReport};
use serde_json::{Value, json};

use super::{
    kubelet::{args, list, status, terminated, text},
    server::Server,
    store::Key,
};

/// A change of a report, as JSON.
pub(crate) type Change = Box<dyn Fn(&mut Value) + Send>;

/// How servers end that have received all volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With their message.
    #[default]
    Reported,
    /// The message is cut.
    Cut,
    /// The message is the end of the log, as with `FallbackToLogsOnError`.
    LogAsMessage,
    /// Without a message.
    Silent,
    /// They were started anew, and have received nothing since.
    Restarted,
    /// The pod is evicted before it ends.
    Evicted,
    /// The pod is removed before it ends.
    Removed,
    /// The pod is evicted after it has ended.
    EvictedLater,
    /// They go on.
    Never,
}

#[derive(Default)]
pub(crate) struct Serving {
    /// By uid of the pod.
    received: HashMap<String, Vec<VolumeReport>>,
    age: HashMap<String, u32>,
    pub(crate) ending: Ending,
    /// Ticks from the last volume to the end.
    pub(crate) delay: u32,
    /// Nothing is written to the log.
    pub(crate) without_log: bool,
    /// What becomes of the message.
    pub(crate) change: Option<Change>,
}

impl Serving {
    /// A session of a volume ended.
    pub(crate) fn received(&mut self, cluster: &Server, pod: &Value, report: &Report) {
        if !matches!(
            report.exit_code,
            ExitCode::Ok | ExitCode::SourceChanged | ExitCode::Partial | ExitCode::DeleteLimit
        ) {
            return;
        }
        let report = VolumeReport::of(report);
        let mut written = serde_json::to_value(&report).unwrap();
        if let Some(change) = &self.change {
            let mut message = json!({ "volumes": [written] });
            change(&mut message);
            written = message["volumes"][0].clone();
        }
        if !self.without_log {
            let line = json!({ "message": "session ended", "report": written.to_string() });
            let mut store = cluster.store.lock();
            let log = store.logs.entry(key(pod)).or_default();
            log.push_str(&format!("{line}\n"));
        }
        let all = self.received.entry(text(&pod["metadata"]["uid"])).or_default();
        all.retain(|other| other.volume != report.volume);
        all.push(report);
    }

    /// Servers that have received all volumes end.
    pub(crate) fn tick(&mut self, cluster: &Server) {
        for pod in list(cluster, "pods") {
            let uid = text(&pod["metadata"]["uid"]);
            let runs = !pod["status"]["containerStatuses"][0]["state"]["running"].is_null();
            let Some(received) = self.received.get(&uid).filter(|_| runs) else { continue };
            let args = args(&pod["spec"]["containers"][0]);
            let at = args.iter().position(|arg| arg == "--exit-when").unwrap();
            if received.len() < args[at + 1].parse().unwrap() {
                continue;
            }
            let age = self.age.entry(uid).or_default();
            *age += 1;
            if *age > self.delay {
                self.end(cluster, &pod);
            }
        }
    }

    fn end(&self, cluster: &Server, pod: &Value) {
        let message = self.message(&text(&pod["metadata"]["uid"]));
        let message = match self.ending {
            Ending::Never => return,
            Ending::Removed => return cluster.store.lock().remove(&key(pod)),
            Ending::Cut => message[..message.len() - 1].to_owned(),
            Ending::LogAsMessage => cluster.store.lock().logs.get(&key(pod)).cloned().unwrap(),
            Ending::Silent => String::new(),
            Ending::Restarted => Report::new("", ExitCode::Ok, "").to_json(),
            Ending::Reported | Ending::Evicted | Ending::EvictedLater => message,
        };
        let received = &self.received[&text(&pod["metadata"]["uid"])];
        let worst = received.iter().fold(ExitCode::Ok, |worst, of| worst.worst(of.exit_code));
        let ended = terminated(worst.number().into(), &message);
        let ended = json!({
            "phase": "Succeeded", "containerStatuses": [status("serve", ended)],
        });
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "disk" });
        let status = match self.ending {
            Ending::Evicted => evicted,
            Ending::EvictedLater => {
                let mut status = evicted;
                status["containerStatuses"] = ended["containerStatuses"].clone();
                status
            }
            _ => ended,
        };
        cluster.store.lock().change(&key(pod), |pod| pod["status"] = status);
    }

    fn message(&self, uid: &str) -> String {
        let volumes = self.received[uid].clone();
        let code = volumes.iter().fold(ExitCode::Ok, |worst, of| worst.worst(of.exit_code));
        let report = Report { volumes, ..Report::new("all", code, "") };
        let mut message: Value = serde_json::from_str(&report.to_json()).unwrap();
        if let Some(change) = &self.change {
            change(&mut message);
        }
        message.to_string()
    }
}

fn key(pod: &Value) -> Key {
    ("pods".into(), text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]))
}
