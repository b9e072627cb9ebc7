//! Who each Kafka node is: cluster id and directory id, made once and never changed. Pure but for randomness.
//!
//! The claims' annotations hold the identity for as long as the volumes live; the ConfigMap
//! `<platform>-kafka-identity` tells it to the pods, together with the right to format an empty disk.

use super::names::{CONTROLLER_PORT, Names, VOTERS};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::fmt;

/// The claim's annotation with the cluster id.
pub const CLUSTER_ID: &str = "tidegate.io/kafka-cluster-id";
/// The claim's annotation with the node id.
pub const NODE_ID: &str = "tidegate.io/kafka-node-id";
/// The claim's annotation with the directory id.
pub const DIRECTORY_ID: &str = "tidegate.io/kafka-directory-id";

/// The claim's annotation with the number of voters that the cluster was formed with.
pub const VOTER_COUNT: &str = "tidegate.io/kafka-voters";

/// The ConfigMap's key of the list that nodes format with.
pub const INITIAL_CONTROLLERS: &str = "initial-controllers";

/// A Kafka UUID: 16 bytes as 22 characters of base64url.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(String);

impl Uuid {
    /// A random one, never with a leading `-`: command lines would take it for an option.
    pub fn random() -> Self {
        loop {
            let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
            if let Some(uuid) = Self::parse(&text) {
                return uuid;
            }
        }
    }

    /// Reads one; nothing for what Kafka or its tools would not take.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        // Kafka keeps the smallest values for itself.
        let reserved = bytes.iter().take(15).all(|&byte| byte == 0);
        (bytes.len() == 16 && !reserved && !text.starts_with('-')).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The log directory's id.
    pub directory: Uuid,
    /// Whether the node may format an empty disk.
    pub may_format: bool,
}

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster id.
    pub cluster: Uuid,
    /// Nodes by id, from 0.
    pub nodes: BTreeMap<i32, Node>,
    /// How many nodes voted at formation: nodes 0 up to this one.
    pub voters: i32,
}

/// Why an identity cannot be read or settled. The messages say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The ConfigMap was damaged by hand.
    #[error(
        "ConfigMap {0} cannot be read at key {1:?}: restore it, or delete it to have it built from the volume claims"
    )]
    ConfigMap(String, String),
    /// The claim was damaged by hand.
    #[error(
        "volume claim {0} has no readable annotation {1}: restore it (meta.properties on the volume holds the ids)"
    )]
    Claim(String, &'static str),
    /// The claims come from different clusters.
    #[error(
        "volume claim {claim} belongs to Kafka cluster {found}, the others to {expected}: keep the volumes of one cluster only"
    )]
    MixedClusters {
        /// The claim.
        claim: String,
        /// Its cluster id.
        found: Uuid,
        /// The others' cluster id.
        expected: Uuid,
    },
    /// ConfigMap and claim disagree.
    #[error(
        "volume claim {0} and ConfigMap {1} name different directory ids: one of them was changed by hand"
    )]
    Disagree(String, String),
    /// Neither ConfigMap nor claims are left of a cluster that was formed.
    #[error(
        "Kafka cluster {0} was formed, but nothing of its identity is left: restore ConfigMap {1}; to start with an empty cluster, delete the IoTPlatform and create it again"
    )]
    Lost(Uuid, String),
}

impl IdentityError {
    /// A constant name for conditions and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ConfigMap(..) => "IdentityUnreadable",
            Self::Claim(..) => "ClaimUnreadable",
            Self::MixedClusters { .. } => "MixedClusters",
            Self::Disagree(..) => "IdentityDisagrees",
            Self::Lost(..) => "IdentityLost",
        }
    }
}

/// What a claim's annotations say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimIdentity {
    /// The cluster id.
    pub cluster: Uuid,
    /// The directory id.
    pub directory: Uuid,
    /// How many nodes voted when the cluster was formed.
    pub voters: i32,
}

impl ClaimIdentity {
    /// Reads a claim's annotations.
    pub fn read(
        claim: &str,
        node: i32,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, IdentityError> {
        let text = |key: &str| annotations.get(key).map(String::as_str).unwrap_or_default();
        let uuid = |key| Uuid::parse(text(key)).ok_or_else(|| IdentityError::Claim(claim.to_owned(), key));
        if text(NODE_ID).parse() != Ok(node) {
            return Err(IdentityError::Claim(claim.to_owned(), NODE_ID));
        }
        let voters = text(VOTER_COUNT).parse().ok().filter(|voters| (1..=VOTERS).contains(voters));
        let voters = voters.ok_or_else(|| IdentityError::Claim(claim.to_owned(), VOTER_COUNT))?;
        Ok(Self { cluster: uuid(CLUSTER_ID)?, directory: uuid(DIRECTORY_ID)?, voters })
    }
}

impl Identity {
    /// Settles who the nodes are. What the ConfigMap (`current`) or a claim says is kept; what neither says is
    /// made. The ConfigMap is written before the claims, so claims without one are those of a cluster that was
    /// formed: a platform that took volumes over, or a ConfigMap deleted by hand.
    ///
    /// Nodes of a cluster that is being made may format, and so may a broker that is added and does not vote. A
    /// voter of a formed cluster may not: it would bring a second idea of who votes.
    pub fn settle(
        names: &Names,
        brokers: i32,
        current: Option<Self>,
        claims: &BTreeMap<i32, ClaimIdentity>,
        formed: Option<&Uuid>,
    ) -> Result<Self, IdentityError> {
        let mut identity = match (current, claims.values().next(), formed) {
            (Some(current), _, _) => current,
            (None, Some(claim), _) => {
                Self { cluster: claim.cluster.clone(), nodes: BTreeMap::new(), voters: claim.voters }
            }
            (None, None, Some(lost)) => return Err(IdentityError::Lost(lost.clone(), names.identity())),
            (None, None, None) => return Ok(Self::make(brokers)),
        };
        for (&node, claim) in claims {
            if claim.cluster != identity.cluster {
                return Err(IdentityError::MixedClusters {
                    claim: names.claim(node),
                    found: claim.cluster.clone(),
                    expected: identity.cluster,
                });
            }
            let known = identity
                .nodes
                .entry(node)
                .or_insert_with(|| Node { directory: claim.directory.clone(), may_format: false });
            if known.directory != claim.directory {
                return Err(IdentityError::Disagree(names.claim(node), names.identity()));
            }
        }
        for node in 0..brokers {
            let may_format = node >= identity.voters;
            identity.nodes.entry(node).or_insert_with(|| Node { directory: Uuid::random(), may_format });
        }
        Ok(identity)
    }

    fn make(brokers: i32) -> Self {
        let node = |id| (id, Node { directory: Uuid::random(), may_format: true });
        Self { cluster: Uuid::random(), nodes: (0..brokers).map(node).collect(), voters: brokers.min(VOTERS) }
    }

    /// Takes the right to format from nodes that were seen as members of the cluster. Whether that changed
    /// anything.
    pub fn formed(&mut self, seen: &[i32]) -> bool {
        let mut changed = false;
        for (id, node) in &mut self.nodes {
            if node.may_format && seen.contains(id) {
                node.may_format = false;
                changed = true;
            }
        }
        changed
    }

    /// Whether the cluster was formed: none of those that voted may format any more. A broker that is added later
    /// changes nothing about it.
    pub fn is_formed(&self) -> bool {
        self.nodes.iter().all(|(id, node)| *id >= self.voters || !node.may_format)
    }

    /// The annotations of a node's claim.
    pub fn annotations(&self, node: i32) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([
            (CLUSTER_ID.to_owned(), self.cluster.to_string()),
            (NODE_ID.to_owned(), node.to_string()),
            (VOTER_COUNT.to_owned(), self.voters.to_string()),
        ]);
        if let Some(node) = self.nodes.get(&node) {
            annotations.insert(DIRECTORY_ID.to_owned(), node.directory.to_string());
        }
        annotations
    }

    /// The ConfigMap's data; `controller` gives a node's `host:port` on the controller listener.
    pub fn data(&self, controller: impl Fn(i32) -> String) -> BTreeMap<String, String> {
        let voters: Vec<_> = (0..self.voters)
            .filter_map(|id| {
                self.nodes.get(&id).map(|node| format!("{id}@{}:{}", controller(id), node.directory))
            })
            .collect();
        let mut data = BTreeMap::from([(INITIAL_CONTROLLERS.to_owned(), voters.join(","))]);
        for (id, node) in &self.nodes {
            let role = if *id < self.voters { "voter" } else { "broker" };
            data.insert(
                format!("node-{id}"),
                format!(
                    "cluster-id={}\ndirectory-id={}\nrole={role}\nmay-format={}\n",
                    self.cluster, node.directory, node.may_format
                ),
            );
        }
        data
    }

    /// Reads the ConfigMap's data; nothing for an empty one.
    pub fn read(name: &str, data: &BTreeMap<String, String>) -> Result<Option<Self>, IdentityError> {
        let (mut nodes, mut cluster, mut voters) = (BTreeMap::new(), None, 0);
        for (key, text) in data {
            let Some(id) = key.strip_prefix("node-") else { continue };
            let bad = || IdentityError::ConfigMap(name.to_owned(), key.clone());
            let id: i32 = id.parse().map_err(|_| bad())?;
            let field = |field: &str| {
                text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('=')).ok_or_else(bad)
            };
            let found = Uuid::parse(field("cluster-id")?).ok_or_else(bad)?;
            if *cluster.get_or_insert_with(|| found.clone()) != found {
                return Err(bad());
            }
            let directory = Uuid::parse(field("directory-id")?).ok_or_else(bad)?;
            voters += i32::from(field("role")? == "voter");
            nodes.insert(id, Node { directory, may_format: field("may-format")? == "true" });
        }
        Ok(cluster.map(|cluster| Self { cluster, nodes, voters }))
    }
}

/// The controller's address of a node in pods.
pub fn controller(names: &Names) -> impl Fn(i32) -> String + '_ {
    |node| format!("{}:{CONTROLLER_PORT}", names.host(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Names {
        Names::new("plant", "plant")
    }

    fn settle(
        brokers: i32,
        current: Option<Identity>,
        claims: &BTreeMap<i32, ClaimIdentity>,
    ) -> Result<Identity, IdentityError> {
        Identity::settle(&names(), brokers, current, claims, None)
    }

    fn claims(identity: &Identity) -> BTreeMap<i32, ClaimIdentity> {
        let read = |&id: &i32| (id, ClaimIdentity::read("c", id, &identity.annotations(id)).unwrap());
        identity.nodes.keys().map(read).collect()
    }

    #[test]
    fn a_new_cluster_has_three_voters_and_every_node_may_format() {
        let made = settle(5, None, &BTreeMap::new()).unwrap();
        assert_eq!(made.voters, 3);
        assert!(made.nodes.values().all(|node| node.may_format));
        let data = made.data(controller(&names()));
        assert_eq!(data[INITIAL_CONTROLLERS].matches("@plant-kafka-").count(), 3);
        assert!(data["node-3"].contains("role=broker"));
    }

    #[test]
    fn a_crash_after_the_configmap_or_any_claim_changes_nobody() {
        let made = settle(3, None, &BTreeMap::new()).unwrap();
        let mut written = claims(&made);
        assert_eq!(settle(3, Some(made.clone()), &written).unwrap(), made);
        written.remove(&1);
        assert_eq!(settle(3, Some(made.clone()), &written).unwrap(), made);
    }

    #[test]
    fn volumes_taken_over_keep_their_identity_and_are_never_formatted() {
        let made = settle(3, None, &BTreeMap::new()).unwrap();
        let taken = settle(3, None, &claims(&made)).unwrap();
        assert_eq!(taken.cluster, made.cluster);
        for (id, node) in &taken.nodes {
            assert_eq!(node.directory, made.nodes[id].directory);
            assert!(!node.may_format);
        }
    }

    #[test]
    fn a_lost_voter_waits_while_an_added_broker_may_format() {
        let made = settle(3, None, &BTreeMap::new()).unwrap();
        let mut left = claims(&made);
        left.remove(&1);
        let taken = settle(4, None, &left).unwrap();
        assert!(!taken.nodes[&1].may_format);
        assert!(taken.nodes[&3].may_format);
    }

    #[test]
    fn a_node_that_was_seen_in_the_cluster_never_formats_again() {
        let mut made = settle(3, None, &BTreeMap::new()).unwrap();
        assert!(made.formed(&[0, 2]));
        assert!(!made.formed(&[0, 2]));
        assert!(made.nodes[&1].may_format && !made.nodes[&0].may_format);
        assert!(!made.is_formed());
        made.formed(&[1]);
        assert!(made.is_formed());
        let grown = settle(4, Some(made.clone()), &claims(&made)).unwrap();
        assert!(grown.is_formed() && grown.nodes[&3].may_format);
    }

    #[test]
    fn identities_that_contradict_each_other_are_refused() {
        let (one, two) = (settle(3, None, &BTreeMap::new()), settle(3, None, &BTreeMap::new()));
        let (one, two) = (one.unwrap(), two.unwrap());
        let mut mixed = claims(&one);
        mixed.insert(2, claims(&two)[&2].clone());
        assert!(matches!(settle(3, None, &mixed), Err(IdentityError::MixedClusters { .. })));
        let mut swapped = claims(&one);
        swapped.insert(2, claims(&one)[&1].clone());
        assert!(matches!(settle(3, Some(one.clone()), &swapped), Err(IdentityError::Disagree(..))));
        let lost = Identity::settle(&names(), 3, None, &BTreeMap::new(), Some(&one.cluster));
        assert!(matches!(lost, Err(IdentityError::Lost(..))));
    }

    #[test]
    fn a_configmap_reads_back_as_written() {
        let mut made = settle(4, None, &BTreeMap::new()).unwrap();
        made.formed(&[1]);
        let data = made.data(controller(&names()));
        assert_eq!(Identity::read("i", &data).unwrap(), Some(made));
        assert_eq!(Identity::read("i", &BTreeMap::new()).unwrap(), None);
        let mut broken = data;
        broken.insert("node-1".to_owned(), "cluster-id=-bad".to_owned());
        assert!(matches!(Identity::read("i", &broken), Err(IdentityError::ConfigMap(..))));
    }

    proptest! {
        #[test]
        fn no_id_looks_like_an_option(_ in 0..200) {
            let uuid = Uuid::random();
            prop_assert_eq!(uuid.as_str().len(), 22);
            prop_assert!(!uuid.as_str().starts_with('-'));
        }

        #[test]
        fn settling_twice_changes_nothing(brokers in 1..7_i32, more in 0..4_i32) {
            let made = settle(brokers, None, &BTreeMap::new()).unwrap();
            let grown = settle(brokers + more, Some(made.clone()), &claims(&made)).unwrap();
            prop_assert_eq!(grown.voters, made.voters);
            prop_assert_eq!(settle(brokers + more, Some(grown.clone()), &claims(&grown)).unwrap(), grown);
        }
    }
}
