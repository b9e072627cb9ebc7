//! Topics that Kafka refused: asking again every two seconds would change nothing and fill logs. Pure; the caller
//! brings the clock.

use super::admin::Outcomes;
use super::error::{Class, Failure};
use super::plan::{Desired, Observed, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long to leave such a topic alone, unless what is wanted of it changes, or the brokers do.
const PAUSE: Duration = Duration::from_secs(30);

struct Refusal {
    wanted: Desired,
    failure: Failure,
    brokers: BTreeSet<i32>,
    at: Instant,
}

/// What Kafka refused, by the topic's name there.
#[derive(Default)]
pub struct Refused(BTreeMap<String, Refusal>);

impl Refused {
    /// Leaves out of the plan what was refused a moment ago; gives back the failures, which stand.
    pub fn skip(&mut self, wanted: &[Desired], todo: &mut Plan, seen: &Observed, now: Instant) -> Outcomes {
        self.0.retain(|_, refusal| {
            now - refusal.at < PAUSE && wanted.contains(&refusal.wanted) && refusal.brokers == seen.brokers
        });
        let mut known = Outcomes::new();
        let mut keep = |name: &str| match self.0.get(name) {
            Some(refusal) => {
                known.insert(name.to_owned(), Err(refusal.failure.clone()));
                false
            }
            None => true,
        };
        todo.create.retain(|want| keep(&want.name));
        todo.configure.retain(|(name, _)| keep(name));
        known
    }

    /// Notes what was refused now.
    pub fn remember(&mut self, wanted: &[Desired], outcomes: &Outcomes, seen: &Observed, now: Instant) {
        for (name, outcome) in outcomes {
            let Err(failure) = outcome else { continue };
            let wanted = wanted.iter().find(|want| want.name == *name);
            if let Some(wanted) = wanted.filter(|_| failure.class() == Class::Blocked) {
                let (wanted, failure, brokers) = (wanted.clone(), failure.clone(), seen.brokers.clone());
                let refusal = Refusal { wanted, failure, brokers, at: now };
                self.0.insert(name.clone(), refusal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::error::RDKafkaErrorCode as Code;

    fn desired(replicas: i32) -> Desired {
        Desired { name: "t".to_owned(), partitions: 1, replicas, config: BTreeMap::new() }
    }

    fn asks(refused: &mut Refused, want: &Desired, now: Instant) -> bool {
        let mut todo = Plan { create: vec![want.clone()], ..Plan::default() };
        let known = refused.skip(std::slice::from_ref(want), &mut todo, &Observed::default(), now);
        assert_eq!(known.is_empty(), !todo.create.is_empty());
        !todo.create.is_empty()
    }

    #[test]
    fn a_refused_topic_is_asked_for_again_when_it_changes_or_after_a_while() {
        let (now, mut refused) = (Instant::now(), Refused::default());
        let failure = Failure::new("create topic", Code::InvalidReplicationFactor);
        refused.remember(&[desired(9)], &[("t".to_owned(), Err(failure))].into(), &Observed::default(), now);
        assert!(!asks(&mut refused, &desired(9), now + Duration::from_secs(2)));
        assert!(asks(&mut refused, &desired(3), now + Duration::from_secs(2)));
        let failure = Failure::new("create topic", Code::InvalidReplicationFactor);
        refused.remember(&[desired(9)], &[("t".to_owned(), Err(failure))].into(), &Observed::default(), now);
        assert!(asks(&mut refused, &desired(9), now + PAUSE));
    }

    #[test]
    fn what_passes_by_itself_is_tried_at_once() {
        let (now, mut refused) = (Instant::now(), Refused::default());
        let failure = Failure::new("create topic", Code::RequestTimedOut);
        refused.remember(&[desired(3)], &[("t".to_owned(), Err(failure))].into(), &Observed::default(), now);
        assert!(asks(&mut refused, &desired(3), now));
    }
}
