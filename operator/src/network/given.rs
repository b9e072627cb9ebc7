//! What a pod was really given: Multus writes it on the pod when its interfaces are there. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::Deserialize;
use std::net::Ipv4Addr;

/// Annotation on a pod: the interfaces that it has, as JSON. Multus writes it.
pub const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// Annotation on a pod: the interfaces that it shall have, as JSON. Multus reads it.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// One interface of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Given {
    /// Its name in the pod.
    pub interface: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its hardware address.
    pub mac: String,
}

impl Given {
    /// The addresses that a gateway listens on: of IP version 4.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ips.iter().filter_map(|text| text.split('/').next()?.parse().ok())
    }
}

/// The interfaces of a pod; nothing where there is no Multus, or it is not done yet.
pub fn read(pod: &Pod) -> Vec<Given> {
    let text = pod.annotations().get(STATUS).map(String::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn interfaces_are_read_as_multus_writes_them() {
        let status = r#"[{"name": "tidegate", "interface": "eth0", "ips": ["10.0.1.5"], "mac": "aa", "default": true, "dns": {}},
            {"name": "plant/field", "interface": "net1", "ips": ["172.31.9.100", "fd00::1"], "mac": "c6:92:c8:db:96:04", "dns": {}}]"#;
        let pod = json!({"metadata": {"name": "a", "annotations": {STATUS: status}}});
        let given = read(&serde_json::from_value(pod).unwrap());
        assert_eq!((given[1].interface.as_str(), given[1].mac.as_str()), ("net1", "c6:92:c8:db:96:04"));
        assert_eq!(given[1].addresses().collect::<Vec<_>>(), [Ipv4Addr::new(172, 31, 9, 100)]);
    }

    #[test]
    fn a_pod_without_a_word_of_multus_has_nothing() {
        assert!(read(&Pod::default()).is_empty());
        let pod = json!({"metadata": {"name": "a", "annotations": {STATUS: "no JSON"}}});
        assert!(read(&serde_json::from_value(pod).unwrap()).is_empty());
    }
}
