//! Second networks of a platform: by reference, or made by the operator inside the administrator's allow-list.

use crate::common::{Empty, LocalRef};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A second network that gateways can attach to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.attachmentRef), has(self.hostDevice), has(self.macvlan), has(self.bridge), has(self.vlan)].filter(one, one).size() == 1",
        "a network is exactly one of attachmentRef, hostDevice, macvlan, bridge or vlan: keep one"),
    validation = ("has(self.attachmentRef) != has(self.ipam) || (!has(self.attachmentRef) && !has(self.ipam))",
        "an existing attachment brings its own addresses: remove ipam, or describe the network instead of attachmentRef"),
    validation = ("!has(self.vlan) || has(self.ipam)",
        "a vlan needs addresses: write ipam with static, dhcp or whereabouts")
)]
pub struct Network {
    /// The name that gateways refer to.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// An existing `NetworkAttachmentDefinition` in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_ref: Option<LocalRef>,
    /// A device of the host that moves into the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_device: Option<HostDevice>,
    /// An interface of its own on a host interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macvlan: Option<Macvlan>,
    /// A port of a bridge on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// An 802.1Q network on a host interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// How interfaces get their addresses; absent: they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostDevice {
    /// Its name on the host, for example `eth1`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub device: String,
}

/// A macvlan interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Macvlan {
    /// The host interface below it, for example `eth1`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub master: String,
}

/// A bridge on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// Its name on the host, for example `br0`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub name: String,
}

/// An 802.1Q network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vlan {
    /// The host interface below it, for example `eth1`.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub master: String,
    /// The network's number.
    #[schemars(range(min = 1, max = 4094))]
    pub id: i32,
}

/// How interfaces get their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.static), has(self.dhcp), has(self.whereabouts)].filter(one, one).size() == 1",
    "ipam is exactly one of static, dhcp or whereabouts: keep one"))]
pub struct Ipam {
    /// The addresses that gateways name.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Empty>,
    /// A DHCP server on that network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Empty>,
    /// A range that the whole cluster shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whereabouts: Option<Whereabouts>,
}

/// A range of addresses that the whole cluster shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Whereabouts {
    /// The network, for example `172.31.9.0/24`.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("isCIDR(self)", "write a network, for example 172.31.9.0/24"))]
    pub range: String,
    /// The first address to give out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("isIP(self)", "write an address, for example 172.31.9.100"))]
    pub start: Option<String>,
    /// The last address to give out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("isIP(self)", "write an address, for example 172.31.9.120"))]
    pub end: Option<String>,
}
