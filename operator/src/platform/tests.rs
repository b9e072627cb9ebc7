//! Whole passes over a platform against an API server in memory.

mod closed;
mod disks;
mod rolls;
mod rotations;

use super::PlatformController;
use super::samples::platform;
use super::samples::rights;
use crate::frame::driver::Driver;
use crate::frame::testing::FakeServer;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::snapshot::{Health, Snapshot};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/iot/iotplatforms/plant";
const SET: &str = "/apis/apps/v1/namespaces/iot/statefulsets/plant-kafka";
const IDENTITY: &str = "/api/v1/namespaces/iot/configmaps/plant-kafka-identity";
const CA: &str = "/api/v1/namespaces/iot/secrets/plant-kafka-ca";
const CLAIM: &str = "/api/v1/namespaces/iot/persistentvolumeclaims/data-plant-kafka-0";
const POOL: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/tidegate-iot-plant";
const ADVERTISEMENT: &str =
    "/apis/metallb.io/v1beta1/namespaces/metallb-system/l2advertisements/tidegate-iot-plant";

pub(super) struct World {
    pub server: FakeServer,
    pub hub: Arc<Hub>,
    driver: Driver<PlatformController>,
}

impl World {
    pub fn new(spec: &str) -> Self {
        let server = FakeServer::default();
        server.put(PLATFORM, platform(spec));
        let mut context = Arc::into_inner(server.context()).unwrap();
        context.options.address_allow_list = vec!["172.31.0.224/28".parse().unwrap()];
        let hub = Hub::new(&context.metrics);
        // No store has the platform, so no sweep runs.
        let reconciler = Arc::new(PlatformController::new(Arc::clone(&hub)));
        let driver = Driver::new(reconciler, Arc::new(context));
        Self { server, hub, driver }
    }

    /// Another replica leads now, which has written nothing yet.
    fn restart(&mut self) {
        self.driver.reconciler = Arc::new(PlatformController::new(Arc::clone(&self.hub)));
    }

    pub async fn pass(&self) {
        let object = serde_json::from_value(self.server.get(PLATFORM).unwrap()).unwrap();
        self.driver.pass(Arc::new(object)).await;
    }

    pub fn says(&self, type_: &str, status: &str, reason: &str) -> String {
        self.server.says(PLATFORM, type_, status, reason)
    }

    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        self.server.edit(path, change);
    }

    /// The cluster brings the brokers up, and the sweep sees them.
    fn form(&self, brokers: i32) {
        self.edit(SET, |set| set["status"] = json!({"replicas": 3, "readyReplicas": brokers}));
        let snapshot = Snapshot {
            health: Health::Up,
            brokers: (0..brokers).collect(),
            directory_written: true,
            rights: rights(),
            ..Snapshot::default()
        };
        self.hub.pretend(&Key::new("iot", "plant"), snapshot);
    }

    fn place(&self, path: &str) -> usize {
        let writes = self.server.writes();
        writes.iter().position(|write| write == &format!("PATCH {path}")).unwrap_or(usize::MAX)
    }
}

#[tokio::test]
async fn certificates_and_identity_come_before_volumes_and_volumes_before_brokers() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    assert!(world.place(CA) < world.place(IDENTITY));
    assert!(world.place(IDENTITY) < world.place(CLAIM));
    assert!(world.place(CLAIM) < world.place(SET));
    assert!(world.server.get(SET).is_some());
    assert!(world.server.get(CLAIM).unwrap()["metadata"].get("ownerReferences").is_none());
    world.says("Ready", "False", "KafkaNotReady");
    world.says("Accepted", "True", "Accepted");
    world.says("FailoverLimited", "Unknown", "Progressing");
    let status = world.server.get(PLATFORM).unwrap()["status"].clone();
    assert_eq!(status["kafka"]["bootstrap"], "plant-kafka.iot.svc.cluster.local:9092");
    assert_eq!(status["kafka"].get("clusterId"), None, "nothing is formed yet");
    assert_eq!(status["effective"]["version"], "4.4.0");
}

#[tokio::test]
async fn a_second_pass_keeps_every_identity_and_key() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    let held = |path: &str| world.server.get(path).unwrap()["data"].clone();
    let paths = [CA, IDENTITY, "/api/v1/namespaces/iot/secrets/plant-kafka-broker"];
    let before = paths.map(held);
    world.pass().await;
    assert_eq!(paths.map(held), before);
}

#[tokio::test]
async fn the_right_to_format_is_gone_before_the_cluster_is_called_formed() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    let entry = |node: i32| {
        world.server.get(IDENTITY).unwrap()["data"][format!("node-{node}")].as_str().unwrap().to_owned()
    };
    world.form(2);
    world.pass().await;
    assert!(entry(0).contains("may-format=false") && entry(2).contains("may-format=true"));
    assert!(world.says("Ready", "False", "KafkaNotReady").contains("being formed"));
    world.form(3);
    let before = world.server.writes().len();
    world.pass().await;
    world.says("Ready", "True", "Ready");
    let writes = world.server.writes()[before..].to_vec();
    let at = |path: String| writes.iter().position(|write| *write == path).unwrap();
    assert!(at(format!("PATCH {IDENTITY}")) < at(format!("PATCH {PLATFORM}/status")));
    assert!(entry(2).contains("may-format=false"));
    assert_eq!(world.server.get(PLATFORM).unwrap()["status"]["kafka"]["brokersReady"], 3);
}

#[tokio::test]
async fn an_identity_that_cannot_be_written_is_not_reported_as_formed() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    world.form(3);
    world.server.fail(Method::PATCH, IDENTITY, 403);
    world.pass().await;
    world.says("Ready", "False", "Forbidden");
    assert_eq!(world.server.get(PLATFORM).unwrap()["status"]["kafka"].get("clusterId"), None);
}

#[tokio::test]
async fn an_earlier_platforms_volumes_are_taken_over_only_on_request() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    let directory = world.server.get(CLAIM).unwrap()["metadata"]["annotations"].clone();
    // The platform is deleted and made again: what it owned is gone, the claims stay.
    for path in [SET, IDENTITY, CA] {
        world.server.put(path, Value::Null);
    }
    let again = World::new("{kafka: {managed: {}}}");
    again.edit(PLATFORM, |platform| platform["metadata"]["uid"] = "second".into());
    for node in 0..3 {
        let path = CLAIM.replace("kafka-0", &format!("kafka-{node}"));
        again.server.put(&path, world.server.get(&path).unwrap());
    }
    again.pass().await;
    let message = again.says("Ready", "False", "ResourceConflict");
    assert!(message.contains("tidegate.io/adopt"), "{message}");
    assert!(again.server.get(SET).is_none() && again.server.get(IDENTITY).is_none());

    again.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"] = json!({"tidegate.io/adopt": "true"});
    });
    again.pass().await;
    let entry = again.server.get(IDENTITY).unwrap()["data"]["node-0"].as_str().unwrap().to_owned();
    assert!(entry.contains(directory["tidegate.io/kafka-directory-id"].as_str().unwrap()), "{entry}");
    assert!(entry.contains("may-format=false"));
    let marked =
        again.server.get(CLAIM).unwrap()["metadata"]["annotations"]["tidegate.io/platform-uid"].clone();
    assert_eq!(marked, "second");
}

#[tokio::test]
async fn what_cannot_be_derived_again_is_put_back_from_memory() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    let held = |path: &str| world.server.get(path).unwrap();
    let paths = [CA, IDENTITY, "/api/v1/namespaces/iot/secrets/plant-kafka-broker"];
    let (before, claim) = (paths.map(|path| held(path)["data"].clone()), held(CLAIM)["metadata"].clone());
    world.edit(CA, |secret| secret["data"]["ca.key"] = "bm9uc2Vuc2U=".into());
    world.edit(IDENTITY, |map| map["data"]["node-1"] = "nonsense".into());
    world.edit(paths[2], |secret| secret["data"]["node-0.pem"] = "bm9uc2Vuc2U=".into());
    world.edit(CLAIM, |claim| {
        claim["metadata"]["annotations"]["tidegate.io/kafka-cluster-id"] = "nonsense".into();
        claim["metadata"]["annotations"]["tidegate.io/platform-uid"] = "another".into();
    });
    world.pass().await;
    assert_eq!(paths.map(|path| held(path)["data"].clone()), before);
    assert_eq!(held(CLAIM)["metadata"]["annotations"], claim["annotations"]);
    world.says("Stalled", "False", "UpToDate");
}

#[tokio::test]
async fn a_damaged_identity_that_nobody_remembers_stops_everything_and_says_what_to_do() {
    let mut world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    world.restart();
    world.edit(IDENTITY, |map| map["data"]["node-1"] = "nonsense".into());
    let before = world.server.writes().len();
    world.pass().await;
    let message = world.says("Ready", "False", "IdentityBroken");
    assert!(message.contains("plant-kafka-identity") && message.contains("node-1"), "{message}");
    assert_eq!(world.server.writes()[before..], [format!("PATCH {PLATFORM}/status")]);
}

#[tokio::test]
async fn a_damaged_authority_that_nobody_remembers_is_named_with_what_to_restore_and_blames_no_field() {
    let mut world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    world.restart();
    world.edit(CA, |secret| secret["data"]["ca.key"] = "bm9uc2Vuc2U=".into());
    world.pass().await;
    let message = world.says("Stalled", "True", "SecretBroken");
    for part in
        ["Secret plant-kafka-ca", "ca.key is not a PKCS#8 private key", "from a backup", "delete the Secret"]
    {
        assert!(message.contains(part), "{message}");
    }
    world.says("Accepted", "True", "Accepted");
}

#[tokio::test]
async fn while_paused_nothing_is_written_but_status() {
    let world =
        World::new("{kafka: {managed: {}}, loadBalancer: {addresses: ['172.31.0.230-172.31.0.231']}}");
    world.edit(PLATFORM, |platform| {
        platform["metadata"]["annotations"] = json!({"tidegate.io/paused": "true"});
    });
    world.pass().await;
    assert_eq!(world.server.writes(), [format!("PATCH {PLATFORM}/status")]);
    world.says("Reconciling", "False", "Paused");
}

#[tokio::test]
async fn a_missing_pool_is_told_and_kafka_comes_up_all_the_same() {
    let world = World::new("{kafka: {managed: {}}, loadBalancer: {poolRef: {name: devices}}}");
    world.pass().await;
    world.says("ResolvedRefs", "False", "PoolNotFound");
    world.says("Ready", "False", "PoolNotFound");
    assert!(world.server.get(SET).is_some());
    world
        .server
        .put(&POOL.replace("tidegate-iot-plant", "devices"), json!({"metadata": {"name": "devices"}}));
    world.form(3);
    world.pass().await;
    world.form(3);
    world.pass().await;
    world.says("ResolvedRefs", "True", "ResolvedRefs");
    world.says("Ready", "True", "Ready");
}

#[tokio::test]
async fn a_pool_of_ones_own_is_marked_made_after_the_finalizer_and_removed_at_the_end() {
    let world =
        World::new("{kafka: {managed: {}}, loadBalancer: {addresses: ['172.31.0.230-172.31.0.231']}}");
    world.pass().await;
    assert!(world.place(PLATFORM) < world.place(POOL));
    assert!(world.place(POOL) < world.place(ADVERTISEMENT));
    let pool = world.server.get(POOL).unwrap();
    assert_eq!(pool["spec"]["addresses"], json!(["172.31.0.230-172.31.0.231"]));
    assert_eq!(
        pool["metadata"]["labels"]["tidegate.io/platform-uid"],
        "11111111-2222-3333-4444-555555555555"
    );
    assert_eq!(
        world.server.get(ADVERTISEMENT).unwrap()["spec"]["ipAddressPools"],
        json!(["tidegate-iot-plant"])
    );
    world
        .edit(PLATFORM, |platform| platform["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    world.pass().await;
    assert!(world.server.get(POOL).is_none() && world.server.get(ADVERTISEMENT).is_none());
    assert_eq!(world.server.get(PLATFORM).unwrap()["metadata"]["finalizers"], json!([]));
}

#[tokio::test]
async fn a_finalizer_that_somebody_removed_is_put_back_beside_others() {
    let world =
        World::new("{kafka: {managed: {}}, loadBalancer: {addresses: ['172.31.0.230-172.31.0.231']}}");
    world.pass().await;
    let finalizers = || world.server.get(PLATFORM).unwrap()["metadata"]["finalizers"].clone();
    let ours = finalizers()[0].clone();
    world.edit(PLATFORM, |platform| platform["metadata"]["finalizers"] = json!(["theirs"]));
    world.pass().await;
    assert_eq!(finalizers(), json!(["theirs", ours]));
}

#[tokio::test]
async fn a_strangers_pool_is_not_taken_over() {
    let world =
        World::new("{kafka: {managed: {}}, loadBalancer: {addresses: ['172.31.0.230-172.31.0.231']}}");
    world.server.put(POOL, json!({"metadata": {"name": "tidegate-iot-plant"}, "spec": {"addresses": []}}));
    world.pass().await;
    assert!(world.says("Ready", "False", "ResourceConflict").contains("tidegate.io/adopt"));
    assert_eq!(world.server.get(POOL).unwrap()["spec"]["addresses"], json!([]));
    world.edit(POOL, |pool| pool["metadata"]["annotations"] = json!({"tidegate.io/adopt": "true"}));
    world.pass().await;
    world.says("Stalled", "False", "UpToDate");
    assert_eq!(world.server.get(POOL).unwrap()["spec"]["addresses"], json!(["172.31.0.230-172.31.0.231"]));
}

#[tokio::test]
async fn a_service_that_is_not_ours_is_a_conflict() {
    let world = World::new("{kafka: {managed: {}}}");
    let path = "/api/v1/namespaces/iot/services/plant-kafka";
    world.server.put(path, json!({"metadata": {"name": "plant-kafka", "uid": "x"}}));
    world.pass().await;
    world.says("Ready", "False", "ResourceConflict");
    assert!(world.server.get(SET).is_none());
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted_is_no_error_and_changes_no_status() {
    let world = World::new("{kafka: {managed: {}}}");
    world.pass().await;
    let status = world.server.get(PLATFORM).unwrap()["status"].clone();
    // The namespace's controller removes one thing after another; the platform's turn comes late.
    let path = "/api/v1/namespaces/iot/services/plant-kafka";
    world.server.remove(path);
    world.server.leave();
    let (before, events) = (world.server.writes().len(), world.server.events().len());
    world.pass().await;
    assert_eq!(world.server.get(PLATFORM).unwrap()["status"], status);
    let writes = world.server.writes()[before..].to_vec();
    assert!(writes.contains(&format!("PATCH {path}")), "{writes:?}");
    assert!(!writes.contains(&format!("PATCH {PLATFORM}/status")), "{writes:?}");
    assert_eq!(world.server.events().len(), events);
    let metrics = world.driver.context.metrics.render();
    assert!(
        !metrics.contains("reason=\"Forbidden\"") && !metrics.contains("reason=\"Deleting\""),
        "{metrics}"
    );
}

const ATTACHMENT: &str = "/apis/k8s.cni.cncf.io/v1/namespaces/iot/network-attachment-definitions/plant-field";
const ATTACHMENTS: &str = "/apis/k8s.cni.cncf.io/v1/namespaces/iot/network-attachment-definitions";

#[tokio::test]
async fn networks_are_made_inside_the_allow_list_and_removed_with_their_declaration() {
    let world = World::new(
        "{kafka: {managed: {}}, networks: [{name: field, macvlan: {master: eth1}, ipam: {dhcp: {}}}]}",
    );
    world.pass().await;
    world.says("ResolvedRefs", "True", "ResolvedRefs");
    let made = world.server.get(ATTACHMENT).unwrap();
    assert!(made["spec"]["config"].as_str().unwrap().contains("macvlan"));
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "plant");
    world.edit(PLATFORM, |platform| platform["spec"]["networks"] = json!([]));
    world.pass().await;
    assert!(world.server.get(ATTACHMENT).is_none());
}

#[tokio::test]
async fn a_network_outside_the_allow_list_is_refused_and_kafka_comes_up_all_the_same() {
    let world = World::new("{kafka: {managed: {}}, networks: [{name: field, hostDevice: {device: eth1}}]}");
    world.pass().await;
    let said = world.says("Accepted", "False", "NotAllowed");
    assert!(
        said.contains("spec.networks[field] (hostDevice:eth1)") && said.contains("macvlan:eth1"),
        "{said}"
    );
    assert!(world.server.get(ATTACHMENT).is_none() && world.server.get(SET).is_some());
}

#[tokio::test]
async fn a_cluster_without_multus_is_told_only_to_those_who_want_networks() {
    let world = World::new("{kafka: {managed: {}}, networks: [{name: field, macvlan: {master: eth1}}]}");
    world.server.fail(Method::PATCH, ATTACHMENT, 404);
    world.server.fail(Method::GET, ATTACHMENTS, 404);
    world.pass().await;
    world.says("ResolvedRefs", "False", "MultusNotFound");
    world.edit(PLATFORM, |platform| platform["spec"]["networks"] = json!([]));
    world.pass().await;
    world.says("ResolvedRefs", "True", "ResolvedRefs");
}

#[tokio::test]
async fn an_attachment_that_does_not_exist_is_told() {
    let world =
        World::new("{kafka: {managed: {}}, networks: [{name: field, attachmentRef: {name: theirs}}]}");
    world.pass().await;
    let said = world.says("ResolvedRefs", "False", "AttachmentNotFound");
    assert!(said.contains("spec.networks[field].attachmentRef.name"), "{said}");
    world.server.put(&format!("{ATTACHMENTS}/theirs"), json!({"metadata": {"name": "theirs"}}));
    world.pass().await;
    world.says("ResolvedRefs", "True", "ResolvedRefs");
}
