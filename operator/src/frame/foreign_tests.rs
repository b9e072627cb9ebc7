//! What is foreign in an object, and what is not.

#![allow(clippy::needless_pass_by_value, reason = "`json!` at each call")]

use super::*;
use serde_json::json;

/// A Deployment of ours: one container with one variable, one port and one mount.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "mqtt", "resourceVersion": "7", "annotations": {"theirs": "x"}, "managedFields": [entry("tidegate", "Apply", json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"gateway\"}": {
                    ".": {}, "f:name": {}, "f:image": {},
                    "f:env": {"k:{\"name\":\"POD_NAME\"}": {".": {}, "f:name": {}, "f:value": {}}},
                    "f:securityContext": {"f:readOnlyRootFilesystem": {}},
                }}, "f:tolerations": {}},
            }},
        }))]},
        "spec": {"replicas": 2, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [{"name": "gateway", "image": "i", "env": [{"name": "POD_NAME", "value": "p"}],
                    "securityContext": {"readOnlyRootFilesystem": true}, "terminationMessagePath": "/dev/termination-log"}],
                "tolerations": [{"key": "x"}], "dnsPolicy": "ClusterFirst",
            },
        }},
    })
}

fn entry(manager: &str, operation: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
}

/// Somebody sets something, and the API server notes it.
fn set(object: &mut Value, pointer: &str, value: Value, manager: &str, fields: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(list) => list.insert(key.parse().unwrap(), value),
        other => other[key] = value,
    }
    let managers = object["metadata"]["managedFields"].as_array_mut().unwrap();
    managers.push(entry(manager, "Update", fields));
}

fn find_in(object: &Value) -> Option<Removal> {
    removal(&serde_json::from_value(object.clone()).unwrap())
}

fn fields(object: &Value) -> Vec<String> {
    find_in(object).map(|removal| removal.fields).unwrap_or_default()
}

/// The object after the patch.
fn cleaned(object: &Value) -> Value {
    let mut after = object.clone();
    json_patch::patch(&mut after, &find_in(object).unwrap().patch).unwrap();
    after
}

const POD: &str = "/spec/template/spec";

fn in_pod(fields: Value) -> Value {
    json!({"f:spec": {"f:template": {"f:spec": fields}}})
}

#[test]
fn what_the_operator_and_the_defaults_set_stays() {
    assert_eq!(find_in(&deployment()), None);
}

#[test]
fn containers_volumes_variables_and_scalars_of_others_go_and_nothing_else() {
    let mut object = deployment();
    let sidecar = json!({"f:containers": {"k:{\"name\":\"aaa\"}": {".": {}, "f:name": {}, "f:image": {}}}});
    set(
        &mut object,
        &format!("{POD}/containers/0"),
        json!({"name": "aaa", "image": "x"}),
        "kubectl-edit",
        in_pod(sidecar),
    );
    let volumes = json!({"f:volumes": {".": {}, "k:{\"name\":\"host\"}": {".": {}, "f:name": {}}}});
    set(
        &mut object,
        &format!("{POD}/volumes"),
        json!([{"name": "host", "hostPath": {"path": "/"}}]),
        "kubectl-edit",
        in_pod(volumes),
    );
    let env = json!({"f:containers": {"k:{\"name\":\"gateway\"}": {"f:env": {"k:{\"name\":\"LD_PRELOAD\"}": {".": {}, "f:name": {}, "f:value": {}}}}}});
    set(
        &mut object,
        &format!("{POD}/containers/1/env/0"),
        json!({"name": "LD_PRELOAD", "value": "x"}),
        "evil",
        in_pod(env),
    );
    let privileged =
        json!({"f:containers": {"k:{\"name\":\"gateway\"}": {"f:securityContext": {"f:privileged": {}}}}});
    set(
        &mut object,
        &format!("{POD}/containers/1/securityContext/privileged"),
        true.into(),
        "evil",
        in_pod(privileged),
    );
    set(
        &mut object,
        &format!("{POD}/hostNetwork"),
        true.into(),
        "evil",
        in_pod(json!({"f:hostNetwork": {}})),
    );
    assert_eq!(
        fields(&object),
        [
            "spec.template.spec.containers[aaa]",
            "spec.template.spec.containers[gateway].env[LD_PRELOAD]",
            "spec.template.spec.containers[gateway].securityContext.privileged",
            "spec.template.spec.hostNetwork",
            "spec.template.spec.volumes",
        ]
    );
    assert_eq!(cleaned(&object)["spec"], deployment()["spec"]);
}

#[test]
fn a_restart_stays_and_other_annotations_of_pods_go() {
    let mut object = deployment();
    let annotations =
        json!({"kubectl.kubernetes.io/restartedAt": "now", "k8s.v1.cni.cncf.io/networks": "host"});
    let owned = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {
        ".": {}, "f:kubectl.kubernetes.io/restartedAt": {}, "f:k8s.v1.cni.cncf.io/networks": {}}}}}});
    set(&mut object, "/spec/template/metadata/annotations", annotations, "kubectl-rollout", owned);
    assert_eq!(fields(&object), ["spec.template.metadata.annotations[k8s.v1.cni.cncf.io/networks]"]);
    let left = cleaned(&object)["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(left, json!({"kubectl.kubernetes.io/restartedAt": "now"}));
}

#[test]
fn what_admission_adds_to_our_own_request_stays() {
    let mut object = deployment();
    let injected = json!({"f:containers": {"k:{\"name\":\"mesh\"}": {".": {}, "f:name": {}}}});
    set(
        &mut object,
        &format!("{POD}/containers/1"),
        json!({"name": "mesh"}),
        "tidegate",
        in_pod(injected.clone()),
    );
    assert_eq!(find_in(&object), None);
    // Also when somebody else's request brought it again.
    object["metadata"]["managedFields"].as_array_mut().unwrap().push(entry(
        "other",
        "Update",
        in_pod(injected),
    ));
    assert_eq!(find_in(&object), None);
}

#[test]
fn metadata_status_and_subresources_are_others_business_too() {
    let mut object = deployment();
    let managers = object["metadata"]["managedFields"].as_array_mut().unwrap();
    managers.push(entry(
        "somebody",
        "Update",
        json!({"f:metadata": {"f:annotations": {"f:theirs": {}}}, "f:status": {"f:replicas": {}}}),
    ));
    let mut scale = entry("scaler", "Update", json!({"f:spec": {"f:paused": {}}}));
    scale["subresource"] = "scale".into();
    managers.push(scale);
    object["spec"]["paused"] = true.into();
    assert_eq!(find_in(&object), None);
}

#[test]
fn what_a_cluster_gives_a_service_stays_and_what_opens_or_closes_it_goes() {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "mqtt", "resourceVersion": "7", "managedFields": [
            entry("tidegate", "Apply", json!({"f:spec": {"f:type": {}, "f:ports": {"k:{\"port\":1883,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})),
            entry("other", "Update", json!({"f:spec": {"f:clusterIP": {}, "f:loadBalancerIP": {}, "f:externalIPs": {}, "f:loadBalancerSourceRanges": {},
                "f:ports": {"k:{\"port\":1883,\"protocol\":\"TCP\"}": {"f:nodePort": {}}, "k:{\"port\":22,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})),
        ]},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "loadBalancerIP": "192.0.2.1", "externalIPs": ["192.0.2.2"],
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "ports": [{"port": 1883, "protocol": "TCP", "nodePort": 30000}, {"port": 22, "protocol": "TCP"}]},
    });
    assert_eq!(fields(&object), ["spec.externalIPs", "spec.loadBalancerSourceRanges", "spec.ports[22 TCP]"]);
}

#[test]
fn the_patch_is_for_the_version_that_was_looked_at() {
    let mut object = deployment();
    set(&mut object, &format!("{POD}/hostPID"), true.into(), "evil", in_pod(json!({"f:hostPID": {}})));
    let patch = serde_json::to_value(find_in(&object).unwrap().patch).unwrap();
    assert_eq!(
        patch,
        json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}, {"op": "remove", "path": "/spec/template/spec/hostPID"}])
    );
}

#[test]
fn an_account_may_get_pull_secrets() {
    let object = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "mqtt-gateway", "resourceVersion": "7",
            "managedFields": [entry("admin", "Update", json!({"f:imagePullSecrets": {".": {}}}))]},
        "imagePullSecrets": [{"name": "registry"}],
    });
    assert_eq!(find_in(&object), None);
}

#[test]
fn where_both_cannot_stand_the_content_becomes_what_is_wanted_and_a_restart_stays() {
    let mut live = deployment();
    live["spec"]["template"]["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/restartedAt": "now", "theirs": "x"});
    live["spec"]["paused"] = true.into();
    let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mqtt"},
        "spec": {"replicas": 3, "template": {"metadata": {"labels": {"a": "b"}}}}});
    let [before, wanted] = [live.clone(), wanted].map(|object| serde_json::from_value(object).unwrap());
    json_patch::patch(&mut live, &reset(&before, &wanted).unwrap()).unwrap();
    assert_eq!(
        live["spec"],
        json!({"replicas": 3, "template": {"metadata": {"labels": {"a": "b"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}})
    );
    assert_eq!(live["metadata"]["resourceVersion"], "7");
}
