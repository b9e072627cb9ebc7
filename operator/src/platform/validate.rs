//! From an `IoTPlatform` to what is built. Pure.

use crate::frame::options::{AddressRange, Options, RangeError};
use crate::frame::{Class, StepError};
use crate::kafka::cluster::{Cluster, Volume};
use crate::kafka::names::{Names, VOTERS};
use crate::kafka::properties;
use crate::kafka::rights::Stage;
use crate::kafka::wire::features;
use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::ResourceExt as _;
use tidegate_crds::conditions::ACCEPTED;
use tidegate_crds::platform::{ExternalKafka, LoadBalancer, ManagedKafka};
use tidegate_crds::{IoTPlatform, Resources, reasons};

/// The version of Kafka that the operator brings.
pub const KAFKA_VERSION: &str = "4.4.0";
const SIZE: &str = "10Gi";
const MIN_IN_SYNC: i32 = 2;
const RESOURCES: &str = r#"{"requests":{"cpu":"250m","memory":"768Mi"},"limits":{"memory":"1Gi"}}"#;

/// Where load-balancer addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Whatever the cluster's load balancer gives.
    Any,
    /// An existing pool.
    Pool(String),
    /// A pool that the operator makes of these ranges.
    Ranges(Vec<String>),
}

/// The Kafka behind a platform.
#[derive(Clone, Debug, PartialEq)]
pub enum Kafka {
    /// In this cluster, kept by Tidegate.
    Managed(Box<Managed>),
    /// Somebody else's.
    External(Box<External>),
}

/// A Kafka in this cluster, kept by Tidegate.
#[derive(Clone, Debug, PartialEq)]
pub struct Managed {
    /// What it is made of.
    pub cluster: Cluster,
    /// Kafka's version, as far as anybody says.
    pub version: String,
}

/// Somebody else's Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// The names of the platform's own objects.
    pub names: Names,
    /// The platform's uid.
    pub uid: String,
    /// How to reach it.
    pub spec: ExternalKafka,
    /// The copies that a Topic gets which does not say it itself.
    pub replicas: i32,
}

impl External {
    /// `host:port`, comma-separated.
    pub fn bootstrap(&self) -> String {
        self.spec.bootstrap_servers.join(",")
    }
}

/// A platform as validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Its Kafka.
    pub kafka: Kafka,
    /// Where load-balancer addresses come from.
    pub addresses: Addresses,
    /// Fields that are stored and that this version does nothing about.
    pub unserved: Vec<&'static str>,
}

/// Why a platform cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlatform {
    /// Fields that cannot be, all of them.
    #[error("{}", .0.join("; "))]
    Fields(Vec<String>),
    /// No kind of Kafka: only an object that went past the definition's rules is like that.
    #[error(
        "spec.kafka: write managed: {{}} to run Kafka in the cluster, or external with a Kafka of your own"
    )]
    NoKafka,
    /// Ranges outside the administrator's allow-list.
    #[error(
        "spec.loadBalancer.addresses: {0} lies outside what the administrator allows platforms to take ({1}): write another range, name an existing pool in spec.loadBalancer.poolRef, or ask the administrator for it (the operator's --address-allow-list)"
    )]
    NotAllowed(String, String),
}

impl StepError for InvalidPlatform {
    fn reason(&self) -> &'static str {
        match self {
            Self::Fields(_) | Self::NoKafka => reasons::INVALID,
            Self::NotAllowed(..) => reasons::NOT_ALLOWED,
        }
    }

    fn class(&self) -> Class {
        Class::Invalid
    }

    fn condition(&self) -> Option<&'static str> {
        Some(ACCEPTED)
    }
}

/// Validates a platform, all fields at once.
pub fn validate(platform: &IoTPlatform, options: &Options) -> Result<Validated, InvalidPlatform> {
    let spec = &platform.spec;
    let mut wrong: Vec<String> = Vec::new();

    let defaults = spec.topic_defaults.clone().unwrap_or_default();
    let replicas = defaults.replicas.unwrap_or(VOTERS);
    let min_in_sync = defaults.min_in_sync_replicas.unwrap_or(MIN_IN_SYNC.min(replicas));
    let managed = spec.kafka.managed.as_ref();
    if let Some(managed) = managed.filter(|managed| replicas > managed.brokers) {
        wrong.push(format!(
            "spec.topicDefaults.replicas: {replicas} copies of a record need as many brokers, spec.kafka.managed.brokers is {}: write at most that",
            managed.brokers
        ));
    }
    if min_in_sync > replicas {
        wrong.push(format!(
            "spec.topicDefaults.minInSyncReplicas: {min_in_sync} of {replicas} replicas cannot be in sync: write at most {replicas}"
        ));
    }
    if let Some(managed) = managed {
        check(managed, &mut wrong);
    }
    let addresses = addresses(spec.load_balancer.as_ref(), &mut wrong);
    if !wrong.is_empty() {
        return Err(InvalidPlatform::Fields(wrong));
    }
    allowed(&addresses, &options.address_allow_list)?;

    let mut unserved = Vec::new();
    // Only an object from before the definition's rule has both.
    if spec.kafka.external.is_some() && !spec.kafka.applications.is_empty() {
        unserved.push(
            "spec.kafka.applications of a Kafka that somebody else keeps (make users and rights there)",
        );
    }
    let namespace = platform.namespace().unwrap_or_default();
    let names = Names::new(&namespace, &platform.name_any(), &options.cluster_domain);
    let uid = platform.uid().unwrap_or_default();
    let kafka = match (managed, &spec.kafka.external) {
        (Some(managed), _) => {
            let mut managed = Managed::new(managed, names, uid, min_in_sync, &options.images.kafka);
            managed.cluster.applications.clone_from(&spec.kafka.applications);
            Kafka::Managed(Box::new(managed))
        }
        (None, Some(external)) => {
            Kafka::External(Box::new(External { names, uid, spec: external.clone(), replicas }))
        }
        (None, None) => return Err(InvalidPlatform::NoKafka),
    };
    Ok(Validated { kafka, addresses, unserved })
}

/// What the definition's rules cannot say.
fn check(managed: &ManagedKafka, wrong: &mut Vec<String>) {
    if !managed.version.is_empty() && managed.version != KAFKA_VERSION && managed.image.is_empty() {
        wrong.push(format!(
            "spec.kafka.managed.version: this operator brings Kafka {KAFKA_VERSION}; for {} write spec.kafka.managed.image too",
            managed.version
        ));
    }
    if !managed.metadata_version.is_empty() && features::level(&managed.metadata_version).is_none() {
        wrong.push(format!(
            "spec.kafka.managed.metadataVersion: {:?} is no version that this operator knows: write one like 4.1 or 4.1-IV1, {} at most, or leave it out",
            managed.metadata_version,
            features::newest()
        ));
    }
    wrong.extend(properties::check(&managed.config).iter().map(ToString::to_string));
}

impl Managed {
    fn new(managed: &ManagedKafka, names: Names, uid: String, min_in_sync: i32, own_image: &str) -> Self {
        let image = Some(managed.image.as_str()).filter(|image| !image.is_empty());
        let own = Some(KAFKA_VERSION).filter(|_| image.is_none());
        let version = Some(managed.version.as_str()).filter(|version| !version.is_empty()).or(own);
        let metadata_version = Some(managed.metadata_version.clone()).filter(|version| !version.is_empty());
        Self {
            cluster: Cluster {
                names,
                uid,
                image: image.unwrap_or(own_image).to_owned(),
                brokers: managed.brokers,
                metadata_version,
                volume: volume(managed),
                resources: resources(managed),
                min_in_sync_replicas: min_in_sync,
                stage: Stage::default(),
                applications: Vec::new(),
                config: managed.config.clone(),
            },
            version: version.unwrap_or_default().to_owned(),
        }
    }
}

fn volume(managed: &ManagedKafka) -> Option<Volume> {
    let storage = managed.storage.clone().unwrap_or_default();
    if storage.ephemeral.is_some() {
        return None;
    }
    let size = storage.size.map_or_else(|| SIZE.to_owned(), |size| size.to_string());
    Some(Volume { size, class: Some(storage.class_name).filter(|class| !class.is_empty()) })
}

fn resources(managed: &ManagedKafka) -> ResourceRequirements {
    match managed.resources.as_ref().filter(|resources| !resources.is_empty()) {
        Some(resources) => resources.into(),
        None => (&serde_json::from_str::<Resources>(RESOURCES).unwrap_or_default()).into(),
    }
}

fn addresses(balancer: Option<&LoadBalancer>, wrong: &mut Vec<String>) -> Addresses {
    let Some(balancer) = balancer else { return Addresses::Any };
    if let Some(pool) = &balancer.pool_ref {
        return Addresses::Pool(pool.name.clone());
    }
    if balancer.addresses.is_empty() {
        return Addresses::Any;
    }
    for (index, text) in balancer.addresses.iter().enumerate() {
        if let Err(error) = parse(text) {
            wrong.push(format!("spec.loadBalancer.addresses[{index}]: {error}"));
        }
    }
    Addresses::Ranges(balancer.addresses.clone())
}

fn parse(text: &str) -> Result<AddressRange, RangeError> {
    text.parse()
}

fn allowed(addresses: &Addresses, list: &[AddressRange]) -> Result<(), InvalidPlatform> {
    let Addresses::Ranges(ranges) = addresses else { return Ok(()) };
    for text in ranges {
        let inside = parse(text).is_ok_and(|range| list.iter().any(|allowed| allowed.covers(&range)));
        if !inside {
            let list = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let list = if list.is_empty() { "nothing".to_owned() } else { list };
            return Err(InvalidPlatform::NotAllowed(text.clone(), list));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::samples::{managed, options, platform};

    fn refuse(spec: &str) -> String {
        validate(&platform(spec), &options()).unwrap_err().to_string()
    }

    #[test]
    fn the_smallest_platform_gets_three_brokers_with_volumes() {
        let valid = validate(&platform("{kafka: {managed: {}}}"), &options()).unwrap();
        let managed = managed("{kafka: {managed: {}}}");
        assert_eq!((managed.cluster.brokers, managed.version.as_str()), (3, KAFKA_VERSION));
        assert_eq!(managed.cluster.volume, Some(Volume { size: "10Gi".to_owned(), class: None }));
        assert_eq!(managed.cluster.resources.limits.unwrap()["memory"].0, "1Gi");
        assert_eq!(managed.cluster.image, "kafka:test");
        assert_eq!((valid.addresses, valid.unserved.len()), (Addresses::Any, 0));
    }

    #[test]
    fn every_wrong_field_is_named_at_once_with_what_to_write() {
        let text = refuse(
            "{kafka: {managed: {version: 9.9.9, metadataVersion: '9.9', config: {ssl.client.auth: none}}}, topicDefaults: {replicas: 5},
              loadBalancer: {addresses: ['172.31.0.220-172.31.0.200']}}",
        );
        for part in [
            "spec.topicDefaults.replicas: 5",
            "spec.kafka.managed.version: this operator brings Kafka 4.4.0",
            "spec.kafka.managed.metadataVersion: \"9.9\" is no version",
            "\"ssl.client.auth\" is set by Tidegate",
            "spec.loadBalancer.addresses[0]: \"172.31.0.220-172.31.0.200\" is no address range",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn addresses_are_taken_only_inside_the_allow_list() {
        let spec =
            |range: &str| format!("{{kafka: {{managed: {{}}}}, loadBalancer: {{addresses: ['{range}']}}}}");
        let inside = validate(&platform(&spec("172.31.0.230-172.31.0.235")), &options()).unwrap();
        assert_eq!(inside.addresses, Addresses::Ranges(vec!["172.31.0.230-172.31.0.235".to_owned()]));
        assert!(refuse(&spec("10.0.0.1-10.0.0.9")).contains("172.31.0.224-172.31.0.239"));
        let error = validate(&platform(&spec("10.0.0.1/32")), &options()).unwrap_err();
        assert_eq!(error.reason(), "NotAllowed");
    }

    #[test]
    fn what_this_version_cannot_do_is_named() {
        let stored = "{kafka: {external: {bootstrapServers: ['k:1']}, applications: [{name: analytics}]}}";
        let valid = validate(&platform(stored), &options()).unwrap();
        assert!(valid.unserved[0].starts_with("spec.kafka.applications of a Kafka that somebody else keeps"));
    }

    #[test]
    fn a_version_of_ones_own_needs_an_image_of_ones_own() {
        let valid = managed("{kafka: {managed: {version: 4.3.0, image: 'apache/kafka:4.3.0'}}}");
        assert_eq!((valid.version.as_str(), valid.cluster.image.as_str()), ("4.3.0", "apache/kafka:4.3.0"));
    }

    #[test]
    fn somebody_elses_kafka_is_taken_as_it_is_declared() {
        let spec = "{kafka: {prefix: acme., external: {bootstrapServers: ['a:9093', 'b:9093']}}, topicDefaults: {replicas: 1}}";
        let valid = validate(&platform(spec), &options()).unwrap();
        let Kafka::External(external) = valid.kafka else { panic!("it is external") };
        assert_eq!((external.bootstrap().as_str(), external.replicas), ("a:9093,b:9093", 1));
        let text = refuse(
            "{kafka: {external: {bootstrapServers: ['a:1']}}, topicDefaults: {replicas: 1, minInSyncReplicas: 2}}",
        );
        assert!(text.contains("spec.topicDefaults.minInSyncReplicas: 2 of 1"), "{text}");
        assert!(refuse("{kafka: {}}").contains("external with a Kafka of your own"));
    }
}
