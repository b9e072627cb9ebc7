//! The operator's rights, in one list; the manifests are generated from it. Pure.
//!
//! Server-side apply needs `create` and `patch`. A right that no code uses is a defect.

use crate::failover::watch::LEASES;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::ObjectMeta;

/// The name of everything that the operator itself consists of.
pub const NAME: &str = "tidegate-operator";
/// The namespace of the operator.
pub const NAMESPACE: &str = "tidegate-system";

/// One right and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// The API group.
    pub group: &'static str,
    /// The resources.
    pub resources: &'static [&'static str],
    /// What may be done with them.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const READ: &[&str] = &["get", "list", "watch"];
const KEEP: &[&str] = &["get", "list", "watch", "create", "patch"];

/// What the operator may do in the namespaces it works in.
pub const WORK: &[Right] = &[
    Right {
        group: "tidegate.io",
        resources: &["devicefleets", "iotplatforms", "protocolgateways", "topics"],
        verbs: READ,
        why: "what people declare",
    },
    Right {
        group: "tidegate.io",
        resources: &[
            "devicefleets/status",
            "iotplatforms/status",
            "protocolgateways/status",
            "topics/status",
        ],
        verbs: &["patch"],
        why: "how it is",
    },
    Right {
        group: "tidegate.io",
        resources: &["iotplatforms", "topics"],
        verbs: &["patch"],
        why: "finalizers, where a deletion has to do something outside Kubernetes' own garbage collection",
    },
    Right {
        group: "",
        resources: &["configmaps", "secrets", "serviceaccounts", "services"],
        verbs: KEEP,
        why: "children of platforms and gateways; Secrets hold Kafka's certificates, and what fleets and gateways refer to: devices' passwords and authorities, listeners' certificates",
    },
    Right {
        group: "",
        resources: &["configmaps", "services"],
        verbs: &["delete"],
        why: "those that are no longer built; everything else but scalers goes with its owner",
    },
    Right {
        group: "",
        resources: &["persistentvolumeclaims"],
        verbs: KEEP,
        why: "brokers' volumes; never deleted",
    },
    Right {
        group: "",
        resources: &["pods"],
        verbs: &["list", "delete"],
        why: "why a pod does not serve; brokers that restart one at a time, gateways on dead nodes",
    },
    Right {
        group: "",
        resources: &["pods"],
        verbs: &["watch", "patch"],
        why: "brokers that wait; failover: which pods a node holds, and gateways are taken out of their Services",
    },
    Right {
        group: "apps",
        resources: &["deployments", "statefulsets"],
        verbs: KEEP,
        why: "gateways and brokers",
    },
    Right {
        group: "apps",
        resources: &["replicasets"],
        verbs: &["list"],
        why: "which configuration some revision still uses",
    },
    Right {
        group: "autoscaling",
        resources: &["horizontalpodautoscalers"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        why: "gateways with autoscaling; removed where it is no longer wanted",
    },
    Right {
        group: "",
        resources: &["events"],
        verbs: &["list"],
        why: "why a pod was not given its networks",
    },
    Right {
        group: "k8s.cni.cncf.io",
        resources: &["network-attachment-definitions"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        why: "second networks: those that exist are read, those inside the allow-list are made",
    },
    Right { group: "policy", resources: &["poddisruptionbudgets"], verbs: KEEP, why: "one pod at a time" },
    Right { group: "events.k8s.io", resources: &["events"], verbs: &["create", "patch"], why: "Events" },
    Right {
        group: "metallb.io",
        resources: &["ipaddresspools", "l2advertisements"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        why: "address pools: those that exist are read, those inside the allow-list are made",
    },
    Right {
        group: "metallb.io",
        resources: &["bgpadvertisements"],
        verbs: &["list"],
        why: "failover: whether a pool is announced in another way than ours",
    },
];

/// What the operator may do in its own namespace.
pub const LEAD: &[Right] = &[
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["get", "create", "update"],
        why: "which replica leads",
    },
    Right {
        group: "",
        resources: &["configmaps"],
        verbs: &["get", "list", "watch", "create", "update"],
        why: "failover: the record of nodes that are out, which replicas share",
    },
];

/// What failover and placement need of the cluster itself; without it failover is off, and gateways do not move when a
/// node loses a capability.
pub const NODES: &[Right] = &[
    Right {
        group: "",
        resources: &["nodes"],
        verbs: &["list", "watch"],
        why: "which nodes there are, and what they can do",
    },
    Right {
        group: "",
        resources: &["nodes"],
        verbs: &["patch"],
        why: "the label of nodes that are out, by which addresses move",
    },
];

/// What failover needs in the namespace of the nodes' leases.
pub const NODE_LEASES: &[Right] = &[Right {
    group: "coordination.k8s.io",
    resources: &["leases"],
    verbs: READ,
    why: "which nodes renew theirs",
}];

fn rules(rights: &[Right]) -> Vec<PolicyRule> {
    let texts = |all: &[&str]| Some(all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
    let rule = |right: &Right| PolicyRule {
        api_groups: texts(&[right.group]),
        resources: texts(right.resources),
        verbs: texts(right.verbs).unwrap_or_default(),
        ..PolicyRule::default()
    };
    rights.iter().map(rule).collect()
}

/// The role for the namespaces that the operator works in.
pub fn cluster_role() -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        rules: Some(rules(WORK)),
        aggregation_rule: None,
    }
}

/// The role for the operator's own namespace.
pub fn role() -> Role {
    namespaced(format!("{NAME}-leader"), NAMESPACE, LEAD)
}

/// The role for nodes.
pub fn nodes_role() -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta { name: Some(format!("{NAME}-nodes")), ..ObjectMeta::default() },
        rules: Some(rules(NODES)),
        aggregation_rule: None,
    }
}

/// The role for the nodes' leases.
pub fn node_leases_role() -> Role {
    namespaced(format!("{NAME}-nodes"), LEASES, NODE_LEASES)
}

fn namespaced(name: String, namespace: &str, rights: &[Right]) -> Role {
    Role {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        rules: Some(rules(rights)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_is_a_wildcard_and_none_is_for_rights_themselves() {
        for right in WORK.iter().chain(LEAD).chain(NODES).chain(NODE_LEASES) {
            let all = right.resources.iter().chain(right.verbs).chain([&right.group]);
            assert!(all.clone().all(|text| !text.contains('*')), "{right:?}");
            assert!(!right.group.starts_with("rbac"), "{right:?}");
            assert!(!right.why.is_empty(), "{right:?}");
            let risky = ["escalate", "bind", "impersonate", "deletecollection"];
            assert!(right.verbs.iter().all(|verb| !risky.contains(verb)), "{right:?}");
        }
    }
}
