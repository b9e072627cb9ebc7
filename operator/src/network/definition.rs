//! A platform's network as Multus wants it: a `NetworkAttachmentDefinition` with a plugin's configuration. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResource;
use kube::api::{ApiResource, DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use tidegate_crds::labels;
use tidegate_crds::network::{Ipam, Network};

/// The content of a `NetworkAttachmentDefinition`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "k8s.cni.cncf.io",
    version = "v1",
    kind = "NetworkAttachmentDefinition",
    plural = "network-attachment-definitions",
    namespaced,
    schema = "disabled"
)]
pub struct NetworkAttachmentDefinitionSpec {
    /// The plugin's configuration, as JSON.
    pub config: String,
}

/// Multus' attachments, whatever is in them.
pub fn attachments() -> ApiResource {
    ApiResource::erase::<NetworkAttachmentDefinition>(&())
}

/// The name of the attachment behind a network: the one that it refers to, or the one that is made for it.
pub fn name(platform: &str, network: &Network) -> String {
    match &network.attachment_ref {
        Some(reference) => reference.name.clone(),
        None => format!("{platform}-{}", network.name),
    }
}

/// What is made for a network; nothing where it refers to an attachment.
pub fn made(platform: &str, network: &Network) -> Option<NetworkAttachmentDefinition> {
    let name = name(platform, network);
    let labels: BTreeMap<_, _> = [
        (labels::NAME, "tidegate-network"),
        (labels::INSTANCE, platform),
        (labels::PLATFORM, platform),
        (labels::COMPONENT, "network"),
        (labels::MANAGED_BY, labels::MANAGER),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let config = config(&name, network)?.to_string();
    Some(NetworkAttachmentDefinition {
        metadata: ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() },
        spec: NetworkAttachmentDefinitionSpec { config },
    })
}

/// The plugin's configuration; nothing where the network refers to an attachment.
fn config(name: &str, network: &Network) -> Option<Value> {
    let mut config = if let Some(device) = &network.host_device {
        json!({"type": "host-device", "device": device.device})
    } else if let Some(macvlan) = &network.macvlan {
        // Pods on one node reach each other too.
        json!({"type": "macvlan", "master": macvlan.master, "mode": "bridge"})
    } else if let Some(bridge) = &network.bridge {
        json!({"type": "bridge", "bridge": bridge.name})
    } else {
        let vlan = network.vlan.as_ref()?;
        json!({"type": "vlan", "master": vlan.master, "vlanId": vlan.id})
    };
    config["cniVersion"] = "1.0.0".into();
    config["name"] = name.into();
    config["ipam"] = network.ipam.as_ref().map_or_else(|| json!({}), ipam);
    if network.ipam.as_ref().is_some_and(|ipam| ipam.fixed.is_some()) {
        // Multus hands over the addresses that a pod's annotation names.
        config["capabilities"] = json!({"ips": true});
    }
    Some(config)
}

fn ipam(ipam: &Ipam) -> Value {
    if ipam.dhcp.is_some() {
        // A router that the server names would become the pod's default route, and cut it off from Kafka.
        return json!({"type": "dhcp", "request": [{"skipDefault": true, "option": "subnet-mask"}]});
    }
    let Some(range) = &ipam.whereabouts else { return json!({"type": "static"}) };
    let mut config = json!({"type": "whereabouts", "range": range.range});
    if let Some(start) = &range.start {
        config["range_start"] = start.as_str().into();
    }
    if let Some(end) = &range.end {
        config["range_end"] = end.as_str().into();
    }
    config
}

/// What tells one configuration of a made network from another; empty where it refers to an attachment.
pub fn fingerprint(platform: &str, network: &Network) -> String {
    let Some(config) = config(&name(platform, network), network) else { return String::new() };
    let digest = Sha256::digest(config.to_string().as_bytes());
    let hash = digest.iter().take(5).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    format!("{hash:010x}")
}

/// The devices of a node that a pod with this attachment takes for itself, by what the attachment names them.
pub fn host_devices(attachment: &DynamicObject) -> Vec<String> {
    let text = attachment.data.pointer("/spec/config").and_then(Value::as_str).unwrap_or_default();
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    let listed = config["plugins"].as_array().into_iter().flatten();
    let all = std::iter::once(&config).chain(listed).filter(|plugin| plugin["type"] == "host-device");
    let device = |plugin: &Value| {
        let keys = ["device", "hwaddr", "pciBusID", "kernelpath"];
        let name = keys.iter().find_map(|key| plugin[*key].as_str().filter(|name| !name.is_empty()))?;
        Some(label_part(name))
    };
    all.filter_map(device).collect()
}

/// A device as the end of a label's name.
pub fn label_part(device: &str) -> String {
    let allowed = |one: char| if one.is_ascii_alphanumeric() || "-_.".contains(one) { one } else { '-' };
    let text: String = device.chars().map(allowed).collect();
    // 63 characters, of which the label's beginning needs 12. What tells one path from another is at its end.
    let text = text.trim_matches(|one: char| !one.is_ascii_alphanumeric());
    let text = text.get(text.len().saturating_sub(50)..).unwrap_or_default();
    text.trim_start_matches(|one: char| !one.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn each_kind_of_network_is_a_plugins_configuration() {
        let all: Vec<_> = [
            "{name: a, hostDevice: {device: eth2}}",
            "{name: b, macvlan: {master: eth1}, ipam: {whereabouts: {range: 172.31.9.0/24, start: 172.31.9.100, end: 172.31.9.120}}}",
            "{name: c, bridge: {name: br0}, ipam: {dhcp: {}}}",
            "{name: d, vlan: {master: eth1, id: 12}, ipam: {static: {}}}",
            "{name: e, macvlan: {master: eth1}, ipam: {whereabouts: {range: 172.31.9.0/24}}}",
        ]
        .into_iter()
        .map(|text| made("plant", &network(text)).unwrap())
        .map(|made| (made.metadata.name.unwrap(), made.spec.config))
        .collect();
        insta::assert_yaml_snapshot!(all);
    }

    #[test]
    fn a_reference_is_not_made_and_goes_by_its_own_name() {
        let field = network("{name: field, attachmentRef: {name: theirs}}");
        assert_eq!(name("plant", &field), "theirs");
        assert!(made("plant", &field).is_none());
        assert_eq!(fingerprint("plant", &field), "");
    }

    #[test]
    fn another_configuration_has_another_fingerprint() {
        let one = network("{name: a, macvlan: {master: eth1}}");
        let other = network("{name: a, macvlan: {master: eth2}}");
        assert_eq!(fingerprint("plant", &one), fingerprint("plant", &one.clone()));
        assert_ne!(fingerprint("plant", &one), fingerprint("plant", &other));
    }

    #[test]
    fn host_devices_are_found_in_attachments_of_any_make() {
        let devices = |config: &str| {
            let data = json!({"spec": {"config": config}});
            host_devices(&DynamicObject::new("x", &attachments()).data(data))
        };
        assert_eq!(devices(r#"{"type": "host-device", "device": "eth2"}"#), ["eth2"]);
        assert_eq!(
            devices(
                r#"{"plugins": [{"type": "host-device", "pciBusID": "0000:03:02.0"}, {"type": "tuning"}]}"#
            ),
            ["0000-03-02.0"]
        );
        assert!(devices(r#"{"type": "macvlan", "master": "eth1"}"#).is_empty());
        assert!(devices("no JSON").is_empty());
        assert_eq!(label_part("/sys/devices/pci0000:00/0000:00:1f.6").len(), 35);
        assert!(label_part(&"x/".repeat(90)).len() <= 50);
    }
}
