//! A broker of the quickstart that has lost its disk: it is told, and replaced when that is asked for.

use crate::kafka::{BROKERS, NAMESPACE};
use crate::kubectl::cluster;
use crate::{Kubectl, until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_ledger::report::Row;

const ANNOTATION: &str = "tidegate.io/replace-disk";
/// An empty disk is told, a broker is back, all is on the new disk within this.
const LIMIT: Duration = Duration::from_secs(180);

/// A broker's claim.
pub struct Disk<'a> {
    kubectl: &'a Kubectl,
    /// The node id of the broker.
    node: usize,
}

/// The claim's uid, and the directory id that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Another one after the claim was deleted.
    pub uid: String,
    /// Another one after the disk was replaced.
    pub directory: String,
}

/// Seconds from asking for another disk.
#[derive(Debug)]
pub struct Replaced {
    formatted: Duration,
    ready: Duration,
    in_sync: Duration,
}

impl<'a> Disk<'a> {
    /// The disk of the broker with this node id.
    pub fn of(kubectl: &'a Kubectl, node: usize) -> Self {
        Self { kubectl, node }
    }

    /// The disk of the broker whose pod is on a node of the cluster.
    pub fn on(kubectl: &'a Kubectl, node: &str) -> Result<Self> {
        for (id, pod) in BROKERS.iter().enumerate() {
            if kubectl.get(&["pod", pod])?["spec"]["nodeName"] == node {
                return Ok(Self::of(kubectl, id));
            }
        }
        bail!("no broker is on {node}")
    }

    /// The broker's pod.
    pub fn pod(&self) -> &'static str {
        BROKERS[self.node]
    }

    /// Its claim.
    pub fn claim(&self) -> String {
        format!("data-{}", self.pod())
    }

    /// Takes everything off it; its node may be off.
    pub fn discard(&self) -> Result<()> {
        cluster()?.discard_volume(NAMESPACE, &self.claim())
    }

    /// As it is now.
    pub fn volume(&self) -> Result<Volume> {
        let claim = self.kubectl.get(&["pvc", &self.claim()])?;
        let text = |value: &Value, what: &str| {
            value.as_str().map(str::to_owned).with_context(|| format!("the claim has no {what}"))
        };
        let directory = &claim["metadata"]["annotations"]["tidegate.io/kafka-directory-id"];
        Ok(Volume {
            uid: text(&claim["metadata"]["uid"], "uid")?,
            directory: text(directory, "directory id")?,
        })
    }

    /// Waits until the platform says that the disk is empty and what to do; it serves without it.
    pub fn is_told(&self, since: Instant) -> Result<Duration> {
        let told = until("the empty disk is told", LIMIT, || {
            let message = reconciling(self.kubectl, "DiskWrong")?;
            let asks = format!("{ANNOTATION}: \"{}\"", self.node);
            ensure!(message.contains(&asks), "{message}");
            Ok(since.elapsed())
        })?;
        self.kubectl.condition("iotp/plant", "Ready", "True", Duration::from_secs(30))?;
        Ok(told)
    }

    /// Nobody has asked for it: the broker waits still.
    pub fn waits(&self) -> Result<()> {
        ensure!(brokers(self.kubectl)? == 2, "nobody asked for it, and the broker is back");
        Ok(())
    }

    /// Asks for another disk, and waits until everything is on it. The annotation stays.
    pub fn replace(&self) -> Result<Replaced> {
        let before = self.volume()?;
        let asked = Instant::now();
        let wanted = format!("{ANNOTATION}={}", self.node);
        self.kubectl.run(&["annotate", "iotp/plant", &wanted, "--overwrite"])?;
        let formatted = until("a new directory id", Duration::from_secs(60), || {
            let now = self.volume()?;
            ensure!(now.directory != before.directory, "it is {} still", now.directory);
            Ok(asked.elapsed())
        })?;
        let ready = until("the broker", LIMIT, || {
            ensure!(brokers(self.kubectl)? == 3, "{}", reconciling(self.kubectl, "ReplacingDisk")?);
            Ok(asked.elapsed())
        })?;
        until("everything on the new disk", LIMIT, || whole(self.kubectl))?;
        let in_sync = asked.elapsed();
        let events =
            self.kubectl.run(&["get", "events.events.k8s.io", "--output=jsonpath={.items[*].reason}"])?;
        ensure!(events.contains("DiskReplaced"), "no Event tells that it is done: {events}");
        Ok(Replaced { formatted, ready, in_sync })
    }
}

impl Replaced {
    /// Its columns.
    pub fn fill(&self, row: &mut Row) {
        row.set("formatted_after_s", tenths(self.formatted));
        row.set("repaired_after_s", tenths(self.ready));
        row.set("true_after_s", tenths(self.in_sync));
    }
}

/// Takes the request back.
pub fn forget(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["annotate", "iotp/plant", &format!("{ANNOTATION}-")]).map(drop)
}

/// All brokers are there, and nothing is left to do.
pub fn whole(kubectl: &Kubectl) -> Result<()> {
    reconciling(kubectl, "UpToDate")?;
    let there = brokers(kubectl)?;
    ensure!(there == 3, "{there} brokers");
    Ok(())
}

/// Seconds for a report.
pub fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

fn brokers(kubectl: &Kubectl) -> Result<u64> {
    let platform = kubectl.get(&["iotp/plant"])?;
    platform["status"]["kafka"]["brokersReady"].as_u64().context("no broker is counted")
}

/// The message of `Reconciling`, where it has this reason.
fn reconciling(kubectl: &Kubectl, reason: &str) -> Result<String> {
    let platform = kubectl.get(&["iotp/plant"])?;
    let all = platform["status"]["conditions"].as_array().into_iter().flatten();
    let Some(one) = all.into_iter().find(|one| one["type"] == "Reconciling") else { bail!("no condition") };
    ensure!(one["reason"] == reason, "{one}");
    Ok(one["message"].as_str().unwrap_or_default().to_owned())
}
