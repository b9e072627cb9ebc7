//! Whole passes over a platform with somebody else's Kafka, against an API server in memory.

use super::tests::{PLATFORM, World};
use crate::kafka::error::{Class, Failure, Told};
use crate::kafka::hub::Key;
use crate::kafka::snapshot::{Health, Snapshot};
use http::Method;
use rdkafka::error::RDKafkaErrorCode as Code;
use serde_json::{Value, json};

const SECRET: &str = "/api/v1/namespaces/iot/secrets/login";
const SPEC: &str = "{kafka: {prefix: acme., external: {bootstrapServers: ['k.example:9093'],
    sasl: {mechanism: SCRAM-SHA-512, username: tidegate, passwordSecretRef: {name: login, key: password}}}}}";

fn world() -> World {
    let world = World::new(SPEC);
    world.server.put(
        SECRET,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "iot"},
            "data": {"password": "aGFyZCB0byBndWVzcw=="}}),
    );
    world
}

fn found(world: &World, snapshot: Snapshot) {
    world.hub.pretend(&Key::new("iot", "plant"), snapshot);
}

fn up(brokers: i32) -> Snapshot {
    Snapshot {
        health: Health::Up,
        brokers: (1..=brokers).collect(),
        cluster_id: Some("MkU3".to_owned()),
        directory_written: true,
        ..Snapshot::default()
    }
}

fn kafka(world: &World) -> Value {
    world.server.get(PLATFORM).unwrap()["status"]["kafka"].clone()
}

#[tokio::test]
async fn nothing_of_a_broker_is_made_and_the_devices_authority_is() {
    let world = world();
    world.pass().await;
    let made: Vec<_> = world.server.writes().into_iter().filter(|write| !write.contains("/status")).collect();
    let at = "PATCH /api/v1/namespaces/iot";
    assert_eq!(made, [format!("{at}/secrets/plant-device-ca"), format!("{at}/configmaps/plant-devices-ca")]);
    world.says("Ready", "False", "KafkaNotReady");
    world.says("Accepted", "True", "Accepted");
    assert_eq!(kafka(&world)["bootstrap"], "k.example:9093");
}

#[tokio::test]
async fn the_devices_authority_comes_back_with_the_same_key_and_not_while_paused() {
    const AUTHORITY: &str = "/api/v1/namespaces/iot/secrets/plant-device-ca";
    let world = world();
    world.pass().await;
    let held = || world.server.get(AUTHORITY).map(|secret| secret["data"].clone());
    let before = held();
    world.edit(AUTHORITY, |secret| secret["data"]["ca.key"] = "bm9uc2Vuc2U=".into());
    world.pass().await;
    assert_eq!(held(), before);
    world.server.remove(AUTHORITY);
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"]["tidegate.io/paused"] = "true".into();
    });
    world.pass().await;
    assert_eq!(held(), None);
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"]["tidegate.io/paused"] = "false".into();
    });
    world.pass().await;
    assert_eq!(held(), before);
}

#[tokio::test]
async fn the_status_tells_what_kafka_said_and_keeps_it_while_kafka_is_away() {
    let world = world();
    found(&world, up(3));
    world.pass().await;
    world.says("Ready", "True", "Ready");
    let said = json!({"bootstrap": "k.example:9093", "brokers": 3, "brokersReady": 3, "clusterId": "MkU3"});
    assert_eq!(kafka(&world), said);
    let told = Told { reason: "KafkaCredentialsRefused", class: Class::Blocked, text: "no".to_owned() };
    let failure = Failure::new("read Kafka's metadata", Code::BrokerTransportFailure).meaning(told);
    found(&world, Snapshot { health: Health::Down(failure), ..Snapshot::default() });
    world.pass().await;
    world.says("Ready", "False", "KafkaCredentialsRefused");
    world.says("Stalled", "True", "KafkaCredentialsRefused");
    assert_eq!((&kafka(&world)["brokers"], &kafka(&world)["brokersReady"]), (&json!(3), &json!(0)));
    assert_eq!(kafka(&world)["clusterId"], "MkU3");
}

#[tokio::test]
async fn a_missing_secret_and_a_missing_key_are_references_that_lead_nowhere() {
    let world = world();
    found(&world, up(3));
    world.pass().await;
    world.edit(SECRET, |secret| secret["data"] = json!({"pass": "eA=="}));
    world.pass().await;
    let message = world.says("ResolvedRefs", "False", "SecretUnusable");
    assert!(message.contains("has no key \"password\" (it has \"pass\")"), "{message}");
    world.server.fail(Method::GET, SECRET, 404);
    world.pass().await;
    world.says("ResolvedRefs", "False", "SecretNotFound");
    assert_eq!(kafka(&world)["bootstrap"], "k.example:9093", "gateways stay as they are");
}

#[tokio::test]
async fn fewer_brokers_than_copies_is_told_with_what_to_write_and_stops_nothing() {
    let world = world();
    found(&world, up(1));
    world.pass().await;
    let message = world.says("Ready", "True", "TooFewBrokers");
    assert!(message.contains("spec.topicDefaults.replicas: 1"), "{message}");
    world.edit(PLATFORM, |platform| platform["spec"]["topicDefaults"] = json!({"replicas": 1}));
    found(&world, up(1));
    world.pass().await;
    world.says("Ready", "True", "Ready");
}

#[tokio::test]
async fn a_broker_that_is_away_is_counted_and_the_platform_stays_ready_while_every_topic_is_served() {
    let world = world();
    let without_one = || Snapshot { away: [3].into(), ..up(2) };
    found(&world, without_one());
    world.pass().await;
    world.says("Ready", "True", "Ready");
    let message = world.says("Reconciling", "True", "KafkaNotReady");
    assert!(
        message.contains("2 of 3 brokers") && message.contains("away with copies of topics: 3"),
        "{message}"
    );
    assert_eq!((&kafka(&world)["brokers"], &kafka(&world)["brokersReady"]), (&json!(3), &json!(2)));
    let short = Some("topic acme.telemetry: too few".to_owned());
    found(&world, Snapshot { short, ..without_one() });
    world.pass().await;
    assert_eq!(world.says("Ready", "False", "KafkaNotReady"), "topic acme.telemetry: too few");
    found(&world, up(3));
    world.pass().await;
    world.says("Ready", "True", "Ready");
    world.says("Reconciling", "False", "UpToDate");
}

#[tokio::test]
async fn a_disk_that_is_not_ours_is_not_replaced_and_that_is_told() {
    let world = world();
    found(&world, up(3));
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"]["tidegate.io/replace-disk"] = "1".into();
    });
    world.pass().await;
    world.says("Ready", "True", "Ready");
    let message = world.says("Reconciling", "True", "DiskNotReplaced");
    assert!(message.contains("spec.kafka.external"), "{message}");
    assert!(message.contains("take the annotation off"), "{message}");
    found(&world, Snapshot { away: [3].into(), ..up(2) });
    world.pass().await;
    world.says("Reconciling", "True", "KafkaNotReady");
    found(&world, up(3));
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"] = json!({});
    });
    world.pass().await;
    world.says("Reconciling", "False", "UpToDate");
}

#[tokio::test]
async fn gateways_are_sent_to_other_servers_once_the_platforms_kafka_answered_there() {
    let world = world();
    let at = |bootstrap: &str| Snapshot { bootstrap: bootstrap.to_owned(), ..up(3) };
    found(&world, at("k.example:9093"));
    world.pass().await;
    world.edit(PLATFORM, |platform| {
        platform["spec"]["kafka"]["external"]["bootstrapServers"] = json!(["new.example:9093"]);
    });
    found(&world, at("k.example:9093"));
    world.pass().await;
    assert_eq!(kafka(&world)["bootstrap"], "k.example:9093");
    found(&world, at("new.example:9093"));
    world.pass().await;
    assert_eq!(kafka(&world)["bootstrap"], "new.example:9093");
}
