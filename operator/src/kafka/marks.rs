//! What on somebody else's Kafka is ours: a record in the platform's directory for each topic that the operator made
//! or was told to take over, written before the topic is, and one that names the platform. Pure.
//!
//! Marks live where the topics live: they survive the loss of every status and every Kubernetes object, and whoever
//! sees the topics sees them too.

use super::directory::{Contents, View};
use super::error::{Class, Failure, Told};
use super::plan::Observed;
use crate::topic::decide::Decision;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_contract::directory::{Key, MadeEntry, OwnerEntry};
use tidegate_crds::reasons;

/// A platform that uses somebody else's Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who it is.
    pub entry: OwnerEntry,
    /// Whether it may take over what another platform left.
    pub adopt: bool,
}

impl Owner {
    /// Whether this platform may write a directory that holds this. `topic` is its name in Kafka.
    pub fn may_write(&self, topic: &str, held: &Contents) -> Result<(), Failure> {
        let holder = held.view.get(&Key::Owner.to_string());
        let holder = holder.and_then(|value| serde_json::from_slice::<OwnerEntry>(value).ok());
        let ours = match &holder {
            Some(holder) => holder.uid == self.entry.uid,
            // Made by us, and then we were interrupted.
            None => held.is_empty(),
        };
        if ours || self.adopt {
            return Ok(());
        }
        let who = match holder {
            Some(OwnerEntry { namespace, name, uid }) => {
                format!(
                    "belongs to IoTPlatform {namespace}/{name} (uid {uid}, this one has {})",
                    self.entry.uid
                )
            }
            None => "holds records and names no platform".to_owned(),
        };
        let text = format!(
            "topic {topic:?} on this Kafka {who}: write another spec.kafka.prefix; or, if that platform is gone and this one continues it, give this IoTPlatform the annotation tidegate.io/adopt: \"true\". Nothing is touched until then"
        );
        let told = Told { reason: reasons::KAFKA_NAME_CONFLICT, class: Class::Blocked, text };
        Err(Failure::new("write the directory", RDKafkaErrorCode::PolicyViolation).meaning(told))
    }

    /// Whether this platform may go on where `bootstrap` leads now, by the ids of the Kafka before and of this one.
    pub fn may_move(&self, bootstrap: &str, before: &str, now: &str) -> Result<(), Failure> {
        if before == now || self.adopt {
            return Ok(());
        }
        let text = format!(
            "spec.kafka.external.bootstrapServers: {bootstrap} leads to another Kafka (cluster id {now}) than the one that this platform's topics are on ({before}): write that one's servers again; or, if the platform is to go on here, with topics as they are here or without any record, give this IoTPlatform the annotation tidegate.io/adopt: \"true\". Nothing is touched here until then"
        );
        let told = Told { reason: reasons::KAFKA_CLUSTER_CHANGED, class: Class::Blocked, text };
        Err(Failure::new("find the platform's Kafka", RDKafkaErrorCode::PolicyViolation).meaning(told))
    }
}

/// What is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The records that say so.
    pub records: View,
    /// Wanted topics that others made, by their name in Kafka: they are left alone.
    pub foreign: BTreeSet<String>,
}

impl Marks {
    /// Whether this topic in Kafka is ours.
    pub fn has(&self, kafka_name: &str) -> bool {
        self.records.contains_key(&key(kafka_name))
    }

    /// Somebody else was faster.
    pub fn give_up(&mut self, kafka_name: &str) {
        self.records.remove(&key(kafka_name));
        self.foreign.insert(kafka_name.to_owned());
    }
}

fn key(kafka_name: &str) -> String {
    Key::Made(kafka_name.to_owned()).to_string()
}

/// Says what is ours, from what the directory (`have`) and Kafka (`seen`) say. A topic that is about to be made is
/// marked before it is: a crash in between leaves a mark without a topic, never a topic without a mark.
pub fn settle(owner: &Owner, decisions: &BTreeMap<String, Decision>, seen: &Observed, have: &View) -> Marks {
    let mut marks = Marks::default();
    let mut write = |key: String, value: serde_json::Result<Vec<u8>>| {
        if let Ok(value) = value {
            marks.records.insert(key, value);
        }
    };
    write(Key::Owner.to_string(), serde_json::to_vec(&owner.entry));
    // What is in Kafka stays ours, also after its Topic: another Topic of that name goes on with it.
    for (text, value) in have {
        if let Some(Key::Made(name)) = Key::parse(text)
            && seen.topics.contains_key(&name)
        {
            write(text.clone(), Ok(value.clone()));
        }
    }
    for decision in decisions.values() {
        let (name, marked) = (&decision.kafka_name, have.get(&key(&decision.kafka_name)));
        match (seen.topics.contains_key(name), marked) {
            (true, Some(_)) => {}
            (true, None) if decision.adopt => {
                if decision.desired.is_some() {
                    write(key(name), serde_json::to_vec(&MadeEntry { adopted: true }));
                }
            }
            (true, None) => {
                marks.foreign.insert(name.clone());
            }
            (false, Some(value)) => {
                if decision.desired.is_some() || decision.paused {
                    write(key(name), Ok(value.clone()));
                }
            }
            (false, None) => {
                if decision.desired.is_some() {
                    write(key(name), serde_json::to_vec(&MadeEntry { adopted: false }));
                }
            }
        }
    }
    marks
}

/// Whether the directory says that a topic is ours.
pub fn is_marked(directory: &View, kafka_name: &str) -> bool {
    directory.contains_key(&key(kafka_name))
}

/// Decisions without routes for what is not ours.
pub fn without_foreign(decisions: &BTreeMap<String, Decision>, marks: &Marks) -> BTreeMap<String, Decision> {
    let mut decisions = decisions.clone();
    for decision in decisions.values_mut().filter(|each| marks.foreign.contains(&each.kafka_name)) {
        decision.entry = None;
        decision.desired = None;
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::plan::{Desired, Topic};

    fn owner(uid: &str, adopt: bool) -> Owner {
        let (namespace, name) = ("iot".to_owned(), "plant".to_owned());
        Owner { entry: OwnerEntry { namespace, name, uid: uid.to_owned() }, adopt }
    }

    fn decisions(adopt: bool, wanted: bool) -> BTreeMap<String, Decision> {
        let name = "acme.t".to_owned();
        let desired = Desired { name: name.clone(), partitions: 3, replicas: 1, config: BTreeMap::new() };
        let decision = Decision {
            kafka_name: name,
            desired: wanted.then_some(desired),
            entry: None,
            lost: Vec::new(),
            paused: false,
            delete: false,
            adopt,
        };
        BTreeMap::from([("t".to_owned(), decision)])
    }

    fn seen(there: bool) -> Observed {
        let topics = there.then(|| ("acme.t".to_owned(), Topic::default())).into_iter().collect();
        Observed { topics, ..Observed::default() }
    }

    fn with(uid: &str) -> View {
        settle(&owner(uid, false), &BTreeMap::new(), &seen(false), &View::new()).records
    }

    #[test]
    fn a_directory_of_another_platform_is_not_written_unless_told_so() {
        assert_eq!(owner("a", false).may_write("acme.tg-directory", &Contents::default()), Ok(()));
        assert_eq!(owner("a", false).may_write("acme.tg-directory", &with("a").into()), Ok(()));
        assert_eq!(owner("b", true).may_write("acme.tg-directory", &with("a").into()), Ok(()));
        let error = owner("b", false).may_write("acme.tg-directory", &with("a").into()).unwrap_err();
        assert_eq!((error.reason(), error.class()), ("KafkaNameConflict", Class::Blocked));
        assert!(
            error.message().contains("IoTPlatform iot/plant (uid a, this one has b)"),
            "{}",
            error.message()
        );
        let unsigned = View::from([("topic/x".to_owned(), Vec::new())]);
        assert!(owner("b", false).may_write("acme.tg-directory", &unsigned.into()).is_err());
    }

    #[test]
    fn another_kafka_than_before_is_left_alone_unless_told_so() {
        assert_eq!(owner("a", false).may_move("k:1", "one", "one"), Ok(()));
        assert_eq!(owner("a", true).may_move("k:1", "one", "two"), Ok(()));
        let error = owner("a", false).may_move("k:1", "one", "two").unwrap_err();
        assert_eq!((error.reason(), error.class()), ("KafkaClusterChanged", Class::Blocked));
        assert!(
            error.message().contains("k:1 leads to another Kafka (cluster id two)"),
            "{}",
            error.message()
        );
    }

    #[test]
    fn a_topic_that_is_about_to_be_made_is_marked_before_and_ours_after() {
        let before = settle(&owner("a", false), &decisions(false, true), &seen(false), &with("a"));
        assert!(before.has("acme.t") && before.foreign.is_empty());
        let after = settle(&owner("a", false), &decisions(false, true), &seen(true), &before.records);
        assert_eq!(after, before);
    }

    #[test]
    fn a_topic_that_others_made_is_ours_only_once_its_sizes_are_known_and_somebody_said_so() {
        let foreign = settle(&owner("a", false), &decisions(false, true), &seen(true), &with("a"));
        assert!(foreign.foreign.contains("acme.t") && !foreign.has("acme.t"));
        assert_eq!(without_foreign(&decisions(false, true), &foreign)["t"].desired, None);
        let asked = settle(&owner("a", false), &decisions(true, false), &seen(true), &with("a"));
        assert!(asked.foreign.is_empty() && !asked.has("acme.t"));
        let adopted = settle(&owner("a", false), &decisions(true, true), &seen(true), &with("a"));
        assert!(adopted.has("acme.t"));
        // The annotation may go again.
        assert!(
            settle(&owner("a", false), &decisions(false, true), &seen(true), &adopted.records).has("acme.t")
        );
    }

    #[test]
    fn what_stays_in_kafka_stays_ours_and_what_is_gone_is_forgotten() {
        let made = settle(&owner("a", false), &decisions(false, true), &seen(false), &with("a")).records;
        assert!(settle(&owner("a", false), &BTreeMap::new(), &seen(true), &made).has("acme.t"));
        assert!(!settle(&owner("a", false), &BTreeMap::new(), &seen(false), &made).has("acme.t"));
        assert!(
            settle(&owner("a", false), &decisions(false, true), &seen(false), &made).has("acme.t"),
            "it comes back"
        );
    }

    #[test]
    fn who_was_slower_gives_up() {
        let mut marks = settle(&owner("a", false), &decisions(false, true), &seen(false), &with("a"));
        marks.give_up("acme.t");
        assert!(!marks.has("acme.t") && marks.foreign.contains("acme.t"));
    }
}
