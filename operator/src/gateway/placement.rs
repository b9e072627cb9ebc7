//! Where a gateway's pods belong: on nodes with the capabilities that it asks for, also when a node loses one. Pure.
//!
//! Kubernetes looks at a node's labels when it places a pod, and never again. A pod on a node that lost a label is moved
//! here: where more than one pod may run, a replacement serves before it goes (one replica more, and the misplaced pod
//! is the cheapest to delete); where only one may have an address or a device, it goes first, and only while a node that
//! works can take the next one.

use super::validate::Gateway;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::{labels, reasons};

/// Annotation on a pod: what its deletion costs. Kubernetes takes the cheapest first when it scales down.
pub const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The price of a misplaced pod.
pub const CHEAP: &str = "-1000000";

/// A node, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Whether it has all capabilities.
    pub capable: bool,
    /// Whether it has the labels of the node selector as well, is ready, not taken out by failover, takes pods, and has
    /// the devices free.
    pub open: bool,
}

/// A pod of the gateway that is not leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its node, if it has one.
    pub node: Option<String>,
    /// Whether it serves.
    pub serves: bool,
    /// Whether it is marked as the cheapest to delete.
    pub cheap: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether one replica more shall run.
    pub surge: bool,
    /// Pods to be marked as the cheapest to delete.
    pub mark: Vec<Tenant>,
    /// Pods to be deleted.
    pub delete: Vec<Tenant>,
    /// What is told: a constant of [`reasons`], and words.
    pub told: Option<(&'static str, String)>,
    /// Why no node takes a pod that waits for one, where capabilities are the reason.
    pub nowhere: Option<String>,
}

/// How the Deployment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Whether nothing of it is under way.
    pub settled: bool,
    /// Whether one replica more is declared already.
    pub surging: bool,
}

/// The labels that a node must have for a gateway's capabilities.
pub fn wanted(gateway: &Gateway) -> BTreeMap<String, String> {
    let all = gateway.capabilities.iter();
    all.map(|name| (format!("{}{name}", labels::CAPABILITY_PREFIX), "true".to_owned())).collect()
}

/// What a node is for a gateway. `taken` names nodes whose devices another pod has.
pub fn place(gateway: &Gateway, node: &Node, taken: &BTreeSet<String>) -> Place {
    let has = |wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| node.labels().get(key) == Some(value))
    };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    // Failover knows of a dead node long before it stops being ready.
    let out = node.labels().get(labels::IN_SERVICE).is_some_and(|value| value == "false");
    let name = node.name_any();
    let open = has(&gateway.node_selector) && ready && !out && !cordoned && !taken.contains(&name);
    Place { capable: has(&wanted(gateway)), open, name }
}

/// What a pod is here; nothing where it is leaving.
pub fn tenant(pod: &Pod) -> Option<Tenant> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    Some(Tenant {
        name: pod.name_any(),
        uid: pod.uid()?,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        serves: ready && labels::is_true(pod.labels().get(labels::IN_SERVICE)),
        cheap: pod.annotations().get(COST).is_some_and(|cost| cost == CHEAP),
    })
}

/// Decides.
pub fn decide(gateway: &Gateway, places: &[Place], pods: &[Tenant], rollout: Rollout) -> Plan {
    let mut plan = Plan::default();
    let target = places.iter().find(|place| place.capable && place.open);
    if target.is_none() {
        plan.nowhere = Some(nowhere(gateway, places));
    }
    let lost = |pod: &&Tenant| {
        let place = places.iter().find(|place| Some(&place.name) == pod.node.as_ref());
        place.is_some_and(|place| !place.capable)
    };
    let (misplaced, well): (Vec<_>, Vec<_>) = pods.iter().partition(lost);
    let Some(first) = misplaced.first() else { return plan };
    let node = first.node.as_deref().unwrap_or_default();
    let labels = labels_text(gateway);
    let Some(target) = target else {
        let text = format!(
            "pod {} stays on {node}, which has {labels} no longer: {}",
            first.name,
            nowhere(gateway, places)
        );
        plan.told = Some((reasons::CAPABILITY_MISSING, text));
        return plan;
    };
    let text =
        format!("pod {} moves from {node}, which has {labels} no longer; {} has it", first.name, target.name);
    plan.told = Some((reasons::MOVING, text));
    if !rollout.settled {
        plan.surge = rollout.surging;
        return plan;
    }
    if gateway.is_exclusive() {
        // The next one can only start when this one has gone. One at a time.
        if well.iter().all(|pod| pod.serves) && misplaced.iter().skip(1).all(|pod| pod.serves) {
            plan.delete.push((*first).clone());
        }
        return plan;
    }
    let serving = pods.iter().filter(|pod| pod.serves).count();
    plan.mark = misplaced.iter().filter(|pod| pod.serves && !pod.cheap).map(|pod| (*pod).clone()).collect();
    plan.delete = misplaced.iter().filter(|pod| !pod.serves).map(|pod| (*pod).clone()).collect();
    // With one more than declared the cheapest one goes; before that the one more has to serve.
    plan.surge = misplaced.iter().any(|pod| pod.serves)
        && serving <= usize::try_from(gateway.replicas).unwrap_or_default();
    plan
}

fn labels_text(gateway: &Gateway) -> String {
    let all: Vec<_> = wanted(gateway).iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(",")
}

/// Why no node can take a pod, and what to do.
fn nowhere(gateway: &Gateway, places: &[Place]) -> String {
    let labels = labels_text(gateway);
    let closed: Vec<_> =
        places.iter().filter(|place| place.capable).map(|place| place.name.as_str()).collect();
    let command = format!("kubectl label node <node> {}", labels.replace(',', " "));
    if closed.is_empty() {
        return format!("no node has {labels}: set it on one that can do this, {command}");
    }
    format!(
        "no node that works and has room has {labels} ({} has it and is not ready, cordoned, taken, or not what spec.placement.nodeSelector asks for): {command}",
        closed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::networks::Interface;
    use crate::gateway::samples::gateway;
    use serde_json::json;

    const SETTLED: Rollout = Rollout { settled: true, surging: false };

    fn asks() -> Gateway {
        gateway(", placement: {capabilities: [rs485]}")
    }

    fn at(name: &str, capable: bool) -> Place {
        Place { name: name.to_owned(), capable, open: true }
    }

    fn pod(name: &str, node: &str, serves: bool) -> Tenant {
        let (name, uid) = (name.to_owned(), format!("uid-{name}"));
        Tenant {
            name,
            uid,
            node: Some(node.to_owned()).filter(|node| !node.is_empty()),
            serves,
            cheap: false,
        }
    }

    fn names(pods: &[Tenant]) -> Vec<&str> {
        pods.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn pods_where_they_belong_stay() {
        let plan = decide(&asks(), &[at("a", true)], &[pod("x", "a", true), pod("y", "", false)], SETTLED);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn a_replacement_serves_before_a_misplaced_pod_goes() {
        let (gateway, places) = (asks(), [at("a", false), at("b", true)]);
        let mut pods = vec![pod("x", "a", true), pod("y", "a", true)];
        let plan = decide(&gateway, &places, &pods, SETTLED);
        assert!(plan.surge && plan.delete.is_empty());
        assert_eq!(names(&plan.mark), ["x", "y"]);
        assert_eq!(plan.told.as_ref().unwrap().0, "Moving");
        for pod in &mut pods {
            pod.cheap = true;
        }
        pods.push(pod("z", "b", false));
        let plan = decide(&gateway, &places, &pods, SETTLED);
        assert!(plan.surge && plan.mark.is_empty(), "the new one does not serve yet");
        pods[2].serves = true;
        assert!(!decide(&gateway, &places, &pods, SETTLED).surge, "now the cheapest one goes");
        pods.remove(0);
        assert!(decide(&gateway, &places, &pods, SETTLED).surge, "and the next one moves");
    }

    #[test]
    fn a_misplaced_pod_that_does_not_serve_is_deleted_at_once() {
        let pods = [pod("x", "a", false), pod("y", "b", true)];
        let plan = decide(&asks(), &[at("a", false), at("b", true)], &pods, SETTLED);
        assert_eq!((names(&plan.delete), plan.surge), (vec!["x"], false));
    }

    #[test]
    fn without_another_node_a_pod_stays_and_the_label_is_named() {
        let pods = [pod("x", "a", true)];
        let plan = decide(&asks(), &[at("a", false), at("b", false)], &pods, SETTLED);
        assert!(!plan.surge && plan.delete.is_empty() && plan.mark.is_empty());
        let (reason, text) = plan.told.unwrap();
        assert_eq!(reason, "CapabilityMissing");
        assert!(text.starts_with("pod x stays on a"), "{text}");
        assert!(text.ends_with("kubectl label node <node> tidegate.io/capability.rs485=true"), "{text}");
        let closed = Place { open: false, ..at("b", true) };
        let plan = decide(&asks(), &[at("a", false), closed], &pods, SETTLED);
        assert!(plan.told.unwrap().1.contains("(b has it and is not ready"));
    }

    #[test]
    fn what_only_one_pod_may_have_is_let_go_first_and_only_where_the_next_one_finds_a_place() {
        let mut gateway = asks();
        gateway.replicas = 1;
        gateway.interfaces = vec![Interface { devices: vec!["eth2".to_owned()], ..Interface::default() }];
        let pods = [pod("x", "a", true)];
        let plan = decide(&gateway, &[at("a", false), at("b", true)], &pods, SETTLED);
        assert_eq!((names(&plan.delete), plan.surge), (vec!["x"], false));
        let plan =
            decide(&gateway, &[at("a", false), Place { open: false, ..at("b", true) }], &pods, SETTLED);
        assert!(plan.delete.is_empty());
        gateway.replicas = 2;
        let pods = [pod("x", "a", true), pod("y", "b", false)];
        let plan = decide(&gateway, &[at("a", false), at("b", true), at("c", true)], &pods, SETTLED);
        assert!(plan.delete.is_empty(), "the other one does not serve");
    }

    #[test]
    fn while_a_rollout_is_under_way_nothing_is_begun_and_nothing_is_taken_back() {
        let (gateway, places) = (asks(), [at("a", false), at("b", true)]);
        let pods = [pod("x", "a", true), pod("y", "a", false)];
        for surging in [false, true] {
            let plan = decide(&gateway, &places, &pods, Rollout { settled: false, surging });
            assert_eq!(plan.surge, surging);
            assert!(plan.delete.is_empty() && plan.mark.is_empty());
        }
    }

    #[test]
    fn a_node_counts_with_its_labels_and_only_while_it_takes_pods() {
        let gateway = asks();
        let node = |labels: serde_json::Value, ready: &str, cordoned: bool| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "a", "labels": labels}, "spec": {"unschedulable": cordoned},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
            )
            .unwrap()
        };
        let label = json!({"tidegate.io/capability.rs485": "true"});
        let free = BTreeSet::new();
        assert_eq!(place(&gateway, &node(label.clone(), "True", false), &free), at("a", true));
        assert!(!place(&gateway, &node(label.clone(), "Unknown", false), &free).open);
        assert!(!place(&gateway, &node(label.clone(), "True", true), &free).open);
        assert!(!place(&gateway, &node(label, "True", false), &["a".to_owned()].into()).open);
        let off = json!({"tidegate.io/capability.rs485": "true", "tidegate.io/in-service": "false"});
        let off = place(&gateway, &node(off, "True", false), &free);
        assert!(off.capable && !off.open, "failover has taken it out");
        assert!(
            !place(&gateway, &node(json!({"tidegate.io/capability.rs485": "false"}), "True", false), &free)
                .capable
        );
    }

    proptest::proptest! {
        #[test]
        fn no_plan_takes_a_serving_pod_that_nothing_can_replace(
            nodes in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY), 1..4),
            pods in proptest::collection::vec((0_usize..4, proptest::bool::ANY, proptest::bool::ANY), 0..6),
            replicas in 0_i32..5,
            flags in (proptest::bool::ANY, proptest::bool::ANY, proptest::bool::ANY),
        ) {
            let (exclusive, settled, surging) = flags;
            let mut gateway = asks();
            gateway.replicas = replicas;
            if exclusive {
                gateway.interfaces = vec![Interface { devices: vec!["eth2".to_owned()], ..Interface::default() }];
            }
            let places: Vec<_> = nodes.iter().enumerate()
                .map(|(index, (capable, open))| Place { name: format!("n{index}"), capable: *capable, open: *open })
                .collect();
            let pods: Vec<_> = pods.iter().enumerate()
                .map(|(index, (node, serves, cheap))| Tenant { cheap: *cheap, ..pod(&format!("p{index}"), &format!("n{node}"), *serves) })
                .collect();
            let plan = decide(&gateway, &places, &pods, Rollout { settled, surging });
            let target = places.iter().any(|place| place.capable && place.open);
            let lost = |pod: &Tenant| places.iter().any(|place| Some(&place.name) == pod.node.as_ref() && !place.capable);
            let idle = plan.delete.is_empty() && plan.mark.is_empty() && !plan.surge;
            proptest::prop_assert!(target || idle, "nothing is begun without a node to go to");
            proptest::prop_assert!(plan.delete.iter().chain(&plan.mark).all(lost), "only misplaced pods are touched");
            proptest::prop_assert!(plan.delete.iter().all(|pod| !pod.serves || exclusive));
            proptest::prop_assert!(!exclusive || plan.delete.len() <= 1 && !(settled && plan.surge));
            // The replica more is given up only when so many serve that one may go, or when none is misplaced.
            let serving = pods.iter().filter(|pod| pod.serves).count();
            let misplaced = pods.iter().any(|pod| pod.serves && lost(pod));
            if target && settled && !exclusive && misplaced && !plan.surge {
                proptest::prop_assert!(serving > usize::try_from(replicas).unwrap());
            }
        }
    }
}
