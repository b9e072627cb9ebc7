//! How the ledger reaches Kafka: straight, with a client certificate of its own. Builds configurations; no IO.

use rdkafka::ClientConfig;
use std::path::PathBuf;

/// Where Kafka is, and the PEM files to reach it with.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaOptions {
    /// `host:port`, comma-separated
    #[arg(long, env = "TIDEGATE_KAFKA_BOOTSTRAP")]
    pub bootstrap: String,
    /// Certificates that sign the brokers' ones; without it the connection is plain
    #[arg(long, env = "TIDEGATE_KAFKA_CA", requires_all = ["certificate", "key"])]
    pub ca: Option<PathBuf>,
    /// This client's certificate chain
    #[arg(long, env = "TIDEGATE_KAFKA_CERTIFICATE")]
    pub certificate: Option<PathBuf>,
    /// This client's key, PKCS#8
    #[arg(long, env = "TIDEGATE_KAFKA_KEY")]
    pub key: Option<PathBuf>,
}

impl KafkaOptions {
    /// What every client of the ledger has in common.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", "tidegate-ledger");
        if let (Some(ca), Some(certificate), Some(key)) = (&self.ca, &self.certificate, &self.key) {
            config
                .set("security.protocol", "ssl")
                .set("ssl.ca.location", ca.to_string_lossy())
                .set("ssl.certificate.location", certificate.to_string_lossy())
                .set("ssl.key.location", key.to_string_lossy());
        }
        config
    }
}
