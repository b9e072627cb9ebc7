//! `Topic`: a Kafka topic and the filters whose addresses land in it.

use crate::common::{FILTERS, LocalRef, Retention};
use crate::{Conditions, Quantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a topic is.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tidegate.io",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    shortname = "tgt",
    category = "tidegate",
    namespaced,
    status = "TopicStatus",
    derive = "PartialEq",
    doc = "A topic: a Kafka topic and the filters whose addresses land in it.",
    validation = ("self.metadata.name.size() <= 200", "the name is the topic's name in Kafka: write at most 200 characters"),
    validation = ("!self.metadata.name.startsWith('tg-')", "names that start with tg- are kept for the platform's own topics: choose another"),
    printcolumn(name = "Platform", type_ = "string", json_path = ".spec.platformRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.effective.partitions"),
    printcolumn(name = "Retention", type_ = "string", json_path = ".status.effective.retention.time"),
    printcolumn(name = "Kafka", type_ = "string", priority = 1, json_path = ".status.kafkaName"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(oldSelf.partitions) || (has(self.partitions) && self.partitions == oldSelf.partitions)",
        "partitions cannot change once set: addresses would move to other partitions; write the old number, or make a new Topic"),
    validation = ("!has(self.replicas) || !has(self.minInSyncReplicas) || self.minInSyncReplicas <= self.replicas",
        "minInSyncReplicas counts replicas: write at most the number in replicas")
)]
pub struct TopicSpec {
    /// The platform.
    pub platform_ref: LocalRef,
    /// The filters whose addresses land here; absent: `<name>/#`, which matches `<name>` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[x_kube(
        validation = FILTERS,
        validation = ("!self.exists(each, each.startsWith('$') || each.startsWith('.'))",
            "addresses that start with $ or . are kept for the platform: choose another first level")
    )]
    pub filters: Vec<String>,
    /// Partitions; absent: the platform's `topicDefaults` at creation. They cannot change once set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<i32>,
    /// Copies of each record; absent: the platform's `topicDefaults` at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: Option<i32>,
    /// Copies that must have a record before it is acknowledged; absent: the platform's `topicDefaults` at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub min_in_sync_replicas: Option<i32>,
    /// How long records are kept; absent: the platform's `topicDefaults` at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What happens to old records.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// The largest record.
    #[serde(default = "max_message_bytes")]
    #[x_kube(validation = ("quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('64Mi')) <= 0",
        "write a size from 1Ki to 64Mi, for example 1114112"))]
    pub max_message_bytes: Quantity,
    /// What happens to the records when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What happens to old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cleanup {
    /// They go when retention ends.
    #[default]
    Delete,
    /// Only the newest of each address stays, without an end.
    Compact,
    /// Only the newest of each address stays, until retention ends.
    CompactAndDelete,
}

/// What happens to the records when a Topic is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay in Kafka.
    #[default]
    Retain,
    /// They go with it.
    Delete,
}

/// The default of `maxMessageBytes`: 1 MiB of payload and 64 KiB for address and headers.
pub const MAX_MESSAGE_BYTES: u64 = 1_114_112;

fn max_message_bytes() -> Quantity {
    Quantity::bytes(MAX_MESSAGE_BYTES)
}

/// How a topic is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// The topic's name in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 249))]
    pub kafka_name: Option<String>,
    /// What was decided at creation and is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<TopicEffective>,
}

/// What was decided at a Topic's creation and is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicEffective {
    /// Partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub partitions: Option<i32>,
    /// Copies of each record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32767))]
    pub replicas: Option<i32>,
    /// Copies that must have a record before it is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32767))]
    pub min_in_sync_replicas: Option<i32>,
    /// How long records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}
