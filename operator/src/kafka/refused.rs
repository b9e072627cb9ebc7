//! Topics that Kafka refused: asking again every two seconds would change nothing and fill logs. Pure; the caller
//! brings the clock.

use super::admin::Outcomes;
use super::error::{Class, Failure, Told};
use super::plan::{Desired, Observed, Plan};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tidegate_crds::reasons;

/// How long to leave such a topic alone, unless what is wanted of it changes, or the brokers do.
const PAUSE: Duration = Duration::from_secs(30);

struct Refusal {
    wanted: Desired,
    failure: Failure,
    brokers: BTreeSet<i32>,
    at: Instant,
}

/// How often settings are written that are not there in the next look.
const TRIES: u8 = 3;

/// What Kafka refused, by the topic's name there.
#[derive(Default)]
pub struct Refused {
    known: BTreeMap<String, Refusal>,
    tried: BTreeMap<String, (Desired, u8)>,
}

impl Refused {
    /// Leaves out of the plan what was refused a moment ago; gives back the failures, which stand.
    pub fn skip(&mut self, wanted: &[Desired], todo: &mut Plan, seen: &Observed, now: Instant) -> Outcomes {
        self.known.retain(|_, refusal| {
            now - refusal.at < PAUSE && wanted.contains(&refusal.wanted) && refusal.brokers == seen.brokers
        });
        let mut known = Outcomes::new();
        let mut keep = |name: &str| match self.known.get(name) {
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

    /// Takes out of the plan what was written before and is not there: librdkafka's bindings do not tell that Kafka
    /// refused to change a topic's settings. `who` lacks the right, most likely.
    pub fn unheeded(
        &mut self,
        wanted: &[Desired],
        todo: &mut Plan,
        seen: &Observed,
        who: &str,
        now: Instant,
    ) -> Outcomes {
        let want = |name: &str| wanted.iter().find(|want| want.name == name);
        let again: BTreeSet<_> = todo.configure.iter().map(|(name, _)| name.clone()).collect();
        self.tried.retain(|name, (tried, _)| {
            want(name) == Some(tried) && (again.contains(name) || self.known.contains_key(name))
        });
        let mut unheeded = Outcomes::new();
        todo.configure.retain(|(name, _)| {
            let Some(want) = want(name) else { return true };
            let (_, tries) = self.tried.entry(name.clone()).or_insert_with(|| (want.clone(), 0));
            *tries += 1;
            if *tries <= TRIES {
                return true;
            }
            // One more try after the pause.
            *tries = TRIES - 1;
            let text = format!(
                "Kafka does not take the settings of topic {name:?}: allow {who} operation AlterConfigs on topic {name:?}, or see whether a policy of its administrator forbids them"
            );
            let told = Told { reason: reasons::KAFKA_FORBIDDEN, class: Class::Blocked, text };
            let failure = Failure::new(format!("change the settings of topic {name:?}"), RDKafkaErrorCode::PolicyViolation);
            unheeded.insert(name.clone(), Err(failure.meaning(told)));
            false
        });
        self.remember(wanted, &unheeded, seen, now);
        unheeded
    }

    /// Notes what was refused now.
    pub fn remember(&mut self, wanted: &[Desired], outcomes: &Outcomes, seen: &Observed, now: Instant) {
        for (name, outcome) in outcomes {
            let Err(failure) = outcome else { continue };
            let wanted = wanted.iter().find(|want| want.name == *name);
            if let Some(wanted) = wanted.filter(|_| failure.class() == Class::Blocked) {
                let (wanted, failure, brokers) = (wanted.clone(), failure.clone(), seen.brokers.clone());
                let refusal = Refusal { wanted, failure, brokers, at: now };
                self.known.insert(name.clone(), refusal);
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

    #[test]
    fn settings_that_kafka_never_takes_are_told_and_tried_again_after_a_while() {
        let (now, mut refused, want) = (Instant::now(), Refused::default(), desired(1));
        let seen = Observed::default();
        let mut look = |now: Instant| {
            let mut todo = Plan { configure: vec![("t".to_owned(), BTreeMap::new())], ..Plan::default() };
            let mut known = refused.skip(std::slice::from_ref(&want), &mut todo, &seen, now);
            known.extend(refused.unheeded(std::slice::from_ref(&want), &mut todo, &seen, "User:x", now));
            (todo.configure.len(), known)
        };
        for _ in 0..TRIES {
            assert_eq!(look(now).0, 1);
        }
        for _ in 0..5 {
            let (tries, known) = look(now);
            let failure = known["t"].as_ref().unwrap_err();
            assert_eq!((tries, failure.reason()), (0, "KafkaForbidden"));
            assert!(failure.message().contains("User:x operation AlterConfigs on topic \"t\""));
        }
        assert_eq!(look(now + PAUSE).0, 1);
        assert_eq!(look(now + PAUSE).0, 0);
    }
}
