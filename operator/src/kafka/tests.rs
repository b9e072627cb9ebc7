//! Snapshots of a managed Kafka's objects, and what must hold for all of them.

use super::cluster::{Cluster, Volume};
use super::identity::{Identity, Node, Uuid};
use super::names::Names;
use super::objects::{claim, config, disruption_budget, identity_map, service, service_account};
use super::rights::Stage;
use super::stateful_set::stateful_set;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

fn cluster() -> Cluster {
    Cluster {
        names: Names::new("iot", "plant", "cluster.local"),
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        image: "tidegate/kafka:4.4.0".to_owned(),
        brokers: 3,
        metadata_version: None,
        volume: Some(Volume { size: "10Gi".to_owned(), class: None }),
        resources: ResourceRequirements {
            requests: Some(BTreeMap::from([("cpu".to_owned(), Quantity("250m".to_owned()))])),
            limits: Some(BTreeMap::from([("memory".to_owned(), Quantity("1Gi".to_owned()))])),
            claims: None,
        },
        min_in_sync_replicas: 2,
        stage: Stage::Closed,
        applications: Vec::new(),
        config: BTreeMap::new(),
    }
}

fn identity() -> Identity {
    let uuid = |text| Uuid::parse(text).unwrap();
    let node = |directory| Node { directory: uuid(directory), may_format: true, replaces: None };
    Identity {
        cluster: uuid("MkU3OEVBNTcwNTJENDM2Qg"),
        nodes: [
            (0, node("AAAAAAAAAAAAAAAAAAABAA")),
            (1, node("BAAAAAAAAAAAAAAAAAAAAA")),
            (2, node("CAAAAAAAAAAAAAAAAAAAAA")),
        ]
        .into(),
        voters: 3,
        answered: None,
    }
}

#[test]
fn the_stateful_set_of_a_small_platform() {
    insta::assert_yaml_snapshot!(stateful_set(&cluster(), "plant-kafka-config-0", "0123", None));
}

#[test]
fn the_objects_around_it() {
    let cluster = cluster();
    insta::assert_yaml_snapshot!((
        service(&cluster),
        disruption_budget(&cluster),
        service_account(&cluster),
        identity_map(&cluster, &identity()),
        claim(&cluster, &identity(), 1, None),
    ));
}

#[test]
fn another_setting_gives_the_files_another_name_and_nothing_else_does() {
    let name = |cluster: &Cluster| config(cluster).metadata.name.unwrap();
    let mut other = cluster();
    other.image = "another".to_owned();
    assert_eq!(name(&cluster()), name(&other));
    other.config.insert("log.retention.hours".to_owned(), "1".to_owned());
    assert_ne!(name(&cluster()), name(&other));
}

#[test]
fn adding_a_broker_changes_no_file_of_the_others() {
    let mut grown = cluster();
    grown.brokers = 5;
    assert_eq!(config(&cluster()).metadata.name, config(&grown).metadata.name);
}

#[test]
fn an_ephemeral_broker_has_no_claims() {
    let mut ephemeral = cluster();
    ephemeral.volume = None;
    assert!(claim(&ephemeral, &identity(), 0, None).is_none());
    let spec = stateful_set(&ephemeral, "c", "0123", None).spec.unwrap();
    assert_eq!(spec.volume_claim_templates, None);
    let volumes = spec.template.spec.unwrap().volumes.unwrap();
    assert!(volumes.iter().any(|volume| volume.name == "data" && volume.empty_dir.is_some()));
}

#[test]
fn a_volume_never_shrinks_and_the_claim_template_never_changes() {
    let size = |claim: k8s_openapi::api::core::v1::PersistentVolumeClaim| {
        claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
    };
    assert_eq!(size(claim(&cluster(), &identity(), 0, Some("1Ti")).unwrap()), "1Ti");
    assert_eq!(size(claim(&cluster(), &identity(), 0, Some("1Gi")).unwrap()), "10Gi");
    let set = stateful_set(&cluster(), "c", "0123", Some("1Gi")).spec.unwrap();
    assert_eq!(size(set.volume_claim_templates.unwrap().remove(0)), "1Gi");
}
