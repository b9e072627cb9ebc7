//! How gateways reach a platform's Kafka: the one thing that the platform's controller says and the gateways'
//! reads. Pure.

use tidegate_contract::config::KafkaSaslMechanism;
use tidegate_crds::IoTPlatform;
use tidegate_crds::platform::{ExternalKafka, SaslMechanism};

/// The file of the authorities that sign brokers, in the folder of Kafka's credentials.
pub const CA: &str = "ca.crt";
/// The file of the client's certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// The file of its key.
pub const KEY: &str = "tls.key";
/// The file of the password.
pub const PASSWORD: &str = "password";

/// How gateways reach a platform's Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backbone {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// In front of every topic, group and transactional id.
    pub prefix: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// How a name and the password are proven, and the name.
    pub sasl: Option<(KafkaSaslMechanism, String)>,
    /// Every credential that pods mount.
    pub files: Vec<CredentialFile>,
}

/// One key of a Secret that pods mount as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// The file's name.
    pub file: &'static str,
}

impl CredentialFile {
    fn new(secret: &str, key: &str, file: &'static str) -> Self {
        Self { secret: secret.to_owned(), key: key.to_owned(), file }
    }
}

impl Backbone {
    /// The name of the Secret with the gateways' client certificate for a managed Kafka.
    pub fn gateway_secret(platform: &str) -> String {
        format!("{platform}-kafka-gateway")
    }

    /// What a platform says about its Kafka; nothing before its controller knows it.
    pub fn of(platform: &IoTPlatform) -> Option<Self> {
        let name = platform.metadata.name.as_deref()?;
        let kafka = platform.status.as_ref()?.kafka.as_ref()?;
        if kafka.bootstrap.is_empty() {
            return None;
        }
        let spec = &platform.spec.kafka;
        let secret = Self::gateway_secret(name);
        let ours = || [CA, CERTIFICATE, KEY].map(|file| CredentialFile::new(&secret, file, file)).into();
        let external = spec.external.as_ref();
        let sasl = external.and_then(|external| external.sasl.as_ref());
        Some(Self {
            bootstrap: kafka.bootstrap.clone(),
            prefix: spec.prefix.clone(),
            tls: external.is_none_or(|external| external.tls.is_some()),
            sasl: sasl.map(|sasl| (mechanism(sasl.mechanism), sasl.username.clone())),
            files: external.map_or_else(ours, files),
        })
    }

    /// Whether pods mount this file.
    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|each| each.file == file)
    }
}

/// What is mounted for somebody else's Kafka: the Secrets as they are, nothing is copied.
fn files(external: &ExternalKafka) -> Vec<CredentialFile> {
    let mut files = Vec::new();
    if let Some(tls) = &external.tls {
        let ca = tls.ca_secret_ref.iter();
        files.extend(ca.map(|reference| CredentialFile::new(&reference.name, &reference.key, CA)));
        if let Some(client) = &tls.client_secret_ref {
            files.extend([CERTIFICATE, KEY].map(|file| CredentialFile::new(&client.name, file, file)));
        }
    }
    if let Some(sasl) = &external.sasl {
        let password = &sasl.password_secret_ref;
        files.push(CredentialFile::new(&password.name, &password.key, PASSWORD));
    }
    files
}

/// The mechanism as clients name it.
pub const fn mechanism(mechanism: SaslMechanism) -> KafkaSaslMechanism {
    match mechanism {
        SaslMechanism::Plain => KafkaSaslMechanism::Plain,
        SaslMechanism::ScramSha256 => KafkaSaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512 => KafkaSaslMechanism::ScramSha512,
    }
}

/// The MetalLB pool that the platform's load-balancer addresses come from: the one it names, or the one that the
/// operator makes for its ranges; nothing where the cluster's load balancer decides.
pub fn address_pool(platform: &IoTPlatform) -> Option<String> {
    let load_balancer = platform.spec.load_balancer.as_ref()?;
    if let Some(reference) = &load_balancer.pool_ref {
        return Some(reference.name.clone());
    }
    if load_balancer.addresses.is_empty() {
        return None;
    }
    let meta = &platform.metadata;
    Some(format!("tidegate-{}-{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}
