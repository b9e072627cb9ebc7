//! Topics of the Kafka on loopback, as its administrator makes them, and what it really holds. IO: sockets on loopback.

use crate::Kafka;
use anyhow::{Context as _, Result, bail, ensure};
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// A record as Kafka holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key as text.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

impl Kafka {
    /// Creates a topic and waits until every broker that is up knows leaders for it.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        config: &[(&str, &str)],
    ) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        for result in block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, error)) => bail!("failed to create {topic}: {error}"),
            }
        }
        let until = Instant::now() + Duration::from_secs(30);
        while (0..partitions).any(|partition| self.leader(name, partition).is_err()) {
            ensure!(Instant::now() < until, "topic {name} got no leaders");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sets settings of a topic, and forgets all others that it had.
    pub fn configure_topic(&self, name: &str, config: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in config {
            alter = alter.set(key, value);
        }
        for result in block_on(admin.alter_configs(&[alter], &AdminOptions::new()))? {
            result.map_err(|(what, error)| anyhow::anyhow!("failed to configure {what:?}: {error}"))?;
        }
        Ok(())
    }

    /// A setting of a topic as it is in effect.
    pub fn topic_setting(&self, name: &str, key: &str) -> Result<String> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let topic = [ResourceSpecifier::Topic(name)];
        let mut found = block_on(admin.describe_configs(&topic, &AdminOptions::new()))?;
        let found = found.pop().context("no answer")??;
        let entry = found.entries.into_iter().find(|entry| entry.name == key);
        entry.and_then(|entry| entry.value).context("no such setting")
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        block_on(admin.delete_topics(&[name], &AdminOptions::new()))?;
        Ok(())
    }

    /// Deletes the records before an offset, as retention does.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        block_on(admin.delete_records(&list, &AdminOptions::new()))?;
        Ok(())
    }

    /// The broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<usize> {
        let metadata = self.client()?.fetch_metadata(Some(topic), Duration::from_secs(2))?;
        let found = metadata
            .topics()
            .iter()
            .flat_map(rdkafka::metadata::MetadataTopic::partitions)
            .find(|known| known.id() == partition && known.error().is_none());
        usize::try_from(found.context("no such partition")?.leader()).context("no leader")
    }

    /// Every committed record of a topic, in the order of partitions and offsets: what Kafka really holds.
    pub fn read_all(&self, topic: &str) -> Result<Vec<Held>> {
        let consumer: BaseConsumer = self
            .client_config()
            .set("group.id", "testkit")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions)? {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut held, mut ended) = (Vec::new(), 0);
        let until = Instant::now() + Duration::from_secs(60);
        while ended < partitions {
            ensure!(Instant::now() < until, "reading {topic} took too long");
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => held.push(Held {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                    value: message.payload().unwrap_or_default().to_vec(),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(_)) | None => {}
            }
        }
        held.sort_by_key(|each| (each.partition, each.offset));
        Ok(held)
    }
}
