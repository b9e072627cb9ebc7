//! A broker's lost disk is replaced by an empty one, when `tidegate.io/replace-disk` asks for it. [`advance`] decides and
//! is pure; [`look`] and [`act`] do IO.
//!
//! 1. The pod has said that its disk is empty, Kafka has every record elsewhere, and the other controllers have caught
//!    up: the node gets a new directory id and may format, without initial controllers. The identity's ConfigMap holds
//!    both, and that this request is answered, so another operator goes on from there.
//! 2. The waiting pod is made anew, so that it sees the new entry at once. It formats, joins, and reads along.
//! 3. The sweep exchanges the voter ([`crate::kafka::wire::voters`]). A node that never voted has none.
//! 4. The broker has copied all records that it should hold: done.

use super::pods;
use super::roll::{self, RollError};
use super::rollout::Known;
use crate::frame::Cycle;
use crate::kafka::cluster::Cluster;
use crate::kafka::error::Failure;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::identity::Identity;
use crate::kafka::names::{CONTROLLER_PORT, VOTERS};
use crate::kafka::snapshot::Exchanged;
use crate::kafka::survey::Survey;
use crate::kafka::wire::voters::{Exchange, Next};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use std::collections::BTreeSet;
use tidegate_crds::labels::REPLACE_DISK;
use tidegate_crds::{IoTPlatform, reasons};

/// What is known when a step is decided.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// What Kafka says.
    pub known: Known<'a>,
    /// Whether that is new enough to act on.
    pub fresh: bool,
    /// Nodes whose pods say that their disk is empty.
    pub empty: BTreeSet<i32>,
    /// What the pod of the node whose disk is being replaced says of itself.
    pub trouble: Option<String>,
    /// How far the exchange of its voter is.
    pub exchange: Option<&'a Exchanged>,
}

/// What is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Whether an Event tells it too.
    pub event: bool,
}

fn told(reason: &'static str, message: String) -> Told {
    Told { reason, message, event: false }
}

/// The next step, and what is said about it; nothing where nothing is asked for or left to do.
pub fn advance(identity: &mut Identity, brokers: i32, asked: Option<&str>, seen: &Seen<'_>) -> Option<Told> {
    if let Some((node, _)) = identity.replacing() {
        if let Some(left) = rest(identity, node, seen) {
            return Some(told(reasons::REPLACING_DISK, format!("the lost disk of node {node}: {left}")));
        }
        identity.replaced(node);
        let message = format!("node {node} has everything on its new disk");
        return Some(Told { event: true, ..told(reasons::DISK_REPLACED, message) });
    }
    let Some(asked) = asked else {
        identity.answered = None;
        return None;
    };
    if identity.answered.as_deref() == Some(asked) {
        return None;
    }
    match begin(identity, brokers, asked, seen) {
        Ok(node) => {
            identity.replace(node, asked);
            let message = format!("the lost disk of node {node}: an empty one may be formatted now");
            Some(Told { event: true, ..told(reasons::REPLACING_DISK, message) })
        }
        Err(Refusal::Soon) => {
            Some(told(reasons::REPLACING_DISK, format!("{REPLACE_DISK}: Kafka is asked who may be away")))
        }
        Err(Refusal::No(why)) => Some(told(reasons::DISK_NOT_REPLACED, format!("{REPLACE_DISK}: {why}"))),
    }
}

enum Refusal {
    /// It is not known yet.
    Soon,
    /// The words say why, and what to do.
    No(String),
}

/// The node whose disk may be replaced now.
fn begin(identity: &Identity, brokers: i32, asked: &str, seen: &Seen<'_>) -> Result<i32, Refusal> {
    let no = |why: String| Err(Refusal::No(why));
    let node = match asked.parse::<i32>() {
        Ok(node) if (0..brokers).contains(&node) => node,
        _ => return no(format!("{asked:?} is no broker: write a node id from 0 to {}", brokers - 1)),
    };
    if !identity.is_formed() {
        return no("Kafka is being formed, and no disk holds anything yet".to_owned());
    }
    let votes = node < identity.voters;
    if votes && identity.voters < VOTERS {
        return no(format!(
            "of {} controllers none can be spared: put the volume of node {node} back, or delete the IoTPlatform and its volume claims to start empty",
            identity.voters
        ));
    }
    if !seen.empty.contains(&node) {
        return no(format!(
            "waits until the pod of node {node} says that its disk is empty, some seconds after it started on one: where the volume is lost, delete its claim and the pod; a disk that holds anything is never formatted"
        ));
    }
    let survey = match &seen.known {
        Known::Now(survey) if seen.fresh => survey,
        Known::Now(_) | Known::Soon => return Err(Refusal::Soon),
        Known::Not(why) => return no(format!("Kafka does not say whether node {node} can be spared: {why}")),
    };
    if survey.brokers.contains(&node) {
        return no(format!("broker {node} is in the cluster, so its disk is not lost"));
    }
    if let Some(partitions) = survey.only_on.get(&node) {
        return no(format!(
            "{partitions} may have its newest records on the disk of node {node} only, and would begin anew without them: bring the other brokers back or put the volume back; where they are lost for good, delete the topic"
        ));
    }
    let mut others = survey.quorum.voters.iter().filter(|(id, _)| **id != node);
    if let Some((other, _)) = others.find(|(_, voter)| votes && !voter.caught_up) {
        return no(format!("controller {other} has not caught up, and without node {node} it is needed"));
    }
    Ok(node)
}

/// What is left to do for a disk that is being replaced.
fn rest(identity: &Identity, node: i32, seen: &Seen<'_>) -> Option<String> {
    let survey = match &seen.known {
        Known::Now(survey) => survey,
        Known::Soon => return Some("Kafka is asked how far it is".to_owned()),
        Known::Not(why) => return Some(format!("Kafka does not say how far it is: {why}")),
    };
    if !survey.brokers.contains(&node) {
        let trouble = seen.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        return Some(format!("its broker starts on an empty one{trouble}"));
    }
    let directory = identity.nodes.get(&node).map(|node| &node.directory);
    let voter = survey.quorum.voters.get(&node);
    if node < identity.voters && voter.is_none_or(|voter| voter.directory.as_ref() != directory) {
        let exchange = seen.exchange.filter(|exchange| Some(&exchange.wanted.directory) == directory);
        return Some(match exchange.map(|exchange| &exchange.left) {
            Some(Ok(Next::Wait(why))) => why.clone(),
            Some(Err(failure)) => failure.message(),
            _ => "the new one takes its vote among the controllers".to_owned(),
        });
    }
    if let Some(partitions) = survey.standing.get(&node).and_then(|own| own.behind.as_ref()) {
        return Some(format!("the new one has not caught up with {partitions} yet"));
    }
    (!seen.fresh).then(|| "Kafka is asked whether the new one has everything".to_owned())
}

/// Looks and decides. `identity` is what is to be written.
pub fn look(
    hub: &Hub,
    cycle: &mut Cycle<IoTPlatform>,
    cluster: &Cluster,
    identity: &mut Identity,
    set: Option<&StatefulSet>,
    all: &[Pod],
) -> Option<Told> {
    let subject = std::sync::Arc::clone(&cycle.subject);
    let asked = subject.annotations().get(REPLACE_DISK).map(|asked| asked.trim());
    let pending = asked.is_some() && asked != identity.answered.as_deref();
    let replacing = identity.replacing().map(|(node, _)| node);
    if cycle.paused() {
        let waits = "a lost disk waits to be replaced".to_owned();
        return (pending || replacing.is_some()).then(|| told(reasons::REPLACING_DISK, waits));
    }
    let key = Key::new(cycle.namespace(), cycle.name());
    let survey = if pending || replacing.is_some() {
        cycle.requeue_after(roll::FRESH);
        hub.survey(&key, roll::fingerprint(all, set.and_then(roll::newest).unwrap_or_default()), roll::FRESH)
    } else {
        None
    };
    let snapshot = hub.snapshot(&key);
    let failed = survey.as_ref().and_then(|survey| survey.found.as_ref().err()).map(Failure::message);
    let found: Option<&Survey> = survey.as_ref().and_then(|survey| survey.found.as_ref().ok());
    let pod_of = |node: i32| all.iter().find(|pod| pod.name_any() == cluster.names.pod(node));
    let seen = Seen {
        known: match (found, &failed) {
            (Some(found), _) => Known::Now(found),
            (None, Some(why)) => Known::Not(why),
            (None, None) => Known::Soon,
        },
        fresh: survey.as_ref().is_some_and(|survey| survey.began.elapsed() < roll::FRESH),
        empty: (0..cluster.brokers)
            .filter(|node| pod_of(*node).is_some_and(pods::is_on_empty_disk))
            .collect(),
        trouble: replacing
            .and_then(pod_of)
            .filter(|pod| !pods::is_on_empty_disk(pod))
            .and_then(|pod| pods::trouble(std::slice::from_ref(pod)))
            .map(|(_, text)| text),
        exchange: snapshot.as_ref().and_then(|snapshot| snapshot.exchange.as_ref()),
    };
    let told = advance(identity, cluster.brokers, asked, &seen);
    if let Some(news) = told.as_ref().filter(|told| told.event) {
        tracing::info!("{}", news.message);
        cycle.note(false, news.reason, news.message.as_str());
    }
    told
}

/// Says that nothing comes of the request where Kafka is somebody else's.
pub fn refuse(cycle: &mut Cycle<IoTPlatform>) {
    if cycle.subject.annotations().contains_key(REPLACE_DISK) {
        let text = format!(
            "{REPLACE_DISK}: the disks of spec.kafka.external belong to its administrator, and Tidegate replaces none of them: have it replaced there, and take the annotation off"
        );
        cycle.progressing(reasons::DISK_NOT_REPLACED, text);
    }
}

/// Does what the identity, which is written by now, asks for: the waiting pod is made anew, and the sweep exchanges the
/// voter.
pub async fn act(
    hub: &Hub,
    cycle: &Cycle<IoTPlatform>,
    cluster: &Cluster,
    identity: &Identity,
    all: &[Pod],
) -> Result<(), RollError> {
    if cycle.paused() {
        return Ok(());
    }
    let key = Key::new(cycle.namespace(), cycle.name());
    let Some((node, entry)) = identity.replacing() else {
        hub.want_voter(&key, None);
        return Ok(());
    };
    let exchange = (node < identity.voters).then(|| Exchange {
        cluster: identity.cluster.clone(),
        node,
        directory: entry.directory.clone(),
        host: cluster.names.host(node),
        port: CONTROLLER_PORT,
    });
    hub.want_voter(&key, exchange);
    let name = cluster.names.pod(node);
    // It ends and waits longer each time, and sees what is allowed now only after a while.
    let waits = |pod: &&Pod| {
        pod.name_any() == name && pod.metadata.deletion_timestamp.is_none() && pods::is_on_empty_disk(pod)
    };
    match all.iter().find(waits) {
        Some(pod) if entry.may_format => roll::restart(cycle, cluster, &name, pod.uid()).await,
        _ => Ok(()),
    }
}
