//! A volume has arrived if both ends report so, and report the same.
//!
//! The source reports when its sync container ends, the server for all volumes of its pod when it ends. Until then the source's report
//! waits. A server that goes on, because another volume of its pod failed, has written its report of the volume to its log. Where
//! neither is found, the volume is moved again: that is cheap if the destination has everything.

use k8s_openapi::{
    api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration,
};
use kube::{ResourceExt as _, api::LogParams};
use pod::{ExitCode, Report, VolumeReport};
use serde::Deserialize;

use super::{Step, transfer::Current};
use crate::{
    api::VolumePhase,
    build::{self, Role},
    error::Result,
    observe::{self, Failure, Served},
    plan::Planned,
};

/// Seconds that the report of a server may take after that of the last source.
const PATIENCE: i64 = 30;
/// Seconds after which a log is read again that does not have the report yet.
const AGAIN: i64 = 3;

/// A line of the log of a server.
#[derive(Deserialize)]
struct Line {
    message: String,
    report: String,
}

impl Step<'_> {
    /// The source reports that a volume is copied. The server's report is awaited.
    pub(super) fn reported(&mut self, volume: &Planned, client: &Pod) {
        let Some(status) = self.status.volumes.get_mut(volume.index) else { return };
        if status.reported_at.is_none() {
            status.phase = VolumePhase::Running;
            status.rate = 0;
            status.reported_at = Some(Time(self.now));
            self.watch_until(Role::Source, &volume.claim.namespace, client);
        }
    }

    /// True while the content of a volume is being copied, or its pods are starting.
    pub(super) fn is_moving(&self, index: usize) -> bool {
        let waits = |status: &crate::api::VolumeStatus| status.reported_at.is_some();
        self.is_open(index) && !self.status.volumes.get(index).is_some_and(waits)
    }

    /// Compares what the sources have reported with what the server reports, if it has ended, or nothing else keeps it.
    pub(super) async fn compare_reports(
        &mut self,
        current: &Current,
        client: &Pod,
        server: &Pod,
        sources: &[(Planned, Report)],
    ) -> Result<()> {
        let served = observe::served(server, build::SERVE, self.now);
        let moving = current.volumes.iter().any(|volume| self.is_moving(volume.index));
        if sources.is_empty() || (moving && matches!(served, Served::Pending)) {
            return Ok(());
        }
        let (reports, missing) = match served {
            Served::Ended(reports) => {
                (reports, Some("the report of the server does not list the volume".to_owned()))
            }
            Served::Lost(why) => (Vec::new(), Some(why)),
            Served::Pending => {
                let late = self.is_late_report(sources);
                let reports = if late || !is_last(client, sources) {
                    self.logged(server).await
                } else {
                    Vec::new()
                };
                (reports, late.then(|| format!("the server still runs after {PATIENCE} s")))
            }
        };
        for (volume, report) in sources {
            let found = reports.iter().find(|found| *found.volume == *volume.name);
            match (found, &missing) {
                (Some(found), _) => match disagreement(volume, report, found) {
                    None => {
                        let namespace = &volume.target.namespace;
                        self.watch_until(Role::Destination, namespace, server);
                        self.arrived(volume, client, report).await?;
                    }
                    Some(failure) => self.failed(volume, client, &failure).await?,
                },
                (None, Some(why)) => self.failed(volume, client, &missing_report(why)).await?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Whether the server should have ended long ago. It is due then.
    fn is_late_report(&mut self, sources: &[(Planned, Report)]) -> bool {
        let status = |volume: &Planned| self.status.volumes.get(volume.index);
        let times =
            sources.iter().filter_map(|(volume, _)| Some(status(volume)?.reported_at.as_ref()?.0));
        let Some(last) = times.max() else { return false };
        self.due_after(&Time(last), PATIENCE + 1);
        observe::seconds_since(&Time(last), self.now) > PATIENCE
    }

    /// What a server that goes on has written to its log.
    async fn logged(&mut self, server: &Pod) -> Vec<VolumeReport> {
        if let Ok(again) = self.now.checked_add(SignedDuration::from_secs(AGAIN)) {
            self.due_at(again);
        }
        let namespace = server.namespace().unwrap_or_default();
        let params = LogParams {
            container: Some(build::SERVE.into()),
            tail_lines: Some(2000),
            limit_bytes: Some(1 << 20),
            ..LogParams::default()
        };
        let pods = self.destination.api::<Pod>(&namespace);
        match pods.logs(&server.name_any(), &params).await {
            Ok(log) => reports_in(&log),
            Err(error) => {
                tracing::debug!("the log of {}: {error}", server.name_any());
                Vec::new()
            }
        }
    }
}

/// Whether the server has nothing to wait for: every volume that its pod was made for is reported.
fn is_last(client: &Pod, sources: &[(Planned, Report)]) -> bool {
    let containers = client.spec.iter().flat_map(|spec| &spec.containers);
    let prefix = build::SYNC_PREFIX;
    containers.filter(|container| container.name.starts_with(prefix)).count() == sources.len()
}

/// The reports in a log, the last of each volume first.
fn reports_in(log: &str) -> Vec<VolumeReport> {
    let lines = log.lines().rev();
    let lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let ended = lines.filter(|line| line.message == "session ended");
    ended.filter_map(|line| serde_json::from_str(&line.report).ok()).collect()
}

/// Why the reports of both ends do not prove that the volume arrived.
fn disagreement(volume: &Planned, source: &Report, server: &VolumeReport) -> Option<Failure> {
    let own = VolumeReport::of(source);
    let verified = !volume.verify || own.tree_digest.is_some() || source.exit_code != ExitCode::Ok;
    if own == *server && verified {
        return None;
    }
    let (own, server) = (own.to_json(), server.to_json());
    let what = if verified {
        format!(
            "source and destination report different results: source {own}, destination {server}"
        )
    } else {
        format!(
            "the digests of source and destination were not compared: source {own}, destination {server}"
        )
    };
    Some(Failure {
        exit_code: Some(source.exit_code.number().into()),
        report: Some(Box::new(source.clone())),
        ..Failure::new("ReportMismatch", what, false)
    })
}

/// The failure of a volume that only the source has reported.
pub(super) fn missing_report(why: &str) -> Failure {
    let what = format!("the source reports success, the destination does not confirm it: {why}");
    Failure::new("ReportMissing", what, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_of_a_volume_in_a_log_counts_and_no_text_within_another_line_does() {
        let report = |volume: &str, written: u64| {
            let report = Report { files_written: written, ..Report::new(volume, ExitCode::Ok, "") };
            VolumeReport::of(&report)
        };
        let line = |message: &str, report: &VolumeReport| {
            serde_json::json!({ "message": message, "report": report.to_json() }).to_string()
        };
        let log = [
            line("session ended", &report("a", 1)),
            "not JSON".to_owned(),
            line("session begins", &report("b", 1)),
            serde_json::json!({ "message": line("session ended", &report("c", 1)) }).to_string(),
            line("session ended", &report("a", 2)),
            line("session ended", &report("d", 1))[1..].to_owned(),
        ];
        assert_eq!(reports_in(&log.join("\n")), [report("a", 2), report("a", 1)]);
    }
}
