//! Faults of the platform's Kafka brokers.

use anyhow::Result;
use tidegate_cluster::faults::Injected;
use tidegate_cluster::{Cluster, Fault};

/// The namespace of the quickstart's platform.
pub(crate) const NAMESPACE: &str = "plant";
/// The broker pods of the quickstart's platform.
pub const BROKERS: [&str; 3] = ["plant-kafka-0", "plant-kafka-1", "plant-kafka-2"];

/// Freezes all brokers until what is returned is dropped.
pub fn freeze(cluster: &Cluster) -> Result<Vec<Injected<'_>>> {
    let freeze = |pod: &str| Fault::Freeze { namespace: NAMESPACE.to_owned(), pod: pod.to_owned() };
    BROKERS.iter().map(|pod| cluster.inject_for_now(freeze(pod))).collect()
}

/// Kills a broker at once; the kubelet starts it again.
pub fn kill(cluster: &Cluster, pod: &str) -> Result<()> {
    cluster.kill(NAMESPACE, pod)
}
