//! The Topic controller: decides sizes once, lets the platform's sweep do the work in Kafka, and says how it is.
//! IO against the API server only.

use super::decide::{FINALIZER, InvalidTopic, filters};
use super::effective::{desired, effective};
use super::judge::judge;
use crate::finalizer;
use crate::frame::driver::Watches;
use crate::frame::malformed::Malformed;
use crate::frame::platforms::{Guarded, Platforms};
use crate::frame::{Class, Cycle, Failure, Reconciler, Scope, StepError};
use crate::kafka::hub::{Hub, Key};
use crate::kafka::snapshot::{Health, Outcome, Snapshot, TopicState};
use futures::{StreamExt as _, stream};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use std::sync::Arc;
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

/// The Topic controller.
#[derive(Debug)]
pub struct TopicController {
    hub: Arc<Hub>,
    platforms: Platforms,
}

impl TopicController {
    /// A controller that meets the platforms' sweeps in `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, platforms: Platforms::default() }
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
        // Only what its author changes, or that it became readable, is news.
        let part = |platform: &Guarded| {
            let meta = platform.meta();
            (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some(), platform.0.is_ok())
        };
        let attached = move |platform: ObjectRef<Guarded>| {
            let names = |topic: &Topic| topic.spec.platform_ref.name == platform.name;
            let all = topics
                .state()
                .into_iter()
                .filter(|topic| topic.namespace() == platform.namespace && topic.0.as_ref().is_ok_and(names));
            stream::iter(all.map(|topic| ObjectRef::from_obj(&*topic)).collect::<Vec<_>>())
        };
        controller
            .reconcile_on(self.platforms.watch(scope, part).flat_map(attached))
            .reconcile_on(self.hub.topic_bell().listen())
    }

    async fn reconcile(&self, cycle: &mut Cycle<Topic>) -> Result<(), Failure> {
        let (topic, name) = (Arc::clone(&cycle.subject), cycle.name());
        let key = Key::new(cycle.namespace(), topic.spec.platform_ref.name.as_str());
        filters(&topic).map_err(TopicError::from)?;
        let platform = self.platforms.read(&cycle.context, &key.namespace, &key.name).await?;
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
        let key = Key::new(cycle.namespace(), topic.spec.platform_ref.name.as_str());
        let going = self.platforms.is_going(&cycle.context, &key.namespace, &key.name).await?;
        // Without its platform nothing can be done in Kafka, now or later: waiting for the annotation to go would keep a
        // namespace from ending.
        if cycle.paused() && !going {
            return Ok(());
        }
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
            // In a namespace that ends, no Event is taken.
            tracing::warn!("{text}");
            cycle.note(true, reasons::LET_GO, text);
            return finalizer::set(&cycle.context, &*topic, FINALIZER, false).await.map_err(Failure::from);
        }
        self.hub.nudge(&key);
        cycle.progressing(reasons::DELETING, "the topic is being deleted in Kafka");
        cycle.requeue_after(Duration::from_secs(5));
        Ok(())
    }
}
