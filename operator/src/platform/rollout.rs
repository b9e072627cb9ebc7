//! Which broker restarts next, and why none does. Pure.
//!
//! The StatefulSet is `OnDelete`: a pod takes the newest template when it is made anew, and this module says when each
//! one is. The rules, in order:
//! 1. A broker that serves nobody and runs an older revision goes first: it costs nothing, and it may be what heals.
//! 2. Nobody else goes while any broker is away, or behind in any partition that it holds.
//! 3. Nobody goes whom a partition needs for its minimum of in-sync replicas, or the controllers for a majority that
//!    has everything. What can never spare anybody does not stand in the way; it is told.
//! 4. The active controller goes last.

use crate::kafka::survey::{Several, Survey};
use std::time::Duration;

/// A broker that runs and has not become ready for so long counts as one that does not start.
pub const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// One broker's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub node: i32,
    /// Its pod's name.
    pub pod: String,
    /// Whether it runs the newest revision.
    pub new: bool,
    /// Whether it is being deleted.
    pub going: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// How long it has not been ready.
    pub unready_for: Duration,
    /// What keeps its container from running.
    pub trouble: Option<String>,
}

impl Broker {
    /// Whether it will hardly become ready by itself.
    fn is_broken(&self) -> bool {
        !self.ready && (self.trouble.is_some() || self.unready_for >= STARTS_WITHIN)
    }
}

/// How much is known about Kafka.
#[derive(Clone, Debug)]
pub enum Known<'a> {
    /// Looked at after all pods had become what they are.
    Now(&'a Survey),
    /// It is being looked at.
    Soon,
    /// It cannot be looked at; the words say why.
    Not(&'a str),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every broker is new.
    Done,
    /// Nothing for now.
    Wait(Wait),
    /// Restart this one.
    Restart {
        /// The node.
        node: i32,
        /// Why this one, and now.
        why: &'static str,
    },
}

/// Why nothing is done for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// For people.
    pub why: String,
    /// Whether it takes a person to go on.
    pub stopped: bool,
}

/// Runs an older revision, and serves nobody.
pub const BROKEN: &str = "it runs older settings and serves nobody";
/// Runs an older revision.
pub const BEHIND: &str = "it runs older settings";
/// Runs an older revision, as the last one.
pub const CONTROLLER: &str = "it runs older settings; it was the active controller, so it is the last";

/// Decides. `declared` brokers should be there; `brokers` are those whose pods are.
pub fn decide(declared: i32, brokers: &[Broker], known: &Known<'_>) -> Step {
    if brokers.iter().all(|broker| broker.new || broker.going) {
        return Step::Done;
    }
    let mut behind: Vec<_> = brokers.iter().filter(|broker| !broker.new && !broker.going).collect();
    // As a StatefulSet would: the highest first.
    behind.sort_by_key(|broker| std::cmp::Reverse(broker.node));
    if let Some(broken) = behind.iter().find(|broker| serves_nobody(broker, known)) {
        return Step::Restart { node: broken.node, why: BROKEN };
    }
    match candidate(declared, brokers, &behind, known) {
        Ok((node, why)) => Step::Restart { node, why },
        Err(wait) => Step::Wait(wait),
    }
}

/// Whether deleting its pod takes nothing from anybody.
fn serves_nobody(broker: &Broker, known: &Known<'_>) -> bool {
    broker.is_broken()
        && match known {
            Known::Now(survey) => !survey.brokers.contains(&broker.node) && survey.quorum_spares(broker.node),
            // Being asked: an answer is worth waiting for.
            Known::Soon => false,
            Known::Not(_) => true,
        }
}

fn candidate(
    declared: i32,
    brokers: &[Broker],
    behind: &[&Broker],
    known: &Known<'_>,
) -> Result<(i32, &'static str), Wait> {
    let wait = |why: String| Wait { why, stopped: false };
    if let Some(away) = away(declared, brokers) {
        return Err(away);
    }
    let survey = match known {
        Known::Now(survey) => survey,
        Known::Soon => return Err(wait("Kafka is asked who may be away".to_owned())),
        Known::Not(why) => return Err(wait(format!("Kafka does not say who may be away: {why}"))),
    };
    let name = |node: i32| {
        let pod = brokers.iter().find(|broker| broker.node == node).map(|broker| broker.pod.as_str());
        pod.map_or_else(|| format!("broker {node}"), str::to_owned)
    };
    if let Some(outside) = brokers.iter().find(|broker| !survey.brokers.contains(&broker.node)) {
        return Err(wait(format!("{} is not back in the cluster yet", outside.pod)));
    }
    let lags = survey.standing.iter().find_map(|(node, own)| Some((*node, own.behind.as_ref()?)));
    if let Some((node, partitions)) = lags {
        return Err(wait(format!("{} has not caught up with {partitions} yet", name(node))));
    }
    let leader = survey.quorum.leader;
    let mut others: Vec<_> = behind.iter().filter(|broker| broker.node != leader).collect();
    if others.is_empty() {
        others.extend(behind);
    }
    let mut first = None;
    for broker in others {
        let needed = survey.standing.get(&broker.node).and_then(|own| own.needed.as_ref());
        let why = match needed {
            Some(partitions) => needed_by(&broker.pod, partitions),
            None if !survey.quorum_spares(broker.node) => {
                format!("the other controllers have not caught up, so {} cannot be spared", broker.pod)
            }
            None => {
                return Ok((broker.node, if broker.node == leader { CONTROLLER } else { BEHIND }));
            }
        };
        first.get_or_insert(why);
    }
    Err(wait(first.unwrap_or_default()))
}

/// A broker that is not there, or not ready.
fn away(declared: i32, brokers: &[Broker]) -> Option<Wait> {
    let wait = |why: String| Some(Wait { why, stopped: false });
    // One that takes a person is worth more words than one that is on its way.
    let stops = brokers.iter().find(|broker| !broker.going && broker.is_broken());
    if let Some(broker) = stops {
        let trouble = broker.trouble.clone().unwrap_or_else(|| {
            format!(
                "pod {} has not become ready for {} s: its log says why",
                broker.pod,
                broker.unready_for.as_secs()
            )
        });
        let how = if broker.new {
            "it runs the newest settings, and the others keep theirs: correct the spec, or set it back"
        } else {
            "no other broker restarts until it is back"
        };
        return Some(Wait { why: format!("{trouble}; {how}"), stopped: true });
    }
    if let Some(broker) = brokers.iter().find(|broker| broker.going) {
        return wait(format!("{} hands its partitions over and stops", broker.pod));
    }
    if let Some(broker) = brokers.iter().find(|broker| !broker.ready) {
        return wait(format!("{} starts", broker.pod));
    }
    let missing = (0..declared).find(|node| brokers.iter().all(|broker| broker.node != *node));
    missing.and_then(|node| wait(format!("the pod of node {node} is not there yet")))
}

fn needed_by(pod: &str, partitions: &Several) -> String {
    format!("{partitions} would have too few in-sync replicas without {pod}")
}
