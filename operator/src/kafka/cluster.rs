//! A managed Kafka as validated: everything that its objects are built from. Pure.

use super::names::{CONTROLLER_PORT, Names, VOTERS};
use super::properties::{Paths, Settings};
use super::rights::Stage;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use tidegate_crds::labels;
use tidegate_crds::platform::Application;

/// The application's name in labels.
pub const APP: &str = "tidegate-kafka";
/// Where pods find things.
pub const CONFIG_DIR: &str = "/etc/kafka/config";
/// The identity ConfigMap's mount.
pub const IDENTITY_DIR: &str = "/etc/kafka/identity";
/// The certificates' mount.
pub const TLS_DIR: &str = "/etc/kafka/tls";
/// The volume's mount.
pub const VOLUME_DIR: &str = "/var/lib/kafka/data";
/// The folder of logs: not the volume's root, where a file system may keep folders of its own.
pub const DATA_DIR: &str = "/var/lib/kafka/data/logs";

/// A volume for each broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The size, as Kubernetes writes it.
    pub size: String,
    /// The storage class; absent: the cluster's default.
    pub class: Option<String>,
}

/// A managed Kafka as validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its objects' names.
    pub names: Names,
    /// The platform's uid.
    pub uid: String,
    /// Kafka's image.
    pub image: String,
    /// The number of brokers.
    pub brokers: i32,
    /// What formatting takes as metadata version; absent: Kafka's own newest.
    pub metadata_version: Option<String>,
    /// A volume for each broker; absent: ephemeral.
    pub volume: Option<Volume>,
    /// What each broker asks for and may use.
    pub resources: ResourceRequirements,
    /// In-sync replicas that a topic without its own setting needs.
    pub min_in_sync_replicas: i32,
    /// How brokers treat whoever has no right.
    pub stage: Stage,
    /// Who else may use it.
    pub applications: Vec<Application>,
    /// The user's own broker settings, checked.
    pub config: BTreeMap<String, String>,
}

impl Cluster {
    /// The shared part of the brokers' settings.
    pub fn settings(&self) -> Settings<'_> {
        let controllers = (0..self.brokers.min(VOTERS))
            .map(|node| format!("{}:{CONTROLLER_PORT}", self.names.host(node)))
            .collect();
        Settings {
            brokers: self.brokers,
            controllers,
            min_in_sync_replicas: self.min_in_sync_replicas,
            stage: self.stage,
            config: &self.config,
        }
    }

    /// Where pods find their files.
    pub fn paths() -> Paths {
        Paths { tls: TLS_DIR.to_owned(), data: DATA_DIR.to_owned() }
    }

    /// What selects the brokers' pods.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [(labels::NAME, APP), (labels::INSTANCE, self.names.platform.as_str()), (labels::COMPONENT, "broker")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The metadata of an object; the owner is added where it is applied.
    pub fn metadata(&self, name: String, component: &str) -> ObjectMeta {
        self.names.metadata(name, component)
    }
}
