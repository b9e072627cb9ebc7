//! librdkafka's mock cluster: a Kafka inside this process that answers with the errors a test asks for.

use anyhow::{Context as _, Result};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tidegate_contract::config::KafkaConfig;

/// A mock cluster.
pub struct MockKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockKafka {
    /// A cluster with `brokers` brokers.
    pub fn start(brokers: i32) -> Result<Self> {
        Ok(Self { cluster: MockCluster::new(brokers).context("failed to create a mock cluster")? })
    }

    /// How a gateway reaches it.
    pub fn config(&self) -> KafkaConfig {
        KafkaConfig::plain(self.cluster.bootstrap_servers())
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: i32, replicas: i32) -> Result<()> {
        self.cluster
            .create_topic(name, partitions, i16::try_from(replicas)?.into())
            .context("failed to create a topic")
    }

    /// The next produce requests are answered with these errors, one each.
    pub fn fail_produce(&self, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(RDKafkaApiKey::Produce, errors);
    }

    /// The cluster itself, for what has no word here.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }
}
