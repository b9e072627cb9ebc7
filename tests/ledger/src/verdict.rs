//! What the judge found, and its row in a report. Pure.

use crate::report::Row;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Counts and figures of one run. Times are in the unit of their name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(clippy::struct_field_names)]
pub struct Verdict {
    /// The run id.
    pub run: String,
    /// The offered rate of all publishers together.
    pub rate_per_s: f64,
    /// Bytes of a payload: `100` or `100..1000`.
    pub payload_bytes: String,
    /// From the first offered message to the end of the log.
    pub duration_s: f64,
    /// Messages that fell due.
    pub offered: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that were written over HTTP.
    #[serde(skip_serializing_if = "is_zero")]
    pub acknowledged_http: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Messages without any answer.
    pub unanswered: u64,
    /// Messages of which Kafka holds at least one copy.
    pub stored: u64,
    /// Acknowledged, and Kafka holds no copy.
    pub acknowledged_lost: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// First copies that lie behind the first copy of a later message of the same address.
    pub disorder: u64,
    /// Duplicates that lie behind a later message of the same address.
    pub stale_repeats: u64,
    /// Acknowledged before the time at which Kafka says that it was stored.
    pub early_acknowledged: u64,
    /// Whether the partition's leader set the timestamps. If not, the producer did, and only an acknowledgement
    /// before the message was even handed to the producer shows as early.
    pub append_times: bool,
    /// Copies of messages that were never offered.
    pub unoffered: u64,
    /// Records whose bytes or key are not what was sent.
    pub altered: u64,
    /// Copies in another partition than the address's first copy.
    pub misplaced: u64,
    /// All copies.
    pub records: u64,
    /// Publishers, each with a connection of its own.
    pub connections: u64,
    /// Accepted connections that the other side closed or that failed.
    pub connections_broken: u64,
    /// Times that one publisher's connection broke, of the one that had the most.
    pub most_breaks: u64,
    /// Why connections broke, with the MQTT reason code where there was one, and how often.
    #[serde(serialize_with = "in_words")]
    pub broken_by: BTreeMap<String, u64>,
    /// Attempts to connect that were not accepted.
    pub connects_failed: u64,
    /// From offered to acknowledged, half of all.
    pub ack_p50_ms: f64,
    /// From offered to acknowledged, 99 of 100.
    pub ack_p99_ms: f64,
    /// From offered to acknowledged, the longest.
    pub ack_max_ms: f64,
    /// The longest time without any acknowledgement.
    pub longest_gap_s: f64,
    /// Whether the load ended its log itself.
    pub log_complete: bool,
    /// Whether the reader came to the end of every partition.
    pub stored_complete: bool,
    /// What clients that connected anew came to, if there were any.
    #[serde(flatten)]
    pub probed: Option<Probed>,
    /// What observers saw, if there were any.
    #[serde(flatten)]
    pub watched: Option<Watched>,
    /// Faults and other moments of the run.
    pub marks: Vec<Mark>,
    /// Some of what is wrong, as `publisher/sequence`.
    pub examples: Examples,
    /// The run between its marks.
    #[serde(skip)]
    pub phases: Vec<Phase>,
    /// The run second by second.
    #[serde(skip)]
    pub per_second: Vec<Second>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Clients that connected anew all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// Attempts to connect over MQTT.
    pub probes: u64,
    /// Those that were not accepted.
    pub probes_failed: u64,
    /// Requests over HTTP.
    pub http_probes: u64,
    /// Those that got no answer, or one of 5xx.
    pub http_probes_failed: u64,
    /// Why they failed, and how often.
    #[serde(serialize_with = "in_words")]
    pub probes_failed_by: BTreeMap<String, u64>,
}

impl Probed {
    /// Counts why one failed. Reasons come from another process: a strange one must not fill a table.
    pub(crate) fn count(&mut self, why: String) {
        let known = self.probes_failed_by.len() < EXAMPLES || self.probes_failed_by.contains_key(&why);
        *self.probes_failed_by.entry(if known { why } else { "other".to_owned() }).or_default() += 1;
    }
}

/// What subscribers and readers saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watched {
    /// Subscriptions that were accepted, those after a broken connection included.
    pub subscriptions: u64,
    /// Subscriptions whose connection ended.
    pub subscriptions_broken: u64,
    /// Messages that came to a subscriber for the first time.
    pub delivered: u64,
    /// Deliveries of the same message to the same subscriber again.
    pub delivered_again: u64,
    /// First deliveries behind a later message of the same address.
    pub delivered_disorder: u64,
    /// Acknowledged, and never delivered to a subscriber that was subscribed all the time and got later ones.
    pub missed: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that were not.
    pub reads_failed: u64,
    /// Reads of something older than what was acknowledged before they were asked.
    pub reads_stale: u64,
    /// What observers got and nobody sent.
    pub seen_altered: u64,
}

/// `3× DISCONNECT 0x8B ServerShuttingDown`: a table's cell, not a map.
fn in_words<S: Serializer>(counts: &BTreeMap<String, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    let each: Vec<_> = counts.iter().map(|(why, count)| format!("{count}× {why}")).collect();
    serializer.serialize_str(&each.join(", "))
}

/// Some of what is wrong, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Examples(pub Vec<String>);

/// What happened around a moment that the load was told of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// When, from the first offered message on.
    pub at_s: f64,
    /// Acknowledgements before it.
    pub acknowledged_before: u64,
    /// Acknowledgements after it.
    pub acknowledged_after: u64,
    /// From the mark until the last late message was acknowledged: from there on the offered rate was acknowledged
    /// again, in time. Nothing: never in this run.
    pub served_after_s: Option<f64>,
    /// From the mark until the last connection that was open noticed that it is broken, before the next mark. Nothing:
    /// none broke.
    pub told_after_s: Option<f64>,
    /// For clients that connect anew, if there were any.
    #[serde(flatten)]
    pub recovered: Option<Recovered>,
}

/// When clients that connect anew were served again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recovered {
    /// From the mark until a new MQTT connection was accepted in time, and so on from there. Nothing: never.
    pub connect_after_s: Option<f64>,
    /// From the mark until a new HTTP connection got its answer in time, and so on from there. Nothing: never.
    pub http_after_s: Option<f64>,
}

/// The time between two marks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// `before`, or the mark that it begins with.
    pub name: String,
    /// From the first offered message on.
    pub from_s: f64,
    /// From the first offered message on.
    pub to_s: f64,
    /// Fell due in it.
    pub offered: u64,
    /// Acknowledged in it.
    pub acknowledged: u64,
    /// Those of them that were written over HTTP.
    pub acknowledged_http: u64,
    /// From offered to acknowledged in it, half of all.
    pub ack_p50_ms: f64,
    /// From offered to acknowledged in it, 99 of 100.
    pub ack_p99_ms: f64,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Fell due in this second.
    pub offered: u64,
    /// Acknowledged in this second.
    pub acknowledged: u64,
    /// Those of them that were written over HTTP.
    pub acknowledged_http: u64,
    /// Fell due in this second and was refused.
    pub refused: u64,
    /// Fell due in this second and was never answered.
    pub unanswered: u64,
    /// Came to subscribers in this second.
    pub delivered: u64,
    /// Attempts to connect over MQTT that began in this second.
    pub probes: u64,
    /// Those of them that were not accepted in time.
    pub probes_failed: u64,
    /// Requests over new HTTP connections that began in this second.
    pub http_probes: u64,
    /// Those of them that were not answered in time.
    pub http_probes_failed: u64,
}

/// The second of a run at `at_us`; those up to it are made.
pub(crate) fn second(seconds: &mut Vec<Second>, at_us: u64) -> &mut Second {
    let place = usize::try_from(at_us / 1_000_000).unwrap_or(0);
    if place >= seconds.len() {
        seconds.resize(place + 1, Second::default());
    }
    &mut seconds[place]
}

/// Examples of what is wrong; a run that loses a million messages needs no million lines.
pub(crate) const EXAMPLES: usize = 20;

impl Examples {
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        if self.0.len() < EXAMPLES {
            self.0.push(text());
        }
    }
}

impl Verdict {
    /// Whether the first promise held and the evidence is whole: nothing acknowledged was lost, nothing was out of
    /// order, early, changed, misplaced or made up. Duplicates and stale repeats are allowed around a fault.
    pub fn is_clean(&self) -> bool {
        self.faults().is_empty()
    }

    /// What is wrong, in words; empty for a clean run.
    pub fn faults(&self) -> Vec<String> {
        let watched = self.watched.clone().unwrap_or_default();
        let counts = [
            (self.acknowledged_lost, "acknowledged and lost"),
            (self.disorder, "out of order"),
            (self.early_acknowledged, "acknowledged before they were stored"),
            (self.unoffered, "stored and never offered"),
            (self.altered, "altered"),
            (self.misplaced, "in a second partition"),
            (watched.missed, "acknowledged and not delivered to a subscriber"),
            (watched.delivered_disorder, "delivered out of order"),
            (watched.reads_stale, "reads of something older than what was acknowledged before"),
            (watched.seen_altered, "delivered or read altered"),
        ];
        let mut faults: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !self.log_complete {
            faults.push("the load did not end its log".to_owned());
        }
        if !self.stored_complete {
            faults.push("the reader did not come to the end".to_owned());
        }
        faults
    }

    /// The phases in which fewer than `least` messages were acknowledged: they prove too little.
    pub fn thin_phases(&self, least: u64) -> Vec<String> {
        let thin = self.phases.iter().filter(|phase| phase.acknowledged < least);
        thin.map(|phase| format!("{} acknowledged in phase {:?}", phase.acknowledged, phase.name)).collect()
    }

    /// The run's row in a report, named by its case; `per_second` adds its phases and the run second by second.
    pub fn row(&self, case: &str, per_second: bool) -> Row {
        let mut row = Row::new(case);
        row.extend(self);
        if per_second {
            row.set("phases", &self.phases).set("per_second", &self.per_second);
        }
        row
    }
}
