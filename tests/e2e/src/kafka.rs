//! Faults of the platform's Kafka brokers, from the host: a node of the local cluster is namespaces on this machine, so a
//! broker's Java process is one of ours.

use crate::Kubectl;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

/// The broker pods of the quickstart's platform.
pub const BROKERS: [&str; 3] = ["plant-kafka-0", "plant-kafka-1", "plant-kafka-2"];

/// The process id, on the host, of a broker's Java process.
pub fn java_process(kubectl: &Kubectl, pod: &str) -> Result<u32> {
    let uid =
        kubectl.get(&["pod", pod])?["metadata"]["uid"].as_str().context("a pod without uid")?.to_owned();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        // cgroup paths of a pod name its uid; with the systemd driver with `_` for `-`
        let cgroup = read("cgroup");
        if read("comm").trim() == "java" && (cgroup.contains(&uid) || cgroup.contains(&uid.replace('-', "_")))
        {
            return Ok(id);
        }
    }
    anyhow::bail!(
        "no Java process of pod {pod} on this machine: stories about brokers need the local cluster"
    )
}

/// Sends a signal to a broker's Java process.
pub fn signal(kubectl: &Kubectl, pod: &str, signal: &str) -> Result<()> {
    let id = java_process(kubectl, pod)?;
    let status = Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status()?;
    ensure!(status.success(), "failed to send {signal} to process {id} of {pod}");
    Ok(())
}

/// Brokers that stand still until dropped.
pub struct Frozen<'a> {
    kubectl: &'a Kubectl,
}

impl<'a> Frozen<'a> {
    /// Freezes all brokers.
    pub fn all(kubectl: &'a Kubectl) -> Result<Self> {
        let frozen = Self { kubectl };
        for pod in BROKERS {
            signal(kubectl, pod, "STOP")?;
        }
        Ok(frozen)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for pod in BROKERS {
            // thawing a broker that was restarted meanwhile does no harm, and one that is gone needs none
            let _ = signal(self.kubectl, pod, "CONT");
        }
    }
}
