//! Carries out a roll: what is known about brokers goes into the decision, one pod at a time is deleted, and the
//! condition says how far it is. IO against the API server; Kafka is asked by the sweep.

use super::pods;
use super::rollout::{Broker, Known, Step, Wait, decide};
use crate::frame::failure::{api_class, api_reason};
use crate::frame::{Class, Cycle, StepError};
use crate::kafka::cluster::Cluster;
use crate::kafka::error::Failure;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::survey::Survey;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;
use tidegate_crds::conditions::RECONCILING;
use tidegate_crds::{IoTPlatform, reasons};

/// The label in which the StatefulSet's controller says which revision a pod was made from.
const REVISION: &str = "controller-revision-hash";
/// What Kafka said is acted on for so long, and asked again then.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// A pod could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("failed to restart broker {pod}")]
pub struct RollError {
    pod: String,
    source: kube::Error,
}

impl StepError for RollError {
    fn reason(&self) -> &'static str {
        api_reason(&self.source)
    }

    fn class(&self) -> Class {
        api_class(&self.source)
    }
}

/// Restarts at most one broker, and says what a roll waits for. Whether every broker runs the newest settings.
pub async fn advance(
    hub: &Hub,
    cycle: &mut Cycle<IoTPlatform>,
    cluster: &Cluster,
    set: &StatefulSet,
    pods: &[Pod],
) -> Result<bool, RollError> {
    // Right after a change the set's controller has not said which revision is the newest.
    let Some(newest) = newest(set) else { return Ok(false) };
    let brokers: Vec<_> =
        pods.iter().filter_map(|pod| broker(pod, &cluster.names.kafka(), newest, cycle.now())).collect();
    let behind: Vec<_> =
        brokers.iter().filter(|one| !one.new && !one.going).map(|one| one.pod.as_str()).collect();
    if behind.is_empty() {
        return Ok(brokers.iter().all(|broker| broker.new));
    }
    let done = brokers.iter().filter(|broker| broker.new && !broker.going).count();
    let progress = format!("{done} of {} brokers are new", cluster.brokers);
    if cycle.paused() {
        cycle.progressing(
            reasons::ROLLING_OUT,
            format!("{progress}; {} wait to be restarted", behind.join(", ")),
        );
        return Ok(false);
    }

    let about = fingerprint(pods, newest);
    let key = Key::new(cycle.namespace(), cycle.name());
    let (step, fragile) = match hub.survey(&key, about, FRESH) {
        None => (decide(cluster.brokers, &brokers, &Known::Soon), None),
        Some(survey) => {
            let fresh = survey.began.elapsed() < FRESH;
            let failed = survey.found.as_ref().err().map(Failure::message);
            let known = match (&survey.found, &failed) {
                (Ok(found), _) => Known::Now(found),
                (Err(_), failed) => Known::Not(failed.as_deref().unwrap_or_default()),
            };
            let step = match decide(cluster.brokers, &brokers, &known) {
                // What it waited for may be over; what it would do must not rest on what was.
                Step::Restart { .. } if !fresh => decide(cluster.brokers, &brokers, &Known::Soon),
                step => step,
            };
            (step, survey.found.ok().and_then(fragile))
        }
    };
    cycle.requeue_after(FRESH);
    match step {
        Step::Done => {}
        Step::Wait(Wait { why, stopped: false }) => {
            cycle.progressing(reasons::ROLLING_OUT, format!("{progress}; {why}"));
        }
        Step::Wait(Wait { why, stopped: true }) => stopped(cycle, format!("{progress}; {why}")),
        Step::Restart { node, why } => {
            let pod = cluster.names.pod(node);
            let uid = pods.iter().find(|one| one.name_any() == pod).and_then(kube::ResourceExt::uid);
            restart(cycle, cluster, &pod, uid).await?;
            tracing::info!(pod, "restarts a broker: {why}");
            let mut text = format!("{progress}; {pod} restarts: {why}");
            if let Some(fragile) = fragile {
                text = format!("{text}; {fragile}");
            }
            cycle.note_pod(reasons::ROLLING_OUT, &pod, text.as_str());
            cycle.progressing(reasons::ROLLING_OUT, text);
        }
    }
    Ok(false)
}

/// Says that it takes a person. An Event tells it once.
fn stopped(cycle: &mut Cycle<IoTPlatform>, text: String) {
    let before = cycle.subject.status.as_ref().and_then(|status| status.conditions.get(RECONCILING));
    if before.is_none_or(|before| before.reason != reasons::ROLLOUT_STOPPED) {
        cycle.note(true, reasons::ROLLOUT_STOPPED, text.as_str());
    }
    cycle.progressing(reasons::ROLLOUT_STOPPED, text);
}

fn fragile(survey: Survey) -> Option<String> {
    let partitions = survey.fragile?;
    Some(format!("{partitions} cannot spare a replica and take nothing while one of their brokers restarts"))
}

/// Deletes that very pod, with all the time it wants to hand its partitions over.
pub(super) async fn restart(
    cycle: &Cycle<IoTPlatform>,
    cluster: &Cluster,
    pod: &str,
    uid: Option<String>,
) -> Result<(), RollError> {
    let precondition = Preconditions { uid, resource_version: None };
    let api = cycle.context.api::<Pod>(&cluster.names.namespace);
    match api.delete(pod, &DeleteParams::default().preconditions(precondition)).await {
        Ok(_) => Ok(()),
        // Somebody else was faster; 409 says that another pod has the name now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(RollError { pod: pod.to_owned(), source }),
    }
}

pub(super) fn newest(set: &StatefulSet) -> Option<&str> {
    let status = set.status.as_ref()?;
    let current = status.observed_generation.is_none_or(|seen| Some(seen) >= set.metadata.generation);
    status.update_revision.as_deref().filter(|_| current)
}

fn broker(pod: &Pod, set: &str, newest: &str, now: Timestamp) -> Option<Broker> {
    let name = pod.name_any();
    let node = name.strip_prefix(set)?.strip_prefix('-')?.parse().ok()?;
    let condition = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready"));
    let ready = condition.is_some_and(|condition| condition.status == "True");
    let since = condition.and_then(|condition| condition.last_transition_time.as_ref());
    let since = since.or(pod.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    Some(Broker {
        node,
        new: pod.labels().get(REVISION).is_some_and(|revision| revision == newest),
        going: pod.metadata.deletion_timestamp.is_some(),
        ready,
        unready_for: now.duration_since(since).unsigned_abs(),
        trouble: pods::trouble(std::slice::from_ref(pod)).map(|(_, text)| text).filter(|_| !ready),
        pod: name,
    })
}

/// What is known about the pods. A survey that was asked for with another one says nothing about these.
pub(super) fn fingerprint(pods: &[Pod], newest: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    newest.hash(&mut hasher);
    for pod in pods {
        pod.uid().hash(&mut hasher);
        pod.metadata.deletion_timestamp.is_some().hash(&mut hasher);
        let status = pod.status.as_ref();
        for container in status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten() {
            (container.ready, container.restart_count).hash(&mut hasher);
        }
        for condition in status.and_then(|status| status.conditions.as_ref()).into_iter().flatten() {
            (&condition.type_, &condition.status).hash(&mut hasher);
        }
    }
    hasher.finish()
}
