//! The Services in front of a gateway's pods: as many as it wants addresses. Pure.

use super::fetch::Platform;
use super::names;
use super::validate::Gateway;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use tidegate_crds::gateway::ExposeType;
use tidegate_crds::labels;

/// Annotation: the MetalLB pool that the address comes from.
pub const POOL: &str = "metallb.io/address-pool";
/// Annotation: the address that MetalLB shall give.
pub const ADDRESS: &str = "metallb.io/loadBalancerIPs";

/// The Services of a gateway.
pub fn services(gateway: &Gateway, platform: &Platform) -> Vec<Service> {
    names::services(gateway).into_iter().map(|name| service(gateway, platform, name)).collect()
}

fn service(gateway: &Gateway, platform: &Platform, name: String) -> Service {
    let mut metadata = names::meta(gateway, name);
    let balanced = gateway.expose.type_ == ExposeType::LoadBalancer;
    if balanced {
        let mut annotations = BTreeMap::new();
        if let Some(pool) = &platform.pool {
            annotations.insert(POOL.to_owned(), pool.clone());
        }
        if !gateway.expose.address.is_empty() {
            annotations.insert(ADDRESS.to_owned(), gateway.expose.address.clone());
        }
        metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    }
    let mut selector = names::selector_labels(gateway);
    selector.insert(labels::IN_SERVICE.to_owned(), "true".to_owned());
    let port = |listener: &super::validate::Listener| ServicePort {
        name: Some(listener.name.clone()),
        port: listener.port.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(listener.name.clone())),
        ..ServicePort::default()
    };
    let outside = gateway.expose.type_ != ExposeType::ClusterIp;
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(gateway.expose.type_.as_str().to_owned()),
            selector: Some(selector),
            ports: Some(gateway.listeners.iter().map(port).collect()),
            // Any node takes a connection for any pod, so an address does not depend on where the pods are.
            external_traffic_policy: outside.then(|| "Cluster".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
