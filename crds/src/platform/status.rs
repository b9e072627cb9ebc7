//! How a platform is.

use crate::{Conditions, Quantity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How a platform is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IoTPlatformStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Ready`, `Reconciling`, `Stalled`, `FailoverLimited`.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// How to reach Kafka and how it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaStatus>,
    /// The platform's gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<Count>,
    /// The platform's Topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Count>,
    /// Nodes that are not well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeStatus>,
    /// The platform's certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub certificates: Vec<CertificateStatus>,
    /// What is in effect where the spec leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<PlatformEffective>,
}

/// How to reach Kafka and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaStatus {
    /// `host:port`, comma-separated, as gateways use it.
    #[schemars(length(max = 4160))]
    pub bootstrap: String,
    /// Brokers that answer.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub brokers_ready: i32,
    /// Brokers that are declared.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub brokers: i32,
    /// Kafka's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub version: String,
    /// Kafka's own name for the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub cluster_id: String,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Those that are ready.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ready: i32,
    /// All of them.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub total: i32,
}

/// A node that is not well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What it is taken for.
    pub state: NodeState,
    /// Since when.
    #[schemars(schema_with = "time")]
    pub since: Time,
    /// What was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub evidence: String,
}

/// What a node that is not well is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// It does not answer.
    Suspect,
    /// It does not answer and does not renew its lease.
    Dead,
    /// It answers again and is watched for a while.
    Recovering,
}

/// An authority, or the certificates that one of them signed for those who do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Whose.
    pub name: CertificateName,
    /// When it expires, or the first of several.
    #[schemars(schema_with = "time")]
    pub expires: Time,
    /// What is being done with it: `TrustBoth`, `NewLeaves` and `DropOld` follow each other when an authority gets a
    /// successor (`Replace` instead of the first where its key is lost), `Renew` is new certificates of the same one. Absent:
    /// nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub step: String,
    /// When that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub since: Option<Time>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub waits_for: String,
}

/// Whose certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CertificateName {
    /// The authority of everything that speaks with Kafka.
    KafkaAuthority,
    /// The authority of device listeners.
    DevicesAuthority,
    /// Kafka's brokers.
    Brokers,
    /// The operator, as a client of Kafka.
    Operator,
    /// Gateways, as clients of Kafka.
    Gateways,
    /// `spec.kafka.applications`.
    Applications,
}

impl CertificateName {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KafkaAuthority => "KafkaAuthority",
            Self::DevicesAuthority => "DevicesAuthority",
            Self::Brokers => "Brokers",
            Self::Operator => "Operator",
            Self::Gateways => "Gateways",
            Self::Applications => "Applications",
        }
    }
}

/// What is in effect where the spec leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformEffective {
    /// Kafka's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub version: String,
    /// The version of Kafka's metadata.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub metadata_version: String,
    /// Kafka's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// The size of each broker's volume; empty where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Quantity>,
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}
