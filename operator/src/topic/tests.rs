//! Whole passes over a Topic against an API server in memory.

use super::TopicController;
use super::decide::FINALIZER;
use crate::frame::driver::Driver;
use crate::frame::testing::FakeServer;
use crate::kafka::error::Failure;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::plan;
use crate::kafka::snapshot::{Health, Outcome, Snapshot, TopicState};
use rdkafka::error::RDKafkaErrorCode as Code;
use serde_json::{Value, json};
use std::sync::Arc;

const TOPIC: &str = "/apis/tidegate.io/v1alpha1/namespaces/iot/topics/telemetry";
const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/iot/iotplatforms/plant";

struct World {
    server: FakeServer,
    hub: Arc<Hub>,
    driver: Driver<TopicController>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let server = FakeServer::default();
        server.put(
            PLATFORM,
            json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
                "metadata": {"name": "plant", "namespace": "iot"},
                "spec": {"kafka": {"prefix": "p.", "managed": {}}, "topicDefaults": {"partitions": 6}}}),
        );
        let mut topic = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
            "metadata": {"name": "telemetry", "namespace": "iot", "generation": 1, "uid": "t"},
            "spec": spec});
        topic["spec"]["platformRef"] = json!({"name": "plant"});
        server.put(TOPIC, topic);
        let context = server.context();
        let hub = Hub::new(&context.metrics);
        let reconciler = Arc::new(TopicController::new(Arc::clone(&hub)));
        let driver = Driver::new(reconciler, context);
        Self { server, hub, driver }
    }

    async fn pass(&self) {
        let object = serde_json::from_value(self.server.get(TOPIC).unwrap()).unwrap();
        self.driver.pass(Arc::new(object)).await;
    }

    fn says(&self, type_: &str, status: &str, reason: &str) -> String {
        self.server.says(TOPIC, type_, status, reason)
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        self.server.edit(path, change);
    }

    fn status(&self) -> Value {
        self.server.get(TOPIC).unwrap()["status"].clone()
    }

    fn finalizers(&self) -> Value {
        self.server.get(TOPIC).unwrap()["metadata"]["finalizers"].clone()
    }

    /// A sweep finds the topic like this.
    fn found(&self, outcome: Outcome) {
        let topics = [("telemetry".to_owned(), TopicState { outcome, lost: Vec::new() })].into();
        let snapshot = Snapshot { health: Health::Up, topics, ..Snapshot::default() };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
    }

    fn away(&self) {
        let failure = Failure::new("read Kafka's metadata", Code::BrokerTransportFailure);
        let snapshot = Snapshot { health: Health::Down(failure), ..Snapshot::default() };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
    }

    /// The test's clock stands at 1,800,000,000 s.
    fn deleted(&self, seconds_ago: i64) {
        let at = jiff::Timestamp::from_second(1_800_000_000 - seconds_ago).unwrap();
        self.edit(TOPIC, |topic| topic["metadata"]["deletionTimestamp"] = at.to_string().into());
    }
}

fn present(partitions: i32, listed: bool) -> Outcome {
    let topic = plan::Topic { partitions, replicas: 3, in_sync: 3, leaderless: 0, config: None };
    Outcome::Present { topic, listed }
}

#[tokio::test]
async fn sizes_are_decided_after_a_look_at_kafka_and_frozen_then() {
    let world = World::new(&json!({}));
    world.pass().await;
    world.says("Ready", "False", "KafkaNotReady");
    assert_eq!(world.status().get("effective"), None);

    world.found(Outcome::Waiting);
    world.pass().await;
    assert_eq!(world.status()["effective"]["partitions"], 6);
    assert_eq!(world.status()["kafkaName"], "p.telemetry");
    world.says("Ready", "False", "Progressing");

    world.edit(PLATFORM, |platform| platform["spec"]["topicDefaults"]["partitions"] = 48.into());
    world.found(present(6, true));
    world.pass().await;
    assert_eq!(world.status()["effective"]["partitions"], 6);
    world.says("Ready", "True", "Ready");
}

#[tokio::test]
async fn a_topic_that_kafka_already_has_is_taken_as_it_is() {
    let world = World::new(&json!({}));
    world.found(present(48, false));
    world.pass().await;
    assert_eq!(world.status()["effective"]["partitions"], 48);
}

#[tokio::test]
async fn a_missing_platform_and_a_bad_filter_are_told_with_what_to_write() {
    let world = World::new(&json!({"filters": ["a/#", "b#"]}));
    world.pass().await;
    let message = world.says("Accepted", "False", "Invalid");
    assert!(message.contains("spec.filters[1] \"b#\"") && message.contains("write \"a/#\""), "{message}");
    world.says("Stalled", "True", "Invalid");

    let lost = World::new(&json!({}));
    lost.edit(TOPIC, |topic| topic["spec"]["platformRef"]["name"] = "plnt".into());
    lost.pass().await;
    assert!(lost.says("ResolvedRefs", "False", "PlatformNotFound").contains("\"plnt\""));
}

#[tokio::test]
async fn a_refusal_by_kafka_stalls_the_topic_with_advice() {
    let world = World::new(&json!({"partitions": 3, "replicas": 9}));
    let failure = Failure::new("create topic \"p.telemetry\"", Code::InvalidReplicationFactor);
    world.found(Outcome::Failed(failure));
    world.pass().await;
    assert!(world.says("Ready", "False", "TooFewBrokers").contains("as many replicas as there are brokers"));
    world.says("Stalled", "True", "TooFewBrokers");
}

#[tokio::test]
async fn only_a_topic_whose_records_go_with_it_has_a_finalizer() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.edit(TOPIC, |topic| topic["spec"]["deletionPolicy"] = "Retain".into());
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
}

#[tokio::test]
async fn a_deleted_topic_goes_when_kafka_has_it_no_more() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    world.deleted(1);
    world.found(present(6, true));
    world.pass().await;
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.says("Ready", "False", "Deleting");
    world.found(Outcome::Absent);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
    assert!(world.server.events().iter().all(|(_, reason, _)| reason != "LetGo"));
}

#[tokio::test]
async fn a_deleted_topic_waits_two_minutes_for_kafka_and_no_longer() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    world.away();
    world.deleted(119);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.deleted(120);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
    let told = world.server.events().into_iter().find(|(_, reason, _)| reason == "LetGo").unwrap();
    assert_eq!(told.0, "Warning");
}

#[tokio::test]
async fn a_deleted_topic_goes_at_once_with_its_platform() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    world.deleted(1);
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
}

#[tokio::test]
async fn a_deleted_topic_whose_platform_is_not_there_any_more_goes_at_once_and_says_so() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    world.deleted(1);
    world.server.remove(PLATFORM);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
    let told = world.server.events().into_iter().find(|(_, reason, _)| reason == "LetGo").unwrap();
    assert!(told.0 == "Warning" && told.2.contains("its platform is gone"), "{told:?}");
}

#[tokio::test]
async fn a_paused_topic_is_not_let_go_and_gets_no_finalizer() {
    let paused = |topic: &mut Value, text: &str| {
        topic["metadata"]["annotations"] = json!({"tidegate.io/paused": text});
    };
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.edit(TOPIC, |topic| paused(topic, "true"));
    world.pass().await;
    assert_eq!(world.finalizers(), Value::Null);
    world.edit(TOPIC, |topic| paused(topic, "false"));
    world.pass().await;
    world.edit(TOPIC, |topic| paused(topic, "true"));
    world.deleted(600);
    world.away();
    world.pass().await;
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.edit(TOPIC, |topic| paused(topic, "false"));
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
}

#[tokio::test]
async fn a_deleted_topic_that_is_paused_goes_with_its_platform() {
    let world = World::new(&json!({"deletionPolicy": "Delete"}));
    world.pass().await;
    world.edit(TOPIC, |topic| topic["metadata"]["annotations"] = json!({"tidegate.io/paused": "true"}));
    world.deleted(1);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.server.remove(PLATFORM);
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
}

#[tokio::test]
async fn a_platform_that_does_not_fit_this_version_is_told_and_lets_a_deleted_topic_go() {
    let world = World::new(&json!({"partitions": 3, "deletionPolicy": "Delete"}));
    world.pass().await;
    world.edit(PLATFORM, |platform| platform["spec"]["kafka"]["managed"]["brokers"] = "three".into());
    world.pass().await;
    let message = world.says("ResolvedRefs", "False", "Malformed");
    assert!(message.contains("spec.kafka.managed.brokers"), "{message}");
    world.says("Stalled", "True", "Malformed");
    assert_eq!(world.finalizers(), json!([FINALIZER]));
    world.found(Outcome::Absent);
    world.edit(TOPIC, |topic| topic["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    world.pass().await;
    assert_eq!(world.finalizers(), json!([]));
}
