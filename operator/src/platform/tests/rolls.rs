//! Brokers that restart by themselves: whole passes with pods that run older revisions.

use super::*;
use crate::kafka::error::Failure;
use crate::kafka::snapshot::Surveyed;
use crate::kafka::survey::{Partition, Survey};
use crate::kafka::wire::quorum::{Quorum, Replica};
use crate::platform::roll::fingerprint;
use rdkafka::error::RDKafkaErrorCode;
use std::time::Instant;

fn path(node: i32) -> String {
    format!("/api/v1/namespaces/iot/pods/plant-kafka-{node}")
}

/// Kafka with these brokers; its partitions have all of them in sync.
fn survey(brokers: &[i32], leader: i32) -> Survey {
    let partition = Partition {
        topic: "telemetry".to_owned(),
        number: 0,
        replicas: vec![0, 1, 2],
        in_sync: brokers.to_vec(),
        min_in_sync: Some(2),
    };
    let replica = |id| Replica { directory: None, caught_up: brokers.contains(&id), lag: 0 };
    let voters = (0..3).map(|id| (id, replica(id))).collect();
    let quorum = Quorum { leader, voters, ..Quorum::default() };
    Survey::of(brokers.iter().copied().collect(), &[partition], quorum)
}

impl World {
    /// A formed platform whose brokers run these revisions; `new` is the newest.
    async fn rolling(revisions: [&str; 3]) -> Self {
        let world = Self::new("{kafka: {managed: {}}}");
        world.pass().await;
        for node in 0..3 {
            world.pod(node, "new", true);
        }
        world.look(Some(Ok(survey(&[0, 1, 2], 0)))).await;
        for (node, revision) in (0..).zip(revisions) {
            world.pod(node, revision, true);
        }
        world
    }

    fn pod(&self, node: i32, revision: &str, ready: bool) {
        let mut labels = self.server.get(SET).unwrap()["spec"]["template"]["metadata"]["labels"].clone();
        labels["controller-revision-hash"] = revision.into();
        let name = format!("plant-kafka-{node}");
        let uid = format!("{node}-{revision}");
        let ready = if ready { "True" } else { "False" };
        self.server.put(
            &path(node),
            json!({"metadata": {"name": name, "uid": uid, "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
        );
    }

    fn pods(&self) -> Vec<Pod> {
        (0..3).filter_map(|node| serde_json::from_value(self.server.get(&path(node))?).ok()).collect()
    }

    /// One pass, with this answer of Kafka to who knows the pods as they are.
    async fn look(&self, found: Option<Result<Survey, Failure>>) {
        let brokers = found.as_ref().and_then(|found| found.as_ref().ok()).map(|found| found.brokers.clone());
        self.edit(SET, |set| {
            set["status"] = json!({"readyReplicas": self.pods().len(), "updateRevision": "new"});
        });
        let about = fingerprint(&self.pods(), "new");
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: brokers.unwrap_or_else(|| (0..3).collect()),
            directory_written: true,
            survey: found.map(|found| Surveyed { about, began: Instant::now(), found }),
            rights: rights(),
            ..Snapshot::default()
        };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
        self.pass().await;
    }

    fn there(&self) -> Vec<i32> {
        (0..3).filter(|node| self.server.get(&path(*node)).is_some()).collect()
    }
}

#[tokio::test]
async fn brokers_restart_one_at_a_time_with_the_active_controller_last_and_the_platform_stays_ready() {
    let world = World::rolling(["old", "old", "old"]).await;
    world.look(None).await;
    let message = world.says("Reconciling", "True", "RollingOut");
    assert_eq!(message, "0 of 3 brokers are new; Kafka is asked who may be away");
    for (done, node, left) in [(0, 1, [0, 2]), (1, 0, [1, 2]), (2, 2, [0, 1])] {
        world.look(Some(Ok(survey(&[0, 1, 2], 2)))).await;
        assert_eq!(world.there(), left);
        let message = world.says("Reconciling", "True", "RollingOut");
        assert!(
            message.starts_with(&format!("{done} of 3 brokers are new; plant-kafka-{node} restarts")),
            "{message}"
        );
        // Kafka still says what it said before: that is no answer about the pods as they are.
        world.look(None).await;
        assert_eq!(world.there(), left);
        world.pod(node, "new", false);
        let rest: Vec<_> = left.to_vec();
        world.look(Some(Ok(survey(&rest, 2)))).await;
        assert_eq!(world.there(), [0, 1, 2]);
        world.says("Ready", "True", "Ready");
        world.pod(node, "new", true);
        if done < 2 {
            world.look(Some(Ok(survey(&rest, 2)))).await;
            let message = world.says("Reconciling", "True", "RollingOut");
            assert!(
                message.ends_with(&format!("plant-kafka-{node} is not back in the cluster yet")),
                "{message}"
            );
        }
    }
    world.look(Some(Ok(survey(&[0, 1, 2], 0)))).await;
    world.says("Reconciling", "False", "UpToDate");
    let told = world.server.events().iter().filter(|event| event.1 == "RollingOut").count();
    assert_eq!(told, 3, "{:?}", world.server.events());
    let deleted = world.server.asked().into_iter().filter(|one| one.method == Method::DELETE);
    for asked in deleted {
        assert!(asked.body["preconditions"]["uid"].is_string(), "{asked:?}");
        assert!(asked.body.get("gracePeriodSeconds").is_none_or(Value::is_null), "{asked:?}");
    }
}

#[tokio::test]
async fn an_answer_about_other_pods_restarts_nobody() {
    let world = World::rolling(["old", "old", "new"]).await;
    world.look(Some(Ok(survey(&[0, 1, 2], 0)))).await;
    assert_eq!(world.there(), [0, 2]);
    world.pod(1, "new", true);
    // The sweep's answer is from before the pod came back.
    let stale = fingerprint(&[], "new");
    world.edit(SET, |set| set["status"] = json!({"readyReplicas": 3, "updateRevision": "new"}));
    let snapshot = Snapshot {
        health: Health::Up,
        brokers: (0..3).collect(),
        directory_written: true,
        survey: Some(Surveyed { about: stale, began: Instant::now(), found: Ok(survey(&[0, 1, 2], 0)) }),
        rights: rights(),
        ..Snapshot::default()
    };
    world.hub.pretend(&Key::new("iot", "plant"), snapshot);
    world.pass().await;
    assert_eq!(world.there(), [0, 1, 2]);
    assert!(world.says("Reconciling", "True", "RollingOut").contains("is asked"));
}

#[tokio::test]
async fn a_broken_broker_stops_the_roll_and_older_settings_heal_it_first() {
    let world = World::rolling(["old", "old", "new"]).await;
    world.pod(2, "new", false);
    world.edit(&path(2), |pod| {
        pod["status"]["containerStatuses"] = json!([{"name": "kafka", "image": "example/none:1", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
    });
    for _ in 0..2 {
        world.look(Some(Ok(survey(&[0, 1], 0)))).await;
        let message = world.says("Reconciling", "True", "RolloutStopped");
        for part in ["1 of 3 brokers are new", "plant-kafka-2 cannot get image example/none:1", "set it back"]
        {
            assert!(message.contains(part), "{message}");
        }
        world.says("Ready", "True", "Ready");
        assert_eq!(world.there(), [0, 1, 2]);
    }
    let told = world.server.events().iter().filter(|event| event.1 == "RolloutStopped").count();
    assert_eq!(told, 1, "{:?}", world.server.events());
    // The spec is set back: what ran before is the newest again.
    for node in 0..2 {
        world.pod(node, "new", true);
    }
    world.edit(&path(2), |pod| pod["metadata"]["labels"]["controller-revision-hash"] = "bad".into());
    world.look(Some(Ok(survey(&[0, 1], 0)))).await;
    assert_eq!(world.there(), [0, 1]);
}

#[tokio::test]
async fn nobody_restarts_while_kafka_gives_no_answer_or_the_platform_is_paused() {
    let world = World::rolling(["old", "old", "old"]).await;
    let failure = Failure::new("look at Kafka's controllers", RDKafkaErrorCode::OperationTimedOut);
    world.look(Some(Err(failure))).await;
    let message = world.says("Reconciling", "True", "RollingOut");
    assert!(message.contains("does not say who may be away") && message.contains("controllers"), "{message}");
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"] = json!({"tidegate.io/paused": "true"});
    });
    world.look(Some(Ok(survey(&[0, 1, 2], 0)))).await;
    assert_eq!(world.there(), [0, 1, 2]);
    let message = world.says("Reconciling", "False", "Paused");
    assert!(message.contains("pending: 0 of 3 brokers are new; plant-kafka-0, plant-kafka-1"), "{message}");
}

#[tokio::test]
async fn a_deleted_secret_of_brokers_is_made_again_and_changes_their_template() {
    const BROKERS: &str = "/api/v1/namespaces/iot/secrets/plant-kafka-broker";
    let world = World::rolling(["new", "new", "new"]).await;
    let annotation = |world: &World| {
        world.server.get(SET).unwrap()["spec"]["template"]["metadata"]["annotations"]["tidegate.io/certificates"].clone()
    };
    let before = annotation(&world);
    world.pass().await;
    assert_eq!(annotation(&world), before);
    world.server.remove(BROKERS);
    world.pass().await;
    assert!(world.server.get(BROKERS).is_some());
    assert_ne!(annotation(&world), before);
}

#[tokio::test]
async fn the_metadatas_version_is_raised_when_all_brokers_are_new_and_a_refusal_is_told() {
    let world = World::rolling(["new", "new", "new"]).await;
    world.edit(PLATFORM, |platform| {
        platform["spec"]["kafka"]["managed"]["metadataVersion"] = "4.4".into();
    });
    let found = |world: &World, metadata| {
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: (0..3).collect(),
            directory_written: true,
            metadata: Some(metadata),
            rights: rights(),
            ..Snapshot::default()
        };
        world.edit(SET, |set| set["status"] = json!({"readyReplicas": 3, "updateRevision": "new"}));
        world.hub.pretend(&Key::new("iot", "plant"), snapshot);
    };
    let refused = Failure::told("raise it", RDKafkaErrorCode::Fail, "broker 2 is too old".to_owned());
    found(&world, Err(refused));
    world.pass().await;
    let message = world.says("Reconciling", "True", "MetadataVersion");
    assert!(message.contains("metadataVersion") && message.contains("broker 2 is too old"), "{message}");
    found(&world, Ok(33));
    world.pass().await;
    world.says("Reconciling", "False", "UpToDate");
    assert_eq!(world.server.get(PLATFORM).unwrap()["status"]["effective"]["metadataVersion"], "4.4-IV2");
}
