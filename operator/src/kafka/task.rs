//! What a platform's sweep works with. Pure.

use super::access::Access;
use super::error::Failure;
use super::marks::Owner;
use super::names::VOTERS;
use super::plan::{Desired, Observed};
use super::snapshot::Snapshot;
use tidegate_contract::internal;

/// What a platform's sweep works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// How to reach Kafka.
    pub access: Access,
    /// Who keeps this Kafka.
    pub keeper: Keeper,
    /// Whether `tidegate.io/paused` stops all writes.
    pub paused: bool,
}

/// Who keeps a Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Tidegate: everything in it is the platform's.
    Tidegate {
        /// The brokers that are declared.
        brokers: i32,
    },
    /// Somebody else, who may keep other things in it.
    Others(Owner),
}

impl Task {
    /// The platform, where somebody else keeps its Kafka.
    pub const fn owner(&self) -> Option<&Owner> {
        match &self.keeper {
            Keeper::Others(owner) => Some(owner),
            Keeper::Tidegate { .. } => None,
        }
    }

    /// Nothing is done on a Kafka that is not the one from before: its topics and the devices' records are elsewhere.
    pub fn may_go_on(&self, last: &Snapshot, seen: &Observed) -> Result<(), Failure> {
        match (self.owner(), &last.cluster_id, &seen.cluster_id) {
            (Some(owner), Some(before), Some(now)) => owner.may_move(&self.access.bootstrap, before, now),
            _ => Ok(()),
        }
    }

    /// The platform's own topics, the directory's first: compacted, in small segments so that cold starts read little.
    /// Their copies are decided when they are made.
    pub fn own_topics(&self, seen: &Observed) -> Vec<Desired> {
        let hour = || (60 * 60 * 1000).to_string();
        let presence = [
            // Each connection leaves a tombstone, and whoever starts reads all that are kept.
            ("delete.retention.ms", hour()),
            ("max.compaction.lag.ms", hour()),
        ];
        // Pods come and go, and only what was said within seconds counts.
        let gateways = [("cleanup.policy", "compact,delete".to_owned()), ("retention.ms", hour())];
        vec![
            self.own_topic(internal::DIRECTORY, 1, [], seen),
            self.own_topic(internal::PRESENCE, internal::PRESENCE_PARTITIONS, presence, seen),
            self.own_topic(internal::GATEWAYS, 1, gateways, seen),
        ]
    }

    fn own_topic<const N: usize>(
        &self,
        base: &str,
        partitions: i32,
        more: [(&str, String); N],
        seen: &Observed,
    ) -> Desired {
        let name = internal::name(&self.access.prefix, base);
        let replicas = match self.keeper {
            Keeper::Tidegate { brokers } => brokers.min(VOTERS),
            Keeper::Others(_) => match seen.topics.get(&name) {
                Some(topic) => topic.replicas,
                None => alive(seen).clamp(1, VOTERS),
            },
        };
        let min_in_sync_replicas = (replicas - 1).max(1);
        let config = [
            ("cleanup.policy", "compact".to_owned()),
            ("max.message.bytes", "1114112".to_owned()),
            ("min.insync.replicas", min_in_sync_replicas.to_string()),
            ("segment.bytes", (64 << 20).to_string()),
            ("segment.ms", "3600000".to_owned()),
        ];
        let config = config.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
        Desired { name, partitions, replicas, config: config.collect() }
    }
}

/// How many brokers there are.
pub fn alive(seen: &Observed) -> i32 {
    i32::try_from(seen.brokers.len()).unwrap_or(i32::MAX)
}
