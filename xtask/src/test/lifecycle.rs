//! `cluster up` and `cluster down` leave the machine as it was.

use super::Outcome;
use crate::local::Built;
use anyhow::Result;
use tidegate_cluster::snapshot::Snapshot;
use tidegate_cluster::{Cluster, Progress};

/// Ends the cluster that there is, then compares the machine before a new one and after it.
pub fn run(built: &Built) -> Result<Outcome> {
    let progress = Progress::new();
    Cluster::down(&progress)?;
    let before = Snapshot::take()?;
    built.cluster(None, &progress)?;
    Cluster::down(&progress)?;
    let difference = before.difference(&Snapshot::take()?);
    for line in &difference {
        println!("  {line}");
    }
    println!(
        "cluster down: {} differences in namespaces, links, routes, mounts, cgroups, processes, rules and sysctls",
        difference.len()
    );
    Ok(Outcome::of("cluster down leaves the machine as it was", difference.is_empty()))
}
