//! What the drift test needs: what is declared, the table, and its parts.
#![allow(dead_code, reason = "each test uses its part")]

pub mod additions;
pub mod owned;

use super::apiserver_support::World;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tidegate_ledger::report::{Report, Row, reports};
use tidegate_operator::kafka::access::Access;

/// A platform with volumes and a pool of its own, two gateways, and a stand-in for MetalLB's definitions.
pub const DECLARED: &str = include_str!("declared.yaml");

/// Applies documents in their order, as somebody who is not the operator.
pub fn apply_all(world: &World, documents: &str) {
    for document in documents.split("\n---\n") {
        let value: serde_yaml::Value = serde_yaml::from_str(document).unwrap();
        let value = serde_json::to_value(value).unwrap();
        world.apply(&value);
        if value["kind"] == "CustomResourceDefinition" {
            world.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        }
    }
}

/// The platform `plant` on a Kafka of one broker outside, as whoever may do what `access` may.
pub fn declare_external(world: &World, access: &Access) {
    let tls = access.tls.as_ref().unwrap();
    let client = tls.client.as_ref().unwrap();
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka", "namespace": "plant"},
        "stringData": {"ca.crt": tls.authorities, "tls.crt": client.certificate, "tls.key": client.key.pem()},
    }));
    world.apply(&json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform", "metadata": {"name": "plant", "namespace": "plant"},
        "spec": {
            "kafka": {"external": {
                "bootstrapServers": access.bootstrap.split(',').collect::<Vec<_>>(),
                "tls": {"caSecretRef": {"name": "kafka", "key": "ca.crt"}, "clientSecretRef": {"name": "kafka"}},
            }},
            "topicDefaults": {"partitions": 1, "replicas": 1, "minInSyncReplicas": 1},
        },
    }));
}

/// How many Events there are, with repeats.
pub async fn events(client: &Client) -> i64 {
    let all = Api::<Event>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    all.iter().map(|one| 1 + i64::from(one.series.as_ref().map_or(0, |series| series.count))).sum()
}

/// What came of one disturbance.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long it took until all was as before.
    pub repaired: Option<Duration>,
    /// Why nobody can disturb this: the API server's words.
    pub refused: String,
    /// What is wrong.
    pub problem: String,
}

/// The rows, and what is wrong with them.
pub struct Table {
    report: Report,
    slowest: (Duration, String),
    repaired: usize,
    refused: usize,
    pub problems: Vec<String>,
}

impl Table {
    /// Goes on with the report where another test at this commit has left it.
    pub fn start() -> Self {
        let report = Report::resume("drift", &reports());
        Self { report, slowest: Default::default(), repaired: 0, refused: 0, problems: Vec::new() }
    }

    pub fn row(&mut self, object: &str, change: &str, outcome: Outcome) {
        let case = format!("{object}: {change}");
        let mut row = Row::new(&case);
        if let Some(repaired) = outcome.repaired {
            row.set("repaired_after_s", (repaired.as_secs_f64() * 1000.0).round() / 1000.0);
            self.repaired += 1;
            if repaired > self.slowest.0 {
                self.slowest = (repaired, case.clone());
            }
        } else if outcome.problem.is_empty() {
            row.set("refused_by_the_api_server", outcome.refused);
            self.refused += 1;
        }
        if !outcome.problem.is_empty() {
            eprintln!("{case}: {}", outcome.problem);
            self.problems.push(format!("{case}: {}", outcome.problem));
        }
        self.report.replace(row);
    }

    pub fn write(&mut self) {
        let path = self.report.write(&reports()).unwrap();
        println!(
            "{} repaired, the slowest after {:.2} s ({}); {} refused by the API server; {} not repaired; {}",
            self.repaired,
            self.slowest.0.as_secs_f64(),
            self.slowest.1,
            self.refused,
            self.problems.len(),
            path.display()
        );
    }
}
