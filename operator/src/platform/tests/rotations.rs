//! Certificates and authorities that are exchanged: whole passes, with brokers that restart and a clock that the test moves.

use super::*;
use crate::kafka::snapshot::Surveyed;
use crate::kafka::survey::{Partition, Survey};
use crate::kafka::wire::quorum::{Quorum, Replica};
use crate::pki::{Authority, NEXT_KEY, ROTATION, Step};
use crate::platform::roll::fingerprint;
use crate::platform::secrets::data;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tidegate_crds::labels::ROTATE;

const DEVICES: &str = "/api/v1/namespaces/iot/secrets/plant-device-ca";
const GATEWAY: &str = "/api/v1/namespaces/iot/secrets/plant-kafka-gateway";
const BROKER: &str = "/api/v1/namespaces/iot/secrets/plant-kafka-broker";
const SPREAD: Duration = Duration::from_mins(5);
const DAY: Duration = Duration::from_hours(24);

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

fn pod(node: i32) -> String {
    format!("/api/v1/namespaces/iot/pods/plant-kafka-{node}")
}

fn later(time: Duration) {
    NOW.set(NOW.get() + i64::try_from(time.as_secs()).unwrap());
}

/// Kafka with all of its brokers, and every partition in sync.
fn survey() -> Survey {
    let partition = Partition {
        topic: "telemetry".to_owned(),
        number: 0,
        replicas: vec![0, 1, 2],
        in_sync: vec![0, 1, 2],
        min_in_sync: Some(2),
    };
    let voters = (0..3).map(|id| (id, Replica { directory: None, caught_up: true, lag: 0 })).collect();
    Survey::of((0..3).collect(), &[partition], Quorum { leader: 0, voters, ..Quorum::default() })
}

impl World {
    /// A formed platform, in a world whose clock stands until it is moved.
    async fn rotating(spec: &str) -> Self {
        let mut world = Self::new(spec);
        NOW.set(1_800_000_000);
        let context = Arc::get_mut(&mut world.driver.context).unwrap();
        context.clock = || Timestamp::from_second(NOW.get()).unwrap();
        world.pass().await;
        world.all_is_well().await;
        world
    }

    fn ask(&self, request: &str) {
        self.edit(PLATFORM, |platform| platform["metadata"]["annotations"][ROTATE] = request.into());
    }

    /// The newest certificates of the brokers' pod template.
    fn newest(&self) -> String {
        let set = self.server.get(SET).unwrap();
        let template = &set["spec"]["template"]["metadata"]["annotations"]["tidegate.io/certificates"];
        template.as_str().unwrap().to_owned()
    }

    /// The StatefulSet's controller makes each pod that is not there from the newest template.
    fn make_pods(&self, ready: bool) {
        let newest = self.newest();
        for node in (0..3).filter(|node| self.server.get(&pod(*node)).is_none()) {
            let template = self.server.get(SET).unwrap()["spec"]["template"]["metadata"].clone();
            let mut labels = template["labels"].clone();
            labels["controller-revision-hash"] = newest.as_str().into();
            let ready = if ready { "True" } else { "False" };
            let name = format!("plant-kafka-{node}");
            self.server.put(
                &pod(node),
                json!({
                    "metadata": {"name": name, "uid": format!("{node}-{newest}"), "labels": labels,
                        "annotations": template["annotations"]},
                    "status": {"conditions": [{"type": "Ready", "status": ready}]},
                }),
            );
        }
    }

    fn pods_there(&self) -> Vec<Pod> {
        (0..3).filter_map(|node| serde_json::from_value(self.server.get(&pod(node))?).ok()).collect()
    }

    /// One pass with a Kafka that is well and knows the pods as they are.
    async fn well(&self) {
        let newest = self.newest();
        self.edit(SET, |set| {
            set["status"] = json!({"readyReplicas": self.pods_there().len(), "updateRevision": newest});
        });
        let about = fingerprint(&self.pods_there(), &newest);
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: (0..3).collect(),
            directory_written: true,
            survey: Some(Surveyed { about, began: Instant::now(), found: Ok(survey()) }),
            rights: rights(),
            ..Snapshot::default()
        };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
        self.pass().await;
        assert!(self.pods_there().len() >= 2, "more than one broker was away");
    }

    /// Passes until brokers run with what the Secrets hold.
    async fn all_is_well(&self) {
        for _ in 0..12 {
            self.make_pods(true);
            self.well().await;
        }
    }

    fn authority(&self, path: &str) -> Authority {
        let secret: Secret = serde_json::from_value(self.server.get(path).unwrap()).unwrap();
        Authority::read(&data(&secret)).unwrap()
    }

    fn step(&self, path: &str) -> Step {
        self.authority(path).life().step
    }

    fn held(&self, path: &str, key: &str) -> String {
        let secret: Secret = serde_json::from_value(self.server.get(path).unwrap()).unwrap();
        data(&secret).remove(key).unwrap_or_default()
    }

    fn shown(&self, name: &str) -> Value {
        let all = self.server.get(PLATFORM).unwrap()["status"]["certificates"].clone();
        all.as_array().unwrap().iter().find(|one| one["name"] == name).cloned().unwrap_or_default()
    }

    fn told(&self, reason: &str) -> Vec<String> {
        let all = self.server.events().into_iter().filter(|(_, about, _)| about == reason);
        all.map(|(.., text)| text).collect()
    }
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn kafkas_authority_gives_way_step_by_step_although_the_operator_is_killed_after_every_pass() {
    let mut world = World::rotating("{kafka: {managed: {}}}").await;
    let (old, leaf) = (world.held(CA, "ca.crt"), world.held(GATEWAY, "tls.crt"));
    let mut newest = world.newest();
    world.ask("kafka-authority/1");
    for (step, trusted) in [(Step::TrustBoth, 2), (Step::NewLeaves, 2), (Step::DropOld, 1)] {
        world.restart();
        world.well().await;
        assert_eq!(world.step(CA), step);
        assert_ne!(world.newest(), newest, "brokers have to restart");
        newest = world.newest();
        for path in [GATEWAY, BROKER] {
            assert_eq!(certificates(&world.held(path, "ca.crt")), trusted);
        }
        assert_eq!(world.held(GATEWAY, "tls.crt") == leaf, step == Step::TrustBoth);
        assert!(world.says("Reconciling", "True", "Rotating").ends_with("it begins"));
        later(SPREAD * 3);
        for _ in 0..12 {
            world.restart();
            world.make_pods(true);
            world.well().await;
            assert_eq!(world.step(CA), step, "not before pods had their time since the Secrets were seen");
        }
        let message = world.says("Reconciling", "True", "Rotating");
        assert!(message.starts_with("Kafka's authority: step "), "{message}");
        assert!(message.contains("pods have until 2027-01-15T"), "{message}");
        assert_eq!(world.shown("KafkaAuthority")["step"], step.as_str());
        world.says("Ready", "True", "Ready");
        later(SPREAD);
    }
    world.restart();
    world.well().await;
    assert_eq!(world.step(CA), Step::Steady);
    assert!(certificates(&world.held(CA, "ca.crt")) == 1 && world.held(CA, "ca.crt") != old);
    assert_eq!(world.held(CA, NEXT_KEY), "");
    assert_eq!(world.step(DEVICES), Step::Steady);
    // Steps of one rotation are one Event that is counted.
    assert_eq!((world.told("Rotating").len(), world.told("Rotated").len()), (1, 1));
    // It stays answered, whoever leads.
    for _ in 0..3 {
        world.restart();
        later(DAY);
        world.well().await;
        assert_eq!(world.step(CA), Step::Steady);
        world.says("Reconciling", "False", "UpToDate");
    }
    assert_eq!(world.newest(), newest);
    assert!(world.shown("KafkaAuthority").get("step").is_none());
}

#[tokio::test]
async fn a_write_that_fails_in_any_step_is_made_up_for_before_anything_goes_on() {
    let world = World::rotating("{kafka: {managed: {}}}").await;
    world.ask("kafka-authority/1");
    for (step, failing) in [(Step::TrustBoth, BROKER), (Step::NewLeaves, GATEWAY), (Step::DropOld, BROKER)] {
        world.server.fail(Method::PATCH, failing, 500);
        world.well().await;
        assert_eq!(world.step(CA), step, "the authority is written first");
        later(DAY);
        world.make_pods(true);
        world.well().await;
        assert_eq!(world.step(CA), step, "Secrets do not hold it");
        world.server.heal();
        world.all_is_well().await;
        assert_eq!(world.step(CA), step, "pods have not had their time");
        later(SPREAD);
    }
    world.well().await;
    assert_eq!(world.step(CA), Step::Steady);
}

#[tokio::test]
async fn a_rotation_waits_while_the_platform_is_paused_and_while_a_broker_does_not_start() {
    let world = World::rotating("{kafka: {managed: {}}}").await;
    world.ask("kafka-authority/1");
    world
        .edit(PLATFORM, |platform| platform["metadata"]["annotations"]["tidegate.io/paused"] = "true".into());
    let before = world.server.get(CA);
    world.well().await;
    let message = world.says("Reconciling", "False", "Paused");
    assert!(message.contains("Kafka's authority: the rotation waits"), "{message}");
    assert_eq!(world.server.get(CA), before);
    world.edit(PLATFORM, |platform| platform["metadata"]["annotations"]["tidegate.io/paused"] = "no".into());
    world.well().await;
    later(DAY);
    for _ in 0..4 {
        world.make_pods(false);
        world.well().await;
    }
    assert_eq!(world.step(CA), Step::TrustBoth);
    let old = world
        .pods_there()
        .iter()
        .filter(|pod| {
            pod.metadata
                .annotations
                .as_ref()
                .is_some_and(|all| all["tidegate.io/certificates"] != world.newest())
        })
        .count();
    assert_eq!(old, 2, "one broker restarted, and the others wait for it");
    later(DAY);
    world.well().await;
    assert_eq!(world.step(CA), Step::TrustBoth, "however long it takes");
    world.says("Ready", "True", "Ready");
}

#[tokio::test]
async fn a_second_request_waits_for_the_first_and_one_without_sense_is_told() {
    let world = World::rotating("{kafka: {managed: {}}}").await;
    world.ask("kafka/1");
    world.well().await;
    let message = world.says("Reconciling", "True", "RotationRefused");
    assert!(
        message.contains("\"kafka/1\" asks for nothing that there is: write kafka-authority"),
        "{message}"
    );
    world.says("Ready", "True", "Ready");
    world.ask("kafka-authority/1");
    world.well().await;
    world.ask("certificates/2");
    world.all_is_well().await;
    let message = world.says("Reconciling", "True", "Rotating");
    assert!(message.contains("tidegate.io/rotate: \"certificates/2\" comes after that"), "{message}");
    assert!(message.contains("; the devices' authority: everybody gets a new certificate"), "{message}");
    assert_eq!((world.step(CA), world.step(DEVICES)), (Step::TrustBoth, Step::Renew));
    for step in [Step::NewLeaves, Step::DropOld, Step::Steady] {
        later(SPREAD);
        world.well().await;
        assert_eq!(world.step(CA), step);
        world.all_is_well().await;
    }
    assert_eq!(world.step(CA), Step::Renew, "its turn came");
    let leaf = world.held(GATEWAY, "tls.crt");
    later(SPREAD);
    world.all_is_well().await;
    assert_eq!(world.step(CA), Step::Steady);
    assert_eq!(world.held(GATEWAY, "tls.crt"), leaf, "and it is answered once");
    world.says("Reconciling", "False", "UpToDate");
}

#[tokio::test]
async fn applications_have_a_day_for_each_step_in_which_nothing_is_reported_as_a_change() {
    let world = World::rotating("{kafka: {managed: {}, applications: [{name: analytics}]}}").await;
    world.ask("kafka-authority/1");
    world.all_is_well().await;
    later(SPREAD);
    world.well().await;
    assert_eq!(world.step(CA), Step::TrustBoth);
    world.says("Reconciling", "False", "UpToDate");
    let shown = world.shown("KafkaAuthority");
    assert!(
        shown["waitsFor"].as_str().unwrap().starts_with("applications have until 2027-01-16T"),
        "{shown}"
    );
    later(DAY);
    world.well().await;
    assert_eq!(world.step(CA), Step::NewLeaves);
    world.ask("kafka-authority-next/1");
    world.all_is_well().await;
    later(SPREAD);
    world.well().await;
    assert_eq!(world.step(CA), Step::DropOld, "a person said that they need no more time");
}

#[tokio::test]
async fn an_authority_gets_a_successor_in_time_and_devices_have_years_to_learn_of_it() {
    let world = World::rotating("{kafka: {managed: {}}}").await;
    let (leaf, old) = (world.held(GATEWAY, "tls.crt"), world.held(DEVICES, "ca.crt"));
    later(DAY * 244);
    world.well().await;
    assert_eq!(world.held(GATEWAY, "tls.crt"), leaf);
    later(DAY * 2);
    world.all_is_well().await;
    assert_ne!(world.held(GATEWAY, "tls.crt"), leaf, "a third of its year was left");
    assert_eq!(world.step(CA), Step::Steady);
    later(DAY * (2434 - 246));
    world.well().await;
    assert_eq!((world.step(CA), world.step(DEVICES)), (Step::TrustBoth, Step::TrustBoth));
    assert!(world.held(DEVICES, "ca.crt").starts_with(&old));
    for _ in 0..4 {
        world.all_is_well().await;
        later(SPREAD);
    }
    world.all_is_well().await;
    assert_eq!((world.step(CA), world.step(DEVICES)), (Step::Steady, Step::TrustBoth));
    world.says("Reconciling", "False", "UpToDate");
    let shown = world.shown("DevicesAuthority");
    assert!(shown["waitsFor"].as_str().unwrap().starts_with("devices have until 2036-01-"), "{shown}");
}

#[tokio::test]
async fn a_secret_that_makes_no_sense_stops_the_platform_and_is_put_right_by_whoever_remembers() {
    let mut world = World::rotating("{kafka: {managed: {}}}").await;
    world.ask("kafka-authority/1");
    world.well().await;
    let sane = world.server.get(CA).unwrap();
    let spoil = |world: &World| world.edit(CA, |secret| secret["data"][ROTATION] = "e30=".into());
    spoil(&world);
    world.well().await;
    assert!(world.held(CA, ROTATION).contains("TrustBoth"), "this one remembers");
    spoil(&world);
    world.restart();
    let before = (world.server.get(CA), world.server.get(BROKER));
    world.well().await;
    let message = world.says("Stalled", "True", "SecretBroken");
    assert!(message.contains("plant-kafka-ca") && message.contains("next.key is there"), "{message}");
    assert_eq!((world.server.get(CA), world.server.get(BROKER)), before, "no new identity");
    world.server.put(CA, sane);
    world.well().await;
    world.says("Stalled", "False", "UpToDate");
    assert_eq!(world.step(CA), Step::TrustBoth);
}

#[tokio::test]
async fn an_authority_whose_secret_is_lost_is_replaced_in_steps_and_what_it_signed_works_meanwhile() {
    let mut world = World::rotating("{kafka: {managed: {}}}").await;
    let leaf = world.held(GATEWAY, "tls.crt");
    world.server.remove(CA);
    world.restart();
    world.well().await;
    assert_eq!(world.step(CA), Step::Replace);
    assert_eq!(world.held(GATEWAY, "tls.crt"), leaf);
    assert_eq!(certificates(&world.held(GATEWAY, "ca.crt")), 2);
    for step in [Step::NewLeaves, Step::DropOld, Step::Steady] {
        world.all_is_well().await;
        later(SPREAD);
        world.well().await;
        assert_eq!(world.step(CA), step);
        assert_ne!(world.held(GATEWAY, "tls.crt"), leaf);
    }
    assert_eq!(certificates(&world.held(BROKER, "ca.crt")), 1);
}

#[tokio::test]
async fn a_platform_that_is_made_with_a_request_on_it_has_nothing_to_rotate() {
    let world = World::new("{kafka: {managed: {}}}");
    world.server.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"] = json!({ROTATE: "certificates/1"});
    });
    world.pass().await;
    let held = world.server.get(BROKER).unwrap()["data"].clone();
    world.pass().await;
    assert_eq!((world.step(CA), world.step(DEVICES)), (Step::Steady, Step::Steady));
    assert_eq!(world.server.get(BROKER).unwrap()["data"], held);
}

#[tokio::test]
async fn an_external_kafkas_certificates_are_left_to_its_administrator_and_the_devices_authority_is_not() {
    let world = World::rotating("{kafka: {managed: {}}}").await;
    let spec = json!({"kafka": {"external": {"bootstrapServers": ["kafka.example:9092"]}}});
    world.server.edit(PLATFORM, |platform| platform["spec"] = spec);
    world.ask("kafka-authority/1");
    world.pass().await;
    let told = world.server.get(PLATFORM).unwrap()["status"]["conditions"].to_string();
    assert!(told.contains("KafkaNotReady"), "what is wrong with Kafka is said over it: {told}");
    world.ask("devices-authority/1");
    world.pass().await;
    assert_eq!(world.step(DEVICES), Step::TrustBoth);
    later(SPREAD);
    world.pass().await;
    world.ask("devices-authority-next/1");
    later(SPREAD);
    world.pass().await;
    assert_eq!(world.step(DEVICES), Step::NewLeaves);
}
