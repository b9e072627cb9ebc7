//! What a Topic is in Kafka: what was decided at its creation, and Kafka's settings from it. Pure.

use crate::kafka::plan::Desired;
use std::collections::BTreeMap;
use tidegate_crds::platform::TopicDefaults;
use tidegate_crds::topic::{Cleanup, TopicEffective};
use tidegate_crds::{Duration, Retention, TopicSpec};

const PARTITIONS: i32 = 12;
const REPLICAS: i32 = 3;
const MIN_IN_SYNC: i32 = 2;
/// A week.
const RETENTION: Duration = Duration::from_secs(168 * 3600);

/// What is in effect. Partitions are decided once: at creation, or by what Kafka already has under that name.
/// Everything else follows the spec where it says something, else what was decided, else the platform's defaults.
pub fn effective(
    spec: &TopicSpec,
    decided: Option<&TopicEffective>,
    defaults: Option<&TopicDefaults>,
    in_kafka: Option<i32>,
) -> TopicEffective {
    let none = TopicDefaults::default();
    let defaults = defaults.unwrap_or(&none);
    let nothing = TopicEffective::default();
    let decided = decided.unwrap_or(&nothing);
    let partitions =
        decided.partitions.or(spec.partitions).or(in_kafka).or(defaults.partitions).unwrap_or(PARTITIONS);
    let replicas = spec.replicas.or(decided.replicas).or(defaults.replicas).unwrap_or(REPLICAS);
    let min_in_sync = spec
        .min_in_sync_replicas
        .or(decided.min_in_sync_replicas)
        .or(defaults.min_in_sync_replicas)
        .unwrap_or(MIN_IN_SYNC)
        .min(replicas);
    let retention = spec
        .retention
        .clone()
        .or_else(|| decided.retention.clone())
        .or_else(|| defaults.retention.clone())
        .unwrap_or(Retention { time: Some(RETENTION), bytes: None });
    TopicEffective {
        partitions: Some(partitions),
        replicas: Some(replicas),
        min_in_sync_replicas: Some(min_in_sync),
        retention: Some(retention),
    }
}

/// The topic as Kafka should have it; nothing before everything is decided.
pub fn desired(kafka_name: &str, spec: &TopicSpec, effective: &TopicEffective) -> Option<Desired> {
    let retention = effective.retention.as_ref()?;
    let unlimited = || "-1".to_owned();
    let (policy, deletes) = match spec.cleanup {
        Cleanup::Delete => ("delete", true),
        Cleanup::Compact => ("compact", false),
        Cleanup::CompactAndDelete => ("compact,delete", true),
    };
    let time = retention.time.filter(|_| deletes).map_or_else(unlimited, |time| time.as_millis().to_string());
    let bytes =
        retention.bytes.as_ref().filter(|_| deletes).map_or_else(unlimited, |size| size.value().to_string());
    let config = [
        ("cleanup.policy", policy.to_owned()),
        ("max.message.bytes", spec.max_message_bytes.value().to_string()),
        ("min.insync.replicas", effective.min_in_sync_replicas?.to_string()),
        ("retention.bytes", bytes),
        ("retention.ms", time),
    ];
    Some(Desired {
        name: kafka_name.to_owned(),
        partitions: effective.partitions?,
        replicas: effective.replicas?,
        config: config.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> TopicSpec {
        let mut all: serde_json::Value = serde_json::from_str(json).unwrap();
        all["platformRef"] = serde_json::json!({"name": "plant"});
        serde_json::from_value(all).unwrap()
    }

    fn defaults() -> TopicDefaults {
        TopicDefaults { partitions: Some(6), ..TopicDefaults::default() }
    }

    #[test]
    fn what_was_decided_at_creation_stays_when_the_defaults_change() {
        let first = effective(&spec("{}"), None, Some(&defaults()), None);
        assert_eq!(
            (first.partitions, first.replicas, first.min_in_sync_replicas),
            (Some(6), Some(3), Some(2))
        );
        let later = TopicDefaults { partitions: Some(48), replicas: Some(5), ..TopicDefaults::default() };
        assert_eq!(effective(&spec("{}"), Some(&first), Some(&later), None), first);
    }

    #[test]
    fn partitions_stay_even_against_the_spec_while_the_rest_follows_it() {
        let first = effective(&spec("{}"), None, Some(&defaults()), None);
        let changed = spec(r#"{"partitions": 24, "retention": {"time": "1h"}}"#);
        let second = effective(&changed, Some(&first), None, None);
        assert_eq!(second.partitions, Some(6));
        assert_eq!(second.retention.unwrap().time, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_topic_that_kafka_already_has_keeps_its_partitions() {
        assert_eq!(effective(&spec("{}"), None, Some(&defaults()), Some(48)).partitions, Some(48));
    }

    #[test]
    fn one_replica_needs_no_second_in_sync() {
        let single = effective(&spec(r#"{"replicas": 1}"#), None, None, None);
        assert_eq!(single.min_in_sync_replicas, Some(1));
    }

    #[test]
    fn the_spec_becomes_kafkas_settings() {
        let spec = spec(r#"{"retention": {"time": "168h", "bytes": "1Gi"}}"#);
        let want = desired("p.t", &spec, &effective(&spec, None, None, None)).unwrap();
        insta::assert_yaml_snapshot!(want.config, @r#"
        cleanup.policy: delete
        max.message.bytes: "1114112"
        min.insync.replicas: "2"
        retention.bytes: "1073741824"
        retention.ms: "604800000"
        "#);
    }

    #[test]
    fn a_compacted_topic_keeps_the_newest_of_each_address_without_an_end() {
        let spec = spec(r#"{"cleanup": "Compact"}"#);
        let want = desired("t", &spec, &effective(&spec, None, None, None)).unwrap();
        assert_eq!(want.config["cleanup.policy"], "compact");
        assert_eq!(want.config["retention.ms"], "-1");
    }
}
