//! Whole passes over gateways with second networks and capabilities, against an API server in memory.

use super::samples::mqtt;
use super::tests::World;
use crate::network::given::{NETWORKS, STATUS};
use http::Method;
use serde_json::{Value, json};

const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/iotplatforms/plant";
const GATEWAY: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/protocolgateways/mqtt";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/plant/deployments/mqtt";
const FIELD: &str = "/apis/k8s.cni.cncf.io/v1/namespaces/plant/network-attachment-definitions/field";
const POD: &str = "/api/v1/namespaces/plant/pods/mqtt-1";
const EVENT: &str = "/api/v1/namespaces/plant/events/mqtt-1.1";

/// A gateway on network `field`, which refers to an attachment that is there, with `more` in the network.
fn attached(config: &Value) -> World {
    let world = World::new(mqtt(", networks: [{ref: field, interface: net1}]"));
    world.server.edit(PLATFORM, |platform| {
        platform["spec"]["networks"] = json!([{"name": "field", "attachmentRef": {"name": "field"}}]);
    });
    world.server.put(FIELD, attachment(config));
    world
}

fn attachment(config: &Value) -> Value {
    json!({"metadata": {"name": "field", "namespace": "plant"}, "spec": {"config": config.to_string()}})
}

fn pod(node: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": "mqtt-1", "namespace": "plant", "uid": "pod-1", "labels": {
            "app.kubernetes.io/name": "tidegate-gateway", "app.kubernetes.io/instance": "mqtt",
            "tidegate.io/in-service": "true"}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn macvlan() -> Value {
    json!({"type": "macvlan", "master": "eth1"})
}

#[tokio::test]
async fn pods_attach_and_the_status_tells_what_they_were_given() {
    let world = attached(&macvlan());
    world.pass().await;
    let template = world.server.get(DEPLOYMENT).unwrap()["spec"]["template"].clone();
    let told: Value =
        serde_json::from_str(template["metadata"]["annotations"][NETWORKS].as_str().unwrap()).unwrap();
    assert_eq!(told, json!([{"name": "field", "namespace": "plant", "interface": "net1"}]));

    let mut pod = pod("node1", true);
    let given = json!([{"interface": "net1", "ips": ["172.31.9.100"], "mac": "c6:92:c8:db:96:04"}]);
    pod["metadata"]["annotations"] = json!({STATUS: given.to_string()});
    world.server.put(POD, pod);
    world.serve();
    world.pass().await;
    world.says("Ready", "True", "Ready");
    let endpoint = world.server.get(GATEWAY).unwrap()["status"]["endpoints"][1].clone();
    assert_eq!(endpoint["url"], "mqtt://172.31.9.100:1883");
    assert_eq!(
        (endpoint["pod"].as_str(), endpoint["mac"].as_str()),
        (Some("mqtt-1"), Some("c6:92:c8:db:96:04"))
    );
}

#[tokio::test]
async fn an_attachment_that_is_deleted_tears_nothing_down_and_is_told() {
    let world = attached(&macvlan());
    world.pass().await;
    world.serve();
    world.pass().await;
    world.server.remove(FIELD);
    world.server.edit(GATEWAY, |gateway| gateway["spec"]["limits"] = json!({"inFlight": 3}));
    let before = world.server.get(DEPLOYMENT);
    world.pass().await;
    assert_eq!(world.server.get(DEPLOYMENT), before, "a new pod could not start");
    world.says("ResolvedRefs", "False", "AttachmentNotFound");
    world.says("Stalled", "True", "AttachmentNotFound");
    world.says("Ready", "True", "Ready");
    assert!(world.condition("ResolvedRefs").2.contains("\"field\" in namespace plant"));
    let told =
        |world: &World| world.server.events().iter().filter(|event| event.1 == "AttachmentNotFound").count();
    assert_eq!(told(&world), 1);
    world.pass().await;
    assert_eq!(told(&world), 1, "once is enough");

    world.server.put(FIELD, attachment(&macvlan()));
    world.pass().await;
    assert_ne!(world.server.get(DEPLOYMENT), before, "the change is carried out now");
    world.says("ResolvedRefs", "True", "ResolvedRefs");
    world.says("Stalled", "False", "UpToDate");
}

#[tokio::test]
async fn nothing_is_started_before_attachments_and_multus_are_there() {
    let world = attached(&macvlan());
    world.server.remove(FIELD);
    world.pass().await;
    world.says("Ready", "False", "AttachmentNotFound");
    assert!(world.server.get(DEPLOYMENT).is_none());
    world.server.fail(Method::GET, FIELD, 404);
    world.pass().await;
    world.says("Ready", "False", "MultusNotFound");
    world.says("ResolvedRefs", "False", "MultusNotFound");
}

#[tokio::test]
async fn an_unknown_network_is_told_and_children_stay() {
    let world = World::new(mqtt(", networks: [{ref: field, interface: net1}]"));
    world.pass().await;
    world.says("ResolvedRefs", "False", "NetworkNotFound");
    assert!(world.server.get(DEPLOYMENT).is_none());
}

#[tokio::test]
async fn an_exhausted_range_is_told_in_the_plugins_words() {
    let world = attached(&macvlan());
    world.server.put(POD, pod("node2", false));
    let message = "Failed to create pod sandbox: Could not allocate IP in range: ip: 172.31.9.100 / - 172.31.9.100 / range: 172.31.9.0/24";
    world.server.put(
        EVENT,
        json!({
            "metadata": {"name": "mqtt-1.1", "namespace": "plant"}, "reason": "FailedCreatePodSandBox",
            "involvedObject": {"kind": "Pod", "name": "mqtt-1"}, "message": message,
        }),
    );
    world.pass().await;
    world.says("Ready", "False", "AddressesExhausted");
    assert!(world.condition("Ready").2.contains("pod mqtt-1 gets no network on node2"));
}

#[tokio::test]
async fn a_host_device_is_never_wanted_by_two_pods_of_a_node() {
    let world = attached(&json!({"type": "host-device", "device": "eth2"}));
    world.pass().await;
    let spec = world.server.get(DEPLOYMENT).unwrap()["spec"].clone();
    let label = "tidegate.io/host-device.eth2";
    assert_eq!(spec["template"]["metadata"]["labels"][label], "true");
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
    let apart = "requiredDuringSchedulingIgnoredDuringExecution";
    let affinity = &spec["template"]["spec"]["affinity"];
    let terms = affinity["podAntiAffinity"][apart].as_array().unwrap();
    assert_eq!(terms.len(), 1, "beside another term Kubernetes leaves a waiting pod waiting: {terms:?}");
    let term = &terms[0];
    assert_eq!(
        term["labelSelector"]["matchExpressions"][0],
        json!({"key": label, "operator": "In", "values": ["true"]})
    );
    assert_eq!(
        (&term["topologyKey"], &term["namespaceSelector"]),
        (&json!("kubernetes.io/hostname"), &json!({}))
    );
    let nodes = &affinity["nodeAffinity"][apart]["nodeSelectorTerms"][0]["matchExpressions"];
    let not_out = json!({"key": "tidegate.io/in-service", "operator": "NotIn", "values": ["false"]});
    assert_eq!(nodes, &json!([not_out]));
}

#[tokio::test]
async fn a_fixed_address_is_never_two_pods() {
    let world = attached(&macvlan());
    world.server.edit(GATEWAY, |gateway| {
        gateway["spec"]["replicas"] = 1.into();
        gateway["spec"]["networks"][0]["addresses"] = json!(["172.31.9.7/24"]);
    });
    world.pass().await;
    let spec = world.server.get(DEPLOYMENT).unwrap()["spec"].clone();
    assert_eq!(spec["strategy"], json!({"type": "Recreate"}));
    assert!(
        spec["template"]["metadata"]["annotations"][NETWORKS].as_str().unwrap().contains("172.31.9.7/24")
    );
}

fn node(name: &str, capable: bool) -> Value {
    let labels = if capable { json!({"tidegate.io/capability.rs485": "true"}) } else { json!({}) };
    json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn capable() -> World {
    let mut gateway = mqtt(", placement: {capabilities: [rs485]}");
    gateway.spec.replicas = 1;
    let world = World::new(gateway);
    world.server.put("/api/v1/nodes/node1", node("node1", true));
    world.server.put("/api/v1/nodes/node2", node("node2", false));
    world.server.put(POD, pod("node1", true));
    world
}

fn serve_one(world: &World) {
    world.serve();
    world.server.edit(DEPLOYMENT, |deployment| {
        let replicas = deployment["spec"]["replicas"].clone();
        for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            deployment["status"][count] = replicas.clone();
        }
    });
}

#[tokio::test]
async fn a_gateway_moves_when_its_node_loses_a_capability_and_another_has_it() {
    let world = capable();
    world.pass().await;
    let affinity =
        world.server.get(DEPLOYMENT).unwrap()["spec"]["template"]["spec"]["affinity"]["nodeAffinity"].clone();
    let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["key"], "tidegate.io/capability.rs485");
    serve_one(&world);
    world.pass().await;
    world.says("Reconciling", "False", "UpToDate");

    world.server.put("/api/v1/nodes/node1", node("node1", false));
    world.pass().await;
    world.says("Ready", "True", "Ready");
    world.says("Reconciling", "True", "CapabilityMissing");
    assert!(
        world
            .condition("Reconciling")
            .2
            .contains("kubectl label node <node> tidegate.io/capability.rs485=true")
    );
    assert!(world.server.get(POD).is_some(), "the last endpoint stays while nothing can replace it");

    world.server.put("/api/v1/nodes/node2", node("node2", true));
    world.pass().await;
    world.says("Reconciling", "True", "Moving");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
    assert!(world.server.get(POD).unwrap()["metadata"]["annotations"].to_string().contains("-1000000"));
    let mut second = pod("node2", true);
    (second["metadata"]["name"], second["metadata"]["uid"]) = ("mqtt-2".into(), "pod-2".into());
    world.server.put("/api/v1/namespaces/plant/pods/mqtt-2", second);
    serve_one(&world);
    world.pass().await;
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], 1, "the cheapest one goes");
    world.server.remove(POD);
    serve_one(&world);
    world.pass().await;
    world.says("Reconciling", "False", "UpToDate");
}

#[tokio::test]
async fn without_the_right_to_see_nodes_the_gateway_says_that_it_does_not_move() {
    let world = capable();
    world.server.fail(Method::GET, "/api/v1/nodes", 403);
    world.pass().await;
    world.says("Accepted", "True", "Accepted");
    assert!(world.condition("Accepted").2.contains("may not see nodes"));
    assert!(world.server.get(DEPLOYMENT).is_some());
}
