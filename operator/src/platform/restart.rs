//! Brokers' pods that still run an older revision. The StatefulSet is `OnDelete`: this version restarts no broker by
//! itself, so a person must be told which are behind, and how to go on. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// The label in which the StatefulSet's controller says which revision a pod was made from.
const REVISION: &str = "controller-revision-hash";

/// What to do where pods run an older revision than the StatefulSet's newest; nothing where none does.
pub fn pending(set: &StatefulSet, pods: &[Pod], ready: bool) -> Option<String> {
    let newest = set.status.as_ref()?.update_revision.as_deref()?;
    let behind = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.labels().get(REVISION).is_some_and(|revision| revision != newest)
    };
    let mut behind: Vec<_> = pods.iter().filter(behind).collect();
    behind.sort_by_key(|pod| pod.name_any());
    // A broker that serves nobody costs nothing.
    let broken = behind.iter().find(|pod| !serves(pod));
    let next = broken.or_else(|| behind.first())?.name_any();
    let names: Vec<_> = behind.iter().map(|pod| pod.name_any()).collect();
    let delete = format!("kubectl delete pod {next} -n {}", set.namespace().unwrap_or_default());
    let go_on = match (ready, broken) {
        (true, _) => {
            format!("delete one pod at a time ({delete}), and wait until the platform is Ready in between")
        }
        (false, Some(_)) => {
            format!(
                "delete this one first, which does not serve ({delete}), then wait until the platform is Ready"
            )
        }
        (false, None) => format!("wait until the platform is Ready, then delete the next one ({delete})"),
    };
    Some(format!(
        "{} {} with an older image, configuration or resources than declared, and this version of Tidegate restarts no broker by itself: {go_on}",
        names.join(", "),
        if names.len() == 1 { "runs" } else { "run" },
    ))
}

fn serves(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        let set = json!({"metadata": {"name": "plant-kafka", "namespace": "iot"}, "spec": {"selector": {}, "template": {}},
            "status": {"replicas": 3, "updateRevision": "new"}});
        serde_json::from_value(set).unwrap()
    }

    fn pod(node: i32, revision: &str, ready: &str) -> Pod {
        let pod = json!({
            "metadata": {"name": format!("plant-kafka-{node}"), "labels": {REVISION: revision}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_pods_that_are_behind_and_the_next_step_are_named() {
        let pods = [pod(2, "old", "True"), pod(1, "new", "True"), pod(0, "older", "True")];
        let said = pending(&set(), &pods, true).unwrap();
        assert!(said.starts_with("plant-kafka-0, plant-kafka-2 run with an older "), "{said}");
        assert!(said.contains("(kubectl delete pod plant-kafka-0 -n iot)"), "{said}");
        assert!(said.contains("one pod at a time") && said.contains("Ready in between"), "{said}");
        assert_eq!(pending(&set(), &pods[1..2], true), None);
    }

    #[test]
    fn in_between_one_waits_but_a_broken_broker_comes_first() {
        let said = pending(&set(), &[pod(0, "new", "False"), pod(1, "old", "True")], false).unwrap();
        assert!(said.contains(": wait until the platform is Ready, then"), "{said}");
        let pods = [pod(0, "old", "True"), pod(1, "old", "False")];
        let said = pending(&set(), &pods, false).unwrap();
        assert!(
            said.contains("first, which does not serve (kubectl delete pod plant-kafka-1 -n iot)"),
            "{said}"
        );
    }

    #[test]
    fn a_pod_that_is_going_is_not_asked_for_again() {
        let mut going = pod(0, "old", "True");
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(pending(&set(), &[going], true), None);
    }
}
