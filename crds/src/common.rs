//! Parts that more than one kind has: references, retention, resources; and pieces of schema.

use crate::{Duration, Quantity};
use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest name of an object in Kubernetes.
pub const MAX_NAME: usize = 253;

/// The name of another object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl LocalRef {
    /// A reference to the object of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A choice that has no further settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Empty {}

/// How long Kafka keeps records; whatever is reached first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Retention {
    /// How long, for example `168h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1m') && duration(self) <= duration('876000h')", "write a time from 1m to 876000h, for example 168h"))]
    pub time: Option<Duration>,
    /// How many bytes per partition, for example `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0", "write a size from 1Mi to 1Pi, for example 1Gi"))]
    pub bytes: Option<Quantity>,
}

/// What a container asks for and may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// What the scheduler sets aside, for example `{cpu: 250m, memory: 768Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may not exceed, for example `{memory: 1Gi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

impl From<&Resources> for ResourceRequirements {
    fn from(value: &Resources) -> Self {
        let convert = |map: &BTreeMap<String, Quantity>| {
            (!map.is_empty())
                .then(|| map.iter().map(|(name, amount)| (name.clone(), amount.into())).collect())
        };
        Self { requests: convert(&value.requests), limits: convert(&value.limits), claims: None }
    }
}

fn quantities(generate: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 16, "additionalProperties": Quantity::json_schema(generate),
    })
}

/// A map of label values.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// A map of settings.
pub(crate) fn setting_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 128, "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// A document that only its reader understands.
pub(crate) fn document(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 128, "x-kubernetes-preserve-unknown-fields": true})
}

/// The rule of a list of MQTT filters (MQTT 5 §4.7), with or without placeholders; bytes are counted by the operator.
pub(crate) const FILTERS: (&str, &str) = (
    "self.all(each, each.matches('^(#|([^+#/]*|[+])(/([^+#/]*|[+]))*(/#)?)$'))",
    "a filter is levels joined by /, where + stands for one whole level and # for the rest: write for example sites/+/telemetry/#",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_become_kubernetes_own() {
        let resources: Resources =
            serde_json::from_str(r#"{"requests":{"cpu":"250m","memory":"768Mi"}}"#).unwrap();
        let requirements = ResourceRequirements::from(&resources);
        assert_eq!(requirements.requests.unwrap()["memory"].0, "768Mi");
        assert_eq!(requirements.limits, None);
    }
}
