//! `IoTPlatform`: a Kafka backbone and everything attached to it.

mod status;

pub use status::*;

use crate::common::{Empty, LocalRef, Resources, Retention, SecretKeyRef, setting_map};
use crate::network::Network;
use crate::{Duration, Quantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a platform is.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tidegate.io",
    version = "v1alpha1",
    kind = "IoTPlatform",
    plural = "iotplatforms",
    shortname = "iotp",
    category = "tidegate",
    namespaced,
    status = "IoTPlatformStatus",
    derive = "PartialEq",
    doc = "A platform: a Kafka backbone and everything attached to it.",
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "the name is part of Services' names: at most 40 lower-case letters, digits and -, a letter first"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Brokers", type_ = "integer", json_path = ".status.kafka.brokersReady"),
    printcolumn(name = "Kafka", type_ = "string", json_path = ".status.kafka.version"),
    printcolumn(name = "Gateways", type_ = "integer", json_path = ".status.gateways.ready"),
    printcolumn(name = "Topics", type_ = "integer", json_path = ".status.topics.ready"),
    printcolumn(name = "Bootstrap", type_ = "string", priority = 1, json_path = ".status.kafka.bootstrap"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IoTPlatformSpec {
    /// The Kafka behind the platform.
    pub kafka: Kafka,
    /// Where load-balancer addresses come from; absent: whatever the cluster's load balancer gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Second networks that gateways can attach to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub networks: Vec<Network>,
    /// What a Topic gets that does not say it itself. Applied at the Topic's creation, and frozen then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_defaults: Option<TopicDefaults>,
    /// How fast a dead node's gateways are replaced.
    #[serde(default)]
    pub failover: Failover,
}

/// The Kafka behind a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.managed) != has(self.external)",
        "kafka is exactly one of managed or external: keep one (managed: {} runs Kafka in the cluster)"),
    validation = ("has(self.managed) == has(oldSelf.managed)",
        "kafka cannot change between managed and external: make a new IoTPlatform"),
    validation = ("self.prefix == oldSelf.prefix",
        "kafka.prefix names what is already stored and cannot change: make a new IoTPlatform"),
    validation = ("!has(self.external) || !has(self.applications) || self.applications.size() == 0",
        "kafka.applications belong to managed: on a Kafka that somebody else keeps, make a user and its rights there")
)]
pub struct Kafka {
    /// In front of every topic, group and transactional id; set it on a shared external Kafka.
    #[serde(default)]
    #[schemars(length(max = 32), regex(pattern = r"^[a-zA-Z0-9._-]*$"))]
    pub prefix: String,
    /// Kafka in this cluster, kept by Tidegate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedKafka>,
    /// A Kafka that somebody else keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalKafka>,
    /// Who else may use Kafka: each gets a client certificate in the Secret `<platform>-app-<name>`, and these
    /// rights only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub applications: Vec<Application>,
}

/// Kafka in this cluster, kept by Tidegate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedKafka {
    /// The number of brokers; the first three also vote. It never shrinks.
    #[serde(default = "three")]
    #[schemars(range(min = 3, max = 99))]
    #[x_kube(validation = ("self >= oldSelf",
        "brokers cannot shrink: records on a removed broker would be lost; write the old number or a larger one"))]
    pub brokers: i32,
    /// Kafka's version; empty: the operator's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+\.[0-9]+\.[0-9]+)?$"))]
    pub version: String,
    /// The version of Kafka's metadata. Raised only by saying so; it cannot be lowered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+\.[0-9]+(-IV[0-9]+)?)?$"))]
    pub metadata_version: String,
    /// Any image with Kafka's jars in `/opt/kafka/libs`; empty: the operator's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// Where records are kept; absent: 10Gi of the default storage class for each broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What each broker asks for and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// More broker settings. What Tidegate sets itself is refused by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "setting_map")]
    pub config: BTreeMap<String, String>,
}

impl Default for ManagedKafka {
    fn default() -> Self {
        Self {
            brokers: three(),
            version: String::new(),
            metadata_version: String::new(),
            image: String::new(),
            storage: None,
            resources: None,
            config: BTreeMap::new(),
        }
    }
}

/// Where a broker keeps its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.size) != has(self.ephemeral)",
        "storage is exactly one of size (a volume for each broker) or ephemeral: {} (gone with the pod): keep one"),
    validation = ("has(self.size) == has(oldSelf.size)",
        "storage cannot change between size and ephemeral: make a new IoTPlatform"),
    validation = ("!has(self.size) || !has(oldSelf.size) || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
        "a volume grows but never shrinks: write the old size or a larger one"),
    validation = ("self.className == oldSelf.className",
        "a volume cannot change its storage class: write the old className"),
    validation = ("!has(self.ephemeral) || self.className == ''",
        "className belongs to size: remove it where storage is ephemeral")
)]
pub struct Storage {
    /// The size of each broker's volume, for example `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("quantity(string(self)).compareTo(quantity('64Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0",
        "write a size from 64Mi to 1Pi, for example 10Gi"))]
    pub size: Option<Quantity>,
    /// The storage class; empty: the cluster's default.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub class_name: String,
    /// No volume: for trying things out. Records live as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Empty>,
}

/// A Kafka that somebody else keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.bootstrapServers.all(each, int(each.split(':')[1]) >= 1 && int(each.split(':')[1]) <= 65535)",
        "a bootstrap server is host:port with a port from 1 to 65535: write for example kafka.example:9093"),
    validation = ("!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
        "PLAIN sends the password as it is: add tls: {}, or write mechanism: SCRAM-SHA-512")
)]
pub struct ExternalKafka {
    /// `host:port` of some brokers; the others are found through them.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 260), regex(pattern = r"^[^:,\s]+:[0-9]{1,5}$"))
    )]
    pub bootstrap_servers: Vec<String>,
    /// Encryption; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
    /// A name and a password; operator and gateways use the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// Encryption towards an external Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalTls {
    /// Who signs the brokers' certificates; absent: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A Secret with `tls.crt` and `tls.key` (PEM, the key without a passphrase) to show to the brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<LocalRef>,
}

/// A name and a password for an external Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sasl {
    /// How they are proven.
    pub mechanism: SaslMechanism,
    /// The name.
    #[schemars(length(min = 1, max = 256))]
    pub username: String,
    /// Where the password is.
    pub password_secret_ref: SecretKeyRef,
}

/// How a name and a password are proven to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// As they are; only with `tls`.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 7677 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Somebody else who uses the platform's Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!self.name.startsWith('tg-')",
        "an application's name is its consumer group's, and those that start with tg- are the platform's: write another name"),
    validation = ("(!has(self.read) || !self.read.exists(topic, topic.startsWith('tg-'))) && (!has(self.write) || !self.write.exists(topic, topic.startsWith('tg-')))",
        "topics that start with tg- are the platform's own: write names of Topics")
)]
pub struct Application {
    /// Its name, the last part of its Secret's. Its consumer groups and transactional ids are called so, or start with it
    /// and a dot.
    #[schemars(length(min = 1, max = 60), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Topics that it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub read: Vec<String>,
    /// The Topics that it may write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub write: Vec<String>,
}

/// Where load-balancer addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.poolRef) || !has(self.addresses)",
        "loadBalancer is one of poolRef (an existing pool) or addresses (a pool that the operator makes): keep one"),
    validation = ("!has(self.addresses) || self.addresses.all(each, each.contains('/') ? isCIDR(each) : each.split('-').size() == 2 && each.split('-').all(end, isIP(end)))",
        "an address range is first-last or a network: write for example 172.31.0.200-172.31.0.220 or 172.31.0.192/27")
)]
pub struct LoadBalancer {
    /// An existing MetalLB `IPAddressPool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<LocalRef>,
    /// Ranges of a pool that the operator makes, inside the administrator's allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 96)))]
    pub addresses: Vec<String>,
}

/// What a Topic gets that does not say it itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.replicas) || !has(self.minInSyncReplicas) || self.minInSyncReplicas <= self.replicas",
    "minInSyncReplicas counts replicas: write at most the number in replicas"))]
pub struct TopicDefaults {
    /// Partitions; 12 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<i32>,
    /// Copies of each record; 3 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: Option<i32>,
    /// Copies that must have a record before it is acknowledged; 2 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub min_in_sync_replicas: Option<i32>,
    /// How long records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// How fast a dead node's gateways are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Whether Tidegate watches the nodes itself; off: Kubernetes' own times.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How often each node is asked.
    #[serde(default = "probe_interval")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('10s')",
        "write a time from 100ms to 10s, for example 300ms"))]
    pub probe_interval: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Self { enabled: yes(), probe_interval: probe_interval() }
    }
}

const fn three() -> i32 {
    3
}

const fn yes() -> bool {
    true
}

const fn probe_interval() -> Duration {
    Duration::from_millis(300)
}
