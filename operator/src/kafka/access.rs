//! How to reach a Kafka: addresses and certificates, as settings of librdkafka. Pure.

use crate::pki::Key;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};

/// How to reach a Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// In front of every topic, group and transactional id.
    pub prefix: String,
    /// PEM texts; absent: a plain connection (tests on loopback only).
    pub tls: Option<Tls>,
}

/// PEM texts for mTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that sign brokers.
    pub authorities: String,
    /// The operator's certificate.
    pub certificate: String,
    /// Its key.
    pub key: Key,
}

impl Access {
    /// Settings that every client shares.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "tidegate-operator")
            .set("socket.timeout.ms", "3000")
            .set("socket.connection.setup.timeout.ms", "2000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // A pod that moves keeps its name and changes its address.
            .set("broker.address.ttl", "1000")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(tls) = &self.tls {
            config
                .set("security.protocol", "ssl")
                .set("ssl.ca.pem", &tls.authorities)
                .set("ssl.certificate.pem", &tls.certificate)
                .set("ssl.key.pem", tls.key.pem());
        }
        config
    }
}

/// librdkafka speaks of every lost connection; the sweep says once what that means, so the rest is for debugging.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

impl ProducerContext<NoCustomPartitioner> for Quiet {
    type DeliveryOpaque = ();

    // The transaction's outcome tells of every record in it.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}
