//! From Topics and what Kafka holds to the directory's records, and what to tell people about it. Pure.

use super::directory::{View, wanted};
use super::plan::Observed;
use crate::topic::decide::Decision;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_crds::reasons;

/// Something that people should hear about a Topic, or about the directory's own topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The Topic; those of [`TOPICS`](tidegate_contract::internal::TOPICS) are told on the platform.
    pub topic: String,
    /// Whether it is a Warning.
    pub warning: bool,
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub text: String,
}

/// The records that the directory should have: topics that Kafka holds, or that it held (they are on their way
/// back). What is paused or cannot be read (`kept`, by Topic name) stays as it is.
pub fn records(
    decisions: &BTreeMap<String, Decision>,
    kept: &BTreeSet<String>,
    seen: &Observed,
    have: &View,
) -> View {
    let key = |name: &str| Key::Topic(name.to_owned()).to_string();
    let entries: Vec<TopicEntry> = decisions
        .values()
        .filter_map(|decision| {
            let mut entry = decision.entry.clone()?;
            match seen.topics.get(&entry.kafka_name) {
                // Growth is never followed; of fewer than declared, only those that are there can be used.
                Some(topic) => entry.partitions = entry.partitions.min(topic.partitions),
                None if have.contains_key(&key(&entry.name)) => {}
                None => return None,
            }
            Some(entry)
        })
        .collect();
    let mut records = wanted(&entries);
    let paused = decisions.iter().filter(|(_, decision)| decision.paused).map(|(name, _)| name);
    for name in paused.chain(kept) {
        let key = key(name);
        if let Some(record) = have.get(&key) {
            records.insert(key, record.clone());
        }
    }
    records
}

/// Topics whose filters change for addresses that may have records already.
pub fn rerouted(have: &View, want: &View) -> Vec<Notice> {
    let parse = |value: &[u8]| serde_json::from_slice::<TopicEntry>(value).ok();
    let mut notices = Vec::new();
    for (key, value) in want {
        let (Some(old), Some(new)) = (have.get(key).and_then(|old| parse(old)), parse(value)) else {
            continue;
        };
        if old.filters != new.filters {
            notices.push(Notice {
                topic: new.name,
                warning: false,
                reason: reasons::ROUTING_CHANGED,
                text: format!(
                    "new records of {} land here (before: {}); records that are stored stay where they are",
                    new.filters.join(", "),
                    old.filters.join(", ")
                ),
            });
        }
    }
    notices
}

/// The platform's own topic `base`, in Kafka `kafka_name`, is gone.
pub fn lost(base: &str, kafka_name: &str) -> Notice {
    Notice {
        topic: base.to_owned(),
        warning: true,
        reason: reasons::TOPIC_RECREATED,
        text: format!(
            "topic {kafka_name:?} was deleted in Kafka by somebody else: it is created again, and what it held is written anew; gateways go on meanwhile"
        ),
    }
}

/// Topics that Kafka held, by the directory's word, and holds no more.
pub fn recreated(decisions: &BTreeMap<String, Decision>, seen: &Observed, have: &View) -> Vec<Notice> {
    let missing = decisions.iter().filter(|(name, decision)| {
        decision.desired.as_ref().is_some_and(|want| !seen.topics.contains_key(&want.name))
            && have.contains_key(&Key::Topic((*name).clone()).to_string())
    });
    missing
        .map(|(name, decision)| Notice {
            topic: name.clone(),
            warning: true,
            reason: reasons::TOPIC_RECREATED,
            text: format!(
                "topic {:?} was deleted in Kafka by somebody else: it is created again, empty; its records are lost",
                decision.kafka_name
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::plan::{Desired, Topic};

    fn decision(name: &str, paused: bool) -> (String, Decision) {
        let entry = TopicEntry {
            name: name.to_owned(),
            kafka_name: name.to_owned(),
            filters: vec![format!("{name}/#")],
            partitions: 12,
            max_message_bytes: 1,
        };
        let desired = Desired { name: name.to_owned(), partitions: 12, replicas: 3, config: BTreeMap::new() };
        let decision = Decision {
            kafka_name: name.to_owned(),
            desired: (!paused).then_some(desired),
            entry: (!paused).then_some(entry),
            lost: Vec::new(),
            paused,
            delete: false,
            adopt: false,
        };
        (name.to_owned(), decision)
    }

    fn seen(topics: &[(&str, i32)]) -> Observed {
        let topic =
            |&(name, partitions): &(&str, i32)| (name.to_owned(), Topic { partitions, ..Topic::default() });
        Observed { topics: topics.iter().map(topic).collect(), ..Observed::default() }
    }

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn partitions(view: &View, key: &str) -> i32 {
        serde_json::from_slice::<TopicEntry>(&view[key]).unwrap().partitions
    }

    #[test]
    fn gateways_hear_of_a_topic_once_kafka_has_it() {
        let all = BTreeMap::from([decision("a", false)]);
        assert!(records(&all, &none(), &seen(&[]), &View::new()).is_empty());
        let there = records(&all, &none(), &seen(&[("a", 12)]), &View::new());
        assert!(there.contains_key("topic/a"));
        // Deleted in Kafka a moment ago: it comes back, and routes must not vanish meanwhile.
        assert_eq!(records(&all, &none(), &seen(&[]), &there), there);
        assert_eq!(recreated(&all, &seen(&[]), &there)[0].reason, "TopicRecreated");
        assert!(recreated(&all, &seen(&[("a", 12)]), &there).is_empty());
    }

    #[test]
    fn partitions_grown_in_kafka_are_not_followed() {
        let all = BTreeMap::from([decision("a", false)]);
        assert_eq!(partitions(&records(&all, &none(), &seen(&[("a", 24)]), &View::new()), "topic/a"), 12);
        assert_eq!(partitions(&records(&all, &none(), &seen(&[("a", 4)]), &View::new()), "topic/a"), 4);
    }

    #[test]
    fn what_is_paused_or_unreadable_stays_and_what_is_gone_goes() {
        let all = BTreeMap::from([decision("a", false), decision("b", false), decision("c", false)]);
        let have = records(&all, &none(), &seen(&[("a", 1), ("b", 1), ("c", 1)]), &View::new());
        let now = BTreeMap::from([decision("a", true)]);
        let kept = BTreeSet::from(["b".to_owned()]);
        let want = records(&now, &kept, &seen(&[("a", 1), ("b", 1), ("c", 1)]), &have);
        assert_eq!(want.keys().collect::<Vec<_>>(), ["topic/a", "topic/b"]);
        assert_eq!(want["topic/a"], have["topic/a"]);
    }

    #[test]
    fn a_changed_filter_is_told() {
        let mut all = BTreeMap::from([decision("a", false)]);
        let have = records(&all, &none(), &seen(&[("a", 12)]), &View::new());
        all.get_mut("a").unwrap().entry.as_mut().unwrap().filters = vec!["b/#".to_owned()];
        let want = records(&all, &none(), &seen(&[("a", 12)]), &have);
        let notices = rerouted(&have, &want);
        assert!(notices[0].text.starts_with("new records of b/# land here (before: a/#)"));
        assert!(rerouted(&have, &have).is_empty());
    }
}
