//! From what a sweep found to what controllers read about Topics. Pure.

use super::admin::Outcomes;
use super::directory::View;
use super::error::Failure;
use super::marks::Marks;
use super::plan::{Desired, Finding, Observed, Topic, findings};
use super::snapshot::{Outcome, TopicState};
use crate::topic::decide::Decision;
use std::collections::BTreeMap;
use tidegate_contract::directory;

/// What is said about each Topic. `ours`: on somebody else's Kafka.
pub fn summary(
    decisions: &BTreeMap<String, Decision>,
    outcomes: &Outcomes,
    seen: &Observed,
    view: Option<&View>,
    ours: Option<&Marks>,
) -> BTreeMap<String, TopicState> {
    let listed = |name: &str| {
        let key = directory::Key::Topic(name.to_owned()).to_string();
        view.is_some_and(|view| view.contains_key(&key))
    };
    let one = |(name, decision): (&String, &Decision)| {
        let failed = outcomes.get(&decision.kafka_name).and_then(|outcome| outcome.as_ref().err());
        let foreign = ours.is_some_and(|ours| ours.foreign.contains(&decision.kafka_name));
        let outcome = match (failed, seen.topics.get(&decision.kafka_name)) {
            (_, Some(_)) if foreign => Outcome::Foreign,
            (Some(failure), _) => Outcome::Failed(failure.clone()),
            (None, Some(topic)) => {
                Outcome::Present { topic: Topic { config: None, ..topic.clone() }, listed: listed(name) }
            }
            (None, None) if decision.delete => Outcome::Absent,
            (None, None) => Outcome::Waiting,
        };
        (name.clone(), TopicState { outcome, lost: decision.lost.clone() })
    };
    decisions.iter().map(one).collect()
}

/// A wanted topic of which nothing is acknowledged, with why. One that could never spare a broker says so itself
/// whenever one is away.
pub fn short(wanted: &[Desired], seen: &Observed) -> Option<String> {
    let min =
        |want: &Desired| want.config.get("min.insync.replicas").and_then(|text| text.parse::<i32>().ok());
    wanted.iter().filter(|want| want.replicas > min(want).unwrap_or(1)).find_map(|want| {
        let found = findings(want, seen.topics.get(&want.name)?);
        let worst = found
            .into_iter()
            .find(|finding| matches!(finding, Finding::Leaderless(_) | Finding::UnderMinInSync { .. }))?;
        Some(format!("topic {}: {}", want.name, worst.message(want)))
    })
}

/// What is said about each Topic while Kafka is away.
pub fn unreachable(
    decisions: &BTreeMap<String, Decision>,
    failure: &Failure,
) -> BTreeMap<String, TopicState> {
    let one = |(name, decision): (&String, &Decision)| {
        let outcome = Outcome::Failed(failure.clone());
        (name.clone(), TopicState { outcome, lost: decision.lost.clone() })
    };
    decisions.iter().map(one).collect()
}
