//! The configuration file of a gateway: what is fixed while the process lives. The operator writes it into an
//! immutable ConfigMap as JSON; what changes under live connections comes through the directory instead.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the operator mounts the configuration file.
pub const CONFIG_DIR: &str = "/etc/tidegate";
/// The file's name in [`CONFIG_DIR`] and its key in the ConfigMap.
pub const CONFIG_FILE: &str = "gateway.json";
/// Where the operator mounts every credential for Kafka, each a file: `ca.crt`, `tls.crt`, `tls.key`, `password`.
/// Nothing of it is in the configuration, so that a change needs no new pod.
pub const KAFKA_DIR: &str = "/etc/tidegate/kafka";
/// Where the operator mounts the Secret of each listener with TLS, in a folder of the listener's name: `tls.crt` and
/// `tls.key`. A file that changes needs no new pod.
pub const LISTENERS_DIR: &str = "/etc/tidegate/listeners";
/// The default port of `/healthz`, `/readyz` and `/metrics`.
pub const ADMIN_PORT: u16 = 9100;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayConfig {
    /// The namespace of platform and gateway.
    pub namespace: String,
    /// The platform's name.
    pub platform: String,
    /// The gateway's name.
    pub gateway: String,
    /// The one protocol that this process speaks, with its listeners.
    pub protocol: Protocol,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Bounds of this process.
    #[serde(default)]
    pub limits: Limits,
    /// The port of `/healthz`, `/readyz` and `/metrics`.
    #[serde(default = "admin_port")]
    pub admin_port: u16,
    /// How long open connections may drain after SIGTERM, in milliseconds.
    #[serde(default = "drain_ms")]
    pub drain_ms: u64,
}

/// The protocol of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// MQTT 3.1.1 and 5.
    Mqtt(Listeners),
    /// HTTP/1.1.
    Http(Listeners),
}

impl Protocol {
    /// The name in metrics, headers and URLs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mqtt(_) => "mqtt",
            Self::Http(_) => "http",
        }
    }

    /// The listeners.
    pub fn listeners(&self) -> &[Listener] {
        match self {
            Self::Mqtt(each) | Self::Http(each) => &each.listeners,
        }
    }
}

/// The listeners of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listeners {
    /// At least one.
    pub listeners: Vec<Listener>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// The name in the resource, in Services and in metrics.
    pub name: String,
    /// The port that the process binds.
    pub port: u16,
    /// Encryption; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Listener {
    /// A listener without encryption.
    pub fn plain(name: impl Into<String>, port: u16) -> Self {
        Self { name: name.into(), port, tls: None }
    }
}

/// What a listener with TLS shows to devices, and what it asks of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// The file with the certificate chain, its own certificate first (PEM).
    pub certificate: PathBuf,
    /// The file with its key (PEM: PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// Whether devices show certificates. By whom those must be signed is not here: the fleets in the directory say it.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

impl ListenerTls {
    /// The files of a listener where the operator mounts them.
    pub fn mounted(listener: &str, client_certificates: ClientCertificates) -> Self {
        let folder = Path::new(LISTENERS_DIR).join(listener);
        Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_certificates }
    }
}

/// Whether devices show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientCertificates {
    /// They are not asked for one.
    None,
    /// They are asked. One that is shown must be good; without one, a device proves who it is in another way.
    #[default]
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// In front of every topic, group and transactional id.
    #[serde(default)]
    pub prefix: String,
    /// Encryption; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// A name and a password; absent: the certificate says who this client is, or nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
}

impl KafkaConfig {
    /// A connection without encryption and without a name, as tests on loopback use it.
    pub fn plain(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), prefix: String::new(), tls: None, sasl: None }
    }

    /// Every file with a credential, with the field that names it.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let tls = self.tls.iter().flat_map(|tls| {
            let ca = tls.ca.iter().map(|path| ("tls.ca", path.as_path()));
            let client = tls.client.iter().flat_map(|client| {
                [
                    ("tls.client.certificate", client.certificate.as_path()),
                    ("tls.client.key", client.key.as_path()),
                ]
            });
            ca.chain(client)
        });
        let sasl = self.sasl.iter().map(|sasl| ("sasl.password", sasl.password.as_path()));
        tls.chain(sasl).collect()
    }
}

/// PEM files for the connection to Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaTls {
    /// Certificates that sign the brokers' ones; absent: the public authorities of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What this client shows; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<KafkaClientCertificate>,
}

/// What a client shows to Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaClientCertificate {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A name and a password for Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSasl {
    /// How they are proven.
    pub mechanism: KafkaSaslMechanism,
    /// The name.
    pub username: String,
    /// The file with the password. Line breaks at its end are not part of it.
    pub password: PathBuf,
}

/// How a name and a password are proven to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaSaslMechanism {
    /// As they are (RFC 4616).
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 7677 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaSaslMechanism {
    /// The name in Kafka's protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The password in the text of a file or a Secret: editors and shells leave line breaks at the end.
pub fn password(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

/// What librdkafka calls a connection with these two.
pub const fn security_protocol(tls: bool, sasl: bool) -> &'static str {
    match (tls, sasl) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    }
}

/// Bounds of one gateway process; what they mean is the same for every protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time.
    pub connections: u32,
    /// New connections per second.
    pub connect_rate: u32,
    /// The largest packet or request, in bytes.
    pub packet_bytes: u32,
    /// Unanswered publishes (and, the other way, unacknowledged deliveries) per connection.
    pub in_flight: u16,
    /// Subscriptions per connection.
    pub subscriptions: u32,
    /// A connection that says nothing for so long is closed, in milliseconds.
    pub idle_time_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connect_rate: 200,
            packet_bytes: 1_114_112,
            in_flight: 64,
            subscriptions: 100,
            idle_time_ms: 300_000,
        }
    }
}

const fn admin_port() -> u16 {
    ADMIN_PORT
}

const fn drain_ms() -> u64 {
    30_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_gets_the_documented_defaults() {
        let json = r#"{"namespace":"plant","platform":"plant","gateway":"mqtt",
            "protocol":{"mqtt":{"listeners":[{"name":"mqtt","port":1883}]}},"kafka":{"bootstrap":"plant-kafka:9092"}}"#;
        let config: GatewayConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.admin_port, 9100);
        assert_eq!(config.protocol.name(), "mqtt");
        assert_eq!(config.protocol.listeners()[0].port, 1883);
    }

    #[test]
    fn a_listener_with_tls_asks_for_certificates_unless_it_is_told_otherwise() {
        let listener: Listener = serde_json::from_str(
            r#"{"name":"mqtts","port":8883,"tls":{"certificate":"/etc/tidegate/listeners/mqtts/tls.crt",
                "key":"/etc/tidegate/listeners/mqtts/tls.key"}}"#,
        )
        .unwrap();
        assert_eq!(listener.tls, Some(ListenerTls::mounted("mqtts", ClientCertificates::Optional)));
        let text = serde_json::to_string(&ListenerTls::mounted("a", ClientCertificates::Required)).unwrap();
        assert!(text.contains(r#""clientCertificates":"required""#), "{text}");
        assert_eq!(serde_json::to_string(&Listener::plain("a", 1)).unwrap(), r#"{"name":"a","port":1}"#);
    }

    #[test]
    fn a_field_that_nobody_knows_is_an_error() {
        let json = r#"{"bootstrap":"x","bootstrop":"y"}"#;
        assert!(serde_json::from_str::<KafkaConfig>(json).is_err());
    }

    #[test]
    fn credentials_are_files_and_each_is_named_by_its_field() {
        let json = r#"{"bootstrap":"x","tls":{"ca":"/k/ca.crt","client":{"certificate":"/k/tls.crt","key":"/k/tls.key"}},
            "sasl":{"mechanism":"SCRAM-SHA-512","username":"tidegate","password":"/k/password"}}"#;
        let kafka: KafkaConfig = serde_json::from_str(json).unwrap();
        let fields: Vec<_> = kafka.files().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["tls.ca", "tls.client.certificate", "tls.client.key", "sasl.password"]);
        assert_eq!(kafka.sasl.unwrap().mechanism.name(), "SCRAM-SHA-512");
        assert_eq!(password("secret \r\n"), "secret ");
        assert!(KafkaConfig::plain("x").files().is_empty());
    }
}
