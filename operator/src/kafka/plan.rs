//! Topics: what is wanted, what is there, what must change. Pure.

use super::error::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// What reassignment tools put on a topic while they move its replicas: theirs, and gone when they are done.
const THROTTLES: [&str; 2] =
    ["follower.replication.throttled.replicas", "leader.replication.throttled.replicas"];

/// A topic as it should be in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The name in Kafka, prefix included.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Copies of each record.
    pub replicas: i32,
    /// The settings that the topic has, by Kafka's names: it has no other.
    pub config: BTreeMap<String, String>,
}

impl Desired {
    /// All settings that a topic with those of `have` should be left with.
    pub fn whole(&self, have: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let kept = have.iter().filter(|(name, _)| THROTTLES.contains(&name.as_str()));
        let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
        kept.chain(self.config.clone()).collect()
    }
}

/// What was seen in one sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The brokers that are alive.
    pub brokers: BTreeSet<i32>,
    /// Brokers that should hold copies of a topic and are not there.
    pub away: BTreeSet<i32>,
    /// All topics that Kafka shows us.
    pub topics: BTreeMap<String, Topic>,
    /// Kafka's own name for the cluster.
    pub cluster_id: Option<String>,
    /// Topics whose settings Kafka does not show us.
    pub hidden: BTreeMap<String, Failure>,
}

/// A topic as it is in Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Partitions.
    pub partitions: i32,
    /// The fewest replicas of any partition.
    pub replicas: i32,
    /// The fewest in-sync replicas of any partition.
    pub in_sync: i32,
    /// Partitions without a leader.
    pub leaderless: i32,
    /// Settings made on the topic itself; absent: not asked in this sweep.
    pub config: Option<BTreeMap<String, String>>,
}

/// What must be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Topics to create.
    pub create: Vec<Desired>,
    /// Topics whose settings differ, with the whole new set (changing settings in Kafka replaces all of them).
    pub configure: Vec<(String, BTreeMap<String, String>)>,
    /// Topics to delete.
    pub delete: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.create.is_empty() && self.configure.is_empty() && self.delete.is_empty()
    }
}

/// Plans what makes `observed` as `desired`. Settings that others made on a topic go: a stray `retention.bytes` would
/// delete records. Partitions and replicas are never changed: that would move addresses, or data.
pub fn plan(desired: &[Desired], delete: &BTreeSet<String>, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for want in desired {
        match observed.topics.get(&want.name) {
            None => plan.create.push(want.clone()),
            Some(Topic { config: Some(have), .. }) => {
                let whole = want.whole(have);
                if whole != *have {
                    plan.configure.push((want.name.clone(), whole));
                }
            }
            Some(_) => {}
        }
    }
    plan.delete = delete.iter().filter(|&name| observed.topics.contains_key(name)).cloned().collect();
    plan
}

/// What a topic in Kafka says about itself, as far as it is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Partitions without a leader: nothing can be written there.
    Leaderless(i32),
    /// Too few copies in sync: nothing is acknowledged.
    UnderMinInSync {
        /// The fewest in-sync replicas.
        in_sync: i32,
        /// How many it takes.
        needed: i32,
    },
    /// More partitions than declared: somebody grew the topic.
    MorePartitions(i32),
    /// Fewer partitions than declared: the topic was made by somebody else.
    FewerPartitions(i32),
    /// Another number of replicas than declared.
    Replicas(i32),
}

impl Finding {
    /// Whether the topic serves nevertheless.
    pub const fn serves(&self) -> bool {
        matches!(self, Self::MorePartitions(_) | Self::Replicas(_))
    }

    /// What to tell people.
    pub fn message(&self, want: &Desired) -> String {
        match self {
            Self::Leaderless(count) => {
                format!(
                    "{count} of {} partitions have no leader: wait for the brokers, or look at their pods",
                    want.partitions
                )
            }
            Self::UnderMinInSync { in_sync, needed } => format!(
                "a partition has {in_sync} replicas in sync and needs {needed}: nothing is acknowledged until brokers are back"
            ),
            Self::MorePartitions(have) => format!(
                "the topic has {have} partitions in Kafka, declared are {}: the additional ones are not used, because addresses would move",
                want.partitions
            ),
            Self::FewerPartitions(have) => format!(
                "the topic has {have} partitions in Kafka, declared are {}: write partitions: {have} in a new Topic resource, or another name",
                want.partitions
            ),
            Self::Replicas(have) => format!(
                "the topic has {have} replicas in Kafka, declared are {}: this version of Tidegate does not move replicas",
                want.replicas
            ),
        }
    }
}

/// Compares one topic with what is wanted, worst first.
pub fn findings(want: &Desired, have: &Topic) -> Vec<Finding> {
    let mut found = Vec::new();
    if have.leaderless > 0 {
        found.push(Finding::Leaderless(have.leaderless));
    }
    let needed = want.config.get("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1);
    if have.in_sync < needed {
        found.push(Finding::UnderMinInSync { in_sync: have.in_sync, needed });
    }
    if have.partitions < want.partitions {
        found.push(Finding::FewerPartitions(have.partitions));
    }
    if have.partitions > want.partitions {
        found.push(Finding::MorePartitions(have.partitions));
    }
    if have.replicas != want.replicas {
        found.push(Finding::Replicas(have.replicas));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn desired() -> Desired {
        Desired {
            name: "telemetry".to_owned(),
            partitions: 12,
            replicas: 3,
            config: config(&[("retention.ms", "1000"), ("min.insync.replicas", "2")]),
        }
    }

    fn healthy(entries: &[(&str, &str)]) -> Topic {
        Topic { partitions: 12, replicas: 3, in_sync: 3, leaderless: 0, config: Some(config(entries)) }
    }

    fn observed(topic: Option<Topic>) -> Observed {
        let topics = topic.map(|topic| ("telemetry".to_owned(), topic)).into_iter().collect();
        Observed { brokers: [0, 1, 2].into(), topics, ..Observed::default() }
    }

    #[test]
    fn a_topic_that_is_not_there_is_created() {
        let plan = plan(&[desired()], &BTreeSet::new(), &observed(None));
        assert_eq!(plan.create, [desired()]);
        assert!(plan.configure.is_empty());
    }

    #[test]
    fn a_changed_setting_is_put_back_and_a_strangers_setting_is_removed() {
        let ours = [("retention.ms", "1000"), ("min.insync.replicas", "2")];
        let stray = [ours[0], ours[1], ("retention.bytes", "1")];
        let moving = ("leader.replication.throttled.replicas", "0:1");
        for (have, whole) in [
            (&[("retention.ms", "5"), ours[1]][..], &ours[..]),
            (&[ours[0]], &ours),
            (&stray, &ours),
            (&[stray[0], stray[1], stray[2], moving], &[ours[0], ours[1], moving]),
        ] {
            let plan = plan(&[desired()], &BTreeSet::new(), &observed(Some(healthy(have))));
            assert_eq!(plan.configure, [("telemetry".to_owned(), config(whole))]);
        }
        let throttled = healthy(&[ours[0], ours[1], moving]);
        assert!(plan(&[desired()], &BTreeSet::new(), &observed(Some(throttled))).is_empty());
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let have = healthy(&[("retention.ms", "1000"), ("min.insync.replicas", "2")]);
        assert!(plan(&[desired()], &BTreeSet::new(), &observed(Some(have.clone()))).is_empty());
        assert!(findings(&desired(), &have).is_empty());
    }

    #[test]
    fn only_what_is_there_is_deleted() {
        let delete = BTreeSet::from(["telemetry".to_owned(), "gone".to_owned()]);
        let plan = plan(&[], &delete, &observed(Some(healthy(&[]))));
        assert_eq!(plan.delete, ["telemetry"]);
    }

    #[test]
    fn growth_is_reported_and_never_followed() {
        let grown =
            Topic { partitions: 24, ..healthy(&[("retention.ms", "1000"), ("min.insync.replicas", "2")]) };
        assert!(plan(&[desired()], &BTreeSet::new(), &observed(Some(grown.clone()))).is_empty());
        let found = findings(&desired(), &grown);
        assert_eq!(found, [Finding::MorePartitions(24)]);
        assert!(found[0].serves());
    }

    #[test]
    fn too_few_copies_in_sync_is_said_before_anything_else() {
        let sick = Topic { in_sync: 1, leaderless: 2, replicas: 1, ..healthy(&[]) };
        let found = findings(&desired(), &sick);
        assert_eq!(found[0], Finding::Leaderless(2));
        assert_eq!(found[1], Finding::UnderMinInSync { in_sync: 1, needed: 2 });
        assert!(!found[1].serves() && found[1].message(&desired()).contains("needs 2"));
    }

    proptest! {
        #[test]
        fn carrying_out_a_plan_leaves_nothing_to_plan(
            have in proptest::option::of(proptest::collection::btree_map("[a-c]\\.ms", "[0-9]{1,3}", 0..4)),
            want in proptest::collection::btree_map("[a-c]\\.ms", "[0-9]{1,3}", 0..4),
        ) {
            let want = Desired { config: want, ..desired() };
            let mut seen = observed(have.map(|config| Topic { config: Some(config), ..healthy(&[]) }));
            let first = plan(std::slice::from_ref(&want), &BTreeSet::new(), &seen);
            for create in &first.create {
                seen.topics.insert(create.name.clone(), Topic { config: Some(create.config.clone()), ..healthy(&[]) });
            }
            for (name, config) in &first.configure {
                seen.topics.get_mut(name).unwrap().config = Some(config.clone());
            }
            prop_assert!(plan(&[want], &BTreeSet::new(), &seen).is_empty());
        }
    }
}
