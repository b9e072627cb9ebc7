//! What is asked on each node. Pure.

use super::health::Health;
use super::model::World;
use super::probe::Target;
use std::net::SocketAddr;

/// A kubelet answers here on its own loopback only, so a node that is there refuses. Asked before the kubelet's own port,
/// which writes a line into the node's log for every connection that speaks no TLS.
const QUIET: u16 = 10_248;
/// So many pods of ours are asked on one node.
const PODS: usize = 7;

/// All targets, but none on our own node: from there we cannot tell.
pub fn targets(world: &World, health: &Health) -> Vec<Target> {
    let mut all = Vec::new();
    if !world.wanted() {
        return all;
    }
    for (name, node) in world.nodes.iter().filter(|(name, _)| world.own.as_ref() != Some(name)) {
        let mut ask = |address: SocketAddr| all.push(Target { node: name.clone(), address });
        if let Some(address) = node.address {
            let quiet = SocketAddr::new(address, QUIET);
            ask(quiet);
            // Behind a firewall that lets only what is served pass.
            if !health.has_answered(name, quiet) {
                ask(SocketAddr::new(address, node.kubelet));
            }
        }
        let mut pods: Vec<_> = world.pods.iter().filter(|pod| pod.node == *name).collect();
        pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        pods.into_iter().filter_map(|pod| pod.target).take(PODS).for_each(ask);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::health::{Answer, Outcome, Round};
    use crate::failover::model::Node;
    use std::time::{Duration, Instant};

    fn world() -> World {
        let node = |last: u8| Node {
            uid: format!("uid-{last}"),
            in_service: true,
            address: Some([172, 31, 0, last].into()),
            kubelet: 10_250,
        };
        World {
            own: Some("node1".to_owned()),
            nodes: (1..=2).map(|number| (format!("node{number}"), node(number))).collect(),
            platforms: [(("iot".to_owned(), "plant".to_owned()), true)].into(),
            ..World::default()
        }
    }

    #[test]
    fn the_kubelets_own_port_is_asked_only_where_the_quiet_one_never_answered() {
        let (world, mut health) = (world(), Health::default());
        let asked = |health: &Health| {
            let all = targets(&world, health);
            all.iter().map(|target| target.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&health), ["172.31.0.2:10248", "172.31.0.2:10250"]);
        let refused = Answer {
            node: "node2".to_owned(),
            target: "172.31.0.2:10248".parse().unwrap(),
            outcome: Outcome::Refused,
        };
        health.round(Instant::now(), &Round { late: Duration::ZERO, answers: vec![refused] });
        assert_eq!(asked(&health), ["172.31.0.2:10248"]);
    }

    #[test]
    fn nothing_is_asked_while_no_platform_wants_failover() {
        let mut world = world();
        world.platforms.values_mut().for_each(|on| *on = false);
        assert!(targets(&world, &Health::default()).is_empty());
    }
}
