//! The definitions on a real API server: it takes them, it takes the examples, and it refuses each mistake with words
//! that say what to write instead.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
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
    answer_to(server, arguments, &object.to_string())
}

/// What `kubectl` and the API server say to a text.
fn answer_to(server: &BareControlPlane, arguments: &[&str], text: &str) -> Result<String, String> {
    let mut child = server
        .kubectl()
        .args(arguments)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

const TRY: &[&str] = &["create", "--dry-run=server", "--validate=strict", "-o", "json"];
const CHANGE: &[&str] = &["replace", "--dry-run=server"];
const STATUS: &[&str] = &["replace", "--subresource=status", "--dry-run=server"];

/// Something that the API server must refuse.
struct Case {
    base: &'static str,
    patch: Value,
    words: String,
    /// Whether it is a change of the stored object, and of which part: `spec` is replaced, `status` patched.
    change: Option<&'static str>,
}

/// The API server's refusal of a case, or what is wrong with its answer.
fn refusal(server: &BareControlPlane, case: &Case) -> Result<String, String> {
    let Case { base, patch, words, change } = case;
    let mut object = patched(base, patch);
    let how = match change {
        Some("status") => STATUS,
        Some(_) => CHANGE,
        None => TRY,
    };
    if change.is_none() && patch.get("metadata").is_none() {
        object["metadata"]["name"] = "another".into();
    }
    match answer(server, how, &object) {
        Ok(_) => Err(format!("{patch} was accepted, expected: {words}")),
        Err(text) if !text.contains(words) => {
            Err(format!("{patch} was refused without \"{words}\":\n{text}"))
        }
        Err(text) => Ok(text),
    }
}

/// Every rule of the definitions: kind, field (items of lists without a number), message.
fn rules() -> BTreeSet<(String, String, String)> {
    fn walk(kind: &str, path: &str, schema: &Value, all: &mut BTreeSet<(String, String, String)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().expect("every rule has words of its own");
            all.insert((kind.to_owned(), path.to_owned(), message.to_owned()));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(kind, &below, property, all);
        }
        for inner in ["items", "additionalProperties"].iter().filter_map(|key| schema.get(key)) {
            walk(kind, path, inner, all);
        }
    }
    let mut all = BTreeSet::new();
    for crd in tidegate_crds::schema::all() {
        let version = &crd.spec.versions[0];
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        walk(&crd.spec.names.kind, "", &serde_json::to_value(schema).unwrap(), &mut all);
    }
    all
}

/// Whether a refusal is this rule's: its field and its whole message.
fn is_told(refusal: &str, field: &str, message: &str) -> bool {
    refusal.split("* ").chain(refusal.lines()).any(|part| {
        let at = part.split(": Invalid value").next().unwrap_or_default();
        let at = at.rsplit(' ').next().unwrap_or_default();
        let mut plain = String::new();
        let mut inside = false;
        for letter in at.chars() {
            inside = (inside || letter == '[') && letter != ']';
            if !inside && letter != ']' {
                plain.push(letter);
            }
        }
        let place = if field.is_empty() { "<nil>" } else { field };
        (plain == place || field.is_empty()) && part.contains(message)
    })
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
        change: None,
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
        change: match (case["change"] == true, case["status"] == true) {
            (true, _) => Some("spec"),
            (_, true) => Some("status"),
            _ => None,
        },
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

    let (mut told, mut problems) = (Vec::new(), Vec::new());
    for case in written().into_iter().chain(oversized()) {
        let kind = parse(case.base)["kind"].as_str().unwrap().to_owned();
        match refusal(&server, &case) {
            Ok(text) => told.push((kind, text)),
            Err(text) => problems.push(text),
        }
    }
    for (kind, field, message) in rules() {
        if !told.iter().any(|(of, text)| *of == kind && is_told(text, &field, &message)) {
            problems.push(format!("no case of fixtures/refused.yaml triggers {kind} {field}: {message}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));

    the_largest_objects_are_taken(&server);
    what_is_beyond_is_refused_with_words(&server);
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

    // Nor does this way lead to two pods with one address.
    let mut alone = patched(GATEWAY, &json!({"metadata": {"name": "alone"}, "spec": {"replicas": 1}}));
    alone["spec"]["networks"] =
        json!([{"ref": "field", "interface": "net1", "addresses": ["172.31.9.100/24"]}]);
    answer(server, &["create", "--validate=strict"], &alone).unwrap();
    let scale = ["--namespace=plant", "scale", "protocolgateway/alone", "--replicas=2"];
    let output = server.kubectl().args(scale).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("write replicas: 1"), "{said}");
}

/// Lists, maps and strings as long as they may be: the API server takes them, so the rules' budget holds for them.
fn largest() -> Vec<(&'static str, Value)> {
    let name = |n: usize| format!("n{n:03}{}", "x".repeat(28));
    let filter = |n: usize| json!(format!("{n:04}/{}", "ä/".repeat(169)));
    let settings = |count: usize, long: usize| -> Value {
        (0..count).map(|n| (format!("setting.{n}"), json!("v".repeat(long)))).collect::<Map<_, _>>().into()
    };
    let document = |depth: usize| (0..depth).fold(json!("x"), |inner, _| json!({"a": inner}));
    vec![
        (
            PLATFORM,
            json!({
                "kafka": {
                    "managed": {"brokers": 99, "config": settings(127, 1024), "resources": {"requests": (0..14).map(|n| (format!("x.example/{n}"), json!("1"))).collect::<Map<_, _>>()}},
                    "applications": many(64, |n| json!({"name": format!("a{n}"), "read": many(64, |t| json!(format!("t{t}")))})),
                },
                "networks": many(16, |n| json!({"name": name(n), "macvlan": {"master": "eth1"}, "ipam": {"whereabouts": {"range": "fd00::/64", "start": "fd00::1", "end": "fd00::ffff"}}})),
                "loadBalancer": {"poolRef": null, "addresses": many(16, |n| json!(format!("fd00:0:0:{n}::1-fd00:0:0:{n}::ffff")))},
            }),
        ),
        (
            GATEWAY,
            json!({
                "mqtt": {"listeners": many(16, |n| json!({"name": format!("l{n}"), "port": n + 1}))},
                "networks": many(16, |n| json!({"ref": name(n), "interface": format!("net{n}"), "addresses": []})),
                "placement": {"capabilities": many(16, |n| json!(format!("c{n:02}{}", "x".repeat(49)))), "nodeSelector": (0..32).map(|n| (format!("k{n}"), json!("v".repeat(63)))).collect::<Map<_, _>>()},
                "replicas": 1000,
            }),
        ),
        (TOPIC, json!({"filters": many(64, filter), "partitions": 1000})),
        (
            FLEET,
            json!({
                "devices": many(256, |n| json!({"name": format!("d{n}{}", "x".repeat(40))})),
                "permissions": {"publish": many(64, filter), "subscribe": many(64, filter)},
                "configuration": document(60),
            }),
        ),
    ]
}

fn the_largest_objects_are_taken(server: &BareControlPlane) {
    for (base, spec) in largest() {
        let mut object = patched(base, &json!({"spec": spec}));
        object["metadata"]["name"] = "largest".into();
        object["metadata"]["annotations"] = json!({"note": "ü".repeat(128 << 10 >> 1)});
        let taken = answer(server, TRY, &object);
        assert!(taken.is_ok(), "{}", taken.unwrap_err().chars().take(2000).collect::<String>());
    }
}

fn what_is_beyond_is_refused_with_words(server: &BareControlPlane) {
    let refused = |text: &str, words: &str| {
        let said = answer_to(server, TRY, text).unwrap_err();
        let start: String = said.chars().take(600).collect();
        assert!(said.contains(words), "without {words:?}: {start}");
    };
    let topic = |spec: &str, name: &str| {
        format!(
            "apiVersion: tidegate.io/v1alpha1\nkind: Topic\nmetadata: {{name: {name}, namespace: plant}}\nspec: {{platformRef: {{name: plant}}, {spec}}}\n"
        )
    };
    // Numbers out of range, of the wrong kind, and not of this world.
    for number in ["9223372036854775808", "-1", "1.5", "1e99", "0x7fffffffffffffff", "\"3\"", ".nan", "true"]
    {
        let said = answer_to(server, TRY, &topic(&format!("partitions: {number}"), "number"));
        assert!(said.is_err(), "partitions: {number} was accepted");
    }
    refused(&topic("partitions: 1001", "number"), "less than or equal to 1000");
    // Characters that look like others, or like nothing.
    for name in [
        "\"tele\\u200bmetry\"",
        "\"t\\u0435lemetry\"",
        "\"\\u202eyrtemelet\"",
        "\"tele/metry\"",
        "\"..\"",
        "\"\"",
    ] {
        refused(&topic("partitions: 1", name), "metadata.name");
    }
    refused(&topic("filters: [\"a/\\u0000\", \"a/#/b\"]", "nul"), "# for the rest");
    // A document that grows without end when it is read: nine levels of nine.
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (this, last) in
        ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
    {
        let nine = vec![format!("*{last}"); 9].join(",");
        bomb.extend([this, ": &", this, " [", &nine, "]\n"]);
    }
    assert!(answer_to(server, TRY, &bomb).is_err(), "a YAML bomb was accepted");
    // Annotations of more than 256 KiB, and an object of more than the store takes.
    let mut large =
        patched(TOPIC, &json!({"metadata": {"name": "large", "annotations": {"note": "x".repeat(1 << 20)}}}));
    refused(&large.to_string(), "262144");
    large["metadata"]["annotations"] = json!({});
    large["spec"]["filters"] = json!(many(8192, |n| json!(format!("{n:0>500}"))));
    assert!(answer(server, TRY, &large).is_err(), "four megabytes of filters were accepted");
    // A configuration document of a fleet has no schema; its size is the API server's own limit.
    let mut fleet = patched(FLEET, &json!({"metadata": {"name": "large"}}));
    fleet["spec"]["configuration"] = json!({"x": "y".repeat(3 << 20)});
    let said = answer(server, &["create", "--validate=strict"], &fleet).unwrap_err();
    assert!(said.contains("arge"), "{}", said.chars().take(300).collect::<String>());
    refused(&topic("partitons: 3", "typo"), "unknown field \"spec.partitons\"");
}
