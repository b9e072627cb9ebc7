//! A lost disk in whole passes: what is written in which order, and that another operator goes on from there.

use super::*;
use crate::kafka::snapshot::Surveyed;
use crate::kafka::survey::Survey;
use crate::kafka::wire::quorum::{Quorum, Replica};
use crate::platform::roll::fingerprint;
use std::time::Instant;
use tidegate_crds::labels::{PAUSED, REPLACE_DISK};

const POD: &str = "/api/v1/namespaces/iot/pods/plant-kafka-1";

/// Kafka without broker 1.
fn survey() -> Survey {
    let replica = |id| (id, Replica { directory: None, caught_up: id != 1, lag: 0 });
    let quorum = Quorum { leader: 0, voters: (0..3).map(replica).collect(), ..Quorum::default() };
    Survey::of([0, 2].into(), &[], quorum)
}

impl World {
    /// A formed platform whose broker 1 waits on an empty disk.
    async fn with_lost_disk() -> Self {
        let world = Self::new("{kafka: {managed: {}}}");
        world.pass().await;
        world.form(3);
        world.pass().await;
        let mut labels = world.server.get(SET).unwrap()["spec"]["template"]["metadata"]["labels"].clone();
        labels["controller-revision-hash"] = "new".into();
        let said = "DiskEmpty: the disk of node 1 is empty, and Kafka cluster x is formed";
        let status = json!({"containerStatuses": [{"name": "kafka", "image": "", "imageID": "", "ready": false,
            "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": said}}}]});
        world.server.put(
            POD,
            json!({"metadata": {"name": "plant-kafka-1", "uid": "waits", "labels": labels}, "status": status}),
        );
        world
    }

    /// One pass, with this look at Kafka by somebody who knows the pods as they are.
    async fn see(&self) {
        self.edit(SET, |set| set["status"] = json!({"readyReplicas": 2, "updateRevision": "new"}));
        let pods: Vec<Pod> =
            self.server.get(POD).into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
        let survey =
            Surveyed { about: fingerprint(&pods, "new"), began: Instant::now(), found: Ok(survey()) };
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: [0, 2].into(),
            directory_written: true,
            survey: Some(survey),
            rights: rights(),
            ..Snapshot::default()
        };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
        self.pass().await;
    }

    fn entry(&self) -> String {
        self.server.get(IDENTITY).unwrap()["data"]["node-1"].as_str().unwrap().to_owned()
    }

    fn annotate(&self, name: &str, value: &str) {
        self.edit(PLATFORM, |platform| platform["metadata"]["annotations"][name] = value.into());
    }
}

#[tokio::test]
async fn an_empty_disk_waits_and_the_condition_says_what_allows_it_to_be_formatted() {
    let world = World::with_lost_disk().await;
    world.see().await;
    world.says("Ready", "True", "Ready");
    let message = world.says("Reconciling", "True", "DiskWrong");
    assert!(message.contains("tidegate.io/replace-disk: \"1\""), "{message}");
    assert!(world.entry().contains("may-format=false"));
    assert!(world.server.get(POD).is_some());
}

#[tokio::test]
async fn an_annotation_lets_an_empty_disk_be_formatted_once_and_the_waiting_pod_start_anew() {
    let mut world = World::with_lost_disk().await;
    world.see().await;
    let before = world.entry();
    world.annotate(REPLACE_DISK, "1");
    let writes = world.server.writes().len();
    world.see().await;
    let after = world.entry();
    assert!(after.contains("may-format=true") && after.contains("replaces="), "{after}");
    let id = |entry: &str, key: &str| {
        entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap().to_owned()
    };
    assert_eq!(id(&after, "replaces"), id(&before, "directory-id"));
    let claim = world.server.get(&CLAIM.replace("kafka-0", "kafka-1")).unwrap();
    let on_claim = &claim["metadata"]["annotations"]["tidegate.io/kafka-directory-id"];
    assert_eq!(on_claim, &json!(id(&after, "directory-id")));
    assert!(world.server.get(POD).is_none());
    let order = world.server.writes()[writes..].to_vec();
    let place = |write: &str| order.iter().position(|one| one == write).unwrap();
    assert!(place(&format!("PATCH {IDENTITY}")) < place(&format!("DELETE {POD}")));
    world.says("Reconciling", "True", "ReplacingDisk");
    world.says("Ready", "True", "Ready");
    let status = &world.server.get(PLATFORM).unwrap()["status"];
    assert_ne!(status["kafka"]["clusterId"], Value::Null, "it was formed, and is");

    // Another operator finds everything as it was left, and begins nothing anew.
    world.restart();
    world.see().await;
    assert_eq!(world.entry(), after);
    world.says("Reconciling", "True", "ReplacingDisk");
}

#[tokio::test]
async fn what_is_asked_for_while_paused_waits_and_what_is_no_broker_is_told() {
    let world = World::with_lost_disk().await;
    world.see().await;
    let before = world.entry();
    world.annotate(REPLACE_DISK, "1");
    world.annotate(PAUSED, "true");
    world.see().await;
    assert!(world.says("Reconciling", "False", "Paused").contains("a lost disk waits"));
    world.annotate(PAUSED, "false");
    world.annotate(REPLACE_DISK, "plant-kafka-1");
    world.see().await;
    let message = world.says("Reconciling", "True", "DiskNotReplaced");
    assert!(message.contains("write a node id from 0 to 2"), "{message}");
    assert_eq!(world.entry(), before);
    assert!(world.server.get(POD).is_some());
}
