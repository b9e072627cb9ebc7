//! What is said about a gateway. Pure.

use super::fetch::{Observed, Platform};
use super::validate::Gateway;
use super::{names, scaler};
use crate::frame::Cycle;
use crate::network::given;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Service};
use kube::ResourceExt as _;
use tidegate_crds::conditions::SCALING_LIMITED;
use tidegate_crds::gateway::{Endpoint, ExposeType, GatewayEffective, MAX_ENDPOINTS, Via};
use tidegate_crds::{ProtocolGateway, State, reasons};

/// Whether a gateway works, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it works as declared.
    pub ready: bool,
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What is still being done, if anything.
    pub progress: Option<String>,
}

/// Writes everything into the status.
pub fn write(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &Gateway,
    platform: &Platform,
    observed: &Observed,
) {
    let counts = observed.deployment.as_ref().and_then(|all| all.status.clone()).unwrap_or_default();
    cycle.status.replicas = counts.replicas.unwrap_or(0);
    cycle.status.ready_replicas = counts.ready_replicas.unwrap_or(0);
    cycle.status.endpoints = endpoints(gateway, observed);
    let image = observed.deployment.as_ref().and_then(image);
    cycle.status.effective = image.map(|image| GatewayEffective { image });
    scaling(cycle, gateway, observed);
    let verdict = verdict(gateway, platform, observed);
    cycle.ready(verdict.ready.into(), verdict.reason, verdict.message);
    if let Some(text) = verdict.progress {
        let reason = if verdict.ready { reasons::PROGRESSING } else { verdict.reason };
        cycle.progressing(reason, text);
    }
}

/// Says how far autoscaling does what was declared; an Event tells what limits it once.
fn scaling(cycle: &mut Cycle<ProtocolGateway>, gateway: &Gateway, observed: &Observed) {
    let Some(standing) = scaler::standing(gateway, observed.scaler.as_ref()) else {
        cycle.status.conditions.remove(SCALING_LIMITED);
        return;
    };
    let before = cycle.status.conditions.get(SCALING_LIMITED).map(|before| before.reason.clone());
    if standing.limited == State::True && before.is_none_or(|before| before != standing.reason) {
        cycle.note(true, standing.reason, standing.message.as_str());
    }
    cycle.set(SCALING_LIMITED, standing.limited, standing.reason, standing.message);
}

fn image(deployment: &Deployment) -> Option<String> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
}

/// Judges a gateway: its pods first, then its addresses, then Kafka behind it.
pub fn verdict(gateway: &Gateway, platform: &Platform, observed: &Observed) -> Verdict {
    let rollout = observed.deployment.as_ref().and_then(|all| rollout(gateway, all));
    let not_ready = |reason, message: String| Verdict {
        ready: false,
        reason,
        progress: Some(rollout.clone().unwrap_or_else(|| message.clone())),
        message,
    };
    let counts = observed.deployment.as_ref().and_then(|all| all.status.clone()).unwrap_or_default();
    let available = counts.available_replicas.unwrap_or(0);
    let mut serving = format!("{available} of {} replicas serve", gateway.replicas);
    let mut progress = rollout.clone();
    if available < gateway.replicas {
        let (reason, why) = observed
            .pods
            .iter()
            .find_map(|pod| trouble(pod, observed.nowhere.as_deref()))
            .or_else(|| observed.unplugged.clone())
            .unwrap_or((reasons::MINIMUM_REPLICAS_UNAVAILABLE, String::new()));
        if !why.is_empty() {
            serving = format!("{serving}: {why}");
        }
        if available < gateway.least() {
            return not_ready(reason, serving);
        }
        progress = Some(serving.clone());
    }
    if let Some(name) = unaddressed(gateway, &observed.services) {
        let from = match (&platform.pool, gateway.expose.address.as_str()) {
            (None, "") => "is a load balancer installed?".to_owned(),
            (None, fixed) => format!("is a load balancer installed, and is {fixed} free?"),
            (Some(pool), "") => format!("does pool {pool} exist and have a free address?"),
            (Some(pool), fixed) => format!("is {fixed} free and inside pool {pool}?"),
        };
        return not_ready(
            reasons::LOAD_BALANCER_PENDING,
            format!("Service {name} has no address yet: {from}"),
        );
    }
    let kafka = &platform.kafka;
    if kafka.brokers > 0 && kafka.brokers_ready * 2 <= kafka.brokers {
        let message = format!(
            "{} of {} Kafka brokers are ready: nothing is acknowledged until more are",
            kafka.brokers_ready, kafka.brokers
        );
        return not_ready(reasons::KAFKA_NOT_READY, message);
    }
    if gateway.replicas == 0 {
        let message = "no replica is wanted, so nothing serves: scale up to begin".to_owned();
        return Verdict { ready: true, reason: reasons::SCALED_TO_ZERO, message, progress: rollout };
    }
    Verdict { ready: true, reason: reasons::READY, message: serving, progress }
}

/// What a Deployment is still doing.
fn rollout(gateway: &Gateway, deployment: &Deployment) -> Option<String> {
    let counts = deployment.status.clone().unwrap_or_default();
    if counts.observed_generation < deployment.metadata.generation {
        return Some("a change of the Deployment is being taken up".to_owned());
    }
    let updated = counts.updated_replicas.unwrap_or(0);
    if updated < gateway.replicas {
        return Some(format!("{updated} of {} replicas are new", gateway.replicas));
    }
    let old = counts.replicas.unwrap_or(0) - updated;
    (old > 0).then(|| format!("{old} old replicas are leaving"))
}

/// What keeps a pod from serving, in words that say what to do.
fn trouble(pod: &Pod, nowhere: Option<&str>) -> Option<(&'static str, String)> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let unscheduled =
        status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let (Some(_), Some(why)) = (unscheduled, nowhere) {
        return Some((reasons::CAPABILITY_MISSING, format!("no node takes pod {name}: {why}")));
    }
    if let Some(condition) = unscheduled {
        let message = condition.message.clone().unwrap_or_default();
        return Some((reasons::UNSCHEDULABLE, format!("no node takes pod {name}: {message}")));
    }
    status.container_statuses.iter().flatten().find_map(|container| container_trouble(&name, container))
}

fn container_trouble(pod: &str, container: &ContainerStatus) -> Option<(&'static str, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let message = waiting.message.clone().unwrap_or_default();
    match waiting.reason.as_deref()? {
        reason @ ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") => {
            let text = format!("pod {pod} cannot get image {}: {reason} {message}", container.image);
            Some((reasons::IMAGE_PULL_FAILED, text.trim_end().to_owned()))
        }
        "CrashLoopBackOff" => {
            let end = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let code = end.map(|end| format!(" with code {}", end.exit_code)).unwrap_or_default();
            let text = format!(
                "pod {pod} ended {} times{code}: see kubectl logs {pod} --previous",
                container.restart_count
            );
            Some((reasons::CRASH_LOOP, text))
        }
        reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => Some((
            reasons::MINIMUM_REPLICAS_UNAVAILABLE,
            format!("pod {pod} cannot start: {reason} {message}"),
        )),
        _ => None,
    }
}

/// The first Service that should have an address and has none.
fn unaddressed(gateway: &Gateway, services: &[Service]) -> Option<String> {
    if gateway.expose.type_ != ExposeType::LoadBalancer {
        return None;
    }
    let missing =
        |name: &String| !services.iter().any(|one| one.name_any() == *name && address(one).is_some());
    names::services(gateway).into_iter().find(missing)
}

/// The address that the load balancer gave.
fn address(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    ingress.ip.clone().or_else(|| ingress.hostname.clone())
}

/// Where devices connect to.
pub fn endpoints(gateway: &Gateway, observed: &Observed) -> Vec<Endpoint> {
    let services = observed.services.iter().flat_map(|service| service_endpoints(gateway, service));
    let mut pods: Vec<_> = observed.pods.iter().collect();
    pods.sort_by_key(|pod| pod.name_any());
    let mut all: Vec<_> =
        services.chain(pods.into_iter().flat_map(|pod| pod_endpoints(gateway, pod))).collect();
    all.truncate(MAX_ENDPOINTS);
    all
}

/// What a pod's second interfaces were really given. There is no Service in between: ports are the process's.
fn pod_endpoints(gateway: &Gateway, pod: &Pod) -> Vec<Endpoint> {
    let given = given::read(pod);
    let mut all = Vec::new();
    for wanted in &gateway.attachments {
        let found = given.iter().filter(|given| given.interface == wanted.interface);
        let addresses = found.flat_map(|given| given.addresses().map(move |address| (given, address)));
        for (given, address) in addresses {
            all.extend(gateway.listeners.iter().map(|listener| Endpoint {
                name: wanted.interface.clone(),
                url: format!("{}://{address}:{}", scheme(gateway, listener), listener.container_port),
                via: Via::Network,
                network: Some(wanted.network.clone()),
                pod: Some(pod.name_any()),
                interface: Some(wanted.interface.clone()),
                mac: Some(given.mac.clone()).filter(|mac| !mac.is_empty()),
            }));
        }
    }
    all
}

fn scheme(gateway: &Gateway, listener: &super::validate::Listener) -> &'static str {
    gateway.protocol.scheme(listener.tls.is_some())
}

fn service_endpoints(gateway: &Gateway, service: &Service) -> Vec<Endpoint> {
    let (via, host) = match gateway.expose.type_ {
        ExposeType::LoadBalancer => (Via::LoadBalancer, address(service)),
        // Any node will do, and the operator knows none.
        ExposeType::NodePort => (Via::NodePort, Some("<node>".to_owned())),
        ExposeType::ClusterIp => {
            (Via::ClusterIp, Some(format!("{}.{}.svc", service.name_any(), gateway.namespace)))
        }
    };
    let Some(host) = host else { return Vec::new() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let node_port = |name: &str| {
        let ports = service.spec.as_ref()?.ports.as_ref()?;
        ports.iter().find(|port| port.name.as_deref() == Some(name))?.node_port
    };
    let endpoint = |listener: &super::validate::Listener| {
        let port = if via == Via::NodePort { node_port(&listener.name)? } else { listener.port.into() };
        Some(Endpoint {
            name: listener.name.clone(),
            url: format!("{}://{host}:{port}", scheme(gateway, listener)),
            via,
            network: None,
            pod: None,
            interface: None,
            mac: None,
        })
    };
    gateway.listeners.iter().filter_map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::samples::{gateway, platform};
    use serde_json::{Value, json};

    fn deployment(ready: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "mqtt", "generation": 3},
            "status": {
                "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2,
                "readyReplicas": ready, "availableReplicas": ready,
            },
        }))
        .unwrap()
    }

    fn service(name: &str, ip: Option<&str>) -> Service {
        let ingress: Vec<Value> = ip.into_iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"ports": [{"name": "mqtt", "port": 1883, "nodePort": 31883}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    fn waiting(reason: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "mqtt-1"},
            "status": {"containerStatuses": [{
                "name": "gateway", "image": "tidegate/gateway:x", "imageID": "", "ready": false, "restartCount": 4,
                "state": {"waiting": {"reason": reason, "message": "no such host"}},
                "lastState": {"terminated": {"exitCode": 3}},
            }]},
        }))
        .unwrap()
    }

    fn observed(ready: i32, ip: Option<&str>) -> Observed {
        Observed {
            scaler: None,
            deployment: Some(deployment(ready)),
            services: vec![service("mqtt", ip)],
            ..Observed::default()
        }
    }

    #[test]
    fn a_gateway_whose_pods_serve_behind_an_address_is_ready() {
        let verdict = verdict(&gateway(""), &platform(), &observed(2, Some("172.31.0.200")));
        assert_eq!((verdict.ready, verdict.reason, verdict.progress), (true, reasons::READY, None));
    }

    #[test]
    fn a_missing_pod_is_told_with_what_it_lacks() {
        let mut seen = observed(1, Some("172.31.0.200"));
        assert_eq!(verdict(&gateway(""), &platform(), &seen).reason, reasons::MINIMUM_REPLICAS_UNAVAILABLE);
        for (waits, reason, words) in [
            ("ImagePullBackOff", reasons::IMAGE_PULL_FAILED, "tidegate/gateway:x"),
            ("CrashLoopBackOff", reasons::CRASH_LOOP, "4 times with code 3"),
            ("CreateContainerConfigError", reasons::MINIMUM_REPLICAS_UNAVAILABLE, "cannot start"),
        ] {
            seen.pods = vec![waiting(waits)];
            let verdict = verdict(&gateway(""), &platform(), &seen);
            assert_eq!((verdict.ready, verdict.reason), (false, reason));
            assert!(verdict.message.starts_with("1 of 2 replicas serve: "), "{}", verdict.message);
            assert!(verdict.message.contains(words), "{}", verdict.message);
        }
    }

    #[test]
    fn a_pod_that_no_node_takes_is_told_in_the_schedulers_words() {
        let pod = json!({"metadata": {"name": "mqtt-1"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}});
        let mut seen = observed(0, Some("1.2.3.4"));
        seen.pods = vec![serde_json::from_value(pod).unwrap()];
        let verdict = verdict(&gateway(""), &platform(), &seen);
        assert_eq!(verdict.reason, reasons::UNSCHEDULABLE);
        assert!(verdict.message.contains("0/3 nodes"), "{}", verdict.message);
    }

    #[test]
    fn an_address_that_does_not_come_is_told_with_the_pools_name() {
        let verdict = verdict(&gateway(""), &platform(), &observed(2, None));
        assert_eq!((verdict.ready, verdict.reason), (false, reasons::LOAD_BALANCER_PENDING));
        assert!(verdict.message.contains("pool devices"), "{}", verdict.message);
        let fixed = gateway(", expose: {address: 172.31.0.207}");
        let verdict = super::verdict(&fixed, &platform(), &observed(2, None));
        assert!(
            verdict.message.contains("is 172.31.0.207 free and inside pool devices"),
            "{}",
            verdict.message
        );
        let inside = gateway(", expose: {type: ClusterIP}");
        assert!(super::verdict(&inside, &platform(), &observed(2, None)).ready);
    }

    #[test]
    fn kafka_without_a_majority_makes_the_gateway_not_ready() {
        let mut platform = platform();
        platform.kafka.brokers_ready = 1;
        let verdict = verdict(&gateway(""), &platform, &observed(2, Some("1.2.3.4")));
        assert_eq!((verdict.ready, verdict.reason), (false, reasons::KAFKA_NOT_READY));
        platform.kafka.brokers_ready = 2;
        assert!(super::verdict(&gateway(""), &platform, &observed(2, Some("1.2.3.4"))).ready);
    }

    #[test]
    fn a_rollout_is_progress_and_does_not_take_readiness_away() {
        let mut seen = observed(2, Some("1.2.3.4"));
        let counts = seen.deployment.as_mut().unwrap().status.as_mut().unwrap();
        counts.replicas = Some(3);
        counts.updated_replicas = Some(1);
        let verdict = verdict(&gateway(""), &platform(), &seen);
        assert!(verdict.ready);
        assert_eq!(verdict.progress.as_deref(), Some("1 of 2 replicas are new"));
    }

    #[test]
    fn endpoints_say_how_each_address_is_reached() {
        let urls = |more: &str, ip| {
            let seen = Observed { services: vec![service("mqtt", ip)], ..Observed::default() };
            let all = endpoints(&gateway(more), &seen);
            all.into_iter().map(|each| each.url).collect::<Vec<_>>()
        };
        assert_eq!(urls("", Some("172.31.0.200")), ["mqtt://172.31.0.200:1883"]);
        assert_eq!(urls("", Some("fd00::1")), ["mqtt://[fd00::1]:1883"]);
        assert_eq!(urls("", None), Vec::<String>::new());
        assert_eq!(urls(", expose: {type: NodePort}", None), ["mqtt://<node>:31883"]);
        assert_eq!(urls(", expose: {type: ClusterIP}", None), ["mqtt://mqtt.plant.svc:1883"]);
    }

    fn plugged(name: &str, ip: &str) -> Pod {
        let status = json!([{"interface": "eth0", "ips": ["10.0.0.5"]}, {"interface": "net1", "ips": [ip, "fd00::5"], "mac": "c6:92:c8:db:96:04"}]);
        let annotations = json!({given::STATUS: status.to_string()});
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
    }

    #[test]
    fn interfaces_are_listed_with_what_they_were_really_given() {
        let gateway = gateway(", networks: [{ref: field, interface: net1}]");
        let mut seen = observed(2, Some("172.31.0.200"));
        seen.pods = vec![plugged("mqtt-b", "172.31.9.101"), plugged("mqtt-a", "172.31.9.100")];
        let all = serde_json::to_value(endpoints(&gateway, &seen)).unwrap();
        assert_eq!(all[0]["via"], "LoadBalancer");
        assert_eq!(
            all[1],
            json!({"name": "net1", "url": "mqtt://172.31.9.100:1883", "via": "Network", "network": "field",
                "pod": "mqtt-a", "interface": "net1", "mac": "c6:92:c8:db:96:04"})
        );
        assert_eq!((all[2]["pod"].as_str(), all.as_array().unwrap().len()), (Some("mqtt-b"), 3));
        seen.pods = (0..100).map(|number| plugged(&format!("mqtt-{number}"), "172.31.9.9")).collect();
        assert_eq!(endpoints(&gateway, &seen).len(), MAX_ENDPOINTS);
    }

    #[test]
    fn a_pod_without_its_networks_and_one_without_a_capable_node_are_told() {
        let mut seen = observed(1, Some("1.2.3.4"));
        seen.unplugged = Some((reasons::ADDRESSES_EXHAUSTED, "no address is left".to_owned()));
        let verdict = verdict(&gateway(""), &platform(), &seen);
        assert_eq!(verdict.reason, reasons::ADDRESSES_EXHAUSTED);
        assert_eq!(verdict.message, "1 of 2 replicas serve: no address is left");
        let pod = json!({"metadata": {"name": "mqtt-1"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}});
        seen.pods = vec![serde_json::from_value(pod).unwrap()];
        seen.nowhere = Some("no node has it".to_owned());
        let verdict = super::verdict(&gateway(""), &platform(), &seen);
        assert_eq!(verdict.reason, reasons::CAPABILITY_MISSING);
        assert!(verdict.message.contains("no node takes pod mqtt-1: no node has it"), "{}", verdict.message);
    }
}
