//! Who has which name and address in the local cluster. Pure.

use anyhow::{Result, ensure};

/// The bridge between the nodes; its own address is the host's and the API server's.
pub const BRIDGE: &str = "tg0";
/// The bridge's own Ethernet address.
pub const BRIDGE_MAC: &str = "02:74:67:00:00:01";
/// The host's address on the bridge.
pub const HOST_ADDRESS: &str = "172.31.0.1";
/// Where the API server listens.
pub const API_SERVER: &str = "https://172.31.0.1:6443";
/// The field network, which devices are on: every node has a second cable to it and no address there.
pub const FIELD_BRIDGE: &str = "tgfield";
/// Its own Ethernet address.
pub const FIELD_BRIDGE_MAC: &str = "02:74:66:00:00:01";
/// The addresses of the field network.
pub const FIELD_RANGE: &str = "172.31.9.0/24";
/// The end of a node's second cable in the node.
pub const FIELD_LINK: &str = "eth1";
/// The addresses that load balancers hand out, as `MetalLB` writes a range.
pub const LOAD_BALANCER_RANGE: &str = "172.31.0.200-172.31.0.220";
/// The addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The addresses of pods, all nodes together.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The cluster's DNS Service.
pub const DNS_ADDRESS: &str = "10.96.0.10";
/// How many nodes there are unless said otherwise.
pub const DEFAULT_NODES: u8 = 3;
/// More would only starve each other on one machine.
pub const MAX_NODES: u8 = 9;

/// The nodes of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    nodes: u8,
}

impl Plan {
    /// A cluster of `nodes` nodes.
    ///
    /// # Errors
    /// When there would be none, or more than [`MAX_NODES`].
    pub fn new(nodes: u8) -> Result<Self> {
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "a local cluster has 1 to {MAX_NODES} nodes, not {nodes}: use --nodes with a number in that range"
        );
        Ok(Self { nodes })
    }

    /// The nodes, in order.
    pub fn nodes(self) -> impl Iterator<Item = NodePlan> {
        (1..=self.nodes).map(|number| NodePlan { number })
    }

    /// How many nodes there are.
    pub fn size(self) -> u8 {
        self.nodes
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// When there is none; the message lists the names.
    pub fn node(self, name: &str) -> Result<NodePlan> {
        let names = self.nodes().map(NodePlan::name).collect::<Vec<_>>().join(", ");
        self.nodes().find(|node| node.name() == name).ok_or_else(|| {
            anyhow::anyhow!("no node is called {name:?}: the nodes of this cluster are {names}")
        })
    }
}

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlan {
    number: u8,
}

impl NodePlan {
    /// Its name in Kubernetes: `node1`.
    pub fn name(self) -> String {
        format!("node{}", self.number)
    }

    /// Its address on the bridge: `172.31.0.11`.
    pub fn address(self) -> String {
        format!("172.31.0.{}", 10 + self.number)
    }

    /// Its Ethernet address, which like a real machine's survives a power-off.
    pub fn mac(self) -> String {
        format!("02:74:67:00:00:{:02x}", 0x10 + self.number)
    }

    /// The addresses of its pods: `10.244.1.0/24`.
    pub fn pod_range(self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// The host's end of its cable: `tg-node1`.
    pub fn link(self) -> String {
        format!("tg-{}", self.name())
    }

    /// The host's end of its cable to the field network: `tgf-node1`.
    pub fn field_link(self) -> String {
        format!("tgf-{}", self.name())
    }

    /// Its Ethernet address on the field network.
    pub fn field_mac(self) -> String {
        format!("02:74:66:00:00:{:02x}", 0x10 + self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_name_an_address_and_a_pod_range_of_its_own() {
        let nodes: Vec<_> = Plan::new(3).unwrap().nodes().collect();
        assert_eq!(nodes.iter().map(|node| node.name()).collect::<Vec<_>>(), ["node1", "node2", "node3"]);
        assert_eq!(nodes[0].address(), "172.31.0.11");
        assert_eq!(nodes[2].pod_range(), "10.244.3.0/24");
    }

    #[test]
    fn link_names_fit_into_what_the_kernel_allows() {
        let longest = Plan::new(MAX_NODES).unwrap().nodes().map(|node| node.field_link().len()).max();
        assert!(longest.unwrap() <= 15);
    }

    #[test]
    fn no_node_has_an_address_that_a_load_balancer_hands_out() {
        for node in Plan::new(MAX_NODES).unwrap().nodes() {
            let last: u8 = node.address().rsplit('.').next().unwrap().parse().unwrap();
            assert!(!(200..=220).contains(&last) && last != 1);
        }
    }

    #[test]
    fn a_cluster_without_nodes_or_with_too_many_is_refused() {
        assert!(Plan::new(0).is_err());
        assert!(Plan::new(MAX_NODES + 1).is_err());
    }

    #[test]
    fn an_unknown_node_is_answered_with_the_known_ones() {
        let error = Plan::new(2).unwrap().node("node7").unwrap_err().to_string();
        assert!(error.contains("node7") && error.contains("node1, node2"), "{error}");
    }
}
