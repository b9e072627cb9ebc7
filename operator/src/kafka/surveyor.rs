//! What a sweep does when somebody asks for more: a look at every partition and at the controllers, for a survey, and
//! exchanging a voter, and raising the version of Kafka's metadata. Does network IO.

use super::access::Access;
use super::admin::{Admin, CALL, options};
use super::error::Failure;
use super::survey::{Partition, Survey};
use super::wire;
use super::wire::voters::{Exchange, Next};
use rdkafka::admin::{OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataBroker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Looks once. The controllers come first: whoever asks them reaches the active one, and without it what brokers say
/// of each other may be old.
pub async fn survey(admin: &Admin, access: &Access) -> Result<Survey, Failure> {
    let asked = async {
        let mut connection = wire::connect(access).await?;
        wire::quorum::describe(&mut connection).await
    };
    let quorum = asked.await.map_err(|error| error.failure("look at Kafka's controllers"))?;
    let (brokers, mut partitions) = partitions(admin).await?;
    let topics: BTreeSet<_> = partitions.iter().map(|partition| partition.topic.clone()).collect();
    let minima = minima(admin, &topics, &brokers).await?;
    for partition in &mut partitions {
        partition.min_in_sync = minima.get(&partition.topic).copied();
    }
    Ok(Survey::of(brokers, &partitions, quorum))
}

/// Raises Kafka's metadata to `level` where it is lower, and says at which level it is then. Never lowers it.
pub async fn raise(access: &Access, level: i16) -> Result<i16, Failure> {
    const WHAT: &str = "raise the version of Kafka's metadata";
    let asked = async {
        let mut connection = wire::connect(access).await?;
        let have = connection.features().metadata.unwrap_or_default();
        if have >= level {
            return Ok(have);
        }
        wire::features::raise(&mut connection, level).await?;
        tracing::info!(from = have, to = level, "raised the version of Kafka's metadata");
        Ok(level)
    };
    asked.await.map_err(|error: wire::WireError| error.failure(WHAT))
}

/// Exchanges the voter of a lost disk for the same node's new one, as far as can be now.
pub async fn exchange(access: &Access, wanted: &Exchange) -> Result<Next, Failure> {
    let asked = async {
        let mut connection = wire::connect(access).await?;
        wire::voters::exchange(&mut connection, wanted).await
    };
    asked.await.map_err(|error: wire::WireError| error.failure("exchange a voter among Kafka's controllers"))
}

async fn partitions(admin: &Admin) -> Result<(BTreeSet<i32>, Vec<Partition>), Failure> {
    const WHAT: &str = "read Kafka's metadata";
    let client = Arc::clone(&admin.client);
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = client.inner().fetch_metadata(None, CALL);
        metadata.map(|metadata| read(&metadata)).map_err(|error| Failure::from_client(WHAT, &error))
    });
    asked.await.map_err(|_| Failure::new(WHAT, RDKafkaErrorCode::Fail))?
}

fn read(metadata: &Metadata) -> (BTreeSet<i32>, Vec<Partition>) {
    let brokers = metadata.brokers().iter().map(MetadataBroker::id).collect();
    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
    let partitions = topics.flat_map(|topic| {
        topic.partitions().iter().map(|partition| Partition {
            topic: topic.name().to_owned(),
            number: partition.id(),
            replicas: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
            min_in_sync: None,
        })
    });
    (brokers, partitions.collect())
}

/// What each topic needs, whoever said so: the topic, or the brokers.
async fn minima(
    admin: &Admin,
    topics: &BTreeSet<String>,
    brokers: &BTreeSet<i32>,
) -> Result<BTreeMap<String, usize>, Failure> {
    let wanted: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let asked = admin.client.describe_configs(&wanted, &options().broker_id(brokers.first().copied())).await;
    let described =
        asked.map_err(|error| Failure::from_client("read what topics need to be acknowledged", &error))?;
    // One that was deleted in between needs nothing.
    let one = described.into_iter().filter_map(Result::ok).filter_map(|resource| {
        let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
        let entry = resource.entries.into_iter().find(|entry| entry.name == MIN_IN_SYNC)?;
        Some((name, entry.value?.parse().ok()?))
    });
    Ok(one.collect())
}
