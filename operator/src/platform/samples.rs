//! Resources for the tests of this module.

use super::validate::{Kafka, Managed, validate};
use crate::frame::options::{Images, Options};
use crate::kafka::rights::Rights;
use crate::kafka::rights::wanted::wanted;
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::{IoTPlatform, IoTPlatformSpec};

/// A platform `plant` in namespace `iot` with this spec.
pub fn platform(spec: &str) -> IoTPlatform {
    let spec: IoTPlatformSpec = serde_yaml::from_str(spec).unwrap();
    let mut platform = IoTPlatform::new("plant", spec);
    platform.metadata.namespace = Some("iot".to_owned());
    platform.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    platform.metadata.generation = Some(1);
    platform
}

/// The managed Kafka of such a platform.
pub fn managed(spec: &str) -> Managed {
    match validate(&platform(spec), &options()).unwrap().kafka {
        Kafka::Managed(managed) => *managed,
        Kafka::External(external) => panic!("{external:?} is not managed"),
    }
}

/// An operator that lets platforms take 172.31.0.224/28.
pub fn options() -> Options {
    Options {
        images: Images { gateway: "gateway:test".to_owned(), kafka: "kafka:test".to_owned() },
        namespaces: Vec::new(),
        address_allow_list: vec!["172.31.0.224/28".parse().unwrap()],
        network_allow_list: vec!["macvlan:eth1".parse().unwrap()],
        metallb_namespace: "metallb-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        resync: Duration::from_mins(10),
        look_again: Duration::from_secs(10),
        secret_spread: Duration::from_mins(5),
        applications_wait: Duration::from_hours(24),
    }
}

/// Kafka with all rights that a platform without applications wants.
pub fn rights() -> Rights {
    Rights { proven: Some(Arc::new(wanted("", &[]))), failure: None }
}
