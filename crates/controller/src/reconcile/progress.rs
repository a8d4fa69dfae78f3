//! How far volumes are: from the last line of their containers, which hold no credentials to tell it themselves.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{LogParams, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, Step};
use crate::{
    api::{
        DirectVolumeMigration, DirectVolumeMigrationProgress, DirectVolumeMigrationProgressSpec,
        Mode, VolumePhase,
    },
    build::{labels, sync_container},
    error::{Error, Result},
    observe,
    plan::{self, Planned},
};

/// A line of `--progress json`.
#[derive(Deserialize)]
struct Line {
    bytes_done: u64,
    bytes_total: u64,
    bytes_literal: u64,
    wire_sent: u64,
    wire_received: u64,
    entries: u64,
    files_written: u64,
    files_deleted: u64,
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
    listing_complete: bool,
}

impl Step<'_> {
    /// A resource for each volume, blank for this run.
    pub(super) async fn make_progresses(&self) -> Result<()> {
        let namespace = self.migration.namespace().unwrap_or_default();
        let migration = self.migration.name_any();
        let uid = self.migration.uid().unwrap_or_default();
        let owner = OwnerReference {
            api_version: DirectVolumeMigration::api_version(&()).into_owned(),
            kind: DirectVolumeMigration::kind(&()).into_owned(),
            name: migration.clone(),
            uid: uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        for volume in &self.volumes {
            let mut progress = DirectVolumeMigrationProgress::new(
                &progress_name(&self.migration, volume),
                DirectVolumeMigrationProgressSpec {
                    migration: migration.clone(),
                    claim: volume.claim.to_string(),
                    target: volume.target.to_string(),
                },
            );
            progress.metadata = ObjectMeta {
                namespace: Some(namespace.clone()),
                labels: Some(labels(&uid)),
                owner_references: Some(vec![owner.clone()]),
                ..progress.metadata
            };
            // One that has just been created is blank.
            if !self.context.clusters.home().create(&progress).await? {
                self.tell(volume, blank()).await?;
            }
        }
        Ok(())
    }

    /// Writes fields of the status of a volume's resource.
    pub(super) async fn tell(&self, volume: &Planned, mut fields: Value) -> Result<()> {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("run".into(), json!(self.status.run));
            add_columns(fields, self.now);
        }
        let namespace = self.migration.namespace().unwrap_or_default();
        let name = progress_name(&self.migration, volume);
        let api: Api<DirectVolumeMigrationProgress> = self.context.clusters.home().api(&namespace);
        let patch = Patch::Merge(json!({ "status": fields }));
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            // Somebody removed it: the migration goes on without.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                Err(Error::api(format!("update the progress of {}", volume.claim))(error))
            }
        }
    }

    /// The sync containers of these volumes run.
    pub(super) async fn running(&mut self, volumes: &[Planned], pod: &Pod) -> Result<()> {
        if volumes.is_empty() {
            return Ok(());
        }
        let mut containers = Vec::new();
        for volume in volumes {
            if let Some(status) = self.status.volumes.get_mut(volume.index) {
                status.phase = VolumePhase::Running;
            }
            let container = sync_container(volume);
            let (started, _) = observe::times(pod, &container);
            containers.push((container, started.map(|at| at.0)));
        }
        let pod_uid = pod.uid().unwrap_or_default();
        let (due, next) = self.context.logs.due(pod_uid, &containers, self.now);
        if let Some(next) = next {
            self.due_at(next);
        }
        for volume in volumes.iter().filter(|volume| due.contains(&sync_container(volume))) {
            self.report_progress(volume, pod).await?;
        }
        Ok(())
    }

    async fn report_progress(&mut self, volume: &Planned, pod: &Pod) -> Result<()> {
        let container = sync_container(volume);
        let attempts = self.status.volumes.get(volume.index).map_or(0, |status| status.attempts);
        let (started, _) = observe::times(pod, &container);
        let line = self.last_line(pod, &container).await;
        let mut told = json!({
            "phase": VolumePhase::Running, "reason": "", "message": "", "pod": pod.name_any(),
            "container": container, "attempt": attempts, "startTime": started, "completionTime": null,
            "exitCode": null,
        });
        if let (Some(status), Some(line)) = (self.status.volumes.get_mut(volume.index), &line) {
            status.bytes_done = i64::try_from(line.bytes_done).unwrap_or(i64::MAX);
            status.bytes_total = i64::try_from(line.bytes_total).unwrap_or(i64::MAX);
            status.rate = i64::try_from(line.bytes_per_second).unwrap_or(i64::MAX);
        }
        if let (Some(line), Some(told)) = (line, told.as_object_mut())
            && let Value::Object(fields) = line.fields()
        {
            told.extend(fields);
        }
        self.tell(volume, told).await
    }

    /// The last progress that a container printed. Not to know it is no reason to stop.
    async fn last_line(&self, pod: &Pod, container: &str) -> Option<Line> {
        let namespace = pod.namespace().unwrap_or_default();
        let params = LogParams {
            container: Some(container.into()),
            tail_lines: Some(3),
            limit_bytes: Some(16 << 10),
            ..LogParams::default()
        };
        let logs = self.source.api::<Pod>(&namespace).logs(&pod.name_any(), &params).await.ok()?;
        logs.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// The columns of the migration, from its volumes.
    pub(super) fn summarise(&mut self) {
        let volumes = &self.status.volumes;
        let done = volumes.iter().filter(|v| v.phase == VolumePhase::Succeeded).count();
        let sum = |of: fn(&crate::api::VolumeStatus) -> i64| {
            volumes.iter().map(of).fold(0, i64::saturating_add)
        };
        let (bytes, total, rate) = (sum(|v| v.bytes_done), sum(|v| v.bytes_total), sum(|v| v.rate));
        let known = volumes.iter().all(|v| v.bytes_total > 0 || v.phase.is_final());
        // A rollback copies nothing, of nothing.
        let rollback = self.status.mode == Mode::Rollback;
        self.status.volumes_done =
            if rollback { String::new() } else { format!("{done}/{}", volumes.len()) };
        self.status.progress = if rollback {
            String::new()
        } else if done == volumes.len() && done > 0 {
            "100%".into()
        } else if known {
            share(bytes, total)
        } else {
            size(u64::try_from(bytes).unwrap_or(0))
        };
        let (start, end) = (&self.status.start_time, &self.status.completion_time);
        self.status.duration = match (start, end) {
            (Some(start), Some(end)) => elapsed(start.0, end.0),
            _ => String::new(),
        };
        self.status.rate = match u64::try_from(rate) {
            Ok(0) | Err(_) => String::new(),
            Ok(rate) => format!("{}/s", size(rate)),
        };
    }
}

fn progress_name(migration: &DirectVolumeMigration, volume: &Planned) -> String {
    let name = migration.name_any();
    let head = name.get(..160).unwrap_or(&name);
    // Two migrations could come to the same name otherwise, and a new one of an old name to that of the old one.
    let uid: String = migration.uid().unwrap_or_default().chars().take(8).collect();
    format!("{head}-{uid}-{}", volume.name)
}

/// The migration is being deleted or is gone, and its pods are gone: no volume is being copied any more. Who deleted it can have kept these
/// resources (`--cascade=orphan`).
pub(super) async fn end_with_migration(
    context: &Context,
    migration: &DirectVolumeMigration,
    now: Timestamp,
) {
    let status = migration.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        return;
    }
    let namespace = migration.namespace().unwrap_or_default();
    let api: Api<DirectVolumeMigrationProgress> = context.clusters.home().api(&namespace);
    let ended = json!({ "status": {
        "phase": VolumePhase::Failed, "reason": "MigrationDeleted", "rate": "", "eta": "",
        "message": "the migration was deleted during the run", "completionTime": Time(now),
    }});
    for volume in plan::volumes(&migration.spec) {
        let known = status.volumes.get(volume.index);
        if known.is_none_or(|known| known.phase.is_final()) {
            continue;
        }
        let name = progress_name(migration, &volume);
        let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ended)).await;
        if let Err(error) = patched {
            tracing::debug!("update the progress of {}: {error}", volume.claim);
        }
    }
}

impl Line {
    fn fields(&self) -> Value {
        json!({
            "bytesDone": self.bytes_done,
            "bytesTotal": self.bytes_total,
            "bytesSent": self.bytes_literal,
            "wireBytes": self.wire_sent.saturating_add(self.wire_received),
            "entries": self.entries,
            "filesWritten": self.files_written,
            "filesDeleted": self.files_deleted,
            "rate": format!("{}/s", size(self.bytes_per_second)),
            "eta": self.eta_seconds.map(duration).unwrap_or_default(),
            // Of a tree that is not listed to its end, nobody knows the whole.
            "progress": if self.listing_complete {
                share(
                    i64::try_from(self.bytes_done).unwrap_or(i64::MAX),
                    i64::try_from(self.bytes_total).unwrap_or(i64::MAX),
                )
            } else {
                size(self.bytes_done)
            },
        })
    }
}

/// A status without anything of an earlier run.
fn blank() -> Value {
    json!({
        "phase": VolumePhase::Pending, "reason": "", "message": "", "pod": "", "container": "",
        "attempt": 0, "exitCode": null, "progress": "", "rate": "", "eta": "", "bytesDone": 0,
        "bytesTotal": 0, "bytesSent": 0, "wireBytes": 0, "entries": 0, "filesWritten": 0,
        "filesDeleted": 0, "digest": null, "changed": 0, "errors": [], "startTime": null, "completionTime": null,
    })
}

/// Adds the columns that follow from other fields, if these are written.
fn add_columns(fields: &mut Map<String, Value>, now: Timestamp) {
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let amounts = (number("bytesDone"), number("bytesTotal"));
    let time = |name: &str| fields.get(name)?.as_str()?.parse::<Timestamp>().ok();
    let (start, end) = (time("startTime"), time("completionTime").unwrap_or(now));
    if let (Some(done), Some(total)) = amounts {
        fields.insert("bytes".into(), json!(amount(done, total)));
    }
    if fields.contains_key("startTime") {
        fields.insert("duration".into(), json!(start.map(|start| elapsed(start, end))));
    }
}

/// Bytes that are done, and all unless these are the same.
fn amount(done: u64, total: u64) -> String {
    match total {
        0 => String::new(),
        _ if done == total => size(total),
        _ => format!("{}/{}", size(done), size(total)),
    }
}

/// Time from `start` to `end`.
fn elapsed(start: Timestamp, end: Timestamp) -> String {
    duration(u64::try_from(end.duration_since(start).as_secs()).unwrap_or(0))
}

/// A part of a whole; never 100 % before it is.
fn share(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return String::new();
    }
    let percent = i128::from(part) * 100 / i128::from(whole);
    format!("{}%", percent.clamp(0, 99))
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 || unit == "TiB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    String::new()
}

/// Seconds for people.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!((amount(0, 0).as_str(), amount(0, 1536).as_str()), ("", "0 B/1.5 KiB"));
        assert_eq!(amount(1536, 1536), "1.5 KiB");
        assert_eq!(duration(75), "1m15s");
        assert_eq!(duration(7260), "2h1m");
        assert_eq!(share(999, 1000), "99%");
        assert_eq!(share(1, 0), "");
        assert_eq!(share(i64::MAX, i64::MAX), "99%");
    }

    #[test]
    fn duration_of_a_running_attempt_grows_and_that_of_a_finished_one_does_not() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let columns = |end: Value| {
            let mut fields = Map::new();
            fields.insert("startTime".into(), json!("2026-01-01T00:00:00Z"));
            fields.insert("completionTime".into(), end);
            add_columns(&mut fields, now);
            fields
        };
        assert_eq!(columns(Value::Null)["duration"], "2m0s");
        assert_eq!(columns(json!("2026-01-01T00:00:07Z"))["duration"], "7s");
        // What is not written stays as it is.
        assert!(!columns(Value::Null).contains_key("bytes"));
        let mut other = Map::new();
        add_columns(&mut other, now);
        assert!(other.is_empty());
    }
}
