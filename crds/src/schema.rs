//! The definitions as they are applied to a cluster: what the derive makes, put into the form that this project
//! wants. Pure.

use crate::{DeviceFleet, IoTPlatform, ProtocolGateway, Topic};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// All four definitions, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    [DeviceFleet::crd(), IoTPlatform::crd(), ProtocolGateway::crd(), Topic::crd()].map(finish).into()
}

/// Takes `nullable` out of every schema: the API server then prunes a `null` as if the field were absent, which is
/// what people mean by it and what `has()` in a rule sees.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    remove_nullable(&mut value);
    serde_json::from_value(value).unwrap_or(crd)
}

fn remove_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(remove_nullable);
        }
        Value::Array(all) => all.iter_mut().for_each(remove_nullable),
        _ => {}
    }
}
