//! A gateway's pods: Deployment, ServiceAccount and `PodDisruptionBudget`. Pure.

use super::fetch::Platform;
use super::networks::{self, FINGERPRINTS, Interface};
use super::validate::Gateway;
use super::{names, placement};
use crate::frame::backbone::CredentialFile;
use crate::frame::dns;
use crate::kafka::objects::PLATFORM_UID;
use crate::network::given::NETWORKS;
use crate::pki::{TLS_CRT, TLS_KEY};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, SeccompProfile,
    SecretProjection, SecretVolumeSource, SecurityContext, ServiceAccount, SleepAction, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;
use tidegate_contract::config::{ADMIN_PORT, CONFIG_DIR, CONFIG_FILE, LISTENERS_DIR};
use tidegate_crds::labels;

/// The container's name.
pub const CONTAINER: &str = "gateway";
/// The name of the port of health and metrics.
pub const ADMIN_PORT_NAME: &str = "tg-admin";
/// The volume with configuration and Kafka certificate.
pub const CONFIG_VOLUME: &str = "config";
/// The user and group of the process; the image needs no entry for them.
const USER: i64 = 65_532;
/// How long a pod goes on serving after it left the Services: that long other nodes may still send to it. Measured:
/// 15 of 528 requests lost without, 0 of 640 with.
const PRE_STOP_SECONDS: i64 = 5;
/// After that the process drains for up to 30 s and flushes.
const GRACE_SECONDS: i64 = 60;
/// How long a pod stays on a node that does not answer before it is replaced.
const UNREACHABLE_SECONDS: i64 = 2;

/// The account of the pods, which has no rights and no token.
pub fn service_account(gateway: &Gateway) -> ServiceAccount {
    ServiceAccount {
        metadata: names::meta(gateway, names::service_account(gateway)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// One pod at a time may be evicted; one that does not serve may always be.
pub fn disruption_budget(gateway: &Gateway) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: names::meta(gateway, gateway.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(names::selector(gateway)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            min_available: None,
        }),
        status: None,
    }
}

/// The Deployment of a gateway.
pub fn deployment(gateway: &Gateway, platform: &Platform, config_map: &str, image: &str) -> Deployment {
    let mut pod_labels = names::labels(gateway);
    pod_labels.insert(labels::IN_SERVICE.to_owned(), "true".to_owned());
    pod_labels.extend(devices(gateway).map(|label| (label, "true".to_owned())));
    // A platform made anew has another Kafka: no position of an earlier one's pods means anything there.
    let mut annotations = BTreeMap::from([(PLATFORM_UID.to_owned(), platform.uid.clone())]);
    annotations.extend(networks::annotation(gateway).map(|text| (NETWORKS.to_owned(), text)));
    annotations.extend(networks::fingerprints(gateway).map(|text| (FINGERPRINTS.to_owned(), text)));
    Deployment {
        metadata: names::meta(gateway, gateway.name.clone()),
        spec: Some(DeploymentSpec {
            replicas: Some(gateway.replicas + i32::from(gateway.surge)),
            selector: names::selector(gateway),
            strategy: Some(strategy(gateway)),
            // Each revision keeps its ConfigMap, so that it can be gone back to.
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(300),
            min_ready_seconds: None,
            paused: None,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(gateway, platform, config_map, image)),
            },
        }),
        status: None,
    }
}

/// How pods follow each other: the next one serves before one goes, unless it needs what that one has.
fn strategy(gateway: &Gateway) -> DeploymentStrategy {
    if gateway.is_alone() {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    // A pod that takes a device of its node has to go before the next one can come there.
    let surge = i32::from(!gateway.is_exclusive());
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(1 - surge)),
        }),
    }
}

/// The labels of the devices that a pod takes for itself.
fn devices(gateway: &Gateway) -> impl Iterator<Item = String> {
    gateway.interfaces.iter().flat_map(Interface::device_labels)
}

fn pod(gateway: &Gateway, platform: &Platform, config_map: &str, image: &str) -> PodSpec {
    PodSpec {
        service_account_name: Some(names::service_account(gateway)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        dns_config: Some(dns::give_up_soon()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(gateway, image)],
        volumes: Some(
            [volume(&platform.backbone.files, config_map)].into_iter().chain(certificates(gateway)).collect(),
        ),
        node_selector: (!gateway.node_selector.is_empty()).then(|| gateway.node_selector.clone()),
        tolerations: Some(["not-ready", "unreachable"].map(leaves_soon).into()),
        affinity: Some(Affinity {
            node_affinity: nodes(gateway),
            pod_anti_affinity: Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(away(gateway)),
                preferred_during_scheduling_ignored_during_execution: None,
            }),
            pod_affinity: None,
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            // A node fewer must not keep pods from running.
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(names::selector(gateway)),
            match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
            ..TopologySpreadConstraint::default()
        }]),
        ..PodSpec::default()
    }
}

fn container(gateway: &Gateway, image: &str) -> Container {
    let mut ports = vec![port(ADMIN_PORT_NAME, ADMIN_PORT)];
    ports.extend(gateway.listeners.iter().map(|listener| port(&listener.name, listener.container_port)));
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(vec![field("POD_NAME", "metadata.name"), field("NODE_NAME", "spec.nodeName")]),
        ports: Some(ports),
        resources: Some((&gateway.resources).into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(gateway)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: PRE_STOP_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        startup_probe: Some(probe("/healthz", 1, 60)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        ..Container::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn mounts(gateway: &Gateway) -> Vec<VolumeMount> {
    let mount = |name: String, mount_path: String| VolumeMount {
        name,
        mount_path,
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let encrypted = gateway.listeners.iter().filter(|each| each.tls.is_some());
    let listeners =
        encrypted.map(|each| mount(listener_volume(&each.name), format!("{LISTENERS_DIR}/{}", each.name)));
    [mount(CONFIG_VOLUME.to_owned(), CONFIG_DIR.to_owned())].into_iter().chain(listeners).collect()
}

fn listener_volume(listener: &str) -> String {
    format!("listener-{listener}")
}

/// A volume for each listener's certificate: one Secret that is gone must keep neither the others' files nor Kafka's
/// credentials from being renewed. It is not optional: a pod without its certificate serves nobody, so it does not start.
fn certificates(gateway: &Gateway) -> impl Iterator<Item = Volume> {
    let item = |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None };
    gateway.listeners.iter().filter_map(move |listener| {
        let tls = listener.tls.as_ref()?;
        Some(Volume {
            name: listener_volume(&listener.name),
            secret: Some(SecretVolumeSource {
                secret_name: Some(tls.secret.clone().unwrap_or_else(|| names::issued(gateway))),
                items: Some([TLS_CRT, TLS_KEY].map(item).into()),
                default_mode: Some(0o440),
                optional: None,
            }),
            ..Volume::default()
        })
    })
}

/// One volume for both: the configuration, and below it `kafka/` with the credentials. A changed Secret changes the
/// files; a configuration never changes.
fn volume(files: &[CredentialFile], config_map: &str) -> Volume {
    let item = |key: &str, path: String| KeyToPath { key: key.to_owned(), path, mode: None };
    let configuration = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: config_map.to_owned(),
            items: Some(vec![item(CONFIG_FILE, CONFIG_FILE.to_owned())]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let secrets = files.chunk_by(|a, b| a.secret == b.secret).filter_map(|files| {
        let items = files.iter().map(|file| item(&file.key, format!("kafka/{}", file.file)));
        Some(VolumeProjection {
            secret: Some(SecretProjection {
                name: files.first()?.secret.clone(),
                items: Some(items.collect()),
                optional: None,
            }),
            ..VolumeProjection::default()
        })
    });
    Volume {
        name: CONFIG_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some([configuration].into_iter().chain(secrets).collect()),
        }),
        ..Volume::default()
    }
}

fn leaves_soon(taint: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{taint}")),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(UNREACHABLE_SECONDS),
        value: None,
    }
}

/// Only nodes with the capabilities; where pods take a device also only those that failover has not taken out: see [`away`].
fn nodes(gateway: &Gateway) -> Option<NodeAffinity> {
    let one = |key: String, operator: &str, value: String| NodeSelectorRequirement {
        key,
        operator: operator.to_owned(),
        values: Some(vec![value]),
    };
    let mut all: Vec<_> =
        placement::wanted(gateway).into_iter().map(|(key, value)| one(key, "In", value)).collect();
    if devices(gateway).next().is_some() {
        all.push(one(labels::IN_SERVICE.to_owned(), "NotIn", "false".to_owned()));
    }
    let is_any = all.is_empty();
    let term = NodeSelectorTerm { match_expressions: Some(all), match_fields: None };
    (!is_any).then(|| NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
        preferred_during_scheduling_ignored_during_execution: None,
    })
}

/// No node that holds a pod which was taken out of service, whosever it is: that node is suspect. Or no node that holds one
/// with the same device: a pod that waits for the end of such a one is looked at again by Kubernetes (1.35) only when one
/// goes that all of its terms are about, else after five minutes, so those terms stand alone. Then the node's own
/// label, which failover sets beside the pods', tells that it is suspect.
fn away(gateway: &Gateway) -> Vec<PodAffinityTerm> {
    let devices: Vec<_> = devices(gateway).map(|label| away_from(&label, "true")).collect();
    if devices.is_empty() { vec![away_from(labels::IN_SERVICE, "false")] } else { devices }
}

/// No node that holds a pod with this label, whosever it is.
fn away_from(label: &str, value: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        namespace_selector: Some(LabelSelector::default()),
        label_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: label.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![value.to_owned()]),
            }]),
            match_labels: None,
        }),
        ..PodAffinityTerm::default()
    }
}
