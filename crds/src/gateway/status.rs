//! How a gateway is.

use crate::Conditions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a gateway is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolGatewayStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// Pods that exist; what `/scale` reports.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub replicas: i32,
    /// Pods that serve.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ready_replicas: i32,
    /// The label selector of the pods; what `/scale` reports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub selector: String,
    /// Where devices connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub endpoints: Vec<Endpoint>,
    /// What is in effect where the spec leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<GatewayEffective>,
}

/// The most endpoints that a status lists.
pub const MAX_ENDPOINTS: usize = 64;

/// Where devices connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// The listener's or the interface's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// For example `mqtt://172.31.0.200:1883`.
    #[schemars(length(min = 1, max = 512))]
    pub url: String,
    /// What leads there.
    pub via: Via,
    /// The network of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub network: Option<String>,
    /// The one pod behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// The pod's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub interface: Option<String>,
    /// The interface's hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub mac: Option<String>,
}

/// What leads to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Via {
    /// The cluster's load balancer.
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// The cluster's own network.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// A second network.
    Network,
}

/// What is in effect where the spec leaves it open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayEffective {
    /// The gateway's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
}
