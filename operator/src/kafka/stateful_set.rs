//! The brokers' StatefulSet. Pure.

use super::cluster::{CONFIG_DIR, Cluster, DATA_DIR, IDENTITY_DIR, TLS_DIR, VOLUME_DIR};
use super::files::START;
use super::jvm::{Room, flags};
use super::names::{CLIENT_PORT, CONTROLLER_PORT};
use super::objects::claim_spec;
use super::rights::stage;
use crate::frame::dns;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, ObjectFieldSelector, PersistentVolumeClaim, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext,
    TCPSocketAction, Volume as PodVolume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tidegate_crds::Quantity as Amount;

/// The container's name.
pub const CONTAINER: &str = "kafka";
/// User and group: that of the official image.
const USER: i64 = 1000;
/// Kafka hands its partitions over within this time, or is ended.
const GRACE_SECONDS: i64 = 60;

/// The pod template's annotation with the fingerprint of the certificates: brokers read them at start only, so that
/// new ones have to make new pods.
pub const CERTIFICATES: &str = "tidegate.io/certificates";

/// The StatefulSet. `config` names the immutable ConfigMap, `certificates` is the fingerprint of what the brokers' Secret
/// holds; `template_size` is the size in the claim template of an
/// existing StatefulSet, which nobody can change (claims are made beforehand, so it is of no other use).
pub fn stateful_set(
    cluster: &Cluster,
    config: &str,
    certificates: &str,
    template_size: Option<&str>,
) -> StatefulSet {
    let names = &cluster.names;
    let templates = cluster.volume.as_ref().map(|volume| {
        vec![PersistentVolumeClaim {
            metadata: ObjectMeta { name: Some("data".to_owned()), ..ObjectMeta::default() },
            spec: Some(claim_spec(template_size.unwrap_or(&volume.size), volume.class.clone())),
            ..PersistentVolumeClaim::default()
        }]
    });
    StatefulSet {
        metadata: cluster.metadata(names.kafka(), "broker"),
        spec: Some(StatefulSetSpec {
            replicas: Some(cluster.brokers),
            service_name: Some(names.kafka()),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            revision_history_limit: Some(5),
            selector: LabelSelector { match_labels: Some(cluster.selector()), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(cluster.names.labels("broker")),
                    annotations: Some(
                        [
                            (CERTIFICATES, certificates.to_owned()),
                            (stage::ANNOTATION, cluster.stage.to_string()),
                        ]
                        .map(|(name, value)| (name.to_owned(), value))
                        .into(),
                    ),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(cluster, config)),
            },
            volume_claim_templates: templates,
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod(cluster: &Cluster, config: &str) -> PodSpec {
    let names = &cluster.names;
    PodSpec {
        service_account_name: Some(names.kafka()),
        automount_service_account_token: Some(false),
        // Variables named after Services would end up as settings of images that read them.
        enable_service_links: Some(false),
        dns_config: Some(dns::give_up_soon()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        affinity: Some(spread(cluster)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(cluster)],
        volumes: Some(volumes(cluster, config)),
        ..PodSpec::default()
    }
}

/// No two brokers of a platform on one node: its loss must cost one replica.
fn spread(cluster: &Cluster) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                label_selector: Some(LabelSelector {
                    match_labels: Some(cluster.selector()),
                    ..LabelSelector::default()
                }),
                topology_key: "kubernetes.io/hostname".to_owned(),
                ..PodAffinityTerm::default()
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn container(cluster: &Cluster) -> Container {
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(cluster.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["bash".to_owned(), format!("{CONFIG_DIR}/{START}")]),
        env: Some(environment(cluster)),
        ports: Some(vec![port("client", CLIENT_PORT), port("controller", CONTROLLER_PORT)]),
        resources: Some(cluster.resources.clone()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("config", CONFIG_DIR, true),
            mount("identity", IDENTITY_DIR, true),
            mount("tls", TLS_DIR, true),
            mount("data", VOLUME_DIR, false),
            mount("tmp", "/tmp", false),
        ]),
        // The client listener opens when the broker has caught up with the cluster's metadata. Checking the logs
        // after a crash may take long, and a node that waits for its identity is not ill.
        startup_probe: Some(probe(2, 1800)),
        readiness_probe: Some(probe(2, 3)),
        liveness_probe: Some(probe(10, 6)),
        ..Container::default()
    }
}

fn probe(period: i32, failures: i32) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::String("client".to_owned()), host: None }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn environment(cluster: &Cluster) -> Vec<EnvVar> {
    let set =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let field = |name: &str, path: String| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path, api_version: Some("v1".to_owned()) }),
            ..EnvVarSource::default()
        }),
    };
    vec![
        field("POD_NAME", "metadata.name".to_owned()),
        // The kubelet may still show the files that were there before: the start script compares.
        field("KAFKA_CERTIFICATES", format!("metadata.annotations['{CERTIFICATES}']")),
        set("KAFKA_HOST", format!("$(POD_NAME).{}", cluster.names.domain())),
        set("KAFKA_BIND", "0.0.0.0".to_owned()),
        set("KAFKA_CLIENT_PORT", CLIENT_PORT.to_string()),
        set("KAFKA_CONTROLLER_PORT", CONTROLLER_PORT.to_string()),
        set("KAFKA_CONFIG", CONFIG_DIR.to_owned()),
        set("KAFKA_IDENTITY", IDENTITY_DIR.to_owned()),
        set("KAFKA_TLS", TLS_DIR.to_owned()),
        set("KAFKA_DATA", DATA_DIR.to_owned()),
        set("KAFKA_RUN", "/tmp/kafka".to_owned()),
        set("KAFKA_LIBS", "/opt/kafka/libs".to_owned()),
        set("KAFKA_JVM_FLAGS", flags(room(cluster), CONFIG_DIR)),
    ]
}

fn room(cluster: &Cluster) -> Room {
    let find = |name: &str| {
        let limits = cluster.resources.limits.as_ref().and_then(|all| all.get(name));
        let requests = cluster.resources.requests.as_ref().and_then(|all| all.get(name));
        limits.or(requests).and_then(|text| text.0.parse::<Amount>().ok())
    };
    Room {
        memory: find("memory").map(|amount| amount.value()),
        millicpu: find("cpu").map(|amount| i64::try_from(amount.millis()).unwrap_or(i64::MAX)),
    }
}

fn volumes(cluster: &Cluster, config: &str) -> Vec<PodVolume> {
    let map = |name: &str, from: &str| PodVolume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: from.to_owned(), ..ConfigMapVolumeSource::default() }),
        ..PodVolume::default()
    };
    let empty = |name: &str| PodVolume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..PodVolume::default()
    };
    let mut volumes = vec![
        map("config", config),
        map("identity", &cluster.names.identity()),
        PodVolume {
            name: "tls".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(cluster.names.broker_tls()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..PodVolume::default()
        },
        empty("tmp"),
    ];
    if cluster.volume.is_none() {
        volumes.push(empty("data"));
    }
    volumes
}
