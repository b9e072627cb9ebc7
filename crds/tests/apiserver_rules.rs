//! The definitions on a real API server: it takes them, it takes the examples, and it refuses each mistake with words
//! that say what to write instead.

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

fn expect_refusals(
    server: &BareControlPlane,
    how: &[&str],
    cases: Vec<(&str, Value, &str)>,
    problems: &mut Vec<String>,
) {
    for (base, patch, words) in cases {
        match answer(server, how, &patched(base, &patch)) {
            Ok(_) => problems.push(format!("{patch} was accepted, expected: {words}")),
            Err(text) if !text.contains(words) => {
                problems.push(format!("{patch} was refused without \"{words}\":\n{text}"))
            }
            Err(_) => {}
        }
    }
}

fn many(count: usize, item: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(item).collect()
}

fn mistakes() -> Vec<(&'static str, Value, &'static str)> {
    let long = "x".repeat(600);
    vec![
        // IoTPlatform
        (
            PLATFORM,
            json!({"spec": {"kafka": {"external": {"bootstrapServers": ["k:9093"]}}}}),
            "exactly one of managed or external",
        ),
        (PLATFORM, json!({"spec": {"kafka": {"managed": null}}}), "exactly one of managed or external"),
        (PLATFORM, json!({"spec": {"kafka": {"managed": {"brokers": 2}}}}), "greater than or equal to 3"),
        (
            PLATFORM,
            json!({"spec": {"kafka": {"managed": {"storage": {"ephemeral": {}}}}}}),
            "exactly one of size",
        ),
        (
            PLATFORM,
            json!({"spec": {"kafka": {"managed": {"storage": {"size": "1Mi"}}}}}),
            "write a size from 64Mi",
        ),
        (PLATFORM, json!({"spec": {"kafka": {"managed": {"storage": {"size": "lots"}}}}}), "should match"),
        (PLATFORM, json!({"spec": {"kafka": {"prefix": "a b"}}}), "should match"),
        (
            PLATFORM,
            json!({"spec": {"loadBalancer": {"addresses": ["172.31.0.200-172.31.0.220"]}}}),
            "one of poolRef",
        ),
        (
            PLATFORM,
            json!({"spec": {"loadBalancer": {"poolRef": null, "addresses": ["172.31.0.200"]}}}),
            "write for example 172.31.0.200-172.31.0.220",
        ),
        (
            PLATFORM,
            json!({"spec": {"loadBalancer": {"poolRef": null, "addresses": ["172.31.0.200-x"]}}}),
            "write for example 172.31.0.200-172.31.0.220",
        ),
        (
            PLATFORM,
            json!({"spec": {"loadBalancer": {"poolRef": null, "addresses": ["172.31.0.1/99"]}}}),
            "write for example 172.31.0.200-172.31.0.220",
        ),
        (PLATFORM, json!({"spec": {"networks": [{"name": "a"}]}}), "exactly one of attachmentRef"),
        (
            PLATFORM,
            json!({"spec": {"networks": [{"name": "a", "attachmentRef": {"name": "x"}, "ipam": {"dhcp": {}}}]}}),
            "brings its own addresses",
        ),
        (
            PLATFORM,
            json!({"spec": {"networks": [{"name": "a", "vlan": {"master": "eth0", "id": 5000}}]}}),
            "less than or equal to 4094",
        ),
        (
            PLATFORM,
            json!({"spec": {"networks": [{"name": "a", "macvlan": {"master": "eth0"}, "ipam": {"dhcp": {}, "static": {}}}]}}),
            "exactly one of static",
        ),
        (
            PLATFORM,
            json!({"spec": {"networks": [{"name": "a", "macvlan": {"master": "eth0"}, "ipam": {"whereabouts": {"range": "x"}}}]}}),
            "write a network",
        ),
        (
            PLATFORM,
            json!({"spec": {"networks": many(17, |n| json!({"name": format!("n{n}"), "attachmentRef": {"name": "x"}}))}}),
            "must have at most 16 items",
        ),
        (PLATFORM, json!({"spec": {"topicDefaults": {"replicas": 1}}}), "minInSyncReplicas counts replicas"),
        (
            PLATFORM,
            json!({"spec": {"topicDefaults": {"retention": {"time": "10s"}}}}),
            "write a time from 1m",
        ),
        (
            PLATFORM,
            json!({"spec": {"topicDefaults": {"retention": {"bytes": "1Ki"}}}}),
            "write a size from 1Mi",
        ),
        (
            PLATFORM,
            json!({"spec": {"failover": {"probeInterval": "10ms"}}}),
            "write a time from 100ms to 10s",
        ),
        (PLATFORM, json!({"spec": {"failover": {"probeInterval": "fast"}}}), "should match"),
        (PLATFORM, json!({"metadata": {"name": "1st"}}), "a letter first"),
        (PLATFORM, json!({"spec": {"unknown": 1}}), "unknown field"),
        // ProtocolGateway
        (
            GATEWAY,
            json!({"spec": {"http": {"listeners": [{"name": "http", "port": 80}]}}}),
            "exactly one protocol",
        ),
        (GATEWAY, json!({"spec": {"mqtt": null}}), "exactly one protocol"),
        (GATEWAY, json!({"spec": {"mqtt": {"listeners": []}}}), "should have at least 1 items"),
        (
            GATEWAY,
            json!({"spec": {"mqtt": {"listeners": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}}}),
            "give each its own",
        ),
        (
            GATEWAY,
            json!({"spec": {"mqtt": {"listeners": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}}}),
            "Duplicate value",
        ),
        (
            GATEWAY,
            json!({"spec": {"mqtt": {"listeners": [{"name": "a", "port": 70000}]}}}),
            "less than or equal to 65535",
        ),
        (
            GATEWAY,
            json!({"spec": {"mqtt": {"listeners": many(17, |n| json!({"name": format!("l{n}"), "port": n + 1}))}}}),
            "must have at most 16 items",
        ),
        (GATEWAY, json!({"spec": {"replicas": -1}}), "greater than or equal to 0"),
        (
            GATEWAY,
            json!({"spec": {"expose": {"type": "ClusterIP", "addresses": 2}}}),
            "belong to type LoadBalancer",
        ),
        (
            GATEWAY,
            json!({"spec": {"expose": {"addresses": 2, "address": "172.31.0.200"}}}),
            "write addresses: 1",
        ),
        (GATEWAY, json!({"spec": {"expose": {"address": "nowhere"}}}), "address is no IP address"),
        (
            GATEWAY,
            json!({"spec": {"networks": [{"ref": "field", "interface": "net1", "addresses": ["172.31.9.100"]}]}}),
            "write replicas: 1",
        ),
        (
            GATEWAY,
            json!({"spec": {"networks": [{"ref": "field", "interface": "net1", "addresses": ["there"]}]}}),
            "write addresses, for example",
        ),
        (
            GATEWAY,
            json!({"spec": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}),
            "minReplicas is larger",
        ),
        (
            GATEWAY,
            json!({"spec": {"autoscaling": {"maxReplicas": 2, "scaleDownBelowPercent": 80}}}),
            "scaleDownBelowPercent must be below",
        ),
        (GATEWAY, json!({"spec": {"limits": {"packetBytes": "1Gi"}}}), "write a size from 256 bytes"),
        (GATEWAY, json!({"spec": {"limits": {"idleTime": "100ms"}}}), "write a time from 1s to 24h"),
        (GATEWAY, json!({"spec": {"limits": {"inFlight": 0}}}), "greater than or equal to 1"),
        (GATEWAY, json!({"metadata": {"name": "a.b"}}), "at most 40 lower-case letters"),
        // Topic
        (TOPIC, json!({"spec": {"filters": ["a/#/b"]}}), "# for the rest"),
        (TOPIC, json!({"spec": {"filters": ["a+/b"]}}), "+ stands for one whole level"),
        (TOPIC, json!({"spec": {"filters": ["$SYS/#"]}}), "kept for the platform"),
        (TOPIC, json!({"spec": {"filters": [long]}}), "may not be more than 512"),
        (
            TOPIC,
            json!({"spec": {"filters": many(65, |n| json!(format!("f{n}")))}}),
            "must have at most 64 items",
        ),
        (TOPIC, json!({"spec": {"minInSyncReplicas": 4}}), "minInSyncReplicas counts replicas"),
        (TOPIC, json!({"spec": {"partitions": 0}}), "greater than or equal to 1"),
        (TOPIC, json!({"spec": {"maxMessageBytes": "1"}}), "write a size from 1Ki to 256Mi"),
        (TOPIC, json!({"spec": {"cleanup": "Shred"}}), "Unsupported value"),
        (TOPIC, json!({"metadata": {"name": "tg-directory"}}), "kept for the platform's own topics"),
        // DeviceFleet
        (
            FLEET,
            json!({"spec": {"authentication": {"password": null, "x509": null}}}),
            "name at least one way",
        ),
        (FLEET, json!({"spec": {"permissions": {"publish": ["a/#/{device}"]}}}), "# for the rest"),
        (FLEET, json!({"spec": {"devices": [{"name": "a/b"}]}}), "should match"),
        (
            FLEET,
            json!({"spec": {"devices": many(257, |n| json!({"name": format!("d{n}")}))}}),
            "must have at most 256 items",
        ),
        (FLEET, json!({"spec": {"limits": {"publishBytes": "0"}}}), "write a size from 1 byte"),
    ]
}

fn forbidden_changes() -> Vec<(&'static str, Value, &'static str)> {
    let external =
        json!({"spec": {"kafka": {"managed": null, "external": {"bootstrapServers": ["k:9093"]}}}});
    vec![
        (PLATFORM, external, "cannot change between managed and external"),
        (
            PLATFORM,
            json!({"spec": {"kafka": {"prefix": "other-"}}}),
            "kafka.prefix names what is already stored",
        ),
        (PLATFORM, json!({"spec": {"kafka": {"managed": {"brokers": 3}}}}), "brokers cannot shrink"),
        (PLATFORM, json!({"spec": {"kafka": {"managed": {"storage": {"size": "9Gi"}}}}}), "never shrinks"),
        (
            PLATFORM,
            json!({"spec": {"kafka": {"managed": {"storage": {"size": null, "ephemeral": {}}}}}}),
            "cannot change between size and ephemeral",
        ),
        (
            PLATFORM,
            json!({"spec": {"kafka": {"managed": {"storage": {"className": "fast"}}}}}),
            "cannot change its storage class",
        ),
        (
            GATEWAY,
            json!({"spec": {"mqtt": null, "http": {"listeners": [{"name": "http", "port": 80}]}}}),
            "cannot change its protocol",
        ),
        (TOPIC, json!({"spec": {"partitions": 13}}), "partitions cannot change once set"),
        (TOPIC, json!({"spec": {"partitions": null}}), "partitions cannot change once set"),
    ]
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

    let mut problems = Vec::new();
    let rename = |(base, patch, words): (&'static str, Value, &'static str)| {
        let mut patch = patch;
        if patch.get("metadata").is_none() {
            patch["metadata"] = json!({"name": "another"});
        }
        (base, patch, words)
    };
    expect_refusals(&server, TRY, mistakes().into_iter().map(rename).collect(), &mut problems);
    expect_refusals(&server, &["replace", "--dry-run=server"], forbidden_changes(), &mut problems);
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
