//! From what the sweep found about a Topic to what its status says. Pure.

use super::decide::NAMED;
use crate::kafka::error::Class;
use crate::kafka::plan::{Desired, Finding, findings};
use crate::kafka::snapshot::{Health, Outcome, Snapshot};
use tidegate_crds::{State, reasons};

/// What the status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Ready`.
    pub ready: State,
    /// Its reason.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// Whether it stays until somebody acts.
    pub stuck: bool,
}

impl Verdict {
    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: State::False, reason, message: message.into(), stuck: false }
    }

    fn stuck(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: State::False, reason, message: message.into(), stuck: true }
    }

    fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: State::True, reason, message: message.into(), stuck: false }
    }
}

/// Judges one Topic. `want` is absent while its sizes are not decided.
pub fn judge(name: &str, want: Option<&Desired>, snapshot: Option<&Snapshot>) -> Verdict {
    let Some(snapshot) = snapshot.filter(|snapshot| snapshot.health != Health::Unknown) else {
        return Verdict::waiting(reasons::KAFKA_NOT_READY, "waiting for the platform's Kafka");
    };
    if let Health::Down(failure) = &snapshot.health {
        return Verdict::waiting(failure.reason(), failure.message());
    }
    let state = snapshot.topics.get(name);
    if state.is_some_and(|state| state.outcome == Outcome::Foreign) {
        return Verdict::stuck(
            reasons::RESOURCE_CONFLICT,
            "the topic is in Kafka already and Tidegate did not make it: give this Topic the annotation tidegate.io/adopt: \"true\" to take it over (its partitions stay, its settings become those that this Topic declares and no others, devices' records go there), or choose another name. It is not touched until then",
        );
    }
    let (Some(state), Some(want)) = (state, want) else {
        if let (None, Some(failure)) = (state, &snapshot.directory) {
            return Verdict::waiting(failure.reason(), failure.message());
        }
        return Verdict::waiting(reasons::PROGRESSING, "waiting for the next look at Kafka");
    };
    let (topic, listed) = match &state.outcome {
        Outcome::Failed(failure) if failure.class() == Class::Blocked => {
            return Verdict::stuck(failure.reason(), failure.message());
        }
        Outcome::Failed(failure) => return Verdict::waiting(failure.reason(), failure.message()),
        Outcome::Waiting | Outcome::Absent | Outcome::Foreign => {
            return Verdict::waiting(reasons::PROGRESSING, "the topic is about to be created in Kafka");
        }
        Outcome::Present { topic, listed } => (topic, *listed),
    };
    let found = findings(want, topic);
    if let Some(bad) = found.iter().find(|each| !each.serves()) {
        return match bad {
            Finding::FewerPartitions(_) => Verdict::stuck(reasons::TOPIC_DIFFERS, bad.message(want)),
            _ => Verdict::waiting(reasons::TOPIC_UNAVAILABLE, bad.message(want)),
        };
    }
    if !state.lost.is_empty() {
        let named = state.lost.iter().take(NAMED);
        let mut lost: Vec<_> =
            named.map(|(filter, holder)| format!("{filter:?} (Topic {holder:?})")).collect();
        if state.lost.len() > NAMED {
            lost.push("and others".to_owned());
        }
        return Verdict::stuck(
            reasons::FILTER_CONFLICT,
            format!("an older Topic has the same filter: {}; remove it here or there", lost.join(", ")),
        );
    }
    if !listed {
        let why = snapshot
            .directory
            .as_ref()
            .map_or_else(String::new, |failure| format!(": {}", failure.message()));
        return Verdict::waiting(reasons::PROGRESSING, format!("gateways are not told about it yet{why}"));
    }
    match found.first() {
        Some(minor) => Verdict::ready(reasons::TOPIC_DIFFERS, minor.message(want)),
        None => Verdict::ready(reasons::READY, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::error::Failure;
    use crate::kafka::plan::Topic;
    use crate::kafka::snapshot::TopicState;
    use rdkafka::error::RDKafkaErrorCode as Code;
    use std::collections::BTreeMap;

    fn want() -> Desired {
        let config = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
        Desired { name: "t".to_owned(), partitions: 12, replicas: 3, config }
    }

    fn healthy() -> Topic {
        Topic { partitions: 12, replicas: 3, in_sync: 3, leaderless: 0, config: None }
    }

    fn snapshot(outcome: Outcome, lost: &[(&str, &str)]) -> Snapshot {
        let lost = lost.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
        let topics = BTreeMap::from([("t".to_owned(), TopicState { outcome, lost })]);
        Snapshot { health: Health::Up, topics, ..Snapshot::default() }
    }

    fn say(snapshot: &Snapshot) -> (State, &'static str, bool) {
        let verdict = judge("t", Some(&want()), Some(snapshot));
        (verdict.ready, verdict.reason, verdict.stuck)
    }

    fn present(topic: Topic, listed: bool) -> Outcome {
        Outcome::Present { topic, listed }
    }

    #[test]
    fn a_topic_is_ready_when_kafka_has_it_and_gateways_know_it() {
        assert_eq!(say(&snapshot(present(healthy(), true), &[])), (State::True, "Ready", false));
        assert_eq!(say(&snapshot(present(healthy(), false), &[])), (State::False, "Progressing", false));
        assert_eq!(say(&snapshot(Outcome::Waiting, &[])), (State::False, "Progressing", false));
    }

    #[test]
    fn a_topic_that_nobody_can_write_says_so() {
        let sick = Topic { in_sync: 1, ..healthy() };
        assert_eq!(say(&snapshot(present(sick, true), &[])), (State::False, "TopicUnavailable", false));
    }

    #[test]
    fn growth_by_others_is_told_and_does_not_stop_it() {
        let grown = Topic { partitions: 24, ..healthy() };
        assert_eq!(say(&snapshot(present(grown, true), &[])), (State::True, "TopicDiffers", false));
        let small = Topic { partitions: 3, ..healthy() };
        assert_eq!(say(&snapshot(present(small, true), &[])), (State::False, "TopicDiffers", true));
    }

    #[test]
    fn a_lost_filter_names_who_has_it() {
        let lost = snapshot(present(healthy(), true), &[("a/#", "older")]);
        assert_eq!(say(&lost), (State::False, "FilterConflict", true));
        let message = judge("t", Some(&want()), Some(&lost)).message;
        assert!(message.contains("\"a/#\" (Topic \"older\")"), "{message}");
    }

    #[test]
    fn kafka_away_is_told_with_kafkas_words_and_passes() {
        let failure = Failure::new("read Kafka's metadata", Code::BrokerTransportFailure);
        let away = Snapshot { health: Health::Down(failure), ..Snapshot::default() };
        assert_eq!(say(&away), (State::False, "KafkaUnreachable", false));
        assert_eq!(judge("t", None, None).reason, "KafkaNotReady");
    }

    #[test]
    fn a_refusal_stays_until_somebody_acts() {
        let refused = Failure::new("create topic \"t\"", Code::InvalidReplicationFactor);
        assert_eq!(say(&snapshot(Outcome::Failed(refused), &[])), (State::False, "TooFewBrokers", true));
    }

    #[test]
    fn a_topic_that_others_made_waits_for_the_word_to_take_it_over() {
        let foreign = snapshot(Outcome::Foreign, &[]);
        assert_eq!(say(&foreign), (State::False, "ResourceConflict", true));
        // Its sizes are not decided: they are Kafka's once it is taken over.
        assert!(judge("t", None, Some(&foreign)).message.contains("tidegate.io/adopt: \"true\""));
    }

    #[test]
    fn while_nobody_can_say_what_is_ours_the_topic_says_why() {
        let denied =
            Failure::new("use transactional id \"tg-operator\"", Code::TransactionalIdAuthorizationFailed);
        let unread = Snapshot { health: Health::Up, directory: Some(denied), ..Snapshot::default() };
        assert_eq!(say(&unread), (State::False, "KafkaForbidden", false));
    }
}
