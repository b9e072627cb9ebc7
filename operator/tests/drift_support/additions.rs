//! What others may add to objects of the operator's, as strategic merge patches (merge patches for custom resources).

use serde_json::{Value, json};

/// Additions to an object of this kind, each with a name.
pub fn additions(kind: &str) -> Vec<(String, Value)> {
    let named = |all: Vec<(&str, Value)>| {
        all.into_iter().map(|(name, patch)| (name.to_owned(), patch)).collect::<Vec<_>>()
    };
    match kind {
        "Deployment" => {
            let mut all = pod_template("gateway");
            all.extend(named(vec![
                ("spec.paused", json!({"spec": {"paused": true}})),
                ("spec.minReadySeconds", json!({"spec": {"minReadySeconds": 60}})),
            ]));
            all
        }
        "StatefulSet" => {
            let mut all = pod_template("kafka");
            all.extend(named(vec![("spec.minReadySeconds", json!({"spec": {"minReadySeconds": 600}}))]));
            all
        }
        "Service" => named(vec![
            ("spec.externalIPs", json!({"spec": {"externalIPs": ["192.0.2.99"]}})),
            (
                "spec.ports[22]",
                json!({"spec": {"ports": [{"name": "ssh", "port": 22, "protocol": "TCP", "targetPort": 22}]}}),
            ),
            ("spec.selector", json!({"spec": {"selector": {"nobody": "here"}}})),
            ("spec.sessionAffinity", json!({"spec": {"sessionAffinity": "ClientIP"}})),
            ("spec.internalTrafficPolicy", json!({"spec": {"internalTrafficPolicy": "Local"}})),
            ("spec.trafficDistribution", json!({"spec": {"trafficDistribution": "PreferClose"}})),
        ]),
        "HorizontalPodAutoscaler" => named(vec![(
            "spec.behavior.scaleUp.policies",
            json!({"spec": {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}}),
        )]),
        "ConfigMap" | "Secret" => named(vec![("data", json!({"data": {"theirs": "eA=="}}))]),
        "PodDisruptionBudget" => named(vec![(
            "spec.selector.matchLabels",
            json!({"spec": {"selector": {"matchLabels": {"nobody": "here"}}}}),
        )]),
        // Pull secrets on an account are an administrator's; the API server lets nobody add to a claim; an attachment has
        // room for nothing but its configuration.
        "ServiceAccount" | "PersistentVolumeClaim" | "NetworkAttachmentDefinition" => Vec::new(),
        "IPAddressPool" => named(vec![
            ("spec.addresses", json!({"spec": {"addresses": ["192.0.2.10-192.0.2.20", "198.51.100.0/24"]}})),
            ("spec.avoidBuggyIPs", json!({"spec": {"avoidBuggyIPs": true}})),
        ]),
        "L2Advertisement" => named(vec![("spec.interfaces", json!({"spec": {"interfaces": ["eth9"]}}))]),
        other => panic!("what may be added to a {other}?"),
    }
}

/// Additions to a pod template whose container has this name.
fn pod_template(container: &str) -> Vec<(String, Value)> {
    let pod = |name: &str, value: Value| {
        (
            format!("spec.template.spec.{name}"),
            json!({"spec": {"template": {"spec": {(name.to_owned()): value}}}}),
        )
    };
    let inside = |name: &str, mut value: Value| {
        value["name"] = container.into();
        (
            format!("spec.template.spec.containers[{container}].{name}"),
            json!({"spec": {"template": {"spec": {"containers": [value]}}}}),
        )
    };
    let meta = |name: &str, key: &str, value: &str| {
        (
            format!("spec.template.metadata.{name}[{key}]"),
            json!({"spec": {"template": {"metadata": {(name.to_owned()): {(key.to_owned()): value}}}}}),
        )
    };
    let other = json!([{"name": "theirs", "image": "busybox"}]);
    vec![
        pod("containers", other.clone()),
        pod("initContainers", other),
        pod("volumes", json!([{"name": "theirs", "hostPath": {"path": "/"}}])),
        pod("tolerations", json!([{"operator": "Exists"}])),
        pod("imagePullSecrets", json!([{"name": "theirs"}])),
        pod("hostAliases", json!([{"ip": "192.0.2.9", "hostnames": ["plant-kafka"]}])),
        pod(
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
        pod("nodeSelector", json!({"theirs": "x"})),
        pod("nodeName", json!("node1")),
        pod("hostNetwork", json!(true)),
        pod("hostPID", json!(true)),
        pod("hostIPC", json!(true)),
        pod("hostUsers", json!(false)),
        pod("hostname", json!("theirs")),
        pod("priorityClassName", json!("theirs")),
        pod("runtimeClassName", json!("theirs")),
        pod("schedulerName", json!("theirs")),
        pod("shareProcessNamespace", json!(true)),
        pod("dnsPolicy", json!("Default")),
        pod("dnsConfig", json!({"nameservers": ["192.0.2.53"]})),
        pod("readinessGates", json!([{"conditionType": "theirs.example/ready"}])),
        pod("overhead", json!({"cpu": "1"})),
        pod("securityContext", json!({"supplementalGroups": [0]})),
        pod("securityContext", json!({"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]})),
        pod(
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "theirs", "operator": "Exists"}]}]}}}),
        ),
        inside("volumeMounts", json!({"volumeMounts": [{"name": "config", "mountPath": "/theirs"}]})),
        inside("env", json!({"env": [{"name": "LD_PRELOAD", "value": "/theirs.so"}]})),
        inside("envFrom", json!({"envFrom": [{"secretRef": {"name": "theirs"}}]})),
        inside("ports", json!({"ports": [{"name": "theirs", "containerPort": 22, "hostPort": 22}]})),
        inside("args", json!({"args": ["--theirs"]})),
        inside("workingDir", json!({"workingDir": "/theirs"})),
        inside("lifecycle.postStart", json!({"lifecycle": {"postStart": {"exec": {"command": ["theirs"]}}}})),
        inside(
            "securityContext.capabilities.add",
            json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}),
        ),
        inside(
            "securityContext.runAsUser",
            json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false}}),
        ),
        inside("terminationMessagePath", json!({"terminationMessagePath": "/theirs"})),
        inside("resources.limits", json!({"resources": {"limits": {"ephemeral-storage": "1Mi"}}})),
        inside("stdin", json!({"stdin": true})),
        meta("labels", "theirs", "x"),
        meta("annotations", "k8s.v1.cni.cncf.io/networks", "theirs"),
    ]
}
