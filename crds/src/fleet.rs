//! `DeviceFleet`: devices that share credentials rules, permissions and configuration.

use crate::common::{Empty, FILTERS, LocalRef, SecretKeyRef, document};
use crate::{Conditions, Quantity};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rule of a device's name that its pattern cannot say: it stands for one level of an address, and these are none.
const NO_DOTS: (&str, &str) =
    ("self != '.' && self != '..'", "\".\" and \"..\" are no level of an address: write another name");

/// The rule of filters with placeholders. A misspelt one would allow nothing and say nothing.
const PLACEHOLDERS: (&str, &str) = (
    "self.all(each, !each.replace('{device}', '').replace('{fleet}', '').matches('[{}]'))",
    "only {device} and {fleet} stand in braces",
);

/// What a fleet is.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "tidegate.io",
    version = "v1alpha1",
    kind = "DeviceFleet",
    plural = "devicefleets",
    shortname = "dfl",
    category = "tidegate",
    namespaced,
    status = "DeviceFleetStatus",
    derive = "PartialEq",
    doc = "A fleet: devices that share credentials rules, permissions and configuration.",
    validation = ("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "the name is the first part of every device's username: at most 63 lower-case letters, digits and -"),
    printcolumn(name = "Platform", type_ = "string", json_path = ".spec.platformRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Registered", type_ = "integer", json_path = ".status.devices.registered"),
    printcolumn(name = "Connected", type_ = "integer", json_path = ".status.devices.connected"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceFleetSpec {
    /// The platform.
    pub platform_ref: LocalRef,
    /// How devices prove who they are.
    pub authentication: Authentication,
    /// Devices that are named here; more through the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub devices: Vec<Device>,
    /// What devices may do; nothing where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// Bounds of each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<DeviceLimits>,
    /// The desired document of every device, at `.tidegate/desired/<fleet>/<device>`: at most 64 KiB of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "document")]
    pub configuration: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How devices prove who they are; any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.password) || has(self.x509) || has(self.anonymous)",
    "name at least one way: password: {}, x509, or anonymous with the device's name"))]
pub struct Authentication {
    /// `<fleet>/<device>` and a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Empty>,
    /// A client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509: Option<X509>,
    /// None at all: everybody is this one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct X509 {
    /// Who signs them.
    pub ca_secret_ref: SecretKeyRef,
    /// Where the device's name is in them.
    #[serde(default)]
    pub device_from: DeviceFrom,
    /// Whether a valid certificate suffices.
    #[serde(default)]
    pub provision: Provision,
}

/// Where a device's name is in its certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeviceFrom {
    /// The subject's common name.
    #[default]
    CommonName,
    /// A URI among the alternative names.
    UriSan,
}

/// Whether a valid certificate suffices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provision {
    /// It does; nothing is registered.
    Automatic,
    /// Only devices that are named.
    #[default]
    Declared,
}

/// Devices that do not say who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Anonymous {
    /// The device that they all are.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[^/+#\s]+$"))]
    #[x_kube(validation = NO_DOTS)]
    pub device: String,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name; with the fleet's the principal `<fleet>/<device>`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[^/+#\s]+$"))]
    #[x_kube(validation = NO_DOTS)]
    pub name: String,
    /// Where its password is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Refuse it.
    #[serde(default)]
    pub disabled: bool,
}

/// What devices may do, by filters with `{device}` and `{fleet}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Permissions {
    /// Addresses that a device may write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = FILTERS, validation = PLACEHOLDERS)]
    pub publish: Vec<String>,
    /// Addresses that a device may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = FILTERS, validation = PLACEHOLDERS)]
    pub subscribe: Vec<String>,
}

/// Bounds of each device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceLimits {
    /// Messages per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub publish_rate: Option<i32>,
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("quantity(string(self)).compareTo(quantity('1')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0",
        "write a size from 1 byte to 1Ti, for example 1Mi"))]
    pub publish_bytes: Option<Quantity>,
    /// Connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub connections_per_device: Option<i32>,
}

/// How a fleet is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceFleetStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `ResolvedRefs`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// How many devices; never one entry for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceCounts>,
}

/// How many devices; what nobody can tell is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceCounts {
    /// Those that may connect by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub registered: Option<i64>,
    /// Those that are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub connected: Option<i64>,
    /// Those whose gateway is gone and that nobody has corrected yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub stale: Option<i64>,
}
