//! What stays when a platform goes, and what goes when a namespace does, on a bare API server. The test does by hand what
//! Kubernetes' own controllers do there: it collects what has lost its owner, and empties a namespace that is being deleted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;
mod orders_support;

use apiserver_support::{Operator, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything that the operator makes in a namespace, but volume claims.
const CHILDREN: &str =
    "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,poddisruptionbudgets";
const OURS: &str = "--selector=app.kubernetes.io/managed-by=tidegate";
/// How long a namespace that is being deleted is watched for what must not happen in it.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn a_platform_takes_an_earlier_ones_volumes_only_when_it_is_told_to_and_starts_empty_without_them() {
    let world = World::new();
    let _operator = world.operator("volumes");
    world.apply(&platform(&json!({})));
    brought_up(&world);
    let first = Claims::read(&world);
    assert_eq!(first.identities.len(), 3);
    delete_platform(&world);

    // Without a word nothing is touched, whatever else is edited.
    world.apply(&platform(&json!({})));
    for partitions in [3, 6] {
        world.apply(&platform(&json!({"partitions": partitions})));
        edit_is_seen(&world);
        world.condition("iotp/plant", "Ready", "ResourceConflict");
        world.condition("iotp/plant", "Stalled", "ResourceConflict");
        let message = world.value("iotp/plant", ".status.conditions[?(@.type=='Ready')].message");
        for part in ["data-plant-kafka-0", "data-plant-kafka-2", "tidegate.io/adopt: \"true\""] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert_eq!(list(&world, CHILDREN), BTreeSet::new());
    assert_eq!(Claims::read(&world), first, "claims were written");

    // With it the volumes are this platform's, and say the same of who their nodes are.
    annotate(&world, "iotp/plant", "tidegate.io/adopt=true");
    brought_up(&world);
    let second = Claims::read(&world);
    assert_eq!(second.identities, first.identities);
    assert_eq!(second.uids, first.uids);
    let uid = world.value("iotp/plant", ".metadata.uid");
    assert!(second.platforms.iter().all(|platform| *platform == uid) && first.platforms != second.platforms);
    for (node, identity) in second.identities.values().enumerate() {
        let entry = world.value("cm/plant-kafka-identity", &format!(".data.node-{node}"));
        for id in ["tidegate.io/kafka-cluster-id", "tidegate.io/kafka-directory-id"] {
            assert!(entry.contains(&identity[id]), "{entry} has not {id} of {identity:?}");
        }
    }
    annotate(&world, "iotp/plant", "tidegate.io/adopt-");
    world.apply(&platform(&json!({"partitions": 9})));
    edit_is_seen(&world);
    brought_up(&world);

    // Without the volumes it is another Kafka.
    delete_platform(&world);
    delete_claims(&world);
    world.apply(&platform(&json!({})));
    brought_up(&world);
    let third = Claims::read(&world);
    let clusters = |claims: &Claims| -> BTreeSet<String> {
        claims.identities.values().map(|identity| identity["tidegate.io/kafka-cluster-id"].clone()).collect()
    };
    assert_eq!(clusters(&third).len(), 1);
    assert!(clusters(&third).is_disjoint(&clusters(&first)), "{third:?}");
}

#[test]
fn in_a_namespace_that_is_being_deleted_nothing_is_made_and_nothing_is_held() {
    let world = World::new();
    orders_support::cluster(&world);
    let allowed = ("TIDEGATE_ADDRESS_ALLOW_LIST", "198.51.100.0/24");
    let operator = world.operator_with("leaving", &[allowed]);
    world.apply(&json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform", "metadata": {"name": "plant", "namespace": "plant"},
        "spec": {"kafka": {"managed": {}}, "loadBalancer": {"addresses": ["198.51.100.1-198.51.100.9"]}},
    }));
    for (name, policy) in [("kept", "Retain"), ("doomed", "Delete"), ("paused", "Delete")] {
        world.apply(&json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": name, "namespace": "plant"},
            "spec": {"platformRef": {"name": "plant"}, "deletionPolicy": policy},
        }));
    }
    world.apply(&json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway", "metadata": {"name": "mqtt", "namespace": "plant"},
        "spec": {"platformRef": {"name": "plant"}, "mqtt": {"listeners": [{"name": "mqtt", "port": 1883}]}},
    }));
    brought_up(&world);
    world.wait("iotp/plant", ".metadata.finalizers[0]", "tidegate.io/address-pool");
    for topic in ["tgt/doomed", "tgt/paused"] {
        world.wait(topic, ".metadata.finalizers[0]", "tidegate.io/kafka-topic");
    }
    world.wait("deployment/mqtt", ".metadata.name", "mqtt");
    assert_eq!(pools(&world), ["devices", "tidegate-plant-plant"]);
    annotate(&world, "tgt/paused", "tidegate.io/paused=true");

    world.kubectl(&["delete", "namespace", "plant", "--wait=false"]);
    assert_eq!(world.value("namespace/plant", ".status.phase"), "Terminating");
    // Children go while those who own them are still there.
    delete_claims(&world);
    world.kubectl(&["--namespace=plant", "delete", CHILDREN, OURS, "--wait=false"]);
    let before = tried(&operator);
    std::thread::sleep(QUIET);
    let tried = tried(&operator) - before;
    assert!(tried < 40, "{tried} requests to change something within {QUIET:?}\n{}", log(&operator));
    assert_eq!(list(&world, CHILDREN), BTreeSet::new());

    world.kubectl(&["--namespace=plant", "delete", "iotp,tgt,pgw", "--all", "--wait=false"]);
    world.wait_until("finalizers let go", || list(&world, "iotp,tgt,pgw").is_empty());
    assert_eq!(pools(&world), ["devices"]);
    assert_eq!(list(&world, &format!("{CHILDREN},persistentvolumeclaims")), BTreeSet::new());
    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    let level = |line: &&str| line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"");
    let told: Vec<_> = log.lines().filter(level).collect();
    let let_go = |line: &&&str| line.contains("its records may still be in Kafka: its platform is gone");
    assert_eq!(told.iter().filter(let_go).count(), 2, "{told:#?}");
    // a claim may go between the look of a pass and its write
    let overtaken = |line: &str| line.contains("and no existing object was found");
    assert!(told.iter().all(|line| let_go(&line) || overtaken(line)), "{told:#?}");
}

fn platform(defaults: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform", "metadata": {"name": "plant", "namespace": "plant"},
        "spec": {"kafka": {"managed": {"storage": {"size": "2Gi"}}}, "topicDefaults": defaults},
    })
}

fn edit_is_seen(world: &World) {
    let generation = world.value("iotp/plant", ".metadata.generation");
    world.wait("iotp/plant", ".status.observedGeneration", &generation);
}

/// As far as it comes where no pod starts.
fn brought_up(world: &World) {
    world.wait("statefulset/plant-kafka", ".metadata.name", "plant-kafka");
    world.wait_until("only brokers are missing", || {
        let reason = world.value("iotp/plant", ".status.conditions[?(@.type=='Ready')].reason");
        ["KafkaNotReady", "KafkaUnreachable"].contains(&reason.as_str())
    });
}

/// Deletes the platform, and what the garbage collector would.
fn delete_platform(world: &World) {
    world.kubectl(&["--namespace=plant", "delete", "iotp/plant", "--timeout=30s"]);
    world.kubectl(&["--namespace=plant", "delete", CHILDREN, OURS, "--timeout=30s"]);
    assert_eq!(list(world, CHILDREN), BTreeSet::new());
}

/// Deletes the volume claims, and lets go of them as no pod uses them.
fn delete_claims(world: &World) {
    let claims = list(world, "persistentvolumeclaims");
    assert_eq!(claims.len(), 3);
    world.kubectl(&["--namespace=plant", "delete", "persistentvolumeclaims", "--all", "--wait=false"]);
    for claim in &claims {
        let patch = r#"--patch={"metadata":{"finalizers":null}}"#;
        let claim = claim.as_str();
        // Gone by itself is as good.
        let _ = world.try_kubectl(&["--namespace=plant", "patch", claim, "--type=merge", patch]);
    }
}

fn annotate(world: &World, object: &str, annotation: &str) {
    world.kubectl(&["--namespace=plant", "annotate", object, annotation]);
}

/// What is there of ours.
fn list(world: &World, kinds: &str) -> BTreeSet<String> {
    let ours = if kinds.starts_with("iotp") { "--show-labels=false" } else { OURS };
    let text = world.kubectl(&["--namespace=plant", "get", kinds, ours, "--output=name"]);
    text.lines().map(str::to_owned).collect()
}

fn pools(world: &World) -> Vec<String> {
    let text = world.kubectl(&["--namespace=metallb-system", "get", "ipaddresspools", "--output=name"]);
    text.lines().filter_map(|line| Some(line.split_once('/')?.1.to_owned())).collect()
}

/// Requests that would have changed something, answered or refused.
fn tried(operator: &Operator) -> u64 {
    let text = operator.metrics();
    let writes = ["create", "update", "patch", "delete"].map(|verb| format!("verb=\"{verb}\""));
    let lines = text.lines().filter(|line| line.starts_with("tidegate_kubernetes_requests_total{"));
    let lines = lines.filter(|line| writes.iter().any(|verb| line.contains(verb)));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn log(operator: &Operator) -> String {
    std::fs::read_to_string(&operator.log).unwrap()
}

/// What the volume claims say.
#[derive(Debug, PartialEq)]
struct Claims {
    /// Who their nodes are, by claim.
    identities: BTreeMap<String, BTreeMap<String, String>>,
    platforms: BTreeSet<String>,
    uids: BTreeSet<String>,
}

impl Claims {
    fn read(world: &World) -> Self {
        let text =
            world.kubectl(&["--namespace=plant", "get", "persistentvolumeclaims", OURS, "--output=json"]);
        let all: Value = serde_json::from_str(&text).unwrap();
        let (mut identities, mut platforms, mut uids) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for claim in all["items"].as_array().unwrap() {
            let metadata = &claim["metadata"];
            let annotations: BTreeMap<String, String> =
                serde_json::from_value(metadata["annotations"].clone()).unwrap();
            platforms.insert(annotations["tidegate.io/platform-uid"].clone());
            uids.insert(metadata["uid"].as_str().unwrap().to_owned());
            let ids = annotations.into_iter().filter(|(key, _)| key.starts_with("tidegate.io/kafka-"));
            identities.insert(metadata["name"].as_str().unwrap().to_owned(), ids.collect());
        }
        Self { identities, platforms, uids }
    }
}
