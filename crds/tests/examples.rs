//! The complete example of each kind fits the types, and nothing of it is lost.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_crds::{DeviceFleet, IoTPlatform, ProtocolGateway, Topic};

fn parse(text: &str) -> Value {
    serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(text).unwrap()).unwrap()
}

/// Whether everything that `part` says is in `whole` as well; an empty value may be left out.
fn missing(path: &str, part: &Value, whole: &Value, all: &mut Vec<String>) {
    let empty = match part {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (part, whole) {
        (_, Value::Null) if empty => {}
        (Value::Object(part), Value::Object(whole)) => {
            for (key, value) in part {
                missing(&format!("{path}.{key}"), value, whole.get(key).unwrap_or(&Value::Null), all);
            }
        }
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            for (index, value) in part.iter().enumerate() {
                missing(&format!("{path}[{index}]"), value, &whole[index], all);
            }
        }
        // A quantity is kept as text, whatever it was written as.
        (Value::Number(number), Value::String(text)) if number.to_string() == *text => {}
        (part, whole) if part == whole => {}
        _ => all.push(format!("{path}: {part} became {whole}")),
    }
}

fn survives<K: DeserializeOwned + Serialize>(text: &str) {
    let written = parse(text);
    let typed: K = serde_json::from_value(written.clone()).unwrap();
    let mut all = Vec::new();
    missing("", &written, &serde_json::to_value(&typed).unwrap(), &mut all);
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_example_of_every_kind_fits_its_type_field_by_field() {
    survives::<DeviceFleet>(include_str!("fixtures/devicefleet.yaml"));
    survives::<IoTPlatform>(include_str!("fixtures/iotplatform.yaml"));
    survives::<ProtocolGateway>(include_str!("fixtures/protocolgateway.yaml"));
    survives::<Topic>(include_str!("fixtures/topic.yaml"));
}
