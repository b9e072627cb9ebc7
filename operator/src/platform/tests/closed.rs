//! Kafka closed, in whole passes: in which order brokers get to know rights and refuse, whatever happens to the operator.

use super::*;
use crate::kafka::error::Failure;
use crate::kafka::rights::stage::ANNOTATION;
use crate::kafka::rights::wanted::wanted;
use crate::kafka::rights::{Rights, Stage};
use rdkafka::error::RDKafkaErrorCode;
use tidegate_crds::platform::Application;

const SECRET: &str = "/api/v1/namespaces/iot/secrets/plant-app-analytics";

impl World {
    fn stage(&self) -> Option<String> {
        let template = self.server.get(SET).unwrap()["spec"]["template"].clone();
        template["metadata"]["annotations"][ANNOTATION].as_str().map(str::to_owned)
    }

    /// Pods that run this.
    fn run(&self, stages: [Option<Stage>; 3]) {
        for (node, stage) in stages.into_iter().enumerate() {
            let mut labels = self.server.get(SET).unwrap()["spec"]["template"]["metadata"]["labels"].clone();
            labels["controller-revision-hash"] = "r".into();
            let annotations = stage.map(|stage| json!({ANNOTATION: stage.to_string()})).unwrap_or_default();
            let name = format!("plant-kafka-{node}");
            let path = format!("/api/v1/namespaces/iot/pods/{name}");
            self.server.put(
                &path,
                json!({"metadata": {"name": name, "uid": name, "labels": labels, "annotations": annotations},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            );
        }
        self.edit(SET, |set| {
            set["status"] = json!({"replicas": 3, "readyReplicas": 3, "updateRevision": "r"});
        });
    }

    /// The sweep sees this.
    fn see_rights(&self, rights: Rights) {
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: (0..3).collect(),
            directory_written: true,
            rights,
            ..Snapshot::default()
        };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
    }

    /// A platform of an earlier version, whose brokers know no rights.
    async fn open() -> Self {
        let world = Self::new("{kafka: {managed: {}}}");
        world.pass().await;
        world.edit(SET, |set| {
            let all = set["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap();
            all.remove(ANNOTATION).unwrap();
        });
        world.edit(PLATFORM, |platform| {
            let all = platform["status"]["conditions"].as_array_mut().unwrap();
            all.retain(|one| one["type"] != "KafkaClosed");
        });
        let mut world = world;
        world.restart();
        world.run([None; 3]);
        world
    }
}

#[tokio::test]
async fn a_new_kafka_is_closed_from_its_first_day_and_ready_once_its_rights_are_there() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("closed"));
    world.says("KafkaClosed", "False", "KafkaClosing");
    world.run([Some(Stage::Closed); 3]);
    world.see_rights(Rights::default());
    world.pass().await;
    assert!(world.says("Ready", "False", "KafkaNotReady").contains("gateways' rights"));
    world.see_rights(rights());
    world.pass().await;
    world.says("Ready", "True", "Ready");
    assert_eq!(world.says("KafkaClosed", "True", "KafkaClosed"), "");
}

#[tokio::test]
async fn a_kafka_that_runs_open_gets_rights_first_and_refuses_second() {
    let mut world = World::open().await;
    world.see_rights(Rights::default());
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("granting"));
    let said = world.says("KafkaClosed", "False", "KafkaClosing");
    assert!(said.contains("0 of 3 do"), "{said}");
    world.says("Ready", "True", "Ready");

    // Two brokers have restarted; whatever is seen of rights, the third knows none.
    world.run([Some(Stage::Granting), Some(Stage::Granting), None]);
    world.see_rights(rights());
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("granting"));

    // All have, and nobody has seen any right yet. Another operator sees no more than that.
    world.run([Some(Stage::Granting); 3]);
    world.see_rights(Rights::default());
    world.restart();
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("granting"));
    assert_eq!(world.says("KafkaClosed", "False", "KafkaClosing"), "the declared rights are being written");

    world.see_rights(rights());
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("closed"));
    let said = world.says("KafkaClosed", "False", "KafkaClosing");
    assert_eq!(said, "0 of 3 brokers refuse whoever has no right");

    // From here on there is no way back, whatever another operator sees or somebody writes on the template.
    world.run([Some(Stage::Closed); 3]);
    world.see_rights(rights());
    world.pass().await;
    world.says("KafkaClosed", "True", "KafkaClosed");
    world.see_rights(Rights::default());
    world.restart();
    world.edit(SET, |set| set["spec"]["template"]["metadata"]["annotations"][ANNOTATION] = "open".into());
    world.pass().await;
    assert_eq!(world.stage().as_deref(), Some("closed"));
}

#[tokio::test]
async fn rights_that_kafka_does_not_take_are_told_with_its_words() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    world.run([Some(Stage::Closed); 3]);
    let failure = Failure::new("keep the rights in Kafka", RDKafkaErrorCode::PolicyViolation);
    world.see_rights(Rights { failure: Some(failure), ..rights() });
    world.pass().await;
    let said = world.says("KafkaClosed", "False", "RightsNotWritten");
    assert!(said.contains("keep the rights in Kafka"), "{said}");
    world.says("Ready", "True", "Ready");
}

#[tokio::test]
async fn an_application_has_a_certificate_as_long_as_it_is_declared() {
    let world = World::new("{kafka: {managed: {}, applications: [{name: analytics, read: [telemetry]}]}}");
    world.pass().await;
    let secret = world.server.get(SECRET).unwrap();
    let keys: Vec<_> = secret["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["bootstrap", "ca.crt", "keystore.pem", "tls.crt", "tls.key"]);
    assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], "plant");

    let applications: Vec<Application> =
        serde_yaml::from_str("[{name: analytics, read: [telemetry]}]").unwrap();
    world.run([Some(Stage::Closed); 3]);
    world.see_rights(Rights { proven: Some(Arc::new(wanted("", &applications))), failure: None });
    world.pass().await;
    let said = world.says("KafkaClosed", "True", "KafkaClosed");
    assert!(said.contains("not there yet: spec.kafka.applications[analytics].read: telemetry"), "{said}");
    assert_eq!(world.server.get(SECRET).unwrap()["data"], secret["data"], "it is kept");

    world.edit(PLATFORM, |platform| platform["spec"]["kafka"]["applications"] = json!([]));
    world.see_rights(Rights { proven: Some(Arc::new(wanted("", &applications))), failure: None });
    world.pass().await;
    assert!(world.server.get(SECRET).is_none());
    assert!(world.server.get(CA).is_some(), "no other Secret went with it");
    let said = world.says("KafkaClosed", "False", "KafkaClosing");
    assert_eq!(said, "the declared rights are being written");
}
