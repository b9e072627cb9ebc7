//! What failover knows of the cluster, as values. Pure.

use super::record::Record;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// A platform, by namespace and name.
pub type PlatformKey = (String, String);

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its uid.
    pub uid: String,
    /// Whether its label `tidegate.io/in-service` is anything but `"false"`: only such nodes announce addresses.
    pub in_service: bool,
    /// Its internal address.
    pub address: Option<IpAddr>,
    /// The kubelet's port.
    pub kubelet: u16,
}

/// What a pod of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A gateway's pod.
    Gateway,
    /// A broker's pod: asked, never touched.
    Broker,
}

/// A pod of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it runs.
    pub node: String,
    /// What it is.
    pub role: Role,
    /// The platform's name.
    pub platform: String,
    /// The gateway, or the platform for brokers: pods of one serve the same Services.
    pub instance: String,
    /// Where it can be asked; none before it runs.
    pub target: Option<SocketAddr>,
    /// Whether `tidegate.io/in-service` is `"true"`.
    pub in_service: bool,
    /// Whether Kubernetes takes it for ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
}

impl Pod {
    /// Its platform.
    pub fn platform_key(&self) -> PlatformKey {
        (self.namespace.clone(), self.platform.clone())
    }

    /// Whether its Services send it connections.
    pub const fn is_endpoint(&self) -> bool {
        self.in_service && self.ready && !self.leaving
    }

    /// Whether both serve the same Services.
    pub fn is_sibling(&self, other: &Self) -> bool {
        self.role == other.role && self.namespace == other.namespace && self.instance == other.instance
    }
}

/// Whose an advertisement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Made for a pool that platforms refer to.
    Shared,
    /// Made for the pool of one platform, by the platform's controller.
    Platform,
    /// An administrator's.
    Foreign,
}

/// An announcement of pools: an `L2Advertisement`, or a `BGPAdvertisement`, which is always foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// `L2Advertisement` or `BGPAdvertisement`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that was read.
    pub version: String,
    /// Whose it is.
    pub owner: Owner,
    /// The pools that it announces, of those that exist.
    pub pools: BTreeSet<String>,
    /// Which nodes announce.
    pub from: Announcers,
}

/// Which nodes an advertisement lets announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcers {
    /// All.
    All,
    /// Those that are in service.
    InService,
    /// Whichever somebody else chose.
    Others,
}

/// A pool that platforms use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Whether MetalLB has it.
    pub exists: bool,
    /// Whether a platform refers to it, so that its announcement is ours to make.
    pub referred: bool,
    /// Whether failover of it is on: one of its platforms wants it.
    pub failover: bool,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The node that this replica runs on, if it runs on one.
    pub own: Option<String>,
    /// The name of this replica.
    pub identity: String,
    /// Whether it leads.
    pub leads: bool,
    /// All nodes.
    pub nodes: BTreeMap<String, Node>,
    /// All pods of ours.
    pub pods: Vec<Pod>,
    /// Who took which node out.
    pub record: Record,
    /// Announcements; nothing where they cannot be read, or the cluster has no MetalLB.
    pub adverts: Option<Vec<Advert>>,
    /// Pools that platforms use.
    pub pools: BTreeMap<String, Pool>,
    /// All platforms, and whether failover is on.
    pub platforms: BTreeMap<PlatformKey, bool>,
    /// Whether a platform cannot be read, so that more pools may be in use than are known.
    pub blind: bool,
}

impl World {
    /// Whether any platform wants failover.
    pub fn wanted(&self) -> bool {
        self.platforms.values().any(|on| *on)
    }

    /// Whether a pod's platform wants failover.
    pub fn covers(&self, pod: &Pod) -> bool {
        pod.role == Role::Gateway && self.platforms.get(&pod.platform_key()).copied().unwrap_or_default()
    }

    /// The gateway pods on a node whose platforms want failover.
    pub fn gateways_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| pod.node == node && self.covers(pod))
    }
}

/// A reference to a pod that must still be the same when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl From<&Pod> for PodRef {
    fn from(pod: &Pod) -> Self {
        Self { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the record, if nobody wrote it since; nothing else of the same decision may be done before.
    Record {
        /// As it shall be.
        record: Record,
        /// Nodes that are taken out.
        claimed: Vec<String>,
        /// Nodes that are used again.
        released: Vec<String>,
    },
    /// Put a pod into its Services, or take it out.
    Label {
        /// The pod.
        pod: PodRef,
        /// Into them.
        in_service: bool,
    },
    /// Take a node out of service, or in again. Announcements follow by themselves.
    Mark {
        /// The node.
        node: String,
        /// Its uid.
        uid: String,
        /// In.
        in_service: bool,
    },
    /// Let these nodes announce, if nobody wrote the advertisement since.
    Select {
        /// The advertisement.
        advert: String,
        /// Its uid.
        uid: String,
        /// The version that was read.
        version: String,
        /// The nodes.
        from: Announcers,
    },
    /// Announce a pool.
    Announce {
        /// The pool.
        pool: String,
        /// From these nodes.
        from: Announcers,
    },
    /// Remove our announcement.
    Withdraw {
        /// The advertisement.
        advert: String,
        /// Its uid.
        uid: String,
    },
    /// Delete a pod, gracefully, so that another takes its place.
    Replace {
        /// The pod.
        pod: PodRef,
    },
}

impl Action {
    /// The word in metrics and logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Record { .. } => "record",
            Self::Label { in_service: true, .. } => "label_in",
            Self::Label { in_service: false, .. } => "label_out",
            Self::Mark { in_service: true, .. } => "node_in",
            Self::Mark { in_service: false, .. } => "node_out",
            Self::Select { .. } => "select",
            Self::Announce { .. } => "announce",
            Self::Withdraw { .. } => "withdraw",
            Self::Replace { .. } => "replace",
        }
    }
}

/// What a node is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is known: nothing on it has ever answered this replica.
    Unknown,
    /// It answers, or has not been silent for long enough to say otherwise.
    Well,
    /// It does not answer.
    Suspect,
    /// It does not answer and does not renew its lease.
    Dead,
}

/// A node that is not well, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ill {
    /// What it is taken for: `Well` for one that answers again and is not used yet.
    pub state: State,
    /// Since when, where it was taken out.
    pub since: Option<Timestamp>,
    /// What was seen. The same text as long as the state is the same.
    pub evidence: String,
    /// Whether it is taken out.
    pub out: bool,
}

/// What follows from what is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Nodes that are not well.
    pub ill: BTreeMap<String, Ill>,
    /// Why a node that does not answer is used all the same.
    pub held: BTreeMap<String, Held>,
    /// The advertisements that defeat ours, by pool.
    pub defeated: BTreeMap<String, BTreeSet<String>>,
}

/// Why a node that does not answer is used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As many nodes as may be are out already.
    Brake,
    /// No other node answers in full: the fault may be ours.
    NoWitness,
}
