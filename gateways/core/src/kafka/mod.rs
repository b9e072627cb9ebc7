//! Kafka through librdkafka: the one place that configures its clients. IO: librdkafka's own threads.

mod context;
mod credentials;
mod directory;
mod doubts;
mod handle;
mod lane;
mod reader;
mod sink;
mod witness;

pub use credentials::Credentials;
pub(crate) use credentials::Renew;
pub use directory::follow_directory;
pub use reader::KafkaReaders;
pub use sink::KafkaSink;

use crate::publisher::MAX_RECORD_BYTES;
use crate::telemetry::Client;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use tidegate_contract::config::{self, KafkaConfig};

/// Settings of every client. Brokers die and move: all back-offs are short, so that acknowledgements and
/// deliveries flow again within seconds. Reads the file with the password; librdkafka reads the other files.
fn base(kafka: &KafkaConfig, client: Client, id: &str) -> KafkaResult<ClientConfig> {
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
    secure(&mut config, kafka)?;
    Ok(config)
}

/// Who we are, and whom we believe.
fn secure(config: &mut ClientConfig, kafka: &KafkaConfig) -> KafkaResult<()> {
    let protocol = config::security_protocol(kafka.tls.is_some(), kafka.sasl.is_some());
    config.set("security.protocol", protocol);
    if let Some(tls) = &kafka.tls {
        // where distributions keep the public authorities
        let ca = tls.ca.as_ref().map_or_else(|| "probe".to_owned(), |ca| ca.display().to_string());
        config.set("ssl.ca.location", ca);
        if let Some(client) = &tls.client {
            config
                .set("ssl.certificate.location", client.certificate.display().to_string())
                .set("ssl.key.location", client.key.display().to_string());
        }
    }
    if let Some(sasl) = &kafka.sasl {
        let file = sasl.password.display();
        let text = std::fs::read_to_string(&sasl.password)
            .map_err(|error| KafkaError::ClientCreation(format!("failed to read {file}: {error}")))?;
        config
            .set("sasl.mechanism", sasl.mechanism.name())
            .set("sasl.username", &sasl.username)
            .set("sasl.password", config::password(&text));
    }
    Ok(())
}

/// What a batch may have before compression, unless a single record has more.
const BATCH_BYTES: usize = 65_536;

/// The producer of DESIGN §5.
fn producer(kafka: &KafkaConfig, id: &str) -> KafkaResult<ClientConfig> {
    let mut config = base(kafka, Client::producer, id)?;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("compression.codec", "lz4")
        // for ever: a record that is dropped here could be stored behind a later one of its connection, when the device
        // sends it again; how long the device waits is the publisher's to bound
        .set("message.timeout.ms", "0")
        .set("request.timeout.ms", "3000")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", (MAX_RECORD_BYTES + (1 << 20)).to_string())
        .set("batch.size", BATCH_BYTES.to_string())
        // our budgets are far below: librdkafka's queue is never full
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        // what tells whether Kafka is there
        .set("statistics.interval.ms", "1000");
    Ok(config)
}

/// A consumer with manual assignment.
fn consumer(kafka: &KafkaConfig, client: Client, id: &str) -> KafkaResult<ClientConfig> {
    let mut config = base(kafka, client, id)?;
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
        // what is not committed yet nobody misses
        Client::witness => {
            config
                .set("isolation.level", "read_committed")
                .set("fetch.wait.max.ms", "10")
                .set("enable.partition.eof", "true");
        }
        Client::directory => {
            config
                .set("isolation.level", "read_committed")
                .set("auto.offset.reset", "earliest")
                .set("enable.partition.eof", "true")
                .set("fetch.wait.max.ms", "250");
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tidegate_contract::config::{KafkaSasl, KafkaSaslMechanism, KafkaTls};

    fn settings(kafka: &KafkaConfig) -> [Option<String>; 5] {
        let config = base(kafka, Client::tail, "test").unwrap();
        ["security.protocol", "ssl.ca.location", "sasl.mechanism", "sasl.username", "sasl.password"]
            .map(|key| config.get(key).map(ToOwned::to_owned))
    }

    #[test]
    fn every_client_shows_the_password_of_the_file_and_believes_the_authority_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "hard to guess\n").unwrap();
        let sasl = KafkaSasl {
            mechanism: KafkaSaslMechanism::ScramSha512,
            username: "tidegate".to_owned(),
            password,
        };
        let tls = KafkaTls { ca: Some(PathBuf::from("/k/ca.crt")), client: None };
        let mut kafka = KafkaConfig { tls: Some(tls), sasl: Some(sasl), ..KafkaConfig::plain("x") };
        let said = ["sasl_ssl", "/k/ca.crt", "SCRAM-SHA-512", "tidegate", "hard to guess"];
        assert_eq!(settings(&kafka), said.map(|text| Some(text.to_owned())));
        kafka.tls = Some(KafkaTls::default());
        assert_eq!(settings(&kafka)[1].as_deref(), Some("probe"), "the public authorities");
        kafka.tls = None;
        assert_eq!(settings(&kafka)[0].as_deref(), Some("sasl_plaintext"));
        assert_eq!(settings(&KafkaConfig::plain("x"))[0].as_deref(), Some("plaintext"));
    }

    #[test]
    fn librdkafka_was_built_with_every_mechanism_that_a_platform_can_name() {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "x").unwrap();
        for mechanism in
            [KafkaSaslMechanism::Plain, KafkaSaslMechanism::ScramSha256, KafkaSaslMechanism::ScramSha512]
        {
            let sasl = KafkaSasl { mechanism, username: "x".to_owned(), password: password.clone() };
            let kafka = KafkaConfig {
                tls: Some(KafkaTls::default()),
                sasl: Some(sasl),
                ..KafkaConfig::plain("127.0.0.1:1")
            };
            let config = consumer(&kafka, Client::tail, "test").unwrap();
            config.create::<rdkafka::consumer::BaseConsumer>().unwrap();
        }
    }

    #[test]
    fn a_password_that_is_not_there_names_the_file() {
        let password = PathBuf::from("/nowhere/password");
        let sasl = KafkaSasl { mechanism: KafkaSaslMechanism::Plain, username: "x".to_owned(), password };
        let error =
            producer(&KafkaConfig { sasl: Some(sasl), ..KafkaConfig::plain("x") }, "test").unwrap_err();
        assert!(error.to_string().contains("/nowhere/password"), "{error}");
    }
}
