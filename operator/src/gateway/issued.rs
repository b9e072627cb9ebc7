//! The certificate that the platform's authority issues for a gateway's listeners: one for all of them. Pure but for
//! randomness.

use super::names;
use super::validate::Gateway;
use crate::network::given;
use crate::pki::{Authority, CA_CRT, LeafSpec, PkiError, Renewal, TLS_CRT, TLS_KEY, keep_or_issue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tidegate_crds::gateway::{ExposeType, MAX_ENDPOINTS};
use time::OffsetDateTime;

/// A Secret's data as text.
pub type Data = BTreeMap<String, String>;

/// How many nodes' addresses a certificate has at most.
pub const MAX_NODES: u32 = 64;

/// Where a gateway was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its Services, as far as they exist.
    pub services: Vec<Service>,
    /// Its pods, where they have interfaces of their own.
    pub pods: Vec<Pod>,
    /// The cluster's nodes, where its ports are theirs.
    pub nodes: Vec<Node>,
}

/// Every name and address that a device may have connected to, so that it can check whom it met. Two more are for
/// `kubectl port-forward`.
pub fn names(gateway: &Gateway, seen: &Seen, cluster_domain: &str) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for service in names::services(gateway) {
        let inside = format!("{service}.{}", gateway.namespace);
        all.extend([format!("{inside}.svc.{cluster_domain}"), format!("{inside}.svc"), inside, service]);
    }
    if !gateway.expose.address.is_empty() {
        all.extend(address(&gateway.expose.address));
    }
    for service in &seen.services {
        let addresses = service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_ref());
        // A headless one's is the word None.
        all.extend(addresses.into_iter().flatten().filter_map(|text| address(text)));
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for ingress in status.and_then(|status| status.ingress.as_ref()).into_iter().flatten() {
            all.extend(ingress.ip.as_deref().and_then(address));
            all.extend(ingress.hostname.as_deref().filter(|name| !name.is_empty()).map(str::to_lowercase));
        }
    }
    let mut pods: Vec<_> = seen.pods.iter().collect();
    pods.sort_by_key(|pod| pod.name_any());
    let interfaces: BTreeSet<_> = gateway.attachments.iter().map(|each| each.interface.as_str()).collect();
    for given in pods.into_iter().take(MAX_ENDPOINTS).flat_map(given::read) {
        if interfaces.contains(given.interface.as_str()) {
            all.extend(given.addresses().map(|address| address.to_string()));
        }
    }
    if gateway.expose.type_ == ExposeType::NodePort {
        for node in &seen.nodes {
            let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
            let addresses = addresses.into_iter().flatten().map(|each| each.address.as_str());
            all.extend(addresses.map(|text| address(text).unwrap_or_else(|| text.to_lowercase())));
        }
    }
    all
}

/// As it stands in a certificate that was read.
fn address(text: &str) -> Option<String> {
    text.parse::<IpAddr>().ok().map(|address| address.to_string())
}

/// Keeps the certificate in `held` while it fits, else issues another one, and says why.
pub fn settle(
    gateway: &Gateway,
    held: Option<&Data>,
    names: BTreeSet<String>,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(Data, Option<Renewal>), PkiError> {
    let part = |key: &str| held.and_then(|held| held.get(key)).map(String::as_str);
    // What the certificate's own Secret says that is trusted does not count: devices know the platform's authority only.
    let parts = part(TLS_CRT).zip(part(TLS_KEY)).map(|(certificate, key)| (certificate, key, ""));
    let spec = LeafSpec::server(&gateway.name, names);
    let (issued, why) = keep_or_issue(parts, &spec, authority, now)?;
    let data =
        [(CA_CRT, issued.authorities), (TLS_CRT, issued.certificate), (TLS_KEY, issued.key.pem().to_owned())];
    Ok((data.map(|(key, text)| (key.to_owned(), text)).into(), why))
}

/// The Secret that pods mount.
pub fn secret(gateway: &Gateway, data: &Data) -> Secret {
    let data = data.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into_bytes())));
    Secret {
        metadata: names::meta(gateway, names::issued(gateway)),
        data: Some(data.collect()),
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::samples::resource;
    use crate::gateway::validate::validate;
    use serde_json::json;

    fn gateway(more: &str) -> Gateway {
        validate(&resource(&format!(
            "{{platformRef: {{name: plant}}, mqtt: {{listeners: [{{name: mqtts, port: 8883, tls: {{}}}}]}}{more}}}"
        )))
        .unwrap()
    }

    fn names_of(gateway: &Gateway, seen: &Seen) -> Vec<String> {
        let own = ["localhost", "127.0.0.1", "::1"];
        let all = names(gateway, seen, "cluster.local");
        assert!(own.iter().all(|one| all.contains(*one)), "{all:?}");
        all.into_iter().filter(|one| !own.contains(&one.as_str())).collect()
    }

    #[test]
    fn every_way_to_a_gateway_is_a_name_in_its_certificate() {
        let inside = ["mqtt", "mqtt.plant", "mqtt.plant.svc", "mqtt.plant.svc.cluster.local"];
        assert_eq!(names_of(&gateway(""), &Seen::default()), inside);
        let service = json!({
            "metadata": {"name": "mqtt"}, "spec": {"clusterIPs": ["10.96.0.7", "FD00::0:7"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "172.31.0.200"}, {"hostname": "LB.example.com"}]}},
        });
        let seen = Seen { services: vec![serde_json::from_value(service).unwrap()], ..Seen::default() };
        assert_eq!(
            names_of(&gateway(""), &seen),
            [&["10.96.0.7", "172.31.0.200", "fd00::7", "lb.example.com"], &inside[..]].concat()
        );
        let fixed = names_of(&gateway(", expose: {address: 172.31.0.207}"), &Seen::default());
        assert_eq!(fixed[0], "172.31.0.207", "before the load balancer has given it");
        assert!(
            names_of(&gateway(", expose: {addresses: 2}"), &Seen::default()).contains(&"mqtt-2.plant".into())
        );
    }

    #[test]
    fn addresses_on_second_networks_and_of_nodes_are_names_where_devices_use_them() {
        let status = json!([{"interface": "eth0", "ips": ["10.0.0.5"]}, {"interface": "net1", "ips": ["172.31.9.100/24"]}]);
        let pod = json!({"metadata": {"name": "mqtt-a", "annotations": {given::STATUS: status.to_string()}}});
        let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [
            {"type": "InternalIP", "address": "172.31.1.2"}, {"type": "Hostname", "address": "Node2"}]}});
        let seen = Seen {
            pods: vec![serde_json::from_value(pod).unwrap()],
            nodes: vec![serde_json::from_value(node).unwrap()],
            ..Seen::default()
        };
        let wired = names_of(&gateway(", networks: [{ref: field, interface: net1}]"), &seen);
        assert_eq!(wired[0], "172.31.9.100");
        assert!(!wired.iter().any(|one| one == "10.0.0.5" || one == "172.31.1.2"), "{wired:?}");
        let ports = names_of(&gateway(", expose: {type: NodePort}"), &seen);
        assert!(ports.contains(&"172.31.1.2".to_owned()) && ports.contains(&"node2".to_owned()), "{ports:?}");
    }

    #[test]
    fn a_certificate_is_kept_until_names_time_or_authority_say_otherwise() {
        let now = OffsetDateTime::now_utc();
        let make = || Authority::keep_or_make(None, "plant devices", now).unwrap();
        let (authority, gateway) = (make(), gateway(""));
        let settle = |held: Option<&Data>, more: &str, authority: &Authority, now| {
            let mut names = names(&gateway, &Seen::default(), "cluster.local");
            names.insert(more.to_owned());
            settle(&gateway, held, names, authority, now).unwrap()
        };
        let (first, why) = settle(None, "10.0.0.1", &authority, now);
        assert_eq!(why, Some(Renewal::Missing));
        assert_eq!(first[CA_CRT], authority.bundle());
        assert_eq!(settle(Some(&first), "10.0.0.1", &authority, now), (first.clone(), None));
        assert_eq!(settle(Some(&first), "10.0.0.2", &authority, now).1, Some(Renewal::Renamed));
        let late = now + time::Duration::days(300);
        assert_eq!(settle(Some(&first), "10.0.0.1", &authority, late).1, Some(Renewal::Expiring));
        let (other, why) = settle(Some(&first), "10.0.0.1", &make(), now);
        assert_eq!(why, Some(Renewal::Untrusted), "devices are given the new authority, and that one only");
        assert_eq!(other[CA_CRT].matches("BEGIN CERTIFICATE").count(), 1);
    }
}
