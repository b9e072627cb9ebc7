//! Kafka through librdkafka: the one place that configures its clients. IO: librdkafka's own threads.

mod context;
mod directory;
mod reader;
mod sink;

pub use directory::follow_directory;
pub use reader::KafkaReaders;
pub use sink::KafkaSink;

use crate::publisher::MAX_RECORD_BYTES;
use crate::telemetry::Client;
use rdkafka::ClientConfig;
use tidegate_contract::config::KafkaConfig;

/// Settings of every client. Brokers die and move: all back-offs are short, so that acknowledgements and
/// deliveries flow again within seconds.
fn base(kafka: &KafkaConfig, client: Client, id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap)
        .set("client.id", format!("{id}-{}", client.name()))
        .set("socket.timeout.ms", "3000")
        // a node that was switched off answers no SYN
        .set("socket.connection.setup.timeout.ms", "2000")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        // per broker and client, six of them: a Kafka that refuses us by TLS must not be kept busy with handshakes
        .set("reconnect.backoff.max.ms", "1000")
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "250")
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set("topic.metadata.propagation.max.ms", "10000")
        .set("allow.auto.create.topics", "false")
        // pods move: their names must be asked again
        .set("broker.address.ttl", "1000")
        .set("log.connection.close", "false");
    if let Some(tls) = &kafka.tls {
        config
            .set("security.protocol", "ssl")
            .set("ssl.ca.location", tls.ca.display().to_string())
            .set("ssl.certificate.location", tls.certificate.display().to_string())
            .set("ssl.key.location", tls.key.display().to_string());
    }
    config
}

/// What a batch may have before compression, unless a single record has more.
const BATCH_BYTES: usize = 65_536;

/// The producer of DESIGN §5.
fn producer(kafka: &KafkaConfig, id: &str) -> ClientConfig {
    let mut config = base(kafka, Client::producer, id);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("compression.codec", "lz4")
        .set("message.timeout.ms", "10000")
        .set("request.timeout.ms", "3000")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", (MAX_RECORD_BYTES + (1 << 20)).to_string())
        .set("batch.size", BATCH_BYTES.to_string())
        // our budgets are far below: librdkafka's queue is never full
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        // what tells whether Kafka is there
        .set("statistics.interval.ms", "1000");
    config
}

/// A consumer with manual assignment.
fn consumer(kafka: &KafkaConfig, client: Client, id: &str) -> ClientConfig {
    let mut config = base(kafka, client, id);
    config
        // librdkafka wants one before it assigns; nothing is ever committed under it and no group is joined
        .set("group.id", format!("{}tg-{}", kafka.prefix, client.name()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_uncommitted")
        .set("fetch.min.bytes", "1")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.queue.backoff.ms", "20")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "8388608")
        .set("check.crcs", "true");
    match client {
        Client::producer => {}
        // a partition that is added waits for the fetch that is under way: keep that short; data returns at once
        Client::tail => {
            config.set("fetch.wait.max.ms", "50");
        }
        Client::sweep | Client::history => {
            config.set("fetch.wait.max.ms", "10").set("enable.partition.eof", "true");
        }
        Client::directory => {
            config
                .set("isolation.level", "read_committed")
                .set("auto.offset.reset", "earliest")
                .set("enable.partition.eof", "true")
                .set("fetch.wait.max.ms", "250");
        }
    }
    config
}
