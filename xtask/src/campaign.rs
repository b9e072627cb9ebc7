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
    /// Only rows of this text, measured anew even where the report has them (nodes, rotation)
    #[arg(long)]
    row: Option<String>,
}

/// The table of nodes needs a node without a broker.
const NODES: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Latency at 1, 10 and 100 msg/s, at least 300 samples each: about eight minutes
    Latency,
    /// A broker killed under load: about three minutes
    BrokerKill,
    /// Every owned object deleted, every owned field changed, and what others add, on a bare API server and in Kafka: about
    /// five minutes
    Drift,
    /// 200 gateways and 1,000 Topics declared at once on a bare API server with a real Kafka: about ten minutes
    OperatorScale,
    /// What a device sees when it is let in or refused, over each protocol and by each method: some seconds
    AccessTable,
    /// Connects per second and core for each method, wrong passwords beside a device that works, and whether the time of a
    /// refusal tells anything: about three minutes
    AccessCost,
    /// 100,000 devices in generated fleets on a bare API server with a real Kafka, and a gateway that starts with them: about
    /// twenty minutes
    FleetsScale,
    /// The quickstart applied backwards, its platform deleted and made again on its old volumes, and the namespace's end:
    /// about three minutes
    Orders,
    /// A gateway that grows and shrinks with its load, second by second: about twelve minutes
    Autoscaling,
    /// The disk of each broker lost and replaced under load: about eight minutes
    LostDisk,
    /// Every change of gateways and brokers under load, each a row: about half an hour. Goes on where it was cut off
    Rollouts,
    /// Nodes off, cut off and flapping under load, with failover on and off, on four nodes: about an hour. Goes on where it
    /// was cut off
    Nodes,
    /// Rights, devices and passwords changed, 100 times each, and how long that takes to reach a device: about ten minutes. Goes
    /// on where it was cut off
    Access,
    /// What each protocol says to whom a fleet does not let in: about a minute
    Admission,
    /// All certificates and both authorities exchanged under load, each a row: about a quarter of an hour. Goes on where it
    /// was cut off
    Rotation,
    /// Devices on a network of their own, and their gateway's node switched off: about three minutes
    FieldNetwork,
}

impl Campaign {
    pub fn run(&self) -> Result<()> {
        let (reports, gateway) =
            (root().join("docs/reports"), root().join("target/release/tidegate-gateway"));
        let mut environment =
            vec![("TIDEGATE_CAMPAIGN", Path::new("1")), ("TIDEGATE_REPORTS", reports.as_path())];
        match &self.row {
            Some(row) if matches!(self.name, Name::Nodes | Name::Rotation) => {
                environment.push(("TIDEGATE_ROW", Path::new(row)));
            }
            Some(_) => bail!("--row goes with nodes and rotation only"),
            None => {}
        }
        let story = match self.name {
            Name::Drift => {
                // both fill the same report
                let mut outcome = rust::target("apiserver_drift", &environment)?;
                outcome.add(rust::target("kafka_drift", &environment)?);
                return conclude(&outcome);
            }
            Name::OperatorScale => return conclude(&rust::target("apiserver_scale", &environment)?),
            Name::FleetsScale | Name::AccessCost => {
                // both are about the program as it is shipped
                local::compile(&Progress::new())?;
                environment.push(("TIDEGATE_GATEWAY", gateway.as_path()));
                let scale = self.name == Name::FleetsScale;
                let target = if scale { "kafka_fleets_scale" } else { "kafka_access_cost" };
                return conclude(&rust::target(target, &environment)?);
            }
            Name::AccessTable => return conclude(&rust::target("access_table", &environment)?),
            Name::Latency => "latency",
            Name::BrokerKill => "broker_kill",
            Name::Orders => "orders",
            Name::Autoscaling => "autoscaling",
            Name::LostDisk => "lost_disk",
            // every story with this in its name fills the same report
            Name::Rollouts => "rollout",
            Name::Nodes => "node_off",
            Name::Access => "access",
            Name::Admission => "device_fleet",
            Name::Rotation => "rotation_",
            Name::FieldNetwork => "field_network",
        };
        let built = local::start(&Progress::new(), &Extra::ALL)?.wait()?;
        if self.name == Name::Nodes {
            built.cluster(Some(NODES), &Progress::new())?;
        }
        conclude(&stories::run(&built, Some(story), &environment)?)
    }
}

fn conclude(outcome: &Outcome) -> Result<()> {
    if outcome.failed > 0 || outcome.passed == 0 {
        bail!("the campaign failed: {}", outcome.failures.join(", "));
    }
    crate::generate::write()
}
