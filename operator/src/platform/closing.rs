//! How far a managed Kafka is with refusing whoever has no right: the stage that its brokers shall run, what the platform
//! says about it. Pure; Kafka's rights are the sweep's.

use crate::frame::Cycle;
use crate::kafka::cluster::Cluster;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::rights::stage::{self, ANNOTATION, Known};
use crate::kafka::rights::wanted::{awaited, wanted};
use crate::kafka::rights::{Acl, Rights, Stage};
use crate::kafka::snapshot::{Health, Snapshot};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use std::collections::BTreeSet;
use tidegate_crds::conditions::KAFKA_CLOSED;
use tidegate_crds::platform::Application;
use tidegate_crds::{IoTPlatform, State, reasons};

/// What follows for one pass.
pub struct Closing {
    /// What the pods' template shall have.
    pub stage: Stage,
    /// All rights that there shall be.
    pub wanted: BTreeSet<Acl>,
    pods: Vec<Option<Stage>>,
}

/// Decides. `remembered`: whether this process made it closed before.
pub fn look(
    cycle: &Cycle<IoTPlatform>,
    cluster: &Cluster,
    pods: &[Pod],
    set: Option<&StatefulSet>,
    (snapshot, remembered): (Option<&Snapshot>, bool),
) -> Closing {
    let wanted = wanted(&cycle.subject.spec.kafka.prefix, &cluster.applications);
    let template = set.and_then(|set| set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref());
    let template = Stage::read(template.and_then(|all| all.get(ANNOTATION)));
    let status = cycle.subject.status.as_ref();
    let pods: Vec<_> = pods.iter().map(|pod| Stage::read(pod.annotations().get(ANNOTATION))).collect();
    let known = Known {
        closed: remembered
            || template == Some(Stage::Closed)
            || status.is_some_and(|status| status.conditions.is_true(KAFKA_CLOSED)),
        exists: set.is_some(),
        brokers: count(cluster.brokers),
        proven: snapshot.is_some_and(|snapshot| {
            snapshot.health == Health::Up && snapshot.rights.failure.is_none() && snapshot.rights.are(&wanted)
        }),
        pods: pods.clone(),
    };
    Closing { stage: stage::next(&known), wanted, pods }
}

impl Closing {
    /// Whether brokers shall refuse whoever has no right.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// The rights that Kafka is to have, once its brokers know any.
    fn rights(&self) -> Option<BTreeSet<Acl>> {
        let know = !self.pods.is_empty() && self.pods.iter().all(Option::is_some);
        know.then(|| self.wanted.clone())
    }

    /// Why gateways that come now are refused: brokers ask for rights that nobody has seen yet.
    pub fn waits(&self, snapshot: Option<&Snapshot>) -> bool {
        self.is_closed() && snapshot.is_none_or(|snapshot| snapshot.rights.proven.is_none())
    }

    /// Asks for the rights that there shall be, and says how far it is.
    pub fn settle(&self, hub: &Hub, cycle: &mut Cycle<IoTPlatform>, cluster: &Cluster) {
        let key = Key::new(cycle.namespace(), cycle.name());
        hub.want_rights(&key, self.rights());
        let snapshot = hub.snapshot(&key);
        let up = snapshot.as_deref().filter(|snapshot| snapshot.health == Health::Up);
        let said = cycle.status.conditions.get(KAFKA_CLOSED).is_some();
        // Kafka is away, or was not asked yet: what was said of it holds.
        let Some(rights) = up.map(|snapshot| &snapshot.rights).or((!said).then_some(&NOTHING)) else {
            return;
        };
        let (state, reason, text) = self.verdict(rights, cluster, |names| {
            let topics = hub.topics(&key).0.iter().map(|topic| topic.name_any()).collect();
            awaited(names, &topics)
        });
        if reason == reasons::RIGHTS_NOT_WRITTEN {
            cycle.look_again();
        }
        cycle.set(KAFKA_CLOSED, state, reason, text);
    }

    fn verdict(
        &self,
        rights: &Rights,
        cluster: &Cluster,
        awaited: impl Fn(&[Application]) -> Vec<String>,
    ) -> (State, &'static str, String) {
        let closing = |text: String| (State::False, reasons::KAFKA_CLOSING, text);
        let run = |least| self.pods.iter().filter(|pod| **pod >= Some(least)).count();
        let brokers = cluster.brokers;
        if let Some(failure) = &rights.failure {
            return (State::False, reasons::RIGHTS_NOT_WRITTEN, failure.message());
        }
        if self.stage == Stage::Granting && run(Stage::Granting) < count(brokers) {
            let run = run(Stage::Granting);
            return closing(format!(
                "brokers restart to know rights, and still let everybody in: {run} of {brokers} do"
            ));
        }
        if !rights.are(&self.wanted) {
            return closing("the declared rights are being written".to_owned());
        }
        if run(Stage::Closed) < count(brokers) {
            let run = run(Stage::Closed);
            return closing(format!("{run} of {brokers} brokers refuse whoever has no right"));
        }
        let waiting =
            if cluster.applications.is_empty() { Vec::new() } else { awaited(&cluster.applications) };
        let text = match waiting.as_slice() {
            [] => String::new(),
            some => format!("rights on Topics that are not there yet: {}", some.join("; ")),
        };
        (State::True, reasons::KAFKA_CLOSED, text)
    }
}

/// What is known of rights before anybody asked.
static NOTHING: Rights = Rights { proven: None, failure: None };

fn count(brokers: i32) -> usize {
    usize::try_from(brokers).unwrap_or_default()
}
