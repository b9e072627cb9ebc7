//! Which broker may be away, as far as records and metadata are concerned. Pure.
//!
//! A sweep that is asked for it looks at every partition of the cluster, Kafka's own and strangers' included, and
//! keeps one line per broker: a platform with thousands of partitions costs no more to remember than a small one.

use super::wire::quorum::Quorum;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One partition of any topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The topic, as Kafka names it.
    pub topic: String,
    /// Its number.
    pub number: i32,
    /// Brokers that should hold it.
    pub replicas: Vec<i32>,
    /// Brokers that hold all of it.
    pub in_sync: Vec<i32>,
    /// How many of these an acknowledgement needs; absent: nobody said.
    pub min_in_sync: Option<usize>,
}

impl Partition {
    /// What an acknowledgement needs. Unknown: as much as can be without forbidding every restart.
    pub fn needs(&self) -> usize {
        self.min_in_sync.unwrap_or_else(|| self.replicas.len().saturating_sub(1)).max(1)
    }

    /// Whether it can do without any one of its brokers.
    pub fn can_spare_one(&self) -> bool {
        self.replicas.len() > self.needs()
    }
}

/// So many partitions, and one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several {
    /// How many.
    pub count: usize,
    /// The first: `telemetry/3`.
    pub example: String,
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "partition {}", self.example),
            count => write!(f, "{count} partitions ({} is one)", self.example),
        }
    }
}

/// What one broker means to the partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Partitions that would fall below their minimum without it.
    pub needed: Option<Several>,
    /// Partitions that it should hold and has not caught up with.
    pub behind: Option<Several>,
}

/// Which broker may be away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Brokers that are in the cluster.
    pub brokers: BTreeSet<i32>,
    /// What each of them means.
    pub standing: BTreeMap<i32, Standing>,
    /// Partitions that can spare no broker ever: they stand still while one of theirs restarts.
    pub fragile: Option<Several>,
    /// Partitions that no broker of the cluster has all of, by each broker that should hold them and is away: their newest
    /// records may be on its disk only.
    pub only_on: BTreeMap<i32, Several>,
    /// Kafka's controllers.
    pub quorum: Quorum,
}

impl Survey {
    /// Sums up what was seen. Only brokers in the cluster count as in sync: Kafka keeps the last one of a partition
    /// in its list even when it is gone.
    pub fn of(brokers: BTreeSet<i32>, partitions: &[Partition], quorum: Quorum) -> Self {
        let mut standing: BTreeMap<_, _> = brokers.iter().map(|id| (*id, Standing::default())).collect();
        let (mut fragile, mut only_on) = (None, BTreeMap::new());
        for partition in partitions {
            let spares = partition.can_spare_one();
            if !spares {
                add(&mut fragile, partition);
            }
            let alive = partition.in_sync.iter().filter(|&id| brokers.contains(id)).count();
            let lost = |id: &&i32| alive == 0 && !brokers.contains(id);
            for id in partition.replicas.iter().filter(lost) {
                let mut several = only_on.remove(id);
                add(&mut several, partition);
                only_on.extend(several.map(|several| (*id, several)));
            }
            for id in &partition.replicas {
                let Some(own) = standing.get_mut(id) else { continue };
                if !partition.in_sync.contains(id) {
                    add(&mut own.behind, partition);
                } else if spares && alive <= partition.needs() {
                    add(&mut own.needed, partition);
                }
            }
        }
        Self { brokers, standing, fragile, only_on, quorum }
    }

    /// Whether metadata could still be written without this node: a majority of voters that have everything stays. A
    /// quorum that cannot spare any of its voters never can.
    pub fn quorum_spares(&self, node: i32) -> bool {
        let quorum = &self.quorum;
        if !quorum.voters.contains_key(&node) || quorum.voters.len() <= quorum.majority() {
            return true;
        }
        let others = quorum.voters.iter().filter(|(id, voter)| **id != node && voter.caught_up).count();
        others >= quorum.majority()
    }
}

fn add(several: &mut Option<Several>, partition: &Partition) {
    if let Some(several) = several {
        several.count += 1;
    } else {
        let example = format!("{}/{}", partition.topic, partition.number);
        *several = Some(Several { count: 1, example });
    }
}
