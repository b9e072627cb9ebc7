//! From what was found to what a platform's status says about readiness. Pure.

use crate::kafka::error::Class;
use crate::kafka::names::VOTERS;
use crate::kafka::snapshot::{Health, Snapshot};
use tidegate_crds::{State, reasons};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found<'a> {
    /// The last sweep.
    pub snapshot: Option<&'a Snapshot>,
    /// Brokers that are declared.
    pub brokers: i32,
    /// Brokers whose pods are ready.
    pub ready: i32,
    /// Whether every voter was seen in the cluster, and none may format any more.
    pub formed: bool,
    /// Whether brokers ask gateways for rights that nobody has seen yet.
    pub waits_for_rights: bool,
    /// What is wrong with a pod.
    pub trouble: Option<(&'static str, String)>,
}

/// What the status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Ready`.
    pub ready: State,
    /// Its reason.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
    /// What is missing although it serves: reason and message.
    pub missing: Option<(&'static str, String)>,
}

/// Judges a platform's Kafka.
pub fn judge(found: &Found<'_>) -> Verdict {
    let no = |reason, message| Verdict { ready: State::False, reason, message, missing: None };
    let seen = found.snapshot.map_or(0, |snapshot| snapshot.brokers.len());
    let health = found.snapshot.map(|snapshot| &snapshot.health);
    let is_missing = found.ready < found.brokers || seen < count(found.brokers);
    let trouble = found.trouble.clone().filter(|_| is_missing);
    // What a pod says of itself explains more than that Kafka is not there.
    let or_trouble = |reason, message| match trouble.clone() {
        Some((reason, message)) => no(reason, message),
        None => no(reason, message),
    };
    if !found.formed {
        let text = format!("Kafka is being formed: {} of {} pods are ready", found.ready, found.brokers);
        return or_trouble(reasons::KAFKA_NOT_READY, text);
    }
    let snapshot = match (found.snapshot, health) {
        (Some(snapshot), Some(Health::Up)) => snapshot,
        (_, Some(Health::Down(failure))) => {
            let text = format!("{}; {} of {} pods are ready", failure.message(), found.ready, found.brokers);
            return or_trouble(failure.reason(), text);
        }
        _ => return or_trouble(reasons::KAFKA_NOT_READY, "Kafka was not asked yet".to_owned()),
    };
    let in_cluster = format!("{seen} of {} brokers are in the cluster", found.brokers);
    if seen * 2 <= count(found.brokers.min(VOTERS)) {
        return or_trouble(reasons::KAFKA_NOT_READY, in_cluster);
    }
    if let Some(short) = &snapshot.short {
        return or_trouble(reasons::KAFKA_NOT_READY, short.clone());
    }
    if !snapshot.directory_written {
        return match &snapshot.directory {
            Some(failure) if failure.class() == Class::Blocked => no(failure.reason(), failure.message()),
            Some(failure) => or_trouble(reasons::KAFKA_NOT_READY, failure.message()),
            None => or_trouble(reasons::KAFKA_NOT_READY, "gateways' directory is being made".to_owned()),
        };
    }
    if found.waits_for_rights {
        let text = match &snapshot.rights.failure {
            Some(failure) => failure.message(),
            None => "gateways' rights are being written".to_owned(),
        };
        return or_trouble(reasons::KAFKA_NOT_READY, text);
    }
    let missing = trouble.or_else(|| is_missing.then_some((reasons::KAFKA_NOT_READY, in_cluster)));
    Verdict { ready: State::True, reason: reasons::READY, message: String::new(), missing }
}

fn count(brokers: i32) -> usize {
    usize::try_from(brokers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::error::Failure;
    use rdkafka::error::RDKafkaErrorCode as Code;

    fn up(brokers: i32) -> Snapshot {
        Snapshot {
            health: Health::Up,
            brokers: (0..brokers).collect(),
            directory_written: true,
            ..Snapshot::default()
        }
    }

    fn found(snapshot: &Snapshot) -> Found<'_> {
        Found {
            snapshot: Some(snapshot),
            brokers: 3,
            ready: 3,
            formed: true,
            waits_for_rights: false,
            trouble: None,
        }
    }

    #[test]
    fn a_platform_is_ready_while_every_topic_is_served_and_says_who_is_missing() {
        assert_eq!(judge(&found(&up(3))), Verdict { missing: None, ..judge(&found(&up(3))) });
        assert_eq!(judge(&found(&up(3))).ready, State::True);
        let verdict = judge(&found(&up(2)));
        assert_eq!(verdict.ready, State::True);
        assert_eq!(verdict.missing, Some(("KafkaNotReady", "2 of 3 brokers are in the cluster".to_owned())));
        let verdict = judge(&found(&up(1)));
        assert_eq!((verdict.ready, verdict.reason), (State::False, "KafkaNotReady"));
        let short = Snapshot { short: Some("topic telemetry: too few".to_owned()), ..up(2) };
        let verdict = judge(&found(&short));
        assert_eq!((verdict.ready, verdict.message.as_str()), (State::False, "topic telemetry: too few"));
        let unwritten = Snapshot { directory_written: false, ..up(3) };
        assert!(judge(&found(&unwritten)).message.contains("directory"));
        let verdict = judge(&Found { waits_for_rights: true, ..found(&up(3)) });
        assert_eq!(
            (verdict.ready, verdict.message.as_str()),
            (State::False, "gateways' rights are being written")
        );
    }

    #[test]
    fn kafka_away_is_told_with_kafkas_words() {
        let failure = Failure::new("read Kafka's metadata", Code::BrokerTransportFailure);
        let away = Snapshot { health: Health::Down(failure), ..Snapshot::default() };
        let verdict = judge(&Found { ready: 0, ..found(&away) });
        assert_eq!(verdict.reason, "KafkaUnreachable");
        assert!(verdict.message.contains("0 of 3 pods"), "{}", verdict.message);
    }

    #[test]
    fn a_pods_trouble_explains_a_missing_broker_and_nothing_else() {
        let snapshot = up(2);
        let trouble = Some((reasons::DISK_WRONG, "pod plant-kafka-2: DiskEmpty".to_owned()));
        let verdict = judge(&Found { ready: 2, trouble: trouble.clone(), ..found(&snapshot) });
        assert_eq!((verdict.ready, verdict.missing), (State::True, trouble.clone()));
        let verdict = judge(&Found { ready: 1, trouble: trouble.clone(), ..found(&up(1)) });
        assert_eq!((verdict.ready, verdict.reason), (State::False, "DiskWrong"));
        assert_eq!(judge(&Found { trouble, ..found(&up(3)) }).missing, None);
    }

    #[test]
    fn nothing_is_formed_before_every_node_lost_its_right_to_format() {
        let snapshot = up(3);
        let verdict = judge(&Found { formed: false, ..found(&snapshot) });
        assert_eq!((verdict.ready, verdict.reason), (State::False, "KafkaNotReady"));
    }
}
