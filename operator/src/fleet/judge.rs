//! From what is known about a fleet to what its status says. Pure.

use super::authorities::AuthorityError;
use super::claims::{Decided, Standing};
use super::passwords::Trouble;
use super::records::Built;
use crate::frame::{Class, Failure};
use crate::kafka::fleets::FleetRecords;
use crate::kafka::snapshot::{Health, Snapshot};
use tidegate_crds::conditions::RESOLVED_REFS;
use tidegate_crds::reasons;

/// How many devices are named in a message.
const NAMED: usize = 4;

/// Why the certificate authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityTrouble {
    /// There is no such Secret.
    #[error("there is no Secret {0:?} in this namespace; create it, or name another")]
    Missing(String),
    /// It lacks the key.
    #[error("Secret {secret:?} has no key {key:?} (it has {}); write one that it has, or add it", .there.join(", "))]
    NoKey {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// The keys that it has.
        there: Vec<String>,
    },
    /// What it holds is none.
    #[error("key {key:?} of Secret {secret:?} {error}")]
    Unusable {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong.
        error: AuthorityError,
    },
}

/// What the status says where nothing stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Gateways know everything; what people should know nevertheless.
    Ready(String),
    /// It will pass.
    Waiting(&'static str, String),
}

/// What a fleet's status follows from.
pub struct Found<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the sweep found.
    pub snapshot: &'a Snapshot,
    /// Its records.
    pub built: &'a Built,
    /// What is not well with its certificate authorities.
    pub authority: Option<&'a AuthorityTrouble>,
    /// Authorities that are left out.
    pub left_out: &'a [String],
    /// What it has of what it asks for.
    pub decided: &'a Decided,
}

/// Why nothing can be said before the directory was read.
pub fn unread(snapshot: Option<&Snapshot>) -> Verdict {
    let Some(snapshot) = snapshot.filter(|snapshot| snapshot.health != Health::Unknown) else {
        let text = "waiting for the platform's Kafka";
        return Verdict::Waiting(reasons::KAFKA_NOT_READY, text.to_owned());
    };
    kafka(snapshot).unwrap_or_else(|| {
        let text = "waiting for the platform's directory";
        Verdict::Waiting(reasons::KAFKA_NOT_READY, text.to_owned())
    })
}

fn kafka(snapshot: &Snapshot) -> Option<Verdict> {
    let failure = match &snapshot.health {
        Health::Down(failure) => Some(failure),
        Health::Up | Health::Unknown => snapshot.directory.as_ref(),
    };
    failure.map(|failure| Verdict::Waiting(failure.reason(), failure.message()))
}

/// What is not well with Secrets: reason and message.
pub fn references(found: &Found<'_>) -> Option<(&'static str, String)> {
    let mut texts = Vec::new();
    let mut missing = false;
    if let Some(trouble) = found.authority {
        missing |= matches!(trouble, AuthorityTrouble::Missing(_));
        texts.push(format!("spec.authentication.x509.caSecretRef: {trouble}"));
    }
    for (device, trouble) in &found.built.troubles {
        missing |= matches!(trouble, Trouble::Missing(_));
        if texts.len() < NAMED {
            texts.push(format!("spec.devices {device:?}, passwordSecretRef: {trouble}"));
        }
    }
    let all = found.built.troubles.len() + usize::from(found.authority.is_some());
    if all > texts.len() {
        texts.push(format!("and {} more devices", all - texts.len()));
    }
    let reason = if missing { reasons::SECRET_NOT_FOUND } else { reasons::SECRET_UNUSABLE };
    (!texts.is_empty()).then(|| (reason, format!("{}. Everything else is in effect", texts.join("; "))))
}

/// What others have of what this one asks for.
fn conflict(decided: &Decided) -> Option<(&'static str, String)> {
    let x509 = match &decided.x509 {
        Standing::Lost(holder) => Some(format!(
            "spec.authentication.x509: DeviceFleet {holder:?} is older and has the same certificate authority, so this one takes no client certificates: give each fleet an authority of its own"
        )),
        _ => None,
    };
    let anonymous = match &decided.anonymous {
        Standing::Lost(holder) => Some(format!(
            "spec.authentication.anonymous: DeviceFleet {holder:?} is older and takes the devices that do not say who they are: remove it here or there"
        )),
        _ => None,
    };
    let reason = if x509.is_some() { reasons::AUTHORITY_CONFLICT } else { reasons::ANONYMOUS_CONFLICT };
    let texts: Vec<_> = x509.into_iter().chain(anonymous).collect();
    (!texts.is_empty()).then(|| (reason, format!("{}. Everything else is in effect", texts.join("; "))))
}

/// What is said of a fleet.
pub fn judge(found: &Found<'_>) -> Result<Verdict, Failure> {
    if let Some(verdict) = kafka(found.snapshot) {
        return Ok(verdict);
    }
    let blocked =
        |(reason, message), condition| Failure { class: Class::Blocked, reason, condition, message };
    if let Some(trouble) = references(found) {
        return Err(blocked(trouble, Some(RESOLVED_REFS)));
    }
    if let Some(lost) = conflict(found.decided) {
        return Err(blocked(lost, None));
    }
    let waiting = |text: String| Ok(Verdict::Waiting(reasons::PROGRESSING, text));
    if let Standing::Unknown(other) = &found.decided.x509 {
        return waiting(format!("DeviceFleet {other:?} is older and is looked at first"));
    }
    let pending = found.built.pending;
    if pending > 0 {
        let all = found.built.records.devices.len().max(pending);
        return waiting(format!("{pending} of {all} devices' passwords are not hashed yet"));
    }
    let held = found.snapshot.fleets.as_ref().and_then(|fleets| fleets.get(found.name));
    let none = FleetRecords::default();
    if held.map_or(&none, |held| &**held) != &found.built.records {
        return waiting("gateways are not told about it yet".to_owned());
    }
    Ok(Verdict::Ready(match found.left_out {
        [] => String::new(),
        all => format!("certificate authorities are left out: {}", all.join("; ")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::error::Failure as KafkaFailure;
    use rdkafka::error::RDKafkaErrorCode as Code;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn has() -> Decided {
        Decided { x509: Standing::Has, anonymous: Standing::Has }
    }

    fn up() -> Snapshot {
        let records = FleetRecords { fleet: Some((*b"{}").into()), ..FleetRecords::default() };
        let fleets = BTreeMap::from([("meters".to_owned(), Arc::new(records))]);
        Snapshot { health: Health::Up, fleets: Some(Arc::new(fleets)), ..Snapshot::default() }
    }

    fn built() -> Built {
        let records = FleetRecords { fleet: Some((*b"{}").into()), ..FleetRecords::default() };
        Built { records, ..Built::default() }
    }

    fn say(snapshot: &Snapshot, built: &Built, decided: &Decided) -> Result<Verdict, Failure> {
        judge(&Found { name: "meters", snapshot, built, authority: None, left_out: &[], decided })
    }

    fn waits(verdict: Result<Verdict, Failure>, reason: &str, words: &str) {
        let Ok(Verdict::Waiting(told, text)) = verdict else { panic!("{verdict:?}") };
        assert!(told == reason && text.contains(words), "{told}: {text}");
    }

    #[test]
    fn a_fleet_is_ready_when_gateways_are_told_all_of_it() {
        assert_eq!(say(&up(), &built(), &has()), Ok(Verdict::Ready(String::new())));
        let mut other = built();
        other.records.devices.insert("a".into(), (*b"{}").into());
        waits(say(&up(), &other, &has()), "Progressing", "not told");
        let pending = Built { pending: 3, ..built() };
        waits(say(&up(), &pending, &has()), "Progressing", "3 of 3 devices");
    }

    #[test]
    fn kafkas_words_come_first() {
        let failure = KafkaFailure::new("read Kafka's metadata", Code::BrokerTransportFailure);
        let down = Snapshot { health: Health::Down(failure.clone()), ..up() };
        waits(say(&down, &built(), &has()), "KafkaUnreachable", "metadata");
        let unwritten = Snapshot { directory: Some(failure), ..up() };
        waits(say(&unwritten, &built(), &has()), "KafkaUnreachable", "metadata");
        waits(Ok(unread(None)), "KafkaNotReady", "waiting for the platform's Kafka");
        waits(Ok(unread(Some(&up()))), "KafkaNotReady", "directory");
    }

    #[test]
    fn secrets_that_give_nothing_are_named_and_many_are_counted() {
        let trouble = |index: usize| (format!("d{index}"), Trouble::Missing(format!("s{index}")));
        let troubled = Built { troubles: (0..9).map(trouble).collect(), ..built() };
        let failure = say(&up(), &troubled, &has()).unwrap_err();
        assert_eq!((failure.reason, failure.condition), ("SecretNotFound", Some("ResolvedRefs")));
        let words = "spec.devices \"d0\", passwordSecretRef: there is no Secret \"s0\"";
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(failure.message.contains("and 5 more devices"), "{}", failure.message);
        let (secret, key) = ("ca".to_owned(), "ca.crt".to_owned());
        let authority = AuthorityTrouble::Unusable { secret, key, error: AuthorityError::Empty };
        let (snapshot, built, decided) = (up(), built(), has());
        let found = Found {
            name: "meters",
            snapshot: &snapshot,
            built: &built,
            authority: Some(&authority),
            left_out: &[],
            decided: &decided,
        };
        let failure = judge(&found).unwrap_err();
        assert_eq!(failure.reason, "SecretUnusable");
        let words = "caSecretRef: key \"ca.crt\" of Secret \"ca\" is empty";
        assert!(failure.message.contains(words), "{}", failure.message);
    }

    #[test]
    fn what_an_older_fleet_has_is_told_with_its_name() {
        let lost = || Standing::Lost("old".to_owned());
        let failure = say(&up(), &built(), &Decided { x509: lost(), anonymous: lost() }).unwrap_err();
        assert_eq!((failure.reason, failure.condition), ("AuthorityConflict", None));
        assert_eq!(failure.message.matches("DeviceFleet \"old\" is older").count(), 2);
        let silent = Decided { anonymous: lost(), ..has() };
        assert_eq!(say(&up(), &built(), &silent).unwrap_err().reason, "AnonymousConflict");
        let unknown = Decided { x509: Standing::Unknown("old".to_owned()), ..has() };
        waits(say(&up(), &built(), &unknown), "Progressing", "looked at first");
    }
}
