//! `ProtocolGateway`: a set of identical pods that speak one protocol to devices.

mod status;

pub use status::*;

use crate::common::{Empty, LocalRef, Resources, label_map};
use crate::{Duration, Quantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gateway is.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tidegate.io",
    version = "v1alpha1",
    kind = "ProtocolGateway",
    plural = "protocolgateways",
    shortname = "pgw",
    category = "tidegate",
    namespaced,
    status = "ProtocolGatewayStatus",
    derive = "PartialEq",
    doc = "A gateway: a set of identical pods that speak one protocol to devices.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "the name is part of Services' names: at most 40 lower-case letters, digits and -, a letter first"),
    printcolumn(name = "Platform", type_ = "string", json_path = ".spec.platformRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.endpoints[0].url"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.mqtt), has(self.coap), has(self.http), has(self.modbus), has(self.bacnet), has(self.sml)].filter(one, one).size() == 1",
        "a gateway speaks exactly one protocol: keep one of mqtt, coap, http, modbus, bacnet or sml, and make one ProtocolGateway for each of the others"),
    validation = ("has(self.mqtt) == has(oldSelf.mqtt) && has(self.coap) == has(oldSelf.coap) && has(self.http) == has(oldSelf.http) && has(self.modbus) == has(oldSelf.modbus) && has(self.bacnet) == has(oldSelf.bacnet) && has(self.sml) == has(oldSelf.sml)",
        "a gateway cannot change its protocol: make a new ProtocolGateway"),
    validation = ("!has(self.networks) || !self.networks.exists(each, has(each.addresses) && each.addresses.size() > 0) || (self.replicas <= 1 && !has(self.autoscaling))",
        "a fixed address on a network belongs to one pod: write replicas: 1 and no autoscaling, or remove addresses from networks"),
    validation = ("!has(self.autoscaling) || !has(self.resources) || (!has(self.resources.requests) && !has(self.resources.limits)) || (has(self.resources.requests) && 'cpu' in self.resources.requests) || (has(self.resources.limits) && 'cpu' in self.resources.limits)",
        "autoscaling compares with the requested CPU: write resources.requests.cpu, or remove resources to have 100m")
)]
pub struct ProtocolGatewaySpec {
    /// The platform.
    pub platform_ref: LocalRef,
    /// MQTT 3.1.1 and 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<Listeners>,
    /// CoAP (RFC 7252).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coap: Option<Listeners>,
    /// HTTP/1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Listeners>,
    /// Modbus TCP, polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modbus: Option<Empty>,
    /// BACnet/IP, polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bacnet: Option<Empty>,
    /// Smart Message Language, read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sml: Option<Empty>,
    /// The number of pods. Leave it out where `autoscaling` is set: the scaler owns it then.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Scale by use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How devices reach the gateway.
    #[serde(default)]
    pub expose: Expose,
    /// Second networks of the platform that the pods attach to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["interface"]))]
    pub networks: Vec<Attachment>,
    /// Bounds of each gateway process.
    #[serde(default)]
    pub limits: Limits,
    /// Which nodes may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What each pod asks for and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// The sockets of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("self.listeners.all(each, self.listeners.exists_one(other, other.port == each.port))",
    "two listeners have the same port: give each its own"))]
pub struct Listeners {
    /// At least one.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<Listener>,
}

/// One socket of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// The name of the port in Services and metrics, for example `mqtt`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The port that devices connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Encryption (TLS 1.2 and 1.3); `{}` is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// Encryption of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// A Secret with `tls.crt` and `tls.key`, as cert-manager makes them; absent: the platform's authority for devices
    /// issues a certificate, and the operator renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// Whether devices show certificates of their own.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether devices show certificates of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificates {
    /// Never asked for.
    None,
    /// Asked for; a device may do without.
    #[default]
    Optional,
    /// A device without one is refused.
    Required,
}

/// Scaling by use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.minReplicas <= self.maxReplicas", "minReplicas is larger than maxReplicas: swap them"),
    validation = ("self.scaleDownBelowPercent < self.targetCpuPercent",
        "scaleDownBelowPercent must be below targetCpuPercent, or the number of pods would swing")
)]
pub struct Autoscaling {
    /// The fewest pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Above this share of the requested CPU pods are added.
    #[serde(default = "target_cpu")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_percent: i32,
    /// Below this share pods are taken away.
    #[serde(default = "scale_down_below")]
    #[schemars(range(min = 0, max = 1000))]
    pub scale_down_below_percent: i32,
    /// How long it stays below before pods are taken away.
    #[serde(default = "cool_down")]
    #[x_kube(validation = ("duration(self) <= duration('1h')", "write a time up to 1h, for example 300s"))]
    pub cool_down: Duration,
}

/// How devices reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("self.type == 'LoadBalancer' || (self.addresses == 1 && self.address == '')",
        "addresses and address belong to type LoadBalancer: remove them, or write type: LoadBalancer"),
    validation = ("self.address == '' || self.addresses == 1",
        "a fixed address is one address: write addresses: 1, or remove address"),
    validation = ("self.address == '' || isIP(self.address)",
        "address is no IP address: write for example 172.31.0.200, or remove it")
)]
pub struct Expose {
    /// The kind of Service.
    #[serde(default, rename = "type")]
    pub type_: ExposeType,
    /// That many Services with an address each.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub addresses: i32,
    /// A fixed address of the load balancer; empty: any.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub address: String,
}

impl Default for Expose {
    fn default() -> Self {
        Self { type_: ExposeType::default(), addresses: one(), address: String::new() }
    }
}

/// The kind of Service in front of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeType {
    /// An address of the cluster's load balancer.
    #[default]
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// Inside the cluster only.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

impl ExposeType {
    /// As a Service has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// A pod's interface on a network of the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Attachment {
    /// The network's name in the platform.
    #[serde(rename = "ref")]
    #[schemars(length(min = 1, max = 32))]
    pub network: String,
    /// The interface's name in the pod, for example `net1`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-z][a-z0-9]*$"))]
    #[x_kube(validation = ("!(self in ['eth0', 'lo'])", "eth0 and lo are the pod's own: write another name, for example net1"))]
    pub interface: String,
    /// Fixed addresses with their prefix, for example `172.31.9.100/24`, only with one replica; empty: the network gives one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = ("self.all(each, isIP(each) || isCIDR(each))",
        "write addresses, for example 172.31.9.100 or 172.31.9.100/24"))]
    pub addresses: Vec<String>,
}

/// Bounds of one gateway process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections at a time.
    #[serde(default = "connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: i32,
    /// New connections per second.
    #[serde(default = "connect_rate")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connect_rate: i32,
    /// The largest packet or request.
    #[serde(default = "packet_bytes")]
    #[x_kube(validation = ("quantity(string(self)).compareTo(quantity('256')) >= 0 && quantity(string(self)).compareTo(quantity('64Mi')) <= 0",
        "write a size from 256 bytes to 64Mi, for example 1114112"))]
    pub packet_bytes: Quantity,
    /// Unanswered publishes, and unacknowledged deliveries, per connection.
    #[serde(default = "in_flight")]
    #[schemars(range(min = 1, max = 65535))]
    pub in_flight: i32,
    /// Subscriptions per connection.
    #[serde(default = "subscriptions")]
    #[schemars(range(min = 1, max = 100_000))]
    pub subscriptions: i32,
    /// A connection that says nothing for so long is closed.
    #[serde(default = "idle_time")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "write a time from 1s to 24h, for example 300s"))]
    pub idle_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: connections(),
            connect_rate: connect_rate(),
            packet_bytes: packet_bytes(),
            in_flight: in_flight(),
            subscriptions: subscriptions(),
            idle_time: idle_time(),
        }
    }
}

/// Which nodes may run a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Capabilities that a node must have: the label `tidegate.io/capability.<name>: "true"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 52), regex(pattern = r"^[a-z0-9A-Z]([-_.a-z0-9A-Z]*[a-z0-9A-Z])?$"))
    )]
    pub capabilities: Vec<String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub node_selector: BTreeMap<String, String>,
}

const fn one() -> i32 {
    1
}

const fn target_cpu() -> i32 {
    70
}

const fn scale_down_below() -> i32 {
    30
}

const fn cool_down() -> Duration {
    Duration::from_secs(300)
}

const fn connections() -> i32 {
    10_000
}

const fn connect_rate() -> i32 {
    200
}

fn packet_bytes() -> Quantity {
    Quantity::bytes(1_114_112)
}

const fn in_flight() -> i32 {
    64
}

const fn subscriptions() -> i32 {
    100
}

const fn idle_time() -> Duration {
    Duration::from_secs(300)
}
