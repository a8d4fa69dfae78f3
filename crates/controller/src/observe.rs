//! What the state of a pod says about a volume.
//!
//! A source reports success in one form only: its sync container has terminated with reason `Completed` and exit code 0, and left a
//! message that parses, is about this volume, and says `completed`. Everything else has a name of its own. A stage run also accepts
//! [`Failure::source_changed`]. The volume has arrived if the server reports the same: see [`served`].

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use pod::{ExitCode, Outcome, Report, Text, VolumeReport};

/// What is known of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It has not started, and can still start.
    Waiting(Text),
    /// It is running.
    Running,
    /// It has ended and reports success.
    Succeeded(Box<Report>),
    /// It has ended in any other way.
    Failed(Failure),
}

/// How something failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Reason in CamelCase.
    pub reason: Text,
    /// Message for people.
    pub message: Text,
    /// Whether another attempt can succeed.
    pub retryable: bool,
    /// Exit code of the container.
    pub exit_code: Option<i32>,
    /// Report of the container.
    pub report: Option<Box<Report>>,
}

impl Failure {
    /// A failure without a report of a container.
    pub fn new(reason: impl Into<Text>, message: impl Into<Text>, retryable: bool) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            retryable,
            exit_code: None,
            report: None,
        }
    }
}

impl Failure {
    /// The report of a container that has transferred everything but entries that changed or vanished at the source meanwhile, and
    /// lists these. Both ends agree on all others.
    #[must_use]
    pub fn source_changed(&self, volume: &str) -> Option<&Report> {
        let report = self.report.as_deref()?;
        let code = ExitCode::SourceChanged;
        let proved = self.reason == reason_of(Some(code))
            && self.exit_code == Some(i32::from(code.number()))
            && report.exit_code == code
            && report.outcome == Outcome::Partial
            && !report.dry_run
            && report.digest.is_some()
            && report.volume == volume
            && report.error_count() > 0;
        proved.then_some(report)
    }
}

/// What the sync container `name`, which moves `volume`, has come to.
#[must_use]
pub fn sync(pod: &Pod, name: &str, volume: &str, now: Timestamp) -> Seen {
    let status = container(pod, name);
    let state = status.and_then(|status| status.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let report = ended.message.as_deref().and_then(|text| serde_json::from_str(text).ok());
        return evaluate(volume, ended.reason.as_deref().unwrap_or(""), ended.exit_code, report);
    }
    not_ended(pod, state, now)
}

/// What a container has come to that has not ended.
fn not_ended(pod: &Pod, state: Option<&ContainerState>, now: Timestamp) -> Seen {
    match (pod_failure(pod, now), state) {
        (Some(failure), _) => Seen::Failed(failure),
        (None, Some(ContainerState { running: Some(_), .. })) => Seen::Running,
        (None, _) => waiting(pod, state),
    }
}

/// Whether a container that has ended has done what it should.
fn evaluate(volume: &str, reason: &str, exit_code: i32, report: Option<Report>) -> Seen {
    let failed = |reason: &str, message: Text, retryable: bool, report: Option<Report>| {
        Seen::Failed(Failure {
            reason: reason.into(),
            message,
            retryable,
            exit_code: Some(exit_code),
            report: report.map(Box::new),
        })
    };
    let code = u8::try_from(exit_code).ok().and_then(ExitCode::from_number);
    match (reason, report) {
        ("OOMKilled", report) => {
            let what = "the container exceeded its memory limit".into();
            failed("OOMKilled", what, true, report)
        }
        ("Completed", Some(report)) if exit_code == 0 => {
            let agrees = report.outcome == Outcome::Completed
                && !report.dry_run
                && report.exit_code == ExitCode::Ok
                && report.digest.is_some()
                && report.volume == volume;
            if agrees {
                return Seen::Succeeded(Box::new(report));
            }
            let what = "the container exited 0, but its report says otherwise".into();
            failed("ReportMismatch", what, false, Some(report))
        }
        (_, None) if exit_code == 0 => {
            let what = "the container exited 0 without a valid report; treated as failed";
            failed("NoReport", what.into(), true, None)
        }
        (_, Some(report)) if i32::from(report.exit_code.number()) == exit_code => {
            let message = match report.errors.first() {
                Some(first) if report.reason.is_empty() => {
                    format!("{}: {}", first.name, first.what).into()
                }
                _ => report.reason.clone(),
            };
            let reason = reason_of(code);
            // The next try has identities of its own, which is all that a refusal is about here.
            let retryable = report.retryable || code == Some(ExitCode::StartUp);
            failed(reason, message, retryable, Some(report))
        }
        (_, _) if exit_code > 128 => {
            let what = format!("the container was killed by signal {}", exit_code - 128);
            failed("Killed", what.into(), true, None)
        }
        (_, _) => {
            let says = code.map_or("unknown exit code", ExitCode::describe);
            let what = format!("the container exited {exit_code} ({says}) without a report");
            failed(reason_of(code), what.into(), code.is_some_and(ExitCode::is_retryable), None)
        }
    }
}

/// The reason of an exit code.
fn reason_of(code: Option<ExitCode>) -> &'static str {
    match code {
        Some(ExitCode::Ok) => "Completed",
        Some(ExitCode::Usage) => "UsageError",
        Some(ExitCode::Protocol) => "ProtocolError",
        Some(ExitCode::Selection) => "VolumeNotUsable",
        Some(ExitCode::StartUp) => "Refused",
        Some(ExitCode::Socket) => "SocketError",
        Some(ExitCode::FileIo) => "FileError",
        Some(ExitCode::Stream) => "ConnectionBroken",
        Some(ExitCode::Signal) => "Interrupted",
        Some(ExitCode::Memory) => "OutOfMemory",
        Some(ExitCode::Partial) => "Partial",
        Some(ExitCode::SourceChanged) => "SourceChanged",
        Some(ExitCode::DeleteLimit) => "DeleteLimit",
        Some(ExitCode::IoTimeout) => "Timeout",
        Some(ExitCode::ConnectTimeout) => "ConnectTimeout",
        None => "Error",
    }
}

/// Why a pod as a whole can come to nothing more. What its containers said before still counts.
fn pod_failure(pod: &Pod, now: Timestamp) -> Option<Failure> {
    if !is_over(pod) && is_lost(pod, now) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("?");
        let what = format!(
            "the pod still exists a minute after its deletion: node {node} does not respond"
        );
        return Some(Failure::new("NodeLost", what, true));
    }
    let status = pod.status.as_ref()?;
    let message = status.message.clone().unwrap_or_default();
    let reason = status.reason.as_deref().unwrap_or("");
    match (status.phase.as_deref(), reason) {
        (Some("Failed"), "Evicted") => Some(Failure::new("Evicted", message, true)),
        (Some("Failed"), "") => {
            Some(Failure::new("PodFailed", "the pod failed without a reason", true))
        }
        (Some("Failed"), other) => Some(Failure::new(other, message, true)),
        (_, "NodeLost") => Some(Failure::new("NodeLost", message, true)),
        (Some("Succeeded"), _) => Some(Failure::new(
            "NoReport",
            "the pod ended without a report from this container",
            true,
        )),
        _ => None,
    }
}

/// What a container that has not begun waits for.
fn waiting(pod: &Pod, state: Option<&ContainerState>) -> Seen {
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_default();
    let message = waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default();
    match &*reason {
        // These do not change by waiting.
        "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError" => {
            Seen::Failed(Failure::new(reason, message, false))
        }
        "" => Seen::Waiting(unscheduled(pod).unwrap_or_else(|| "Pending".into()).into()),
        "ContainerCreating" | "PodInitializing" => Seen::Waiting(reason.into()),
        _ if message.is_empty() => Seen::Waiting(reason.into()),
        _ => Seen::Waiting(format!("{reason}: {message}").into()),
    }
}

/// Why the scheduler finds no node.
fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let message = scheduled.message.clone().unwrap_or_default();
    Some(format!("{}: {message}", scheduled.reason.as_deref().unwrap_or("Unschedulable")))
}

/// The wait that says more: a container of a pod that is being created waits for whatever keeps another one from starting.
#[must_use]
pub fn more_telling(one: Option<Text>, other: Text) -> Text {
    let says_nothing =
        |what: &str| matches!(what, "ContainerCreating" | "PodInitializing" | "Pending");
    match one {
        Some(one) if !says_nothing(&one) => one,
        _ => other,
    }
}

/// The failure of a pod that did not start in time, from what it waited for last.
#[must_use]
pub fn too_late(waited_for: &str, seconds: i64) -> Failure {
    let (word, rest) = waited_for.split_once(": ").unwrap_or((waited_for, ""));
    let reason = match word {
        "Unschedulable" => "Unschedulable",
        "QuotaExceeded" => "QuotaExceeded",
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" => "ImageCannotStart",
        "ContainerCreating" => "VolumeNotMounted",
        _ => "NotStarted",
    };
    let rest = if rest.is_empty() { String::new() } else { format!(": {rest}") };
    let message = format!("not started within {seconds} s: {word}{rest}");
    Failure::new(reason, message, matches!(reason, "VolumeNotMounted" | "NotStarted"))
}

/// What a container has come to that volumes need beside their own: the server, or the tunnel. That it ended well proves
/// nothing; that it ended badly ends the transfer.
#[must_use]
pub fn sidecar(pod: &Pod, name: &str, now: Timestamp) -> Seen {
    let state = container(pod, name).and_then(|status| status.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        if ended.exit_code == 0 {
            return Seen::Running;
        }
        let code = u8::try_from(ended.exit_code).ok().and_then(ExitCode::from_number);
        let said =
            ended.message.as_deref().and_then(|text| serde_json::from_str::<Report>(text).ok());
        // Its code is that of its worst volume. What that means for each of them, the reports of both ends say.
        let of_volumes = matches!(
            code,
            Some(ExitCode::Partial | ExitCode::SourceChanged | ExitCode::DeleteLimit)
        );
        if of_volumes && said.as_ref().is_some_and(|report| !report.volumes.is_empty()) {
            return Seen::Running;
        }
        let why = said.map(|report| format!(": {}", report.reason)).unwrap_or_default();
        let message = format!("container {name} exited {}{why}", ended.exit_code);
        let reason = ended.reason.clone().filter(|reason| reason != "Error");
        let retryable = code.is_none_or(ExitCode::is_retryable);
        return Seen::Failed(Failure {
            exit_code: Some(ended.exit_code),
            ..Failure::new(reason.unwrap_or_else(|| reason_of(code).into()), message, retryable)
        });
    }
    not_ended(pod, state, now)
}

/// What a server has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// Nothing yet.
    Pending,
    /// The volumes that it has received, with whatever exit code it ended.
    Ended(Vec<VolumeReport>),
    /// Nothing, and nothing more will come.
    Lost(String),
}

/// What the server container `name` reports of the volumes of its pod.
#[must_use]
pub fn served(pod: &Pod, name: &str, now: Timestamp) -> Served {
    let state = container(pod, name).and_then(|status| status.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let report = ended.message.as_deref().and_then(|text| serde_json::from_str(text).ok());
        return match report {
            Some(Report { volumes, .. }) => Served::Ended(volumes),
            None => {
                let code = ended.exit_code;
                Served::Lost(format!("container {name} exited {code} without a report"))
            }
        };
    }
    match not_ended(pod, state, now) {
        Seen::Failed(failure) => Served::Lost(format!("{}: {}", failure.reason, failure.message)),
        _ => Served::Pending,
    }
}

/// True where the kubelet found the pod ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// True where no container of the pod runs or will run.
#[must_use]
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Seconds after its deletion from which a pod that still exists counts as lost.
pub(crate) const OVERDUE: i64 = 60;

/// True where a pod should be gone and is not: no kubelet says what became of it.
#[must_use]
pub fn is_lost(pod: &Pod, now: Timestamp) -> bool {
    // The time of the request, with the grace period added to it.
    let due = pod.metadata.deletion_timestamp.as_ref();
    due.is_some_and(|due| seconds_since(due, now) > OVERDUE)
}

/// When a container began and ended.
#[must_use]
pub fn times(pod: &Pod, name: &str) -> (Option<Time>, Option<Time>) {
    let state = container(pod, name).and_then(|status| status.state.as_ref());
    match state {
        Some(ContainerState { terminated: Some(ended), .. }) => {
            (ended.started_at.clone(), ended.finished_at.clone())
        }
        Some(ContainerState { running: Some(running), .. }) => (running.started_at.clone(), None),
        _ => (None, None),
    }
}

/// Seconds since a time.
#[must_use]
pub fn seconds_since(time: &Time, now: Timestamp) -> i64 {
    now.as_second() - time.0.as_second()
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": {}, "status": json })).unwrap()
    }

    fn ended(reason: &str, code: i32, message: &str) -> Seen {
        let terminated =
            serde_json::json!({ "reason": reason, "exitCode": code, "message": message });
        let status = serde_json::json!({
            "phase": "Failed",
            "containerStatuses": [{
                "name": "sync-a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": terminated },
            }],
        });
        sync(&pod(status), "sync-a", "a", Timestamp::UNIX_EPOCH)
    }

    fn reason(seen: &Seen) -> (&str, bool) {
        match seen {
            Seen::Failed(failure) => (&failure.reason, failure.retryable),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_that_ends_with_the_code_of_a_volume_has_not_failed_the_others() {
        let seen = |code: ExitCode, volumes: Vec<VolumeReport>| {
            let message = Report { volumes, ..Report::new("", code, "") }.to_json();
            let terminated = serde_json::json!({ "exitCode": code.number(), "message": message });
            let status = serde_json::json!({
                "phase": "Failed",
                "containerStatuses": [{
                    "name": "serve", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": terminated },
                }],
            });
            sidecar(&pod(status), "serve", Timestamp::UNIX_EPOCH)
        };
        let volumes = || vec![VolumeReport::of(&Report::new("a", ExitCode::SourceChanged, ""))];
        for code in [ExitCode::Partial, ExitCode::SourceChanged, ExitCode::DeleteLimit] {
            assert_eq!(seen(code, volumes()), Seen::Running, "{code:?}");
        }
        let failed = |seen| matches!(seen, Seen::Failed(_));
        assert!(failed(seen(ExitCode::Signal, volumes())));
        assert!(failed(seen(ExitCode::SourceChanged, Vec::new())));
    }

    /// All that is said of a container, wherever it came from.
    fn texts(seen: &Seen) -> Vec<&str> {
        match seen {
            Seen::Waiting(what) => vec![what],
            Seen::Failed(Failure { reason, message, report, .. }) => {
                let report = report.iter().flat_map(|report| {
                    let errors = report.errors.iter().flat_map(|e| [&e.name, &e.what]);
                    [&report.volume, &report.reason].into_iter().chain(errors)
                });
                [reason, message].into_iter().chain(report).map(|text| &**text).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_of_a_pod_or_container_are_safe_to_show() {
        let text = "a\u{202e}b\u{2028}c\u{1b}[2J\u{9b}\nd\u{200b}\u{e000}\u{e0041}";
        let error = serde_json::json!({ "name": text, "what": text });
        let message = serde_json::json!({
            "outcome": "failed", "exit_code": 11, "reason": text, "volume": text, "errors": [error],
        });
        let waits = serde_json::json!({
            "name": "sync-a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": text, "message": text } },
        });
        let unscheduled = serde_json::json!({
            "type": "PodScheduled", "status": "False", "reason": text, "message": text,
        });
        let states = [
            serde_json::json!({ "containerStatuses": [waits] }),
            serde_json::json!({ "conditions": [unscheduled] }),
            serde_json::json!({ "phase": "Failed", "reason": text, "message": text }),
        ];
        let states = states.map(|json| sync(&pod(json), "sync-a", "a", Timestamp::UNIX_EPOCH));
        let late = too_late(&format!("Unschedulable: {text}"), 9);
        let more =
            [ended("Error", 11, &message.to_string()), ended(text, 3, ""), Seen::Failed(late)];
        for seen in states.into_iter().chain(more) {
            for said in texts(&seen) {
                // All that shows itself in these texts is ASCII.
                let is_plain = said.is_ascii() && !said.contains(char::is_control);
                assert!(is_plain && !said.is_empty(), "{said:?}");
            }
        }
    }

    #[test]
    fn success_has_one_form() {
        let proved = |volume: &str, code: ExitCode| {
            let report = Report::new(volume, code, "");
            Report { digest: Some("00".repeat(32).into()), ..report }.to_json()
        };
        let good = proved("a", ExitCode::Ok);
        assert!(matches!(ended("Completed", 0, &good), Seen::Succeeded(_)));
        for (why, code, message) in [
            ("Completed", 0, ""),
            ("Completed", 0, "ok"),
            ("Completed", 0, &good[..good.len() - 1]),
            ("Completed", 0, &proved("b", ExitCode::Ok)),
            ("Completed", 0, &Report::new("a", ExitCode::Ok, "").to_json()),
            ("Completed", 0, &proved("a", ExitCode::Partial)),
            ("Error", 0, &good),
            ("OOMKilled", 0, &good),
            ("Completed", 1, &good),
            ("Error", 137, &good),
            ("ContainerStatusUnknown", 137, &good),
        ] {
            let seen = ended(why, code, message);
            assert!(matches!(seen, Seen::Failed(_)), "{why} {code} {message}: {seen:?}");
        }
    }

    #[test]
    fn every_end_has_a_name() {
        assert_eq!(reason(&ended("OOMKilled", 137, "")), ("OOMKilled", true));
        assert_eq!(reason(&ended("Error", 137, "")), ("Killed", true));
        assert_eq!(reason(&ended("Completed", 0, "")), ("NoReport", true));
        assert_eq!(reason(&ended("Error", 23, "")), ("Partial", false));
        assert_eq!(reason(&ended("Error", 12, "")), ("ConnectionBroken", true));
        let report = Report::new("a", ExitCode::FileIo, "no space").to_json();
        assert_eq!(reason(&ended("Error", 11, &report)), ("FileError", false));
        let report = Report::new("a", ExitCode::StartUp, "identity").to_json();
        assert_eq!(reason(&ended("Error", 5, &report)), ("Refused", true));
    }

    #[test]
    fn a_pod_that_is_no_more_is_a_failure_with_a_name() {
        let evicted = pod(serde_json::json!({ "phase": "Failed", "reason": "Evicted" }));
        assert_eq!(
            reason(&sync(&evicted, "sync-a", "a", Timestamp::UNIX_EPOCH)),
            ("Evicted", true)
        );
        let silent = pod(serde_json::json!({ "phase": "Succeeded" }));
        assert_eq!(
            reason(&sync(&silent, "sync-a", "a", Timestamp::UNIX_EPOCH)),
            ("NoReport", true)
        );
    }

    #[test]
    fn a_pod_that_does_not_go_has_lost_its_node() {
        let going: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "deletionTimestamp": "2026-01-01T00:00:30Z" },
            "spec": { "containers": [], "nodeName": "n1" },
            "status": { "phase": "Running", "containerStatuses": [{
                "name": "sync-a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": { "running": {} },
            }]},
        }))
        .unwrap();
        let at = |text: &str| sync(&going, "sync-a", "a", text.parse().unwrap());
        assert_eq!(at("2026-01-01T00:00:00Z"), Seen::Running);
        assert_eq!(at("2026-01-01T00:01:30Z"), Seen::Running);
        let late = at("2026-01-01T00:01:31Z");
        assert_eq!(reason(&late), ("NodeLost", true));
        assert!(matches!(&late, Seen::Failed(failure) if failure.message.contains("n1")));
    }

    #[test]
    fn a_tunnel_or_a_server_ends_a_transfer_when_it_ends_badly() {
        let ended = |code: i32, message: &str| {
            sidecar(
                &pod(serde_json::json!({ "phase": "Running", "containerStatuses": [{
                    "name": "tunnel", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code, "reason": "Error", "message": message } },
                }]})),
                "tunnel",
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(ended(0, ""), Seen::Running);
        assert_eq!(reason(&ended(1, "")), ("UsageError", false));
        let report = Report::new("tunnel", ExitCode::Socket, "no room").to_json();
        let failed = ended(10, &report);
        assert!(
            matches!(&failed, Seen::Failed(failure) if failure.message.ends_with("exited 10: no room")),
            "{failed:?}"
        );
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_the_failure_of_every_container_of_its_pod() {
        let waits = ["ErrImagePull: no such image", "ContainerCreating"];
        for [first, second] in [waits, [waits[1], waits[0]]] {
            let both = more_telling(Some(more_telling(None, first.into())), second.into());
            assert_eq!(too_late(&both, 9).reason, "ImageCannotStart");
        }
        assert_eq!(more_telling(None, "ContainerCreating".into()), "ContainerCreating");
    }

    #[test]
    fn what_a_pod_waits_for_names_its_failure() {
        assert_eq!(too_late("Unschedulable: 0/1 nodes", 9).reason, "Unschedulable");
        assert_eq!(too_late("ImagePullBackOff", 9).reason, "ImageCannotStart");
        assert!(too_late("ContainerCreating", 9).retryable);
        let quota = too_late("QuotaExceeded: create Pod a/b: exceeded quota", 9);
        assert_eq!((&*quota.reason, quota.retryable), ("QuotaExceeded", false));
        assert!(quota.message.contains("create Pod a/b"), "{}", quota.message);
    }
}
