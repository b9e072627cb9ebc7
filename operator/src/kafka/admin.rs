//! Kafka's admin calls, one batch each: observe and execute. Does network IO.

use super::access::{Access, Quiet};
use super::error::{Class, Failure, Told};
use super::heard::{Heard, Trouble};
use super::plan::{Desired, Observed, Plan, Topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataBroker;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::reasons;

/// How long one call may take.
pub(super) const CALL: Duration = Duration::from_secs(3);
/// How long is listened for at a time.
const SLICE: Duration = Duration::from_millis(250);
/// How long Kafka may take to carry out what changes topics.
const OPERATION: Duration = Duration::from_secs(5);

/// One connection to a platform's Kafka. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub(super) client: Arc<AdminClient<Quiet>>,
    access: Arc<Access>,
    who: Arc<str>,
}

/// What carrying out a plan brought for each topic that it touched.
pub type Outcomes = BTreeMap<String, Result<(), Failure>>;

impl Admin {
    /// Prepares a client; connects when first used.
    pub fn new(access: &Access) -> Result<Self, Failure> {
        let client = access
            .config()
            .create_with_context(Quiet::default())
            .map_err(|error| Failure::from_client("set up the Kafka client", &error))?;
        let who = access.principal().into();
        Ok(Self { client: Arc::new(client), access: Arc::new(access.clone()), who })
    }

    /// Who the operator is for Kafka.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// What a failed call means: nobody at the other end answers a call that it refused to be connected for.
    async fn explain(&self, failure: Failure) -> Failure {
        if !self.access.external || failure.is_denied() {
            return failure;
        }
        let Some((mut trouble, broker)) = listen(self.access.config()).await else { return failure };
        if trouble == Trouble::Certificate {
            // librdkafka does not say whether it refused a certificate's authority or its host: asked again without
            // looking at the host, and without showing anything, it refuses the authority only.
            trouble = match listen(self.access.any_host()).await {
                Some((Trouble::Certificate, _)) => Trouble::Untrusted,
                _ => Trouble::OtherHost,
            };
        }
        failure.meaning(trouble.tell(&broker, &self.access))
    }

    /// One sweep: all topics' metadata, and the settings of those that `wanted` names.
    pub async fn observe(&self, wanted: &[String]) -> Result<Observed, Failure> {
        let client = Arc::clone(&self.client);
        let metadata = tokio::task::spawn_blocking(move || {
            client
                .inner()
                .fetch_metadata(None, CALL)
                .map(|metadata| {
                    // Known since the metadata came: nothing is waited for.
                    let cluster_id = client.inner().fetch_cluster_id(Duration::ZERO);
                    Observed { cluster_id, ..observed(&metadata) }
                })
                .map_err(|error| Failure::from_client("read Kafka's metadata", &error))
        });
        let metadata = metadata.await;
        let metadata =
            metadata.unwrap_or_else(|_| Err(Failure::new("read Kafka's metadata", RDKafkaErrorCode::Fail)));
        let mut seen = match metadata {
            Ok(seen) => seen,
            Err(failure) => return Err(self.explain(failure).await),
        };
        let present: Vec<_> = wanted
            .iter()
            .filter(|&name| seen.topics.contains_key(name))
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        if present.is_empty() {
            return Ok(seen);
        }
        // One and the same broker, so that a later sweep never sees less than an earlier one: AlterConfigs replaces
        // everything, and a broker that lags would have us drop what somebody just set.
        let asked =
            self.client.describe_configs(&present, &options().broker_id(seen.brokers.first().copied()));
        let described = match asked.await {
            Ok(described) => described,
            Err(_) => self
                .client
                .describe_configs(&present, &options())
                .await
                .map_err(|error| Failure::from_client("read the topics' settings", &error))?,
        };
        let mut refused = None;
        for resource in described {
            let resource = match resource {
                Ok(resource) => resource,
                // A topic that was deleted in between is created in the next sweep.
                Err(code) => {
                    refused = Some(code);
                    continue;
                }
            };
            // Every topic has settings; one without any was refused, and the library drops the reason.
            if resource.entries.is_empty() {
                refused = Some(RDKafkaErrorCode::TopicAuthorizationFailed);
                continue;
            }
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else { continue };
            let own = resource.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
            let config = own.filter_map(|entry| Some((entry.name, entry.value?))).collect();
            if let Some(topic) = seen.topics.get_mut(&name) {
                topic.config = Some(config);
            }
        }
        if let Some(code) = refused.filter(|code| Failure::new("", *code).is_denied()) {
            // An answer that is a refusal does not say for which topic: for those without another.
            for name in wanted {
                if seen.topics.get(name).is_some_and(|topic| topic.config.is_none()) {
                    let failure = Failure::new(format!("read the settings of topic {name:?}"), code);
                    let right = format!("operation DescribeConfigs on topic {name:?}");
                    seen.hidden.insert(name.clone(), failure.lacking(&self.who, &right));
                }
            }
        }
        Ok(seen)
    }

    /// Carries out a plan: each kind of change in one request. A failed request fails all its topics.
    pub async fn execute(&self, plan: &Plan) -> Outcomes {
        let mut outcomes = Outcomes::new();
        let mut told = Outcomes::new();
        if !plan.create.is_empty() {
            self.create(&plan.create, &mut outcomes).await;
            self.tell("Create", " or on the cluster", &mut outcomes, &mut told);
        }
        if !plan.configure.is_empty() {
            self.configure(&plan.configure, &mut outcomes).await;
            self.tell("AlterConfigs", "", &mut outcomes, &mut told);
        }
        if !plan.delete.is_empty() {
            self.delete(&plan.delete, &mut outcomes).await;
            self.tell("Delete", "", &mut outcomes, &mut told);
        }
        told
    }

    /// Moves outcomes, with what their failures mean.
    fn tell(&self, operation: &str, or: &str, outcomes: &mut Outcomes, told: &mut Outcomes) {
        for (name, outcome) in std::mem::take(outcomes) {
            let outcome = outcome.map_err(|failure| {
                if failure.code != RDKafkaErrorCode::TopicAlreadyExists || !self.access.external {
                    let right = format!("operation {operation} on topic {name:?}{or}");
                    return failure.lacking(&self.who, &right);
                }
                let text = format!(
                    "topic {name:?} is in Kafka already: if that stays, Kafka does not show it to {}: allow it operation Describe on the topic",
                    self.who
                );
                failure.meaning(Told { reason: reasons::KAFKA_FORBIDDEN, class: Class::Blocked, text })
            });
            told.insert(name, outcome);
        }
    }

    async fn create(&self, topics: &[Desired], outcomes: &mut Outcomes) {
        let new: Vec<_> = topics
            .iter()
            .map(|topic| {
                let mut new =
                    NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replicas));
                for (name, value) in &topic.config {
                    new = new.set(name, value);
                }
                new
            })
            .collect();
        let names = topics.iter().map(|topic| topic.name.as_str());
        match self.client.create_topics(&new, &options()).await {
            Ok(results) => {
                settle("create topic", results, None, outcomes);
            }
            Err(error) => fail("create topic", names, &error, outcomes),
        }
    }

    async fn configure(&self, changes: &[(String, BTreeMap<String, String>)], outcomes: &mut Outcomes) {
        let alter: Vec<_> = changes
            .iter()
            .map(|(name, config)| {
                let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
                for (name, value) in config {
                    alter = alter.set(name, value);
                }
                alter
            })
            .collect();
        let what = "change the settings of topic";
        match self.client.alter_configs(&alter, &options()).await {
            Ok(results) => {
                for result in results {
                    let (specifier, result) = match result {
                        Ok(specifier) => (specifier, Ok(())),
                        Err((specifier, code)) => (specifier, Err(code)),
                    };
                    if let OwnedResourceSpecifier::Topic(name) = specifier {
                        let result = result.map_err(|code| Failure::new(format!("{what} {name:?}"), code));
                        outcomes.insert(name, result);
                    }
                }
            }
            Err(error) => fail(what, changes.iter().map(|(name, _)| name.as_str()), &error, outcomes),
        }
    }

    async fn delete(&self, names: &[String], outcomes: &mut Outcomes) {
        let borrowed: Vec<_> = names.iter().map(String::as_str).collect();
        match self.client.delete_topics(&borrowed, &options()).await {
            Ok(results) => {
                let gone = RDKafkaErrorCode::UnknownTopicOrPartition;
                settle("delete topic", results, Some(gone), outcomes);
            }
            Err(error) => fail("delete topic", borrowed.into_iter(), &error, outcomes),
        }
    }
}

/// Connects once more and listens to why that fails. An admin client cannot be listened to.
async fn listen(config: ClientConfig) -> Option<(Trouble, String)> {
    let listening = tokio::task::spawn_blocking(move || {
        let heard = Heard::default();
        let context = Quiet(heard.clone());
        let client: BaseConsumer<Quiet> = Access::talkative(config).create_with_context(context).ok()?;
        let began = Instant::now();
        while heard.worst().is_none() && began.elapsed() < CALL {
            // It connects because somebody asks for something.
            if client.fetch_metadata(None, SLICE).is_ok() {
                return None;
            }
            while client.poll(Duration::ZERO).is_some() {}
        }
        heard.worst()
    });
    listening.await.ok().flatten()
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(OPERATION + CALL)).operation_timeout(Some(OPERATION))
}

fn settle(
    what: &str,
    results: Vec<rdkafka::admin::TopicResult>,
    fine: Option<RDKafkaErrorCode>,
    outcomes: &mut Outcomes,
) {
    for result in results {
        match result {
            Ok(name) => {
                outcomes.insert(name, Ok(()));
            }
            Err((name, code)) if Some(code) == fine => {
                outcomes.insert(name, Ok(()));
            }
            Err((name, code)) => {
                let failure = Failure::new(format!("{what} {name:?}"), code);
                outcomes.insert(name, Err(failure));
            }
        }
    }
}

fn fail<'a>(
    what: &str,
    names: impl Iterator<Item = &'a str>,
    error: &rdkafka::error::KafkaError,
    outcomes: &mut Outcomes,
) {
    for name in names {
        let failure = Failure::from_client(format!("{what} {name:?}"), error);
        outcomes.insert(name.to_owned(), Err(failure));
    }
}

fn observed(metadata: &rdkafka::metadata::Metadata) -> Observed {
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let mut seen = Observed {
        brokers: metadata.brokers().iter().map(MetadataBroker::id).collect(),
        ..Observed::default()
    };
    for topic in metadata.topics() {
        if topic.error().is_some() {
            continue;
        }
        let partitions = topic.partitions();
        for partition in partitions {
            let away = partition.replicas().iter().filter(|&id| !seen.brokers.contains(id));
            seen.away.extend(away);
        }
        let replicas = partitions.iter().map(|each| count(each.replicas().len())).min();
        let in_sync = partitions.iter().map(|each| count(each.isr().len())).min();
        seen.topics.insert(
            topic.name().to_owned(),
            Topic {
                partitions: count(partitions.len()),
                replicas: replicas.unwrap_or_default(),
                in_sync: in_sync.unwrap_or_default(),
                leaderless: count(partitions.iter().filter(|each| each.leader() < 0).count()),
                config: None,
            },
        );
    }
    seen
}
