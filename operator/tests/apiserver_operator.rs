//! The operator's own program against a real API server, with the rights of the generated role and nothing more:
//! children, drift, conflicts, pausing, removal, conditions, leadership.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod apiserver_support;

use apiserver_support::{Operator, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn platform() -> Value {
    json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
        "metadata": {"name": "plant", "namespace": "plant"}, "spec": {"kafka": {"managed": {}}},
    })
}

fn gateway(name: &str, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway",
        "metadata": {"name": name, "namespace": "plant"},
        "spec": {"platformRef": {"name": "plant"}, "mqtt": {"listeners": [{"name": "mqtt", "port": 1883}]}},
    });
    for (key, value) in more.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn the_operator_keeps_gateways_as_declared_with_its_own_rights_and_hands_leadership_over() {
    let world = World::new();
    let first = world.operator_with("first", &[("TIDEGATE_NETWORK_ALLOW_LIST", "macvlan:eth1")]);
    world.wait_until("the first replica leads", || world.leader() == "first");
    let second = world.operator("second");

    gateways_are_built(&world);
    drift_is_repaired(&world);
    what_is_no_longer_declared_is_removed(&world);
    autoscaling_leaves_the_replicas_to_scale(&world);
    foreign_objects_are_left_alone(&world);
    paused_gateways_are_left_alone(&world);
    bad_input_is_told(&world);
    second_networks_are_made_inside_the_allow_list(&world);
    gateways_move_with_capabilities(&world);
    conditions_are_metrics_of_the_leader(&world, &first, &second);

    let (clean, log) = first.stop();
    assert!(clean, "{log}");
    let began = Instant::now();
    world.wait_until("the second replica leads", || world.leader() == "second");
    assert!(began.elapsed() < Duration::from_secs(10), "a released lease need not expire");
    // The new leader works.
    world.kubectl(&["--namespace=plant", "delete", "service", "mqtt", "--wait=false"]);
    world.wait("service/mqtt", ".spec.ports[0].port", "1883");
    let (clean, more) = second.stop();
    assert!(clean, "{more}");
    for line in log.lines().chain(more.lines()) {
        assert!(!line.contains("forbidden") && !line.contains("\"ERROR\""), "{line}");
    }
}

fn gateways_are_built(world: &World) {
    world.apply(&gateway("mqtt", &json!({"replicas": 2})));
    world.condition("pgw/mqtt", "ResolvedRefs", "PlatformNotFound");
    world.apply(&platform());
    world.wait("deployment/mqtt", ".spec.replicas", "2");
    world.wait("pdb/mqtt", ".spec.maxUnavailable", "1");
    world.wait("serviceaccount/mqtt-gateway", ".automountServiceAccountToken", "false");
    world.wait("service/mqtt", ".spec.selector.tidegate\\.io/in-service", "true");
    world.condition("pgw/mqtt", "ResolvedRefs", "ResolvedRefs");
    let pod = ".spec.template.spec.volumes[0].projected.sources[0].configMap.name";
    let config = world.value("deployment/mqtt", pod);
    assert_eq!(world.value(&format!("configmap/{config}"), ".immutable"), "true");

    // One field manager for all that is applied, one for the status.
    let managers = ".metadata.managedFields[*].manager";
    assert_eq!(world.value("deployment/mqtt", managers), "tidegate");
    assert_eq!(world.value("pgw/mqtt", managers), "somebody tidegate-status");

    // The cluster's part: pods serve, the load balancer gives an address.
    let counts = r#"{"status":{"observedGeneration":1,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2}}"#;
    let patch = |object: &str, patch: &str| {
        world.kubectl(&[
            "--namespace=plant",
            "patch",
            object,
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        ]);
    };
    patch("deployment/mqtt", counts);
    world.condition("pgw/mqtt", "Ready", "LoadBalancerPending");
    patch("service/mqtt", r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.10"}]}}}"#);
    world.wait("pgw/mqtt", ".status.endpoints[0].url", "mqtt://192.0.2.10:1883");
    // No broker runs here, and the gateway says so.
    world.condition("pgw/mqtt", "Ready", "KafkaNotReady");
    assert_eq!(world.value("pgw/mqtt", ".status.readyReplicas"), "2");
}

fn drift_is_repaired(world: &World) {
    world.kubectl(&["--namespace=plant", "delete", "service", "mqtt", "--wait=false"]);
    world.wait("service/mqtt", ".spec.ports[0].port", "1883");
    let patch =
        r#"{"spec":{"replicas":9,"template":{"spec":{"containers":[{"name":"gateway","image":"evil"}]}}}}"#;
    world.kubectl(&["--namespace=plant", "patch", "deployment/mqtt", "-p", patch]);
    world.wait("deployment/mqtt", ".spec.replicas", "2");
    world.wait("deployment/mqtt", ".spec.template.spec.containers[0].image", "tidegate/gateway:latest");
    world.kubectl(&["--namespace=plant", "scale", "pgw/mqtt", "--replicas=3"]);
    world.wait("deployment/mqtt", ".spec.replicas", "3");
}

fn what_is_no_longer_declared_is_removed(world: &World) {
    world.apply(&gateway("many", &json!({"expose": {"addresses": 3}})));
    world.wait("service/many-3", ".spec.type", "LoadBalancer");
    world.apply(&gateway("many", &json!({"expose": {"type": "ClusterIP"}})));
    world.wait("service/many-3", ".spec.type", "");
    world.wait("service/many-2", ".spec.type", "");
    world.wait("service/many", ".spec.type", "ClusterIP");
    world.wait("pgw/many", ".status.endpoints[*].url", "mqtt://many.plant.svc:1883");
}

fn autoscaling_leaves_the_replicas_to_scale(world: &World) {
    world.apply(&gateway("grows", &json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 5}})));
    world.wait("deployment/grows", ".spec.replicas", "2");
    // This API server keeps tolerances, and the scaler is as it was applied.
    world.wait("hpa/grows", ".spec.behavior.scaleDown.tolerance", "572m");
    world.wait("hpa/grows", ".spec.behavior.scaleDown.stabilizationWindowSeconds", "300");
    // No scaler's controller runs here.
    world.condition("pgw/grows", "ScalingLimited", "Progressing");
    // What the scaler writes is followed and never written back.
    world.kubectl(&["--namespace=plant", "scale", "pgw/grows", "--replicas=4"]);
    world.wait("deployment/grows", ".spec.replicas", "4");
    assert_eq!(world.value("pgw/grows", ".spec.replicas"), "4");
    let blind = r#"{"status":{"desiredReplicas":4,"currentMetrics":null,"conditions":[{"type":"ScalingActive","status":"False","reason":"FailedGetResourceMetric","message":"no metrics","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
    let patch = ["--namespace=plant", "patch", "hpa/grows", "--subresource=status", "--type=merge", "-p"];
    world.kubectl(&[&patch[..], &[blind]].concat());
    world.condition("pgw/grows", "ScalingLimited", "UseUnknown");
    world.apply(&gateway("grows", &json!({})));
    world.wait("hpa/grows", ".metadata.name", "");
    assert_eq!(
        world.value("deployment/grows", ".spec.replicas"),
        "4",
        "replicas stay where the scaler left them"
    );
}

fn foreign_objects_are_left_alone(world: &World) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken", "namespace": "plant"},
        "spec": {"ports": [{"name": "theirs", "port": 1883}]},
    }));
    world.apply(&gateway("taken", &json!({})));
    world.condition("pgw/taken", "Stalled", "ResourceConflict");
    assert_eq!(world.value("service/taken", ".spec.ports[0].name"), "theirs");
    world.kubectl(&["--namespace=plant", "annotate", "service/taken", "tidegate.io/adopt=true"]);
    world.wait("service/taken", ".spec.ports[0].name", "mqtt");
    world.condition("pgw/taken", "Stalled", "UpToDate");
}

fn paused_gateways_are_left_alone(world: &World) {
    world.kubectl(&["--namespace=plant", "annotate", "pgw/many", "tidegate.io/paused=true"]);
    world.condition("pgw/many", "Reconciling", "Paused");
    world.kubectl(&["--namespace=plant", "delete", "deployment/many", "--wait=false"]);
    // The pass that this deletion brought has been done when the status no longer names an image.
    world.wait("pgw/many", ".status.effective.image", "");
    assert_eq!(world.value("deployment/many", ".metadata.name"), "");
    world.kubectl(&["--namespace=plant", "annotate", "pgw/many", "tidegate.io/paused-"]);
    world.wait("deployment/many", ".metadata.name", "many");
}

fn bad_input_is_told(world: &World) {
    world.apply(&gateway("lost", &json!({"platformRef": {"name": "nowhere"}})));
    world.condition("pgw/lost", "ResolvedRefs", "PlatformNotFound");
    let mut later = gateway("later", &json!({"coap": {"listeners": [{"name": "coap", "port": 5683}]}}));
    later["spec"].as_object_mut().unwrap().remove("mqtt");
    world.apply(&later);
    world.condition("pgw/later", "Accepted", "NotImplemented");
    world.apply(&json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet",
        "metadata": {"name": "meters", "namespace": "plant"},
        "spec": {"platformRef": {"name": "plant"}, "authentication": {"password": {}}},
    }));
    world.condition("dfl/meters", "Accepted", "Accepted");
    let events = ["--namespace=plant", "get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"];
    world.wait_until("Events tell as well", || {
        let reasons = world.kubectl(&events);
        ["PlatformNotFound", "NotImplemented", "ResourceConflict"]
            .iter()
            .all(|reason| reasons.contains(reason))
    });
}

fn conditions_are_metrics_of_the_leader(world: &World, leader: &Operator, standby: &Operator) {
    let shown = |operator: &Operator, text: &str| {
        operator.metrics().lines().any(|line| line.starts_with("tidegate_condition{") && line.contains(text))
    };
    let lost = "kind=\"ProtocolGateway\",namespace=\"plant\",name=\"lost\",";
    let stalled = format!("{lost}condition=\"Stalled\",status=\"True\",reason=\"PlatformNotFound\"}} 1");
    assert!(shown(leader, &stalled), "{}", leader.metrics());
    assert!(standby.metrics().contains("tidegate_leader 0") && !shown(standby, ""), "{}", standby.metrics());
    world.kubectl(&["--namespace=plant", "delete", "pgw", "lost"]);
    world.wait_until("nothing is told of what is gone", || !shown(leader, lost));
}

fn second_networks_are_made_inside_the_allow_list(world: &World) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/second-networks");
    world.kubectl(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", example]);
    let networks = |all: &Value| {
        let mut object = platform();
        object["spec"]["networks"] = all.clone();
        world.apply(&object);
    };
    let field = json!({"name": "field", "macvlan": {"master": "eth1"}, "ipam": {"dhcp": {}}});
    networks(&json!([field]));
    world.condition("iotp/plant", "ResolvedRefs", "MultusNotFound");
    world.apply(&gateway("wired", &json!({"networks": [{"ref": "field", "interface": "net1"}]})));
    world.condition("pgw/wired", "ResolvedRefs", "MultusNotFound");

    world.apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
        "spec": {"group": "k8s.cni.cncf.io", "scope": "Namespaced",
            "names": {"kind": "NetworkAttachmentDefinition", "plural": "network-attachment-definitions", "shortNames": ["net-attach-def"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}}}}}]},
    }));
    world.wait("net-attach-def/plant-field", ".metadata.ownerReferences[0].name", "plant");
    world.condition("pgw/wired", "ResolvedRefs", "ResolvedRefs");
    let annotation = ".spec.template.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/networks";
    let told = r#"[{"interface":"net1","name":"plant-field","namespace":"plant"}]"#;
    world.wait("deployment/wired", annotation, told);

    // Whoever deletes or changes it gets it back; what is refused or missing is named.
    world.kubectl(&["--namespace=plant", "delete", "net-attach-def", "plant-field"]);
    world.wait("net-attach-def/plant-field", ".metadata.ownerReferences[0].name", "plant");
    networks(&json!([field, {"name": "bus", "hostDevice": {"device": "eth2"}}]));
    world.condition("iotp/plant", "Accepted", "NotAllowed");
    networks(&json!([field, {"name": "theirs", "attachmentRef": {"name": "theirs"}}]));
    world.condition("iotp/plant", "ResolvedRefs", "AttachmentNotFound");
    world.apply(&json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "theirs", "namespace": "plant"}, "spec": {"config": "{}"},
    }));
    world.condition("iotp/plant", "ResolvedRefs", "ResolvedRefs");

    networks(&json!([]));
    world.wait("net-attach-def/plant-field", ".metadata.name", "");
    assert_eq!(world.value("net-attach-def/theirs", ".metadata.name"), "theirs");
    world.condition("pgw/wired", "ResolvedRefs", "NetworkNotFound");
    assert_eq!(world.value("deployment/wired", annotation), told, "nothing is torn down");
}

fn gateways_move_with_capabilities(world: &World) {
    let kubectl = |arguments: &[&str]| world.kubectl(&[&["--namespace=plant"], arguments].concat());
    let status = |object: &str, patch: &Value| {
        kubectl(&["patch", object, "--subresource=status", "--type=merge", "-p", &patch.to_string()]);
    };
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    for node in ["node-a", "node-b"] {
        world.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
        status(&format!("node/{node}"), &ready);
    }
    let label = "tidegate.io/capability.rs485";
    kubectl(&["label", "node", "node-a", &format!("{label}=true")]);
    world.apply(&gateway("placed", &json!({"placement": {"capabilities": ["rs485"]}})));
    world.wait("deployment/placed", ".spec.replicas", "1");
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "placed-1", "namespace": "plant", "labels": {
            "app.kubernetes.io/name": "tidegate-gateway", "app.kubernetes.io/instance": "placed", "tidegate.io/in-service": "true"}},
        "spec": {"nodeName": "node-a", "serviceAccountName": "placed-gateway", "containers": [{"name": "gateway", "image": "none"}]},
    }));
    status("pod/placed-1", &ready);
    let counts = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
    status("deployment/placed", &counts);

    kubectl(&["label", "node", "node-a", &format!("{label}-")]);
    world.condition("pgw/placed", "Reconciling", "CapabilityMissing");
    assert_eq!(world.value("pod/placed-1", ".metadata.deletionTimestamp"), "");
    kubectl(&["label", "node", "node-b", &format!("{label}=true")]);
    world.wait("deployment/placed", ".spec.replicas", "2");
    world.condition("pgw/placed", "Reconciling", "Moving");
    world.wait(
        "pod/placed-1",
        ".metadata.annotations.controller\\.kubernetes\\.io/pod-deletion-cost",
        "-1000000",
    );
    kubectl(&["label", "node", "node-a", &format!("{label}=true")]);
    world.wait("deployment/placed", ".spec.replicas", "1");
}
