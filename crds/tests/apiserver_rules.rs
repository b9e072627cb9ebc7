//! The definitions on a real API server: it takes them, it takes the examples, and it refuses each mistake with words
//! that say what to write instead.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use std::io::Write as _;
use std::process::Stdio;
use tidegate_cluster::BareControlPlane;

const FLEET: &str = include_str!("fixtures/devicefleet.yaml");
const PLATFORM: &str = include_str!("fixtures/iotplatform.yaml");
const GATEWAY: &str = include_str!("fixtures/protocolgateway.yaml");
const TOPIC: &str = include_str!("fixtures/topic.yaml");

fn parse(text: &str) -> Value {
    serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(text).unwrap()).unwrap()
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn patched(text: &str, patch: &Value) -> Value {
    let mut object = parse(text);
    merge(&mut object, patch);
    object
}

/// What the API server says to an object.
fn answer(server: &BareControlPlane, arguments: &[&str], object: &Value) -> Result<String, String> {
    let mut child = server
        .kubectl()
        .args(arguments)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

const TRY: &[&str] = &["create", "--dry-run=server", "--validate=strict", "-o", "json"];
const CHANGE: &[&str] = &["replace", "--dry-run=server"];

/// Something that the API server must refuse.
struct Case {
    base: &'static str,
    patch: Value,
    words: String,
    change: bool,
}

/// What is wrong with the API server's answer, if anything.
fn problem(server: &BareControlPlane, case: &Case) -> Option<String> {
    let Case { base, patch, words, change } = case;
    let mut object = patched(base, patch);
    let how = if *change { CHANGE } else { TRY };
    if !change && patch.get("metadata").is_none() {
        object["metadata"]["name"] = "another".into();
    }
    match answer(server, how, &object) {
        Ok(_) => Some(format!("{patch} was accepted, expected: {words}")),
        Err(text) if !text.contains(words) => {
            Some(format!("{patch} was refused without \"{words}\":\n{text}"))
        }
        Err(_) => None,
    }
}

fn many(count: usize, item: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(item).collect()
}

/// Lists and strings without end.
fn oversized() -> Vec<Case> {
    let case = |base: &'static str, spec: Value, words: &str| Case {
        base,
        patch: json!({"spec": spec}),
        words: words.to_owned(),
        change: false,
    };
    let network = |n| json!({"name": format!("n{n}"), "attachmentRef": {"name": "x"}});
    let listener = |n| json!({"name": format!("l{n}"), "port": n + 1});
    vec![
        case(PLATFORM, json!({"networks": many(17, network)}), "must have at most 16 items"),
        case(GATEWAY, json!({"mqtt": {"listeners": many(17, listener)}}), "must have at most 16 items"),
        case(TOPIC, json!({"filters": ["x".repeat(513)]}), "may not be more than 512"),
        case(TOPIC, json!({"filters": many(65, |n| json!(format!("f{n}")))}), "must have at most 64 items"),
        case(
            FLEET,
            json!({"devices": many(257, |n| json!({"name": format!("d{n}")}))}),
            "must have at most 256 items",
        ),
    ]
}

/// The cases of the fixture.
fn written() -> Vec<Case> {
    let example = |kind: &str| match kind {
        "DeviceFleet" => FLEET,
        "IoTPlatform" => PLATFORM,
        "ProtocolGateway" => GATEWAY,
        _ => TOPIC,
    };
    let case = |case: &Value| Case {
        base: example(case["kind"].as_str().unwrap()),
        patch: case["patch"].clone(),
        words: case["words"].as_str().unwrap().to_owned(),
        change: case["change"] == true,
    };
    parse(include_str!("fixtures/refused.yaml")).as_array().unwrap().iter().map(case).collect()
}

#[test]
fn the_api_server_takes_the_examples_and_refuses_each_mistake_with_words_that_help() {
    let server = BareControlPlane::start().unwrap();
    for crd in tidegate_crds::schema::all() {
        answer(&server, &["apply", "--server-side"], &serde_json::to_value(crd).unwrap()).unwrap();
    }
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    assert!(server.kubectl().args(wait).status().unwrap().success());
    assert!(server.kubectl().args(["create", "namespace", "plant"]).status().unwrap().success());

    // Five brokers, so that three is fewer.
    let five = json!({"spec": {"kafka": {"managed": {"brokers": 5}}}});
    for (text, patch) in [(FLEET, json!({})), (PLATFORM, five), (GATEWAY, json!({})), (TOPIC, json!({}))] {
        answer(&server, &["create", "--validate=strict"], &patched(text, &patch)).unwrap();
    }

    let cases = written().into_iter().chain(oversized());
    let problems: Vec<_> = cases.filter_map(|case| problem(&server, &case)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));

    defaults_are_constants(&server);
    a_gateway_is_scaled_through_its_subresource(&server);
}

fn defaults_are_constants(server: &BareControlPlane) {
    let gateway = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway",
        "metadata": {"name": "small", "namespace": "plant"},
        "spec": {"platformRef": {"name": "plant"}, "mqtt": {"listeners": [{"name": "mqtt", "port": 1883}]}, "resources": null},
    });
    let stored: Value = serde_json::from_str(&answer(server, TRY, &gateway).unwrap()).unwrap();
    assert_eq!(stored["spec"]["replicas"], 1);
    assert_eq!(stored["spec"]["expose"]["type"], "LoadBalancer");
    assert_eq!(stored["spec"]["limits"]["idleTime"], "300s");
    assert!(stored["spec"].get("resources").is_none(), "a null is as if it were absent");
    let topic = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
        "metadata": {"name": "small", "namespace": "plant"}, "spec": {"platformRef": {"name": "plant"}},
    });
    let stored: Value = serde_json::from_str(&answer(server, TRY, &topic).unwrap()).unwrap();
    assert_eq!(stored["spec"]["deletionPolicy"], "Retain");
    for field in ["partitions", "replicas", "minInSyncReplicas", "retention", "filters"] {
        assert!(stored["spec"].get(field).is_none(), "{field} is decided at creation, not by the schema");
    }
}

fn a_gateway_is_scaled_through_its_subresource(server: &BareControlPlane) {
    let scale = ["--namespace=plant", "scale", "protocolgateway/mqtt", "--replicas=4"];
    assert!(server.kubectl().args(scale).status().unwrap().success());
    let get = ["--namespace=plant", "get", "pgw", "mqtt", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(server.kubectl().args(get).output().unwrap().stdout, b"4");
}
