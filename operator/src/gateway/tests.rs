//! The gateway's pure builds as snapshots, and whole passes against an API server in memory.

use super::fetch::Platform;
use super::samples::{gateway, iot_platform, mqtt, platform, resource};
use super::*;
use crate::frame::children::Child;
use crate::frame::driver::Driver;
use crate::frame::testing::FakeServer;
use http::Method;
use kube::Resource as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::labels;

const GATEWAY: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/protocolgateways/mqtt";
const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/iotplatforms/plant";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/plant/deployments/mqtt";
const SCALER: &str = "/apis/autoscaling/v2/namespaces/plant/horizontalpodautoscalers/mqtt";
const SERVICE: &str = "/api/v1/namespaces/plant/services/mqtt";

fn snapshot(children: &[Child]) -> Value {
    children.iter().map(|child| json!({"kind": child.resource.kind, "object": child.object})).collect()
}

/// Everything that shall exist, but for certificates.
fn build(gateway: &validate::Gateway, platform: &Platform) -> Vec<Child> {
    let config = config::config_map(gateway, &platform.backbone);
    let mut all = around(gateway, platform, &config);
    all.push(&deployment::deployment(gateway, platform, &config.name_any(), "tidegate/gateway:1"));
    all.wanted().to_vec()
}

#[test]
fn the_children_of_the_quickstarts_mqtt_gateway() {
    insta::assert_yaml_snapshot!(snapshot(&build(&gateway(""), &platform())));
}

#[test]
fn the_services_of_a_gateway_with_three_addresses_and_a_low_port() {
    let spec =
        "{platformRef: {name: plant}, http: {listeners: [{name: http, port: 80}]}, expose: {addresses: 3}}";
    let gateway = validate::validate(&resource(spec)).unwrap();
    insta::assert_yaml_snapshot!(service::services(&gateway, &platform()));
}

#[test]
fn the_service_of_a_fixed_address_and_of_a_gateway_inside_the_cluster() {
    let fixed = gateway(", expose: {address: 172.31.0.207}");
    let inside = gateway(", expose: {type: ClusterIP}");
    let mut without_pool = platform();
    without_pool.pool = None;
    insta::assert_yaml_snapshot!([
        service::services(&fixed, &platform()),
        service::services(&inside, &platform()),
        service::services(&gateway(", expose: {type: NodePort}"), &without_pool)
    ]);
}

#[test]
fn the_pods_on_an_external_kafka_mount_its_secrets_as_they_are_and_name_the_prefix() {
    let mut external = iot_platform();
    external.spec.kafka = serde_yaml::from_str(
        "{prefix: acme., external: {bootstrapServers: ['k.example:9093'],
            tls: {caSecretRef: {name: kafka-ca, key: root.pem}, clientSecretRef: {name: kafka-client}},
            sasl: {mechanism: SCRAM-SHA-512, username: tidegate, passwordSecretRef: {name: kafka-login, key: pass}}}}",
    )
    .unwrap();
    let platform = Platform::of(&external).unwrap();
    let children = build(&gateway(""), &platform);
    let deployment = children.iter().find(|child| child.resource.kind == "Deployment").unwrap();
    let pod = &deployment.object.data["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let kafka =
        serde_json::to_value(config::config(&gateway(""), &platform.backbone)).unwrap()["kafka"].take();
    insta::assert_yaml_snapshot!(
        json!({"volumes": pod["volumes"], "mounts": container["volumeMounts"], "configuration": kafka})
    );
}

#[test]
fn the_configuration_reads_back_as_the_contract_has_it() {
    let map = config::config_map(&gateway(""), &platform().backbone);
    let text = &map.data.unwrap()[tidegate_contract::config::CONFIG_FILE];
    let config: tidegate_contract::GatewayConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config, config::config(&gateway(""), &platform().backbone));
}

#[test]
fn another_configuration_is_another_config_map_and_the_same_is_the_same() {
    let name = |more: &str| config::config_map(&gateway(more), &platform().backbone).name_any();
    assert_eq!(name(""), name(""));
    assert_ne!(name(""), name(", limits: {inFlight: 3}"));
    assert_eq!(
        name(""),
        name(", expose: {type: NodePort}"),
        "what the process does not see must not roll it"
    );
}

pub(super) struct World {
    pub server: FakeServer,
    driver: Driver<GatewayController>,
}

impl World {
    /// A gateway and its platform.
    pub fn new(gateway: ProtocolGateway) -> Self {
        let server = FakeServer::default();
        server.put(PLATFORM, iot_platform());
        server.put(GATEWAY, gateway);
        let context = server.context();
        let driver = Driver::new(Arc::<GatewayController>::default(), context);
        Self { server, driver }
    }

    pub async fn pass(&self) -> Option<Duration> {
        let object = serde_json::from_value(self.server.get(GATEWAY).unwrap()).unwrap();
        self.driver.pass(Arc::new(object)).await
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, type_: &str) -> (String, String, String) {
        let stored = self.server.get(GATEWAY).unwrap();
        let all = stored["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["type"] == type_).unwrap_or_default();
        ["status", "reason", "message"].map(|key| one[key].as_str().unwrap_or_default().to_owned()).into()
    }

    pub fn says(&self, type_: &str, status: &str, reason: &str) {
        self.server.says(GATEWAY, type_, status, reason);
    }

    /// The cluster brings pods and address up.
    pub fn serve(&self) {
        let mut deployment = self.server.get(DEPLOYMENT).unwrap();
        let generation = deployment["metadata"]["generation"].clone();
        deployment["status"] = json!({
            "observedGeneration": generation, "replicas": 2, "updatedReplicas": 2,
            "readyReplicas": 2, "availableReplicas": 2,
        });
        self.server.put(DEPLOYMENT, deployment);
        let mut service = self.server.get(SERVICE).unwrap();
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "172.31.0.200"}]}});
        self.server.put(SERVICE, service);
    }
}

fn is_about(wait: Option<Duration>, seconds: u64) -> bool {
    let goal = Duration::from_secs(seconds);
    wait.is_some_and(|wait| wait >= goal.mul_f64(0.8) && wait <= goal.mul_f64(1.2))
}

#[tokio::test]
async fn a_new_gateway_gets_its_children_and_becomes_ready_when_they_serve() {
    let world = World::new(mqtt(""));
    world.pass().await;
    world.says("Ready", "False", "MinimumReplicasUnavailable");
    world.says("Reconciling", "True", "MinimumReplicasUnavailable");
    world.says("Accepted", "True", "Accepted");
    let owner = &world.server.get(SERVICE).unwrap()["metadata"]["ownerReferences"][0];
    assert_eq!(
        (owner["kind"].as_str(), owner["controller"].as_bool()),
        (Some("ProtocolGateway"), Some(true))
    );

    world.serve();
    world.pass().await;
    world.says("Ready", "True", "Ready");
    world.says("Reconciling", "False", "UpToDate");
    world.says("Stalled", "False", "UpToDate");
    let status = world.server.get(GATEWAY).unwrap()["status"].clone();
    assert_eq!(status["endpoints"][0]["url"], "mqtt://172.31.0.200:1883");
    assert_eq!(status["readyReplicas"], 2);
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(status["effective"]["image"], "tidegate/gateway:test");
    assert_eq!(status["selector"], "app.kubernetes.io/instance=mqtt,app.kubernetes.io/name=tidegate-gateway");
}

#[tokio::test]
async fn a_pass_that_changes_nothing_writes_no_status_and_no_event() {
    let world = World::new(mqtt(""));
    world.pass().await;
    world.serve();
    world.pass().await;
    let (writes, events) = (world.server.writes().len(), world.server.events().len());
    world.pass().await;
    let status_path = format!("PATCH {GATEWAY}/status");
    assert!(!world.server.writes()[writes..].contains(&status_path));
    assert_eq!(world.server.events().len(), events);
}

#[tokio::test]
async fn events_tell_when_readiness_flips() {
    let world = World::new(mqtt(""));
    world.pass().await;
    world.serve();
    world.pass().await;
    let reasons: Vec<_> =
        world.server.events().into_iter().map(|(type_, reason, _)| (type_, reason)).collect();
    let normal = |reason: &str| ("Normal".to_owned(), reason.to_owned());
    assert_eq!(reasons, [normal("MinimumReplicasUnavailable"), normal("Ready")]);
}

#[tokio::test]
async fn an_unknown_platform_is_told_with_what_to_write_and_children_stay() {
    let mut gateway = mqtt("");
    gateway.spec.platform_ref.name = "plnt".to_owned();
    let world = World::new(gateway);
    let wait = world.pass().await;
    world.says("ResolvedRefs", "False", "PlatformNotFound");
    world.says("Ready", "False", "PlatformNotFound");
    world.says("Stalled", "True", "PlatformNotFound");
    world.says("Accepted", "True", "Accepted");
    let (.., message) = world.condition("ResolvedRefs");
    assert!(message.contains("write one that exists (plant)"), "{message}");
    assert_eq!(world.server.writes(), [format!("PATCH {GATEWAY}/status")]);
    assert!(is_about(wait, 1), "{wait:?}");
}

#[tokio::test]
async fn a_platform_without_kafka_yet_is_waited_for() {
    let world = World::new(mqtt(""));
    let mut platform = iot_platform();
    platform.status = None;
    world.server.put(PLATFORM, platform);
    world.pass().await;
    world.says("Ready", "False", "KafkaNotReady");
    world.says("Reconciling", "True", "KafkaNotReady");
    assert_eq!(world.server.writes(), [format!("PATCH {GATEWAY}/status")]);
}

#[tokio::test]
async fn a_platform_that_does_not_fit_this_version_is_told() {
    let world = World::new(mqtt(""));
    let mut platform = serde_json::to_value(iot_platform()).unwrap();
    platform["spec"]["kafka"]["managed"]["brokers"] = "three".into();
    world.server.put(PLATFORM, platform);
    world.pass().await;
    world.says("ResolvedRefs", "False", "Malformed");
    let said = world.condition("Ready").2;
    assert!(said.contains("spec.kafka.managed.brokers"), "{said}");
}

#[tokio::test]
async fn a_field_that_is_not_implemented_is_refused_by_name_and_waits_for_a_change() {
    let spec = "{platformRef: {name: plant}, coap: {listeners: [{name: coap, port: 5683}]}}";
    let world = World::new(resource(spec));
    let wait = world.pass().await;
    world.says("Accepted", "False", "NotImplemented");
    world.says("Stalled", "True", "NotImplemented");
    assert!(world.condition("Accepted").2.contains("spec.coap"));
    assert_eq!(wait, None);
    assert_eq!(world.server.events()[0].1, "NotImplemented");
    assert_eq!(world.server.events()[0].0, "Warning");
}

#[tokio::test]
async fn autoscaling_is_a_scaler_on_scale_whose_wish_the_deployment_follows() {
    let world = World::new(mqtt(", autoscaling: {minReplicas: 3, maxReplicas: 5}"));
    world.pass().await;
    world.says("Accepted", "True", "Accepted");
    world.says("ScalingLimited", "Unknown", "Progressing");
    let scaler = world.server.get(SCALER).unwrap();
    assert_eq!(scaler["spec"]["scaleTargetRef"]["kind"], "ProtocolGateway");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 3, "the lower bound, at once");

    world.server.edit(GATEWAY, |gateway| gateway["spec"]["replicas"] = 4.into());
    world.server.edit(SCALER, |scaler| {
        scaler["status"] = json!({"desiredReplicas": 4, "conditions": [
            {"type": "AbleToScale", "status": "True"}, {"type": "ScalingActive", "status": "True"}]});
    });
    world.pass().await;
    world.says("ScalingLimited", "False", "ScalingOn");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 4);
    assert_eq!(world.server.get(GATEWAY).unwrap()["spec"]["replicas"], 4, "replicas belong to /scale");
}

#[tokio::test]
async fn a_gateway_that_grows_by_load_stays_ready_while_its_minimum_serves() {
    let world = World::new(mqtt(", autoscaling: {minReplicas: 2, maxReplicas: 5}"));
    world.pass().await;
    world.serve();
    world.pass().await;
    world.says("Ready", "True", "Ready");
    world.server.edit(GATEWAY, |gateway| gateway["spec"]["replicas"] = 4.into());
    world.pass().await;
    world.says("Ready", "True", "Ready");
    world.says("Reconciling", "True", "Progressing");
    assert_eq!(world.condition("Reconciling").2, "2 of 4 replicas serve");
}

#[tokio::test]
async fn a_scaler_in_trouble_is_told_once_and_one_that_is_no_longer_wanted_goes() {
    let world = World::new(mqtt(", autoscaling: {maxReplicas: 5}"));
    world.pass().await;
    world.server.edit(SCALER, |scaler| {
        scaler["status"] = json!({"desiredReplicas": 0, "conditions": [{"type": "ScalingActive",
            "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics"}]});
    });
    world.pass().await;
    world.pass().await;
    world.says("ScalingLimited", "True", "UseUnknown");
    let told = world.server.events().iter().filter(|event| event.1 == "UseUnknown").count();
    assert_eq!(told, 1);

    world.server.edit(GATEWAY, |gateway| {
        gateway["spec"].as_object_mut().unwrap().remove("autoscaling");
    });
    world.pass().await;
    assert!(world.server.get(SCALER).is_none());
    assert_eq!(world.condition("ScalingLimited").0, "", "what does not apply is not said");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn an_object_that_is_not_ours_is_left_alone_until_it_is_handed_over() {
    let world = World::new(mqtt(""));
    let mut foreign = json!({"metadata": {"name": "mqtt", "namespace": "plant", "uid": "theirs"}, "spec": {"theirs": true}});
    world.server.put(SERVICE, &foreign);
    let wait = world.pass().await;
    world.says("Ready", "False", "ResourceConflict");
    world.says("Stalled", "True", "ResourceConflict");
    let (.., message) = world.condition("Ready");
    assert!(message.starts_with("Service plant/mqtt exists and is not ours"), "{message}");
    assert!(message.contains("tidegate.io/adopt"), "{message}");
    let left = world.server.get(SERVICE).unwrap();
    assert_eq!((&left["spec"], &left["metadata"]["labels"]), (&foreign["spec"], &json!(null)));
    assert!(is_about(wait, 1), "{wait:?}");

    foreign["metadata"]["annotations"] = json!({"tidegate.io/adopt": "true"});
    world.server.put(SERVICE, &foreign);
    world.pass().await;
    assert_eq!(world.server.get(SERVICE).unwrap()["spec"]["type"], "LoadBalancer");
    world.says("Stalled", "False", "UpToDate");
}

#[tokio::test]
async fn what_a_deleted_owner_of_the_same_name_left_is_waited_for() {
    let world = World::new(mqtt(""));
    let owner = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway", "name": "mqtt", "uid": "old", "controller": true});
    world.server.put(SERVICE, json!({"metadata": {"name": "mqtt", "uid": "x", "ownerReferences": [owner]}}));
    let wait = world.pass().await;
    world.says("Stalled", "False", "Progressing");
    world.says("Ready", "Unknown", "Progressing");
    assert!(is_about(wait, 1), "{wait:?}");
}

#[tokio::test]
async fn a_child_that_is_being_deleted_is_waited_for() {
    let world = World::new(mqtt(""));
    world.pass().await;
    let mut service = world.server.get(SERVICE).unwrap();
    service["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    world.server.put(SERVICE, service);
    world.pass().await;
    assert!(world.condition("Reconciling").2.contains("it is being deleted"));
}

#[tokio::test]
async fn missing_rights_are_told_in_the_servers_words() {
    let world = World::new(mqtt(""));
    world.server.fail(Method::PATCH, DEPLOYMENT, 403);
    world.pass().await;
    world.says("Ready", "False", "Forbidden");
    assert_eq!(world.condition("Ready").2, "failed to apply Deployment plant/mqtt: the test says so");
    assert!(world.driver.context.metrics.render().contains("reason=\"Forbidden\"} 1"));
}

#[tokio::test]
async fn an_api_server_in_trouble_leaves_readiness_as_it_was_and_is_asked_again_later_and_later() {
    let world = World::new(mqtt(""));
    world.pass().await;
    world.serve();
    world.pass().await;
    let disturb = || world.server.edit(DEPLOYMENT, |deployment| deployment["spec"]["paused"] = true.into());
    disturb();
    world.server.fail(Method::PATCH, DEPLOYMENT, 500);
    for seconds in [1, 2, 4] {
        let wait = world.pass().await;
        assert!(is_about(wait, seconds), "{wait:?}");
        world.says("Ready", "True", "Ready");
        world.says("Reconciling", "True", "ApiError");
    }
    world.server.heal();
    world.pass().await;
    world.says("Reconciling", "False", "UpToDate");
    disturb();
    world.server.fail(Method::PATCH, DEPLOYMENT, 409);
    let wait = world.pass().await;
    assert!(is_about(wait, 1), "{wait:?}");
}

#[tokio::test]
async fn a_pass_over_what_is_as_it_was_left_writes_nothing() {
    let world = World::new(mqtt(""));
    world.pass().await;
    world.serve();
    world.pass().await;
    let before = world.server.writes().len();
    world.pass().await;
    assert_eq!(world.server.writes()[before..], Vec::<String>::new());
    world.server.edit(DEPLOYMENT, |deployment| deployment["spec"]["replicas"] = 9.into());
    world.pass().await;
    assert_eq!(world.server.writes()[before..], [format!("PATCH {DEPLOYMENT}")]);
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn a_status_that_cannot_be_written_is_tried_again_and_one_of_a_gone_object_is_not() {
    let world = World::new(mqtt(""));
    world.server.fail(Method::PATCH, &format!("{GATEWAY}/status"), 503);
    let wait = world.pass().await;
    assert!(is_about(wait, 1), "{wait:?}");
    world.server.heal();
    world.server.fail(Method::PATCH, &format!("{GATEWAY}/status"), 404);
    let wait = world.pass().await;
    assert!(!is_about(wait, 1) && !is_about(wait, 2), "{wait:?}");
}

#[tokio::test]
async fn a_paused_gateway_gets_a_status_and_nothing_else() {
    let mut gateway = mqtt("");
    gateway.annotations_mut().insert(labels::PAUSED.to_owned(), "true".to_owned());
    let world = World::new(gateway);
    world.pass().await;
    world.says("Reconciling", "False", "Paused");
    world.says("Ready", "False", "MinimumReplicasUnavailable");
    assert_eq!(world.server.writes(), [format!("PATCH {GATEWAY}/status")]);
}

#[tokio::test]
async fn a_gateway_that_is_being_deleted_is_not_built_again() {
    let mut gateway = mqtt("");
    gateway.meta_mut().deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let world = World::new(gateway);
    world.pass().await;
    world.says("Ready", "False", "Deleting");
    assert_eq!(world.server.writes(), [format!("PATCH {GATEWAY}/status")]);
}

#[tokio::test]
async fn services_that_are_no_longer_built_are_removed_and_those_of_others_are_not() {
    let world = World::new(mqtt(", expose: {addresses: 3}"));
    world.pass().await;
    let third = "/api/v1/namespaces/plant/services/mqtt-3";
    assert!(world.server.get(third).is_some());
    let foreign = json!({"metadata": {"name": "look-alike", "uid": "x", "labels": world.server.get(third).unwrap()["metadata"]["labels"]}});
    let look_alike = "/api/v1/namespaces/plant/services/look-alike";
    world.server.put(look_alike, foreign);

    let mut gateway = world.server.get(GATEWAY).unwrap();
    gateway["spec"]["expose"]["addresses"] = 1.into();
    world.server.put(GATEWAY, gateway);
    world.pass().await;
    assert!(world.server.get(SERVICE).is_some());
    assert!(world.server.get(third).is_none());
    assert!(world.server.get(look_alike).is_some(), "labels alone do not make an object ours");
}

#[tokio::test]
async fn a_config_map_goes_when_no_revision_uses_it_any_more() {
    let world = World::new(mqtt(""));
    world.pass().await;
    let name = config::config_map(&gateway(""), &platform().backbone).name_any();
    let path = format!("/api/v1/namespaces/plant/configmaps/{name}");
    let template = world.server.get(DEPLOYMENT).unwrap()["spec"]["template"].clone();
    let set = "/apis/apps/v1/namespaces/plant/replicasets/mqtt-1";
    let set_labels = template["metadata"]["labels"].clone();
    world.server.put(set, json!({"metadata": {"name": "mqtt-1", "labels": set_labels}, "spec": {"selector": {}, "template": template}}));

    let mut changed = world.server.get(GATEWAY).unwrap();
    changed["spec"]["limits"] = json!({"inFlight": 3});
    world.server.put(GATEWAY, changed);
    world.pass().await;
    assert!(world.server.get(&path).is_some(), "a revision still refers to it");
    world.server.fail(Method::GET, "/apis/apps/v1/namespaces/plant/replicasets", 500);
    world.pass().await;
    assert!(world.server.get(&path).is_some(), "unknown is not unused");
    world.server.heal();
    world.server.put(set, json!({"metadata": {"name": "mqtt-1"}}));
    world.pass().await;
    assert!(world.server.get(&path).is_none());
}

#[tokio::test]
async fn an_object_that_does_not_fit_our_types_gets_a_status_and_takes_nobody_down() {
    let world = World::new(mqtt(""));
    let mut broken = world.server.get(GATEWAY).unwrap();
    broken["spec"]["replicas"] = "two".into();
    world.server.put(GATEWAY, broken);
    let wait = world.pass().await;
    world.says("Accepted", "False", "Malformed");
    world.says("Stalled", "True", "Malformed");
    assert!(world.condition("Accepted").2.contains("does not fit this version"));
    assert_eq!(wait, None);
}
