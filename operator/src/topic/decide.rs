//! Which Topic has which filter, and what Kafka and the directory should hold for each. Pure.

use super::effective::desired;
use crate::kafka::plan::Desired;
use kube::ResourceExt as _;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use tidegate_contract::directory::TopicEntry;
use tidegate_contract::{Filter, FilterError, internal};
use tidegate_crds::topic::DeletionPolicy;
use tidegate_crds::{Topic, labels};

/// The finalizer of a Topic whose records go with it.
pub const FINALIZER: &str = "tidegate.io/kafka-topic";

/// How many lost filters are told: thousands of Topics may lose all of theirs at once, and each is kept in memory.
pub const NAMED: usize = 4;

/// A filter that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// A filter does not parse.
    #[error("spec.filters[{index}] {text:?}: {error}")]
    Filter {
        /// Its place.
        index: usize,
        /// The text.
        text: String,
        /// What is wrong and what to write.
        error: FilterError,
    },
    /// The name is kept for the platform.
    #[error(
        "the name {0:?} is kept for the platform's own topics: choose one that does not start with tg- or __"
    )]
    Reserved(String),
}

/// The filters of a Topic: `<name>/#` where it says nothing. They are borrowed: thousands of Topics are looked at in every
/// sweep, and each may have many long ones.
pub fn filters(topic: &Topic) -> Result<Vec<Cow<'_, str>>, InvalidTopic> {
    let name = topic.name_any();
    if internal::is_reserved(&name) {
        return Err(InvalidTopic::Reserved(name));
    }
    let texts: Vec<_> = if topic.spec.filters.is_empty() {
        vec![Cow::Owned(format!("{name}/#"))]
    } else {
        topic.spec.filters.iter().map(|text| Cow::Borrowed(text.as_str())).collect()
    };
    for (index, text) in texts.iter().enumerate() {
        Filter::check(text).map_err(|error| InvalidTopic::Filter {
            index,
            text: text.clone().into_owned(),
            error,
        })?;
    }
    Ok(texts)
}

/// What follows from one Topic, among all of its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The name in Kafka.
    pub kafka_name: String,
    /// What Kafka should hold; absent: not decided yet, paused, or being deleted.
    pub desired: Option<Desired>,
    /// What the directory should hold once Kafka has the topic; absent: nothing.
    pub entry: Option<TopicEntry>,
    /// Filters that an older Topic has, with its name: at most one more than [`NAMED`].
    pub lost: Vec<(String, String)>,
    /// Whether `tidegate.io/paused` keeps everything as it is.
    pub paused: bool,
    /// Whether the topic in Kafka should go.
    pub delete: bool,
    /// Whether a topic that others made may be taken over.
    pub adopt: bool,
}

/// Oldest first; of the same second, by name.
fn age(a: &Topic, b: &Topic) -> Ordering {
    let made = |topic: &Topic| topic.metadata.creation_timestamp.as_ref().map(|time| time.0);
    made(a).cmp(&made(b)).then_with(|| a.name_any().cmp(&b.name_any()))
}

/// Decides over all Topics of one platform, by name. Topics that are invalid get no decision.
pub fn decide<'a>(prefix: &str, topics: impl Iterator<Item = &'a Topic>) -> BTreeMap<String, Decision> {
    let mut sorted: Vec<_> = topics.collect();
    sorted.sort_by(|a, b| age(a, b));
    let mut taken: BTreeMap<Cow<'a, str>, &'a Topic> = BTreeMap::new();
    let mut decisions = BTreeMap::new();
    for topic in sorted {
        let name = topic.name_any();
        let Ok(filters) = filters(topic) else { continue };
        let kafka_name = internal::name(prefix, &name);
        let deleting = topic.metadata.deletion_timestamp.is_some();
        let paused = labels::is_true(topic.annotations().get(labels::PAUSED));
        let mut decision = Decision {
            kafka_name,
            desired: None,
            entry: None,
            lost: Vec::new(),
            paused,
            delete: false,
            adopt: labels::is_true(topic.annotations().get(labels::ADOPT)),
        };
        if deleting {
            decision.delete = !paused
                && topic.spec.deletion_policy == DeletionPolicy::Delete
                && topic.finalizers().iter().any(|each| each == FINALIZER);
            decisions.insert(name, decision);
            continue;
        }
        let mut won = Vec::new();
        for text in filters {
            match taken.get(&text) {
                Some(holder) if !std::ptr::eq(*holder, topic) && decision.lost.len() <= NAMED => {
                    decision.lost.push((text.into_owned(), holder.name_any()));
                }
                Some(_) => {}
                None => {
                    won.push(text.clone().into_owned());
                    taken.insert(text, topic);
                }
            }
        }
        let decided = topic.status.as_ref().and_then(|status| status.effective.as_ref());
        let want = decided.and_then(|decided| desired(&decision.kafka_name, &topic.spec, decided));
        if let Some(want) = want.filter(|_| !paused) {
            if !won.is_empty() {
                decision.entry = Some(TopicEntry {
                    name: name.clone(),
                    kafka_name: decision.kafka_name.clone(),
                    filters: won,
                    partitions: want.partitions,
                    max_message_bytes: topic.spec.max_message_bytes.value(),
                });
            }
            decision.desired = Some(want);
        }
        decisions.insert(name, decision);
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::effective::effective;
    use tidegate_crds::TopicStatus;

    fn topic(name: &str, second: i64, filters: &[&str]) -> Topic {
        let json = serde_json::json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"platformRef": {"name": "plant"}, "filters": filters},
        });
        let mut topic: Topic = serde_json::from_value(json).unwrap();
        let effective = Some(effective(&topic.spec, None, None, None));
        topic.status = Some(TopicStatus { effective, ..TopicStatus::default() });
        topic
    }

    fn decide_all(topics: &[Topic]) -> BTreeMap<String, Decision> {
        decide("p.", topics.iter())
    }

    #[test]
    fn the_oldest_has_the_filter_and_the_other_keeps_the_rest() {
        let all = decide_all(&[topic("young", 9, &["a/#", "b/#"]), topic("old", 1, &["a/#"])]);
        assert_eq!(all["old"].entry.as_ref().unwrap().filters, ["a/#"]);
        assert_eq!(all["young"].entry.as_ref().unwrap().filters, ["b/#"]);
        assert_eq!(all["young"].lost, [("a/#".to_owned(), "old".to_owned())]);
    }

    #[test]
    fn of_many_lost_filters_a_few_are_kept() {
        let filters: Vec<_> = (0..64).map(|n| format!("f{n}/#")).collect();
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let all = decide_all(&[topic("old", 1, &filters), topic("young", 2, &filters)]);
        assert_eq!((all["young"].lost.len(), &all["young"].entry), (NAMED + 1, &None));
    }

    #[test]
    fn a_topic_without_any_filter_left_is_in_kafka_and_not_in_the_directory() {
        let all = decide_all(&[topic("b", 1, &["x"]), topic("a", 1, &["x"])]);
        assert_eq!(all["b"].entry, None);
        assert!(all["b"].desired.is_some());
        assert_eq!(all["b"].lost[0].1, "a");
    }

    #[test]
    fn a_topic_without_filters_has_its_own_name() {
        let all = decide_all(&[topic("telemetry", 1, &[])]);
        assert_eq!(all["telemetry"].entry.as_ref().unwrap().filters, ["telemetry/#"]);
        assert_eq!(all["telemetry"].kafka_name, "p.telemetry");
    }

    #[test]
    fn nothing_happens_in_kafka_before_the_sizes_are_decided() {
        let mut fresh = topic("fresh", 1, &["x"]);
        fresh.status = None;
        let all = decide_all(&[fresh]);
        assert_eq!((&all["fresh"].desired, &all["fresh"].entry), (&None, &None));
    }

    #[test]
    fn a_topic_that_is_deleted_frees_its_filters_and_its_records_only_if_it_says_so() {
        let mut going = topic("going", 1, &["x"]);
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        going.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let all = decide_all(&[going.clone(), topic("next", 2, &["x"])]);
        assert!(!all["going"].delete && all["going"].entry.is_none());
        assert_eq!(all["next"].entry.as_ref().unwrap().filters, ["x"]);
        going.spec.deletion_policy = DeletionPolicy::Delete;
        assert!(decide_all(&[going])["going"].delete);
    }

    #[test]
    fn an_invalid_filter_is_refused_with_its_place_and_the_contracts_words() {
        let error = filters(&topic("t", 1, &["a/#", "a#"])).unwrap_err();
        assert!(error.to_string().starts_with("spec.filters[1] \"a#\": \"#\" stands alone"), "{error}");
        assert!(decide_all(&[topic("t", 1, &["a#"])]).is_empty());
        assert!(matches!(filters(&topic("__x", 1, &[])), Err(InvalidTopic::Reserved(_))));
    }
}
