//! The Topic controller: decides sizes once, lets the platform's sweep do the work in Kafka, and says how it is.
//! IO against the API server only.

use super::decide::{FINALIZER, InvalidTopic, filters};
use super::effective::{desired, effective};
use super::judge::judge;
use crate::finalizer;
use crate::frame::driver::{Watches, read};
use crate::frame::malformed::{self, Malformed};
use crate::frame::{Class, Cycle, Failure, Reconciler, Scope, StepError};
use crate::kafka::hub::{Hub, Key};
use crate::kafka::snapshot::{Health, Outcome, Snapshot, TopicState};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_contract::internal;
use tidegate_crds::conditions::{ACCEPTED, RESOLVED_REFS};
use tidegate_crds::topic::{DeletionPolicy, TopicEffective};
use tidegate_crds::{IoTPlatform, State, Topic, reasons};

/// How long a Topic that is being deleted waits for a Kafka that is away.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why a pass over a Topic ends early.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The spec says something that cannot be.
    #[error(transparent)]
    Invalid(#[from] InvalidTopic),
    /// There is no such platform.
    #[error(
        "spec.platformRef.name: there is no IoTPlatform {0:?} in this namespace; create it or name another"
    )]
    NoPlatform(String),
    /// The platform does not fit this version.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl StepError for TopicError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => reasons::INVALID,
            Self::NoPlatform(_) => reasons::PLATFORM_NOT_FOUND,
            Self::Malformed(error) => error.reason(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Invalid(_) => Class::Invalid,
            Self::NoPlatform(_) | Self::Malformed(_) => Class::Blocked,
        }
    }

    fn condition(&self) -> Option<&'static str> {
        match self {
            Self::Invalid(_) => Some(ACCEPTED),
            Self::NoPlatform(_) | Self::Malformed(_) => Some(RESOLVED_REFS),
        }
    }
}

/// Which edits of platforms were seen. A platform may have thousands of Topics, and its status changes with each of
/// them: only what its author changes, or that it became readable, is news for them.
#[derive(Default)]
struct Edits(Mutex<HashMap<String, (Option<i64>, bool)>>);

impl Edits {
    fn is_new(&self, platform: &DeserializeGuard<IoTPlatform>) -> bool {
        let state = (platform.meta().generation, platform.0.is_ok());
        let uid = platform.uid().unwrap_or_default();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if platform.meta().deletion_timestamp.is_some() {
            seen.remove(&uid);
            return true;
        }
        seen.insert(uid, state) != Some(state)
    }
}

/// The Topic controller.
pub struct TopicController {
    hub: Arc<Hub>,
}

impl TopicController {
    /// A controller that meets the platforms' sweeps in `hub`.
    pub const fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn snapshot(&self, key: &Key) -> Option<Arc<Snapshot>> {
        self.hub.snapshot(key)
    }

    /// What is in effect; nothing while it must still be looked up whether Kafka has the topic already.
    fn decided(topic: &Topic, platform: &IoTPlatform, snapshot: Option<&Snapshot>) -> Option<TopicEffective> {
        let before = topic.status.as_ref().and_then(|status| status.effective.as_ref());
        let known =
            before.is_some_and(|before| before.partitions.is_some()) || topic.spec.partitions.is_some();
        let mut in_kafka = None;
        if !known {
            let up = snapshot.filter(|snapshot| snapshot.health == Health::Up)?;
            match &up.topics.get(&topic.name_any())?.outcome {
                Outcome::Present { topic, .. } => in_kafka = Some(topic.partitions),
                // Kafka has it, and how it is counts from the moment it is taken over.
                Outcome::Foreign => return None,
                Outcome::Waiting | Outcome::Failed(_) | Outcome::Absent => {}
            }
        }
        Some(effective(&topic.spec, before, platform.spec.topic_defaults.as_ref(), in_kafka))
    }
}

impl Reconciler for TopicController {
    type Subject = Topic;

    const NAME: &'static str = "topic";

    fn watch(&self, controller: Watches<Topic>, scope: &Scope) -> Watches<Topic> {
        let topics = controller.store();
        self.hub.add_topics(topics.clone());
        let edits = Edits::default();
        let of_platform = move |platform: DeserializeGuard<IoTPlatform>| {
            let attached = |topic: &DeserializeGuard<Topic>| {
                topic.namespace() == platform.namespace()
                    && topic.0.as_ref().is_ok_and(|topic| topic.spec.platform_ref.name == platform.name_any())
            };
            let changed = edits.is_new(&platform);
            let all = topics.state().into_iter().filter(|topic| changed && attached(topic));
            all.map(|topic| ObjectRef::from_obj(&*topic)).collect::<Vec<_>>()
        };
        controller
            .watches(scope.api::<DeserializeGuard<IoTPlatform>>(), watcher::Config::default(), of_platform)
            .reconcile_on(self.hub.topic_bell().listen())
    }

    async fn reconcile(&self, cycle: &mut Cycle<Topic>) -> Result<(), Failure> {
        let (topic, name) = (Arc::clone(&cycle.subject), cycle.name());
        let key = Key::new(cycle.namespace(), topic.spec.platform_ref.name.as_str());
        filters(&topic).map_err(TopicError::from)?;
        let platform = malformed::read::<IoTPlatform>(&cycle.context, &key.namespace, &key.name).await?;
        let platform = platform.ok_or_else(|| TopicError::NoPlatform(key.name.clone()))?;
        let platform = platform.map_err(TopicError::from)?;

        let keeps = topic.spec.deletion_policy == DeletionPolicy::Delete;
        if !cycle.paused() {
            finalizer::set(&cycle.context, &*topic, FINALIZER, keeps).await?;
        }

        let snapshot = self.snapshot(&key);
        let kafka_name = internal::name(&platform.spec.kafka.prefix, &name);
        let decided = Self::decided(&topic, &platform, snapshot.as_deref());
        let want = decided.as_ref().and_then(|decided| desired(&kafka_name, &topic.spec, decided));
        cycle.status.kafka_name = Some(kafka_name);
        let before = topic.status.as_ref();
        let news = before.is_none_or(|before| {
            before.observed_generation != topic.metadata.generation || before.effective != decided
        });
        if decided.is_some() {
            cycle.status.effective = decided;
        }
        for notice in self.hub.take_notices(&key, &name) {
            cycle.note(notice.warning, notice.reason, notice.text);
        }
        let verdict = judge(&name, want.as_ref(), snapshot.as_deref());
        cycle.ready(verdict.ready, verdict.reason, verdict.message.as_str());
        if verdict.ready != State::True {
            cycle.progressing(verdict.reason, verdict.message.as_str());
        }
        if news || verdict.ready != State::True {
            self.hub.nudge(&key);
        }
        if verdict.stuck {
            let (reason, message) = (verdict.reason, verdict.message);
            return Err(Failure { class: Class::Blocked, reason, condition: None, message });
        }
        Ok(())
    }

    async fn finalize(&self, cycle: &mut Cycle<Topic>) -> Result<(), Failure> {
        let topic = Arc::clone(&cycle.subject);
        if !topic.finalizers().iter().any(|each| each == FINALIZER) {
            return Ok(());
        }
        if cycle.paused() {
            return Ok(());
        }
        let key = Key::new(cycle.namespace(), topic.spec.platform_ref.name.as_str());
        let platform =
            read::<DeserializeGuard<IoTPlatform>>(&cycle.context, &key.namespace, &key.name).await?;
        let going = platform.is_none_or(|platform| platform.meta().deletion_timestamp.is_some());
        let snapshot = self.snapshot(&key);
        let state = snapshot.as_ref().and_then(|all| all.topics.get(&topic.name_any()));
        let up = snapshot.as_ref().is_some_and(|all| all.health == Health::Up);
        // What others made is not deleted.
        let done = |state: &TopicState| matches!(state.outcome, Outcome::Absent | Outcome::Foreign);
        let gone = up && state.is_some_and(done);
        let since = topic.metadata.deletion_timestamp.as_ref();
        let waited = since.map(|since| cycle.now().duration_since(since.0));
        let patient = waited.is_none_or(|waited| waited.unsigned_abs() < PATIENCE);

        if topic.spec.deletion_policy == DeletionPolicy::Retain || gone {
            return finalizer::set(&cycle.context, &*topic, FINALIZER, false).await.map_err(Failure::from);
        }
        if going || (!up && !patient) {
            let why = if going { "its platform is gone" } else { "Kafka stayed away for two minutes" };
            let text = format!("the Topic is let go although its records may still be in Kafka: {why}");
            cycle.note(true, reasons::LET_GO, text);
            return finalizer::set(&cycle.context, &*topic, FINALIZER, false).await.map_err(Failure::from);
        }
        self.hub.nudge(&key);
        cycle.progressing(reasons::DELETING, "the topic is being deleted in Kafka");
        cycle.requeue_after(Duration::from_secs(5));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn topics_hear_of_a_platforms_edits_and_not_of_its_status() {
        let platform = |generation: i64, brokers: &serde_json::Value, ready: i32| {
            let platform = json!({
                "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
                "metadata": {"name": "plant", "uid": "p", "generation": generation},
                "spec": {"kafka": {"managed": {"brokers": brokers}}}, "status": {"topics": {"ready": ready, "total": 9}},
            });
            serde_json::from_value::<DeserializeGuard<IoTPlatform>>(platform).unwrap()
        };
        let edits = Edits::default();
        assert!(edits.is_new(&platform(1, &json!("three"), 0)));
        assert!(edits.is_new(&platform(2, &json!(3), 0)));
        assert!(!edits.is_new(&platform(2, &json!(3), 1)));
        assert!(edits.is_new(&platform(3, &json!(4), 1)));
    }
}
