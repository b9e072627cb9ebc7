//! How pods of ours ask for names, and the domain of the cluster's. Pure.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption};

/// What a pod searches is written here.
pub const RESOLVER: &str = "/etc/resolv.conf";
/// The domain of nearly every cluster.
const USUAL: &str = "cluster.local";

/// The cluster's DNS domain, by what a pod in it searches: the suffix behind `svc.`.
pub fn cluster_domain(resolver: &str) -> String {
    let searched = resolver.lines().rev().find_map(|line| line.trim().strip_prefix("search"));
    let mut suffixes = searched.unwrap_or_default().split_whitespace();
    let domain = suffixes.find_map(|suffix| suffix.strip_prefix("svc."));
    domain.map_or(USUAL, |domain| domain.trim_end_matches('.')).to_owned()
}

/// One try of a second for each lookup, instead of several of five. A cluster's DNS has a replica or two, and the one on
/// a dead node gets its share of the questions for as long as Kubernetes believes in the node. The C library asks again from the
/// same port, so the question goes the same way: only whoever gives up and starts anew may be sent to a replica that
/// lives. Names of four dots or more, as those of brokers, are asked for as they are and not under each suffix first: each
/// question may go the wrong way. Measured on a node that went with one of two replicas: a lookup took 20 s and failed; of those that give up
/// after a second, every second one worked.
pub fn give_up_soon() -> PodDNSConfig {
    let options = [("timeout", "1"), ("attempts", "1"), ("ndots", "4")];
    let option = |(name, value): (&str, &str)| PodDNSConfigOption {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
    };
    PodDNSConfig { options: Some(options.map(option).into()), ..PodDNSConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_domain_is_what_pods_search() {
        let pod = "search iot.svc.plant.example svc.plant.example plant.example\nnameserver 10.96.0.10\n";
        assert_eq!(cluster_domain(pod), "plant.example");
        assert_eq!(cluster_domain("nameserver 192.0.2.1\nsearch example.com\n"), "cluster.local");
        assert_eq!(cluster_domain(""), "cluster.local");
    }
}
