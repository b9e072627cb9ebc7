//! How pods of ours ask for names. Pure.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption};

/// One try of a second for each lookup, instead of several of five. A cluster's DNS has a replica or two, and the one on
/// a dead node gets its share of the questions for as long as Kubernetes believes in the node. The C library asks again from the
/// same port, so the question goes the same way: only whoever gives up and starts anew may be sent to a replica that
/// lives. Measured on a node that went with one of two replicas: a lookup took 20 s and failed; of those that give up
/// after a second, every second one worked.
pub fn give_up_soon() -> PodDNSConfig {
    let option = |name: &str| PodDNSConfigOption { name: Some(name.to_owned()), value: Some("1".to_owned()) };
    PodDNSConfig { options: Some(vec![option("timeout"), option("attempts")]), ..PodDNSConfig::default() }
}
