//! Why brokers' pods do not serve. Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt as _;
use std::collections::BTreeSet;
use tidegate_crds::labels::REPLACE_DISK;
use tidegate_crds::reasons;

/// Words with which the start script begins what it leaves in the pod's status.
const DISK: [&str; 3] = ["DiskEmpty:", "WrongDisk:", "FormatFailed:"];

/// The worst that is wrong with the brokers' pods: a reason and a message.
pub fn trouble(pods: &[Pod]) -> Option<(&'static str, String)> {
    let mut all: Vec<_> = pods.iter().filter_map(one).collect();
    // A disk needs a person; anything else may be on its way.
    all.sort_by_key(|(reason, _)| *reason != reasons::DISK_WRONG);
    all.into_iter().next()
}

/// Whether the pod waits on an empty disk and has said so.
pub fn is_on_empty_disk(pod: &Pod) -> bool {
    let containers = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    containers.filter(|container| !container.ready).any(|container| said(container).starts_with(DISK[0]))
}

/// Each ConfigMap that existing pods mount, old revisions' included.
pub fn mounted(pods: &[Pod]) -> BTreeSet<String> {
    let volumes =
        pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.config_map.as_ref()).map(|map| map.name.clone()).collect()
}

fn one(pod: &Pod) -> Option<(&'static str, String)> {
    let (name, status) = (pod.name_any(), pod.status.as_ref()?);
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        let why = condition.message.as_deref().unwrap_or("no node takes it");
        return Some((
            reasons::UNSCHEDULABLE,
            format!("no node takes pod {name}: {why}; each broker needs a node of its own with room for it"),
        ));
    }
    status.container_statuses.iter().flatten().find_map(|container| in_container(&name, container))
}

fn in_container(pod: &str, container: &ContainerStatus) -> Option<(&'static str, String)> {
    let (ended, said) = (ended(container), said(container));
    if !container.ready && DISK.iter().any(|word| said.starts_with(word)) {
        return Some((reasons::DISK_WRONG, format!("pod {pod}: {said}; {}", advice(pod, said))));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref() {
        Some(reason @ ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")) => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let text = format!(
                "pod {pod} cannot get image {} ({reason}{why}): correct spec.kafka.managed.image (empty: the operator's TIDEGATE_KAFKA_IMAGE), or let the node reach the registry",
                container.image
            );
            Some((reasons::IMAGE_PULL_FAILED, text))
        }
        Some("CrashLoopBackOff") => {
            let code = ended.map(|ended| format!(" with code {}", ended.exit_code)).unwrap_or_default();
            let said = if said.is_empty() { "its log says why" } else { said };
            Some((reasons::CRASH_LOOP, format!("pod {pod} ends again and again{code}: {said}")))
        }
        _ => None,
    }
}

/// How the container ended last.
fn ended(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    states.into_iter().flatten().find_map(|state| state.terminated.as_ref())
}

/// What it left behind then.
fn said(container: &ContainerStatus) -> &str {
    ended(container).and_then(|ended| ended.message.as_deref()).unwrap_or_default().trim()
}

fn advice(pod: &str, said: &str) -> String {
    if said.starts_with(DISK[0]) {
        let node = pod.rsplit_once('-').map_or("", |(_, node)| node);
        format!(
            "put the volume back that it had; where it is lost for good, give the IoTPlatform the annotation {REPLACE_DISK}: \"{node}\", and the disk is formatted and filled from the other brokers"
        )
    } else if said.starts_with("WrongDisk:") {
        "bind the claim to the volume of this node".to_owned()
    } else {
        "look at the pod's log".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str) -> Pod {
        let json = format!(r#"{{"metadata": {{"name": "plant-kafka-0"}}, "status": {status}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_empty_disk_comes_before_everything_else() {
        let pending = pod(
            r#"{"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}"#,
        );
        let empty = pod(
            r#"{"containerStatuses": [{"name": "kafka", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": "DiskEmpty: the disk of node 0 is empty\n"}}}]}"#,
        );
        let (reason, message) = trouble(&[pending.clone(), empty]).unwrap();
        assert_eq!(reason, "DiskWrong");
        assert!(message.contains("tidegate.io/replace-disk: \"0\""), "{message}");
        let (reason, message) = trouble(&[pending]).unwrap();
        assert_eq!(reason, "Unschedulable");
        assert!(message.contains("0/2 nodes") && message.contains("a node of its own"), "{message}");
    }

    #[test]
    fn an_image_that_cannot_be_had_is_named_with_the_reason() {
        let waiting = pod(
            r#"{"containerStatuses": [{"name": "kafka", "image": "example/kafka:9", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}"#,
        );
        let (reason, message) = trouble(&[waiting]).unwrap();
        assert_eq!(reason, "ImagePullFailed");
        assert!(message.contains("image example/kafka:9 (ErrImagePull: not found)"), "{message}");
        assert!(message.contains("spec.kafka.managed.image"), "{message}");
    }

    #[test]
    fn a_pod_that_starts_is_no_trouble() {
        let starting = pod(
            r#"{"containerStatuses": [{"name": "kafka", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"running": {}}}]}"#,
        );
        assert_eq!(trouble(&[starting]), None);
    }
}
