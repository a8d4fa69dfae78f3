//! Every metric, defined once: its name, unit, meaning, and how it is read.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Unit,
};

use super::{Outcome, PHASES, Totals};
use crate::progress::phase_word;

/// What every name begins with.
pub(super) const PREFIX: &str = "pvferry";

/// One metric, for the reference page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The name as it is scraped.
    pub name: String,
    /// The labels of each series.
    pub labels: Vec<&'static str>,
    /// What is counted.
    pub help: &'static str,
}

/// Every metric there is. All are counters.
pub fn describe() -> impl Iterator<Item = Description> {
    TABLE.iter().map(|metric| {
        let unit = metric.unit.map_or(String::new(), |unit| format!("_{}", unit.unit().as_str()));
        Description {
            name: format!("{PREFIX}_{}{unit}_total", metric.name),
            labels: ["volume"].into_iter().chain(metric.label).collect(),
            help: metric.help,
        }
    })
}

struct Metric {
    /// Without prefix, unit and `_total`.
    name: &'static str,
    unit: Option<MetricUnit>,
    help: &'static str,
    /// A label besides the volume.
    label: Option<&'static str>,
    read: Read,
}

#[derive(Clone, Copy)]
enum MetricUnit {
    Bytes,
    Seconds,
}

impl MetricUnit {
    fn unit(self) -> Unit {
        match self {
            Self::Bytes => Unit::Bytes,
            Self::Seconds => Unit::Seconds,
        }
    }
}

/// How the values of one volume are read.
enum Read {
    /// One value.
    One(fn(&Totals) -> u64),
    /// One value for each value of the label.
    Each(fn(&Totals) -> Vec<(&'static str, u64)>),
    /// The same, in seconds.
    Seconds(fn(&Totals) -> Vec<(&'static str, f64)>),
}

const TABLE: &[Metric] = &[
    Metric {
        name: "sessions",
        unit: None,
        help: "Finished sessions, by outcome",
        label: Some("outcome"),
        read: Read::Each(|t| {
            Outcome::ALL.map(|outcome| (word(outcome), t.sessions[outcome as usize])).into()
        }),
    },
    Metric {
        name: "phase",
        unit: Some(MetricUnit::Seconds),
        help: "Time spent in sessions, by phase",
        label: Some("phase"),
        read: Read::Seconds(|t| {
            PHASES.map(|phase| (phase_word(phase), t.phases[phase as usize].as_secs_f64())).into()
        }),
    },
    Metric {
        name: "discovered_entries",
        unit: None,
        help: "Entries discovered at the source",
        label: None,
        read: Read::One(|t| t.counters.entries_total),
    },
    Metric {
        name: "settled_entries",
        unit: None,
        help: "Entries completed: written, unchanged or failed",
        label: None,
        read: Read::One(|t| t.counters.entries),
    },
    Metric {
        name: "discovered",
        unit: Some(MetricUnit::Bytes),
        help: "Bytes of file content discovered at the source",
        label: None,
        read: Read::One(|t| t.counters.bytes_total),
    },
    Metric {
        name: "settled",
        unit: Some(MetricUnit::Bytes),
        help: "Bytes of file content completed: written, unchanged or failed",
        label: None,
        read: Read::One(|t| t.counters.bytes_done),
    },
    Metric {
        name: "files_written",
        unit: None,
        help: "Entries created, and files whose content was written",
        label: None,
        read: Read::One(|t| t.counters.files_written),
    },
    Metric {
        name: "files_deleted",
        unit: None,
        help: "Entries deleted at the destination",
        label: None,
        read: Read::One(|t| t.counters.files_deleted),
    },
    Metric {
        name: "file",
        unit: Some(MetricUnit::Bytes),
        help: "Bytes of file content: sent as literals, matched at the destination in complete entries, or holes",
        label: Some("kind"),
        read: Read::Each(|t| {
            let c = &t.counters;
            vec![("literal", c.bytes_literal), ("matched", c.bytes_matched), ("hole", c.bytes_hole)]
        }),
    },
    Metric {
        name: "wire",
        unit: Some(MetricUnit::Bytes),
        help: "Bytes exchanged with the peer, by direction",
        label: Some("direction"),
        read: Read::Each(|t| {
            vec![("sent", t.counters.wire_sent), ("received", t.counters.wire_received)]
        }),
    },
    Metric {
        name: "errors",
        unit: None,
        help: "Errors of entries",
        label: None,
        read: Read::One(|t| t.counters.errors),
    },
    Metric {
        name: "skipped_entries",
        unit: None,
        help: "Entries of the source that are skipped: mount points, lost+found",
        label: None,
        read: Read::One(|t| t.counters.skipped),
    },
];

/// Writes all metrics of all volumes.
pub(super) fn encode(
    volumes: &[(String, Totals)],
    mut encoder: DescriptorEncoder<'_>,
) -> fmt::Result {
    for metric in TABLE {
        let unit = metric.unit.map(MetricUnit::unit);
        let mut family = encoder.encode_descriptor(
            metric.name,
            metric.help,
            unit.as_ref(),
            MetricType::Counter,
        )?;
        for (volume, totals) in volumes {
            encode_volume(metric, volume, totals, &mut family)?;
        }
    }
    Ok(())
}

fn encode_volume(
    metric: &Metric,
    volume: &str,
    totals: &Totals,
    family: &mut MetricEncoder<'_>,
) -> fmt::Result {
    let label = metric.label.unwrap_or_default();
    match metric.read {
        Read::One(read) => {
            let labels = [("volume", volume)];
            family.encode_family(&labels)?.encode_counter(&read(totals), NO_EXEMPLAR_U64)
        }
        Read::Each(read) => read(totals).into_iter().try_for_each(|(kind, value)| {
            let labels = [("volume", volume), (label, kind)];
            family.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR_U64)
        }),
        Read::Seconds(read) => read(totals).into_iter().try_for_each(|(kind, value)| {
            let labels = [("volume", volume), (label, kind)];
            family.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR_F64)
        }),
    }
}

const NO_EXEMPLAR_U64: Option<&Exemplar<NoLabelSet, u64>> = None;
const NO_EXEMPLAR_F64: Option<&Exemplar<NoLabelSet, f64>> = None;

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Partial => "partial",
        Outcome::Failed => "failed",
        Outcome::DryRun => "dry_run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use session::monitor::Progress;
    use std::{collections::BTreeSet, sync::Arc};

    /// What is scraped and what is described are the same set of names and labels.
    #[test]
    fn descriptions_are_what_is_scraped() {
        let metrics = Metrics::new();
        let _session = metrics.session("data", Arc::new(Progress::default()), false);
        let text = metrics.encode().unwrap();
        let scraped: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (name, rest) = line.split_once('{').unwrap();
                let (labels, value) = rest.split_once("} ").unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let labels = labels.split(',').map(|label| label.split_once('=').unwrap().0);
                (name.to_owned(), labels.map(str::to_owned).collect::<Vec<_>>())
            })
            .collect();
        let described: BTreeSet<_> = describe()
            .map(|d| (d.name, d.labels.into_iter().map(str::to_owned).collect()))
            .collect();
        assert_eq!(scraped, described);
        assert_eq!(described.len(), TABLE.len(), "two metrics of one name");
        for described in describe() {
            assert!(text.contains(&format!(" {}\n", described.help)), "{}", described.name);
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let metrics = Metrics::new();
        let _session = metrics.session("a\"b\nc\\d", Arc::new(Progress::default()), false);
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"volume="a\"b\nc\\d""#), "{text}");
    }
}
