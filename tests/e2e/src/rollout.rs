//! A change under load: what the ledger says of one, as a row of a report. Several stories fill the one that is called
//! `rollouts`.

use crate::ledger::{Pod, load, reports};
use crate::{Story, until};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_ledger::report::Row;
use tidegate_ledger::{Report, Verdict};

const TOPIC: &str = "telemetry";
/// Publishers, each with a connection of its own: enough for every replica to have some.
const CONNECTIONS: u16 = 12;
/// Messages per second of all of them together.
const RATE: f64 = 50.0;
/// Acknowledgements before the change and after it is rolled out.
const AROUND: u64 = 250;
/// Acknowledgements flow again within this.
const FLOWS: Duration = Duration::from_secs(120);

/// Which connections a change may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// None.
    Nothing,
    /// Each at most so often: once for every pod that it was on when that pod was replaced.
    Each(u64),
    /// Some but not all, each at most once: those of a pod that leaves.
    Some,
    /// Any: the change takes away what acknowledgements need, so that clients are told to come back later.
    Any,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The row's name.
    pub name: &'a str,
    /// Which connections it may break.
    pub breaks: Breaks,
    /// Bound of the time from the change until all of it is in effect.
    pub limit: Duration,
    /// Whether the change takes the ledger's own certificate away, so that its pod needs a new one to read.
    pub new_certificates: bool,
}

impl<'a> Case<'a> {
    /// A change of pods or configuration, in effect within five minutes.
    pub const fn new(name: &'a str, breaks: Breaks) -> Self {
        Self { name, breaks, limit: Duration::from_secs(300), new_certificates: false }
    }
}

/// The rows of a story.
pub struct Rollouts<'a> {
    story: &'a Story,
    pod: Option<Pod<'a>>,
    writers: u16,
    report: Report,
}

impl<'a> Rollouts<'a> {
    /// Goes on with the report `rollouts` where other stories at this commit have left it.
    pub fn start(story: &'a Story) -> Result<Self> {
        Self::of(story, "rollouts", 0)
    }

    /// Goes on with another report, with so many publishers over HTTP beside those over MQTT.
    pub fn of(story: &'a Story, report: &str, writers: u16) -> Result<Self> {
        Ok(Self { story, pod: Some(Pod::start(story)?), writers, report: Report::resume(report, &reports()) })
    }

    /// Whether this row is there already.
    pub fn has(&self, case: &str) -> bool {
        self.report.rows.iter().any(|row| row.case == case)
    }

    /// Sets one more figure of a row.
    pub fn add(&mut self, case: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        let mut row = Row::new(case);
        row.set(key, value.into());
        self.report.push(row);
        self.report.write(&reports())?;
        Ok(())
    }

    /// The ledger's pod, which reads Kafka.
    pub fn pod(&self) -> Result<&Pod<'a>> {
        self.pod.as_ref().context("the ledger's pod could not be started again")
    }

    /// Makes a change under load, waits until `rolled` says that all of it is in effect, and writes what the ledger saw.
    /// Fails if anything that was acknowledged is lost or out of order, if a connection broke that need not, or if
    /// `rolled` does not come true. The row is written either way.
    pub fn run(
        &mut self,
        case: &Case<'_>,
        change: impl FnOnce() -> Result<()>,
        rolled: impl FnMut() -> Result<()>,
    ) -> Result<Row> {
        self.measure(case, change, rolled).with_context(|| format!("rollout {:?}", case.name))
    }

    fn measure(
        &mut self,
        case: &Case<'_>,
        change: impl FnOnce() -> Result<()>,
        rolled: impl FnMut() -> Result<()>,
    ) -> Result<Row> {
        let start = self.pod()?.offsets(TOPIC)?;
        let (load, options) = load(self.story, |options| {
            options.publishers = CONNECTIONS;
            options.rate = RATE;
            options.writers = self.writers;
            options.http_rate = RATE;
            options.probe = true;
        })?;
        load.wait_acknowledged(AROUND, FLOWS)?;
        load.mark(case.name);
        let begun = Instant::now();
        change()?;
        let in_effect = until(case.name, case.limit, rolled);
        let rolled_after = begun.elapsed();
        load.wait_acknowledged(load.acknowledged() + AROUND, FLOWS)?;
        load.stop(Duration::from_secs(60))?;

        if case.new_certificates {
            // the old pod's end comes with its drop, which must not take the new one
            self.pod = None;
            self.pod = Some(Pod::start(self.story)?);
        }
        let verdict = self.pod()?.judge(&options, TOPIC, &start)?;
        let mut row = row(case.name, &verdict);
        let seen = verdict.probed.clone().context("no client connected anew")?;
        row.set("connects", seen.probes).set("connects_failed", seen.probes_failed);
        if in_effect.is_ok() {
            row.set("rolled_after_s", (rolled_after.as_secs_f64() * 10.0).round() / 10.0);
        }
        row.set("served_after_s", verdict.marks.first().and_then(|mark| mark.served_after_s));
        self.report.replace(row.clone());
        self.report.write(&reports())?;

        in_effect?;
        ensure!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
        ensure!(verdict.unanswered == 0, "{} messages were never answered", verdict.unanswered);
        ensure!(
            seen.probes_failed == 0,
            "{} of {} new connections were turned down: {:?}",
            seen.probes_failed,
            seen.probes,
            seen.probes_failed_by
        );
        ensure!(
            case.breaks.allows(&verdict),
            "{} connections of {} broke, one {} times ({:?}); allowed: {:?}",
            verdict.connections_broken,
            verdict.connections,
            verdict.most_breaks,
            verdict.broken_by,
            case.breaks,
        );
        Ok(row)
    }
}

impl Breaks {
    fn allows(self, verdict: &Verdict) -> bool {
        match self {
            Self::Nothing => verdict.connections_broken == 0,
            Self::Each(times) => verdict.most_breaks <= times && told(verdict),
            Self::Some => {
                verdict.most_breaks <= 1 && verdict.connections_broken < verdict.connections && told(verdict)
            }
            Self::Any => true,
        }
    }
}

/// Every client that was disconnected was told that the server shuts down (MQTT 5 §4.13).
fn told(verdict: &Verdict) -> bool {
    verdict.broken_by.keys().all(|why| why.starts_with("DISCONNECT 0x8B"))
}

/// The figures that every row of the report has.
fn row(case: &str, verdict: &Verdict) -> Row {
    let mut all = Row::new(case);
    all.extend(verdict);
    let mut row = Row::new(case);
    for key in [
        "acknowledged",
        "acknowledged_lost",
        "duplicates",
        "disorder",
        "stale_repeats",
        "longest_gap_s",
        "connections",
        "connections_broken",
        "broken_by",
    ] {
        if let Some(value) = all.figures.remove(key) {
            row.figures.insert(key.to_owned(), value);
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_may_break_is_told_from_what_it_may_not() {
        let verdict = |connections_broken, most_breaks| Verdict {
            connections: 12,
            connections_broken,
            most_breaks,
            broken_by: [("DISCONNECT 0x8B ServerShuttingDown".to_owned(), connections_broken)].into(),
            ..Verdict::default()
        };
        assert!(Breaks::Nothing.allows(&verdict(0, 0)) && !Breaks::Nothing.allows(&verdict(1, 1)));
        assert!(Breaks::Each(2).allows(&verdict(14, 2)) && !Breaks::Each(2).allows(&verdict(14, 3)));
        assert!(Breaks::Some.allows(&verdict(5, 1)) && !Breaks::Some.allows(&verdict(12, 1)));
        assert!(!Breaks::Some.allows(&verdict(5, 2)));
        let reset =
            Verdict { broken_by: [("socket: connection reset".to_owned(), 1)].into(), ..verdict(1, 1) };
        assert!(
            !Breaks::Each(1).allows(&reset) && !Breaks::Some.allows(&reset) && Breaks::Any.allows(&reset)
        );
    }

    #[test]
    fn a_row_has_the_figures_that_the_report_shows_and_no_others() {
        let verdict = Verdict { acknowledged: 7, connections: 12, ..Verdict::default() };
        let row = row("limits", &verdict);
        assert_eq!((&row.figures["acknowledged"], &row.figures["connections"]), (&7.into(), &12.into()));
        assert_eq!(row.figures.len(), 9);
    }
}
