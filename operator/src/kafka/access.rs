//! How to reach a Kafka: addresses, certificates, a name and a password, as settings of librdkafka. Pure.

use super::heard::Heard;
use crate::pki::Key;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use std::fmt;
use tidegate_contract::config::{self, KafkaSaslMechanism};

/// How to reach a Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// In front of every topic, group and transactional id.
    pub prefix: String,
    /// Encryption; absent: none.
    pub tls: Option<Tls>,
    /// A name and a password.
    pub sasl: Option<Sasl>,
    /// Whether somebody else keeps this Kafka: then its trouble is told in terms of `spec.kafka.external`.
    pub external: bool,
}

/// PEM texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that sign brokers; absent: the public ones.
    pub authorities: Option<String>,
    /// What the operator shows.
    pub client: Option<ClientCertificate>,
}

/// What the operator shows to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Key,
}

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How they are proven.
    pub mechanism: KafkaSaslMechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Password,
}

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

impl Access {
    /// Settings that every client shares.
    pub fn config(&self) -> ClientConfig {
        let mut config = self.anonymous();
        config.set("security.protocol", config::security_protocol(self.tls.is_some(), self.sasl.is_some()));
        if let Some(client) = self.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
            config.set("ssl.certificate.pem", &client.certificate).set("ssl.key.pem", client.key.pem());
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", &sasl.password.0);
        }
        config
    }

    /// Settings of a client that only looks at the brokers' certificates, whatever host they are for, and shows
    /// nothing.
    pub fn any_host(&self) -> ClientConfig {
        let mut config = self.anonymous();
        config.set("security.protocol", "ssl").set("ssl.endpoint.identification.algorithm", "none");
        config
    }

    /// The same, for a client that is only listened to: a listener of another protocol says nothing else than that it
    /// hangs up.
    pub fn talkative(mut config: ClientConfig) -> ClientConfig {
        config.set("log.connection.close", "true").set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn anonymous(&self) -> ClientConfig {
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
            match &tls.authorities {
                Some(authorities) => config.set("ssl.ca.pem", authorities),
                None => config.set("ssl.ca.location", "probe"),
            };
        }
        config
    }

    /// Who the operator is for Kafka, as far as that can be known from here.
    pub fn principal(&self) -> String {
        if let Some(sasl) = &self.sasl {
            return format!("User:{}", sasl.username);
        }
        let shown = self.tls.as_ref().and_then(|tls| tls.client.as_ref());
        match shown.and_then(|client| crate::pki::subject(&client.certificate)) {
            Some(subject) => format!("the client certificate {subject:?}"),
            None => "User:ANONYMOUS".to_owned(),
        }
    }
}

/// librdkafka speaks of every lost connection; the sweep says once what that means, so the rest is for debugging.
#[derive(Clone, Debug, Default)]
pub struct Quiet(pub Heard);

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        if facility == "FAIL" {
            self.0.hear(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        self.0.hear(reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

impl ProducerContext<NoCustomPartitioner> for Quiet {
    type DeliveryOpaque = ();

    // The transaction's outcome tells of every record in it.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_at_certificates_shows_neither_password_nor_key() {
        let client = ClientCertificate { certificate: "C".to_owned(), key: Key::new("SECRET".to_owned()) };
        let access = Access {
            bootstrap: "x:1".to_owned(),
            prefix: String::new(),
            tls: Some(Tls { authorities: None, client: Some(client) }),
            sasl: Some(Sasl {
                mechanism: KafkaSaslMechanism::Plain,
                username: "tidegate".to_owned(),
                password: Password::new("SECRET".to_owned()),
            }),
            external: true,
        };
        assert_eq!(access.config().get("security.protocol"), Some("sasl_ssl"));
        assert!(access.any_host().config_map().values().all(|value| !value.contains("SECRET")));
        assert!(!format!("{access:?}").contains("SECRET"));
        assert_eq!(access.principal(), "User:tidegate");
    }
}
