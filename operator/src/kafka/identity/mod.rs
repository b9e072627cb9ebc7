//! Who each Kafka node is: cluster id and directory id, made once, and changed only
//! where a lost disk is replaced. Pure but for randomness.
//!
//! The claims' annotations hold the identity for as long as the volumes live; the ConfigMap
//! `<platform>-kafka-identity` tells it to the pods, together with the right to format an empty disk.

#[cfg(test)]
mod tests;
mod uuid;

pub use uuid::Uuid;

use super::names::{CONTROLLER_PORT, Names, VOTERS};
use std::collections::BTreeMap;

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

/// The ConfigMap's key of the request to replace a disk that was taken up last.
const ANSWERED: &str = "answered-replace-disk";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The log directory's id.
    pub directory: Uuid,
    /// Whether the node may format an empty disk.
    pub may_format: bool,
    /// The id of the lost log directory, until this one has taken its place.
    pub replaces: Option<Uuid>,
}

impl Node {
    /// A node that has a disk, or is about to have its first.
    const fn new(directory: Uuid, may_format: bool) -> Self {
        Self { directory, may_format, replaces: None }
    }
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
    /// The request to replace a disk that was taken up last. It is not taken up again while it stands there.
    pub answered: Option<String>,
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
        "volume claim {claim} says Kafka cluster {found} (annotation {CLUSTER_ID}), {other} says {expected}: where an object was changed by hand, write the old id back (cluster.id in meta.properties on the volume); where the volume is another cluster's, bind the right one"
    )]
    MixedClusters {
        /// The claim.
        claim: String,
        /// Its cluster id.
        found: Uuid,
        /// Who says otherwise.
        other: String,
        /// What that one says.
        expected: Uuid,
    },
    /// ConfigMap and claim disagree.
    #[error(
        "volume claim {claim} has directory id {in_claim} (annotation {DIRECTORY_ID}), ConfigMap {map} has {in_map} (directory-id in key node-{node}): one was changed by hand; directory.id in meta.properties on the volume is the right one, restore the object that says otherwise"
    )]
    Disagree {
        /// The claim.
        claim: String,
        /// What it says.
        in_claim: Uuid,
        /// The ConfigMap.
        map: String,
        /// What it says.
        in_map: Uuid,
        /// The node.
        node: i32,
    },
    /// Neither ConfigMap nor claims are left of a cluster that was formed.
    #[error(
        "Kafka cluster {0} was formed, but nothing of its identity is left: restore ConfigMap {1}; to start with an empty cluster, delete the IoTPlatform and create it again"
    )]
    Lost(Uuid, String),
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
        let first = claims.iter().next();
        let other = match (&current, first) {
            (None, Some((&node, _))) => format!("volume claim {}", names.claim(node)),
            _ => format!("ConfigMap {}", names.identity()),
        };
        let mut identity = match (current, first, formed) {
            (Some(current), _, _) => current,
            (None, Some((_, claim)), _) => {
                let (cluster, voters) = (claim.cluster.clone(), claim.voters);
                Self { cluster, nodes: BTreeMap::new(), voters, answered: None }
            }
            (None, None, Some(lost)) => return Err(IdentityError::Lost(lost.clone(), names.identity())),
            (None, None, None) => return Ok(Self::make(brokers)),
        };
        for (&node, claim) in claims {
            if claim.cluster != identity.cluster {
                return Err(IdentityError::MixedClusters {
                    claim: names.claim(node),
                    found: claim.cluster.clone(),
                    other,
                    expected: identity.cluster,
                });
            }
            let known =
                identity.nodes.entry(node).or_insert_with(|| Node::new(claim.directory.clone(), false));
            // A claim is written after the ConfigMap: a crash in between leaves the lost disk's id on it.
            if known.directory != claim.directory && known.replaces.as_ref() != Some(&claim.directory) {
                return Err(IdentityError::Disagree {
                    claim: names.claim(node),
                    in_claim: claim.directory.clone(),
                    map: names.identity(),
                    in_map: known.directory.clone(),
                    node,
                });
            }
        }
        for node in 0..brokers {
            let may_format = node >= identity.voters;
            identity.nodes.entry(node).or_insert_with(|| Node::new(Uuid::random(), may_format));
        }
        Ok(identity)
    }

    fn make(brokers: i32) -> Self {
        let node = |id| (id, Node::new(Uuid::random(), true));
        Self {
            cluster: Uuid::random(),
            nodes: (0..brokers).map(node).collect(),
            voters: brokers.min(VOTERS),
            answered: None,
        }
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
    /// changes nothing about it, nor does a lost disk that is being replaced.
    pub fn is_formed(&self) -> bool {
        self.nodes.iter().all(|(id, node)| *id >= self.voters || !node.may_format || node.replaces.is_some())
    }

    /// The node whose lost disk is being replaced. There is one at most.
    pub fn replacing(&self) -> Option<(i32, &Node)> {
        self.nodes.iter().find(|(_, node)| node.replaces.is_some()).map(|(id, node)| (*id, node))
    }

    /// Takes up the request to replace a node's lost disk: an empty one may be formatted, with an id of its own.
    pub fn replace(&mut self, node: i32, request: &str) {
        if let Some(node) = self.nodes.get_mut(&node) {
            let lost = std::mem::replace(&mut node.directory, Uuid::random());
            node.may_format = true;
            node.replaces = Some(lost);
        }
        self.answered = Some(request.to_owned());
    }

    /// The new disk has taken the lost one's place.
    pub fn replaced(&mut self, node: i32) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.may_format = false;
            node.replaces = None;
        }
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
                    "cluster-id={}\ndirectory-id={}\nrole={role}\nmay-format={}\n{}",
                    self.cluster,
                    node.directory,
                    node.may_format,
                    node.replaces.as_ref().map(|lost| format!("replaces={lost}\n")).unwrap_or_default()
                ),
            );
        }
        data.extend(self.answered.clone().map(|request| (ANSWERED.to_owned(), request)));
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
            let replaces = match text.lines().find_map(|line| line.strip_prefix("replaces=")) {
                None => None,
                Some(lost) => Some(Uuid::parse(lost).ok_or_else(bad)?),
            };
            nodes.insert(id, Node { directory, may_format: field("may-format")? == "true", replaces });
        }
        let answered = data.get(ANSWERED).cloned();
        Ok(cluster.map(|cluster| Self { cluster, nodes, voters, answered }))
    }
}

/// The controller's address of a node in pods.
pub fn controller(names: &Names) -> impl Fn(i32) -> String + '_ {
    |node| format!("{}:{CONTROLLER_PORT}", names.host(node))
}
