//! The objects around a managed Kafka's StatefulSet: Service, disruption budget, service account, configuration,
//! volume claims. Pure.

use super::cluster::Cluster;
use super::files::files;
use super::identity::{Identity, controller};
use super::names::{CLIENT_PORT, CONTROLLER_PORT};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, Service, ServiceAccount, ServicePort,
    ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidegate_crds::Quantity as Amount;

/// The component label of each immutable ConfigMap.
pub const CONFIG_COMPONENT: &str = "broker-config";
/// The claim's annotation with the uid of the platform that it serves.
pub const PLATFORM_UID: &str = "tidegate.io/platform-uid";

/// The headless Service that gives pods their names. Those of unready pods too: brokers find each other before
/// any of them is ready.
pub fn service(cluster: &Cluster) -> Service {
    let port = |name: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(i32::from(port))),
        ..ServicePort::default()
    };
    Service {
        metadata: cluster.metadata(cluster.names.kafka(), "broker"),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port("client", CLIENT_PORT), port("controller", CONTROLLER_PORT)]),
            selector: Some(cluster.selector()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One broker at a time may be away on purpose.
pub fn disruption_budget(cluster: &Cluster) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: cluster.metadata(cluster.names.kafka(), "broker"),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(cluster.selector()),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// Brokers have nothing to say to the API server.
pub fn service_account(cluster: &Cluster) -> ServiceAccount {
    ServiceAccount {
        metadata: cluster.metadata(cluster.names.kafka(), "broker"),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The immutable ConfigMap with the brokers' files; its name changes with its content.
pub fn config(cluster: &Cluster) -> ConfigMap {
    let data = files(&cluster.settings(), &Cluster::paths());
    let name = format!("{}-config-{}", cluster.names.kafka(), hash(&data));
    ConfigMap {
        metadata: cluster.metadata(name, CONFIG_COMPONENT),
        data: Some(data),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// The one mutable ConfigMap: who the nodes are and whether they may format.
pub fn identity_map(cluster: &Cluster, identity: &Identity) -> ConfigMap {
    let mut data = identity.data(controller(&cluster.names));
    // Only formatting asks for it: raising it must not restart brokers.
    if let Some(version) = &cluster.metadata_version {
        data.insert("metadata-version".to_owned(), version.clone());
    }
    ConfigMap {
        metadata: cluster.metadata(cluster.names.identity(), "identity"),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// The claim of a node's volume. It has no owner: the records outlive the platform. `held` is the size that an
/// existing claim asks for: volumes never shrink.
pub fn claim(
    cluster: &Cluster,
    identity: &Identity,
    node: i32,
    held: Option<&str>,
) -> Option<PersistentVolumeClaim> {
    let volume = cluster.volume.as_ref()?;
    let mut annotations = identity.annotations(node);
    annotations.insert(PLATFORM_UID.to_owned(), cluster.uid.clone());
    // Neither Argo CD nor Helm may take records away with the YAML that once asked for them.
    annotations.insert("argocd.argoproj.io/sync-options".to_owned(), "Prune=false,Delete=false".to_owned());
    annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(cluster.names.claim(node)),
            annotations: Some(annotations),
            ..cluster.metadata(String::new(), "broker")
        },
        spec: Some(claim_spec(larger(&volume.size, held), volume.class.clone())),
        ..PersistentVolumeClaim::default()
    })
}

/// What a claim asks for.
pub fn claim_spec(size: &str, class: Option<String>) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))])),
            limits: None,
        }),
        storage_class_name: class,
        ..PersistentVolumeClaimSpec::default()
    }
}

fn larger<'a>(wanted: &'a str, held: Option<&'a str>) -> &'a str {
    let bytes = |text: &str| text.parse::<Amount>().map(|amount| amount.value()).unwrap_or_default();
    held.filter(|held| bytes(held) > bytes(wanted)).unwrap_or(wanted)
}

fn hash(data: &BTreeMap<String, String>) -> String {
    let mut hasher = Sha256::new();
    for (name, text) in data {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    hasher.finalize().iter().take(5).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
