//! Why a connection to Kafka does not come about: librdkafka says it in its log only, broker by broker, and its calls
//! then just time out. Pure.

use super::access::Access;
use super::error::{Class, Told};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_crds::reasons;

/// Brokers that are remembered at most.
const MOST: usize = 32;

/// The last that each broker's connection said.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<String, String>>>);

impl Heard {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a line of librdkafka's log: `[thrd:…]: <broker>: <what>`.
    pub fn hear(&self, line: &str) {
        let line =
            line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(line, |all| all.1);
        let Some((broker, text)) = line.split_once(": ") else { return };
        let mut all = self.all();
        if all.len() < MOST || all.contains_key(broker) {
            all.insert(broker.to_owned(), text.to_owned());
        }
    }

    /// The worst that was heard, and from which broker.
    pub fn worst(&self) -> Option<(Trouble, String)> {
        let all = self.all();
        let known = all.iter().filter_map(|(broker, text)| Some((Trouble::of(text)?, address(broker))));
        known.max_by_key(|(trouble, _)| *trouble)
    }
}

/// `sasl_ssl://kafka.example:9093/bootstrap` without what librdkafka adds.
fn address(broker: &str) -> String {
    let text = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    text.split('/').next().unwrap_or(text).to_owned()
}

/// What is wrong with a connection, the least telling first: of several brokers the most telling counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nobody answers there.
    Unreachable,
    /// The name has no address.
    Unresolved,
    /// It hangs up on plain text: it may want TLS, or a name and a password.
    HangsUpOnPlain,
    /// It speaks no TLS.
    NoTls,
    /// The broker's certificate was not accepted: the authority or the host, librdkafka does not say which.
    Certificate,
    /// The broker's certificate is signed by somebody else.
    Untrusted,
    /// The broker's certificate is another host's.
    OtherHost,
    /// It wants another certificate of ours, or any.
    ClientCertificate,
    /// It does not know the SASL mechanism.
    Mechanism,
    /// It does not accept name and password.
    Credentials,
}

impl Trouble {
    /// Reads librdkafka's words.
    pub fn of(text: &str) -> Option<Self> {
        let says = |part: &str| text.contains(part);
        let alert = says("SSL alert number") || says("alert ");
        Some(if says("SASL authentication error") || says("SASL authentication failed") {
            Self::Credentials
        } else if says("mechanism handshake failed") {
            Self::Mechanism
        } else if says("certificate verify failed") || says("certificate could not be verified") {
            Self::Certificate
        } else if alert && (says("certificate") || says("unknown ca") || says("handshake failure")) {
            Self::ClientCertificate
        } else if says("PLAINTEXT broker listener")
            || says("wrong version number")
            || says("packet length too long")
        {
            Self::NoTls
        } else if says("Failed to resolve") {
            Self::Unresolved
        } else if says("SSL handshake failed") || says("in state SSL_HANDSHAKE") {
            // Whatever answers, it is no TLS.
            Self::NoTls
        } else if says("Disconnected") || says("Connection reset") {
            Self::HangsUpOnPlain
        } else if says("Connect to") || says("Connection refused") || says("timed out") {
            Self::Unreachable
        } else {
            return None;
        })
    }

    /// The reason in conditions.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unreachable | Self::Unresolved => reasons::KAFKA_UNREACHABLE,
            Self::HangsUpOnPlain | Self::NoTls | Self::Mechanism => reasons::KAFKA_PROTOCOL_MISMATCH,
            Self::Certificate | Self::Untrusted => reasons::KAFKA_CERTIFICATE_UNTRUSTED,
            Self::OtherHost => reasons::KAFKA_HOSTNAME_MISMATCH,
            Self::ClientCertificate => reasons::KAFKA_CLIENT_CERTIFICATE_REFUSED,
            Self::Credentials => reasons::KAFKA_CREDENTIALS_REFUSED,
        }
    }

    /// Whether somebody has to act.
    pub const fn class(self) -> Class {
        match self {
            Self::Unreachable | Self::Unresolved => Class::Transient,
            _ => Class::Blocked,
        }
    }

    /// What people are told: what is wrong at which broker, and what to do in the spec of a platform.
    pub fn tell(self, broker: &str, access: &Access) -> Told {
        let name = access.sasl.as_ref().map(|sasl| sasl.username.as_str()).unwrap_or_default();
        let mechanism = access.sasl.as_ref().map(|sasl| sasl.mechanism.name()).unwrap_or_default();
        let authority = match access.tls.as_ref().map(|tls| &tls.authorities) {
            Some(Some(_)) => "the authority in spec.kafka.external.tls.caSecretRef",
            _ => "a public authority, and spec.kafka.external.tls.caSecretRef names no other",
        };
        let text = match self {
            // Encrypted: it just went away.
            Self::HangsUpOnPlain if access.tls.is_some() => return Self::Unreachable.tell(broker, access),
            Self::Unreachable => format!(
                "nobody answers at {broker}: see that Kafka runs there, that spec.kafka.external.bootstrapServers and the brokers' advertised.listeners are right, and that the network lets this cluster through"
            ),
            Self::Unresolved => format!(
                "the name in {broker} has no address in this cluster's DNS: correct spec.kafka.external.bootstrapServers, or the broker's advertised.listeners if it is not listed there"
            ),
            Self::HangsUpOnPlain if access.sasl.is_some() => format!(
                "{broker} hangs up when it is spoken to without TLS: add spec.kafka.external.tls, or name the port of a SASL_PLAINTEXT listener"
            ),
            Self::HangsUpOnPlain => format!(
                "{broker} hangs up when it is spoken to without TLS and without a name: add what its listener asks for, spec.kafka.external.tls or sasl"
            ),
            Self::NoTls => format!(
                "{broker} does not speak TLS: name the port of a TLS listener in spec.kafka.external.bootstrapServers, or remove spec.kafka.external.tls (never over a network that others read)"
            ),
            Self::Certificate | Self::Untrusted => format!(
                "the certificate of {broker} is not signed by {authority}, or is out of date: put the authority that signs the brokers into that Secret (PEM)"
            ),
            Self::OtherHost => format!(
                "the certificate of {broker} is for another host: write a name that it is for into spec.kafka.external.bootstrapServers, or give the broker a certificate with this name"
            ),
            Self::ClientCertificate => format!(
                "{broker} does not accept the platform's client certificate, or wants one: write spec.kafka.external.tls.clientSecretRef with a certificate that an authority of its trust store signed"
            ),
            Self::Mechanism => format!(
                "{broker} does not take SASL {mechanism}: write the mechanism that its listener has enabled (sasl.enabled.mechanisms) into spec.kafka.external.sasl.mechanism"
            ),
            Self::Credentials => format!(
                "{broker} does not accept the name {name:?} with its password ({mechanism}): correct spec.kafka.external.sasl.username or the Secret of its passwordSecretRef; a new password in the Secret is taken at once"
            ),
        };
        Told { reason: self.reason(), class: self.class(), text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Trouble as T;

    /// As librdkafka 2.12 writes them.
    const SAID: [(&str, T); 12] = [
        ("Disconnected: Connection reset by peer (after 1ms in state SSL_HANDSHAKE)", T::NoTls),
        (
            "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 305ms in state AUTH_REQ)",
            T::Credentials,
        ),
        (
            "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512",
            T::Mechanism,
        ),
        (
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates are installed (install ca-certificates package) (after 6ms in state SSL_HANDSHAKE)",
            T::Certificate,
        ),
        (
            "SSL handshake failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42",
            T::ClientCertificate,
        ),
        (
            "Receive failed: SSL transport error: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116",
            T::ClientCertificate,
        ),
        (
            "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            T::NoTls,
        ),
        ("SSL handshake failed: error:0A00010B:SSL routines::wrong version number", T::NoTls),
        (
            "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 3ms in state APIVERSION_QUERY)",
            T::HangsUpOnPlain,
        ),
        (
            "Disconnected: verify that security.protocol is correctly configured, broker might require SASL authentication (after 9ms in state UP)",
            T::HangsUpOnPlain,
        ),
        (
            "Failed to resolve 'kafka.example:9093': Name or service not known (after 2ms in state CONNECT)",
            T::Unresolved,
        ),
        (
            "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
            T::Unreachable,
        ),
    ];

    fn access() -> Access {
        use crate::kafka::access::{Password, Sasl};
        use tidegate_contract::config::KafkaSaslMechanism;
        let (mechanism, username) = (KafkaSaslMechanism::ScramSha512, "tidegate".to_owned());
        let sasl = Sasl { mechanism, username, password: Password::new("hard to guess".to_owned()) };
        let (bootstrap, prefix) = ("k:1".to_owned(), String::new());
        Access { bootstrap, prefix, tls: None, sasl: Some(sasl), external: true }
    }

    #[test]
    fn each_of_librdkafkas_words_is_understood() {
        for (text, trouble) in SAID {
            assert_eq!(Trouble::of(text), Some(trouble), "{text}");
        }
        assert_eq!(Trouble::of("1 request(s) in flight"), None);
    }

    #[test]
    fn each_trouble_names_the_broker_and_a_field_to_correct_and_no_secret() {
        for (_, trouble) in SAID {
            let told = trouble.tell("kafka.example:9093", &access());
            assert!(told.text.contains("kafka.example:9093"), "{}", told.text);
            assert!(told.text.contains("spec.kafka.external."), "{}", told.text);
            assert!(!told.text.contains("hard to guess"), "{}", told.text);
        }
    }

    #[test]
    fn of_several_brokers_the_most_telling_counts() {
        let heard = Heard::default();
        heard.hear("[thrd:sasl_ssl://a:9093/bootstrap]: sasl_ssl://a:9093/bootstrap: Connect to ipv4#1.2.3.4:9093 failed: Connection refused");
        heard.hear(
            "[thrd:sasl_ssl://b:9093/bootstrap]: sasl_ssl://b:9093/bootstrap: SASL authentication error: no",
        );
        heard.hear("nonsense");
        assert_eq!(heard.worst(), Some((T::Credentials, "b:9093".to_owned())));
        assert_eq!(Heard::default().worst(), None);
    }
}
