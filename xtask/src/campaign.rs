//! `cargo xtask campaign NAME`: the long form of a story, whose report is committed under `docs/reports` and rendered into the book.

use crate::local;
use crate::process::root;
use crate::test::summary::Outcome;
use crate::test::{rust, stories};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::path::Path;
use tidegate_cluster::{Extra, Progress};

/// Measures at length and writes docs/reports/NAME.json.
#[derive(Args)]
pub struct Campaign {
    #[arg(value_enum)]
    name: Name,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Latency at 1, 10 and 100 msg/s, at least 300 samples each: about eight minutes
    Latency,
    /// A broker killed under load: about three minutes
    BrokerKill,
    /// Every owned object deleted, every owned field changed, and what others add, on a bare API server and in Kafka: about
    /// five minutes
    Drift,
    /// Every change of gateways and brokers under load, each a row: about half an hour. Goes on where it was cut off
    Rollouts,
}

impl Campaign {
    pub fn run(&self) -> Result<()> {
        let reports = root().join("docs/reports");
        let environment = [("TIDEGATE_CAMPAIGN", Path::new("1")), ("TIDEGATE_REPORTS", reports.as_path())];
        let story = match self.name {
            Name::Drift => {
                // both fill the same report
                let mut outcome = rust::target("apiserver_drift", &environment)?;
                outcome.add(rust::target("kafka_drift", &environment)?);
                return conclude(&outcome);
            }
            Name::Latency => "latency",
            Name::BrokerKill => "broker_kill",
            // every story with this in its name fills the same report
            Name::Rollouts => "rollout",
        };
        let built = local::start(&Progress::new(), &Extra::ALL)?.wait()?;
        conclude(&stories::run(&built, Some(story), &environment)?)
    }
}

fn conclude(outcome: &Outcome) -> Result<()> {
    if outcome.failed > 0 || outcome.passed == 0 {
        bail!("the campaign failed: {}", outcome.failures.join(", "));
    }
    crate::generate::write()
}
