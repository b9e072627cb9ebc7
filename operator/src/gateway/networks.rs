//! The second interfaces of a gateway's pods: which attachments they are, and what Multus is told. Pure but for
//! [`look_up`], which asks the API server for the attachments.

use super::fetch::Platform;
use super::validate::Gateway;
use crate::frame::failure::ReadError;
use crate::frame::{Class, Context, StepError};
use crate::network::definition::{fingerprint, host_devices, label_part, name};
use crate::network::make::{Attachment, look};
use serde_json::json;
use tidegate_crds::conditions::{ACCEPTED, RESOLVED_REFS};
use tidegate_crds::network::Network;
use tidegate_crds::{labels, reasons};

/// Annotation on pods: what the attachments that the operator made are like. Another one rolls them.
pub const FINGERPRINTS: &str = "tidegate.io/networks";

/// A second interface of a gateway's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The platform's network.
    pub network: String,
    /// The interface's name in the pod.
    pub name: String,
    /// The attachment.
    pub attachment: String,
    /// Whether the operator makes the attachment.
    pub made: bool,
    /// The addresses that it shall have; none: the network gives one.
    pub addresses: Vec<String>,
    /// What tells one configuration of a made attachment from another.
    pub fingerprint: String,
    /// Devices of the node that the pod takes for itself, as they stand in labels.
    pub devices: Vec<String>,
}

impl Interface {
    /// The labels of pods that take a device of their node for themselves.
    pub fn device_labels(&self) -> impl Iterator<Item = String> {
        self.devices.iter().map(|device| format!("{}{device}", labels::HOST_DEVICE_PREFIX))
    }
}

/// Why interfaces cannot be made of a gateway's networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The platform has no such network.
    #[error("spec.networks[{interface}].ref: platform {platform} has no network {network:?}: {}", advice(.others))]
    Unknown {
        /// The interface.
        interface: String,
        /// The name that was written.
        network: String,
        /// The platform.
        platform: String,
        /// The names that it has.
        others: Vec<String>,
    },
    /// The addresses do not go with the network.
    #[error("spec.networks[{interface}].addresses: {instead}")]
    Addresses {
        /// The interface.
        interface: String,
        /// What to write.
        instead: String,
    },
}

fn advice(others: &[String]) -> String {
    if others.is_empty() {
        "add it to the platform's spec.networks".to_owned()
    } else {
        format!("add it to the platform's spec.networks, or write one that it has ({})", others.join(", "))
    }
}

impl StepError for AttachError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => reasons::NETWORK_NOT_FOUND,
            Self::Addresses { .. } => reasons::INVALID,
        }
    }

    fn class(&self) -> Class {
        // The platform may change as well as the gateway.
        Class::Blocked
    }

    fn condition(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unknown { .. } => RESOLVED_REFS,
            Self::Addresses { .. } => ACCEPTED,
        })
    }
}

/// Finds the platform's networks behind a gateway's attachments.
pub fn resolve(gateway: &Gateway, platform: &Platform) -> Result<Vec<Interface>, AttachError> {
    let one = |wanted: &tidegate_crds::gateway::Attachment| {
        let found = platform.networks.iter().find(|network| network.name == wanted.network);
        let network = found.ok_or_else(|| AttachError::Unknown {
            interface: wanted.interface.clone(),
            network: wanted.network.clone(),
            platform: gateway.platform.clone(),
            others: platform.networks.iter().map(|network| network.name.clone()).collect(),
        })?;
        if let Some(instead) = misfit(network, &wanted.addresses) {
            return Err(AttachError::Addresses { interface: wanted.interface.clone(), instead });
        }
        Ok(Interface {
            network: network.name.clone(),
            name: wanted.interface.clone(),
            attachment: name(&gateway.platform, network),
            made: network.attachment_ref.is_none(),
            addresses: wanted.addresses.clone(),
            fingerprint: fingerprint(&gateway.platform, network),
            devices: network.host_device.iter().map(|device| label_part(&device.device)).collect(),
        })
    };
    gateway.attachments.iter().map(one).collect()
}

/// What is wrong with addresses on a network. What a referenced attachment takes is its maker's business.
fn misfit(network: &Network, addresses: &[String]) -> Option<String> {
    if network.attachment_ref.is_some() {
        return None;
    }
    let name = &network.name;
    let fixed = network.ipam.as_ref().is_some_and(|ipam| ipam.fixed.is_some());
    let bare = addresses.iter().find(|address| !address.contains('/'));
    match (fixed, addresses.is_empty(), bare) {
        (true, true, _) => Some(format!(
            "network {name} gives none (ipam: static): write one with its prefix, for example 172.31.9.100/24"
        )),
        (true, false, Some(bare)) => Some(format!("{bare} has no prefix: write for example {bare}/24")),
        (false, false, _) => Some(format!(
            "network {name} takes none: remove them, or give the network ipam: {{static: {{}}}} in the platform"
        )),
        _ => None,
    }
}

/// What keeps pods from being given their interfaces, before any is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is no Multus.
    Multus,
    /// These attachments do not exist.
    Attachments(String),
}

impl Absent {
    /// A constant of [`reasons`].
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Multus => reasons::MULTUS_NOT_FOUND,
            Self::Attachments(_) => reasons::ATTACHMENT_NOT_FOUND,
        }
    }

    /// For people.
    pub fn message(&self) -> String {
        match self {
            Self::Multus => "spec.networks: this cluster has no Multus (no resource network-attachment-definitions.k8s.cni.cncf.io): install it, or remove spec.networks. Pods stay as they are".to_owned(),
            Self::Attachments(text) => format!("{text}. Pods that run keep their interfaces and are not touched; no new one could start"),
        }
    }
}

/// Looks whether the attachments exist, and which devices they take.
pub async fn look_up(
    context: &Context,
    gateway: &Gateway,
    interfaces: &mut [Interface],
) -> Result<Option<Absent>, ReadError> {
    let mut missing = Vec::new();
    for interface in interfaces {
        match look(context, &gateway.namespace, &interface.attachment).await? {
            Attachment::There(found) if !interface.made => interface.devices = host_devices(&found),
            Attachment::There(_) => {}
            Attachment::NoMultus => return Ok(Some(Absent::Multus)),
            Attachment::Missing => {
                let advice = if interface.made {
                    "the operator makes it: see the conditions of the platform"
                } else {
                    "create it"
                };
                missing.push(format!(
                    "spec.networks[{}].ref: there is no NetworkAttachmentDefinition {:?} in namespace {} for network {}: {advice}",
                    interface.name, interface.attachment, gateway.namespace, interface.network
                ));
            }
        }
    }
    Ok((!missing.is_empty()).then(|| Absent::Attachments(missing.join("; "))))
}

/// What Multus is told about a gateway's pods; nothing where they have one network.
pub fn annotation(gateway: &Gateway) -> Option<String> {
    let one = |interface: &Interface| {
        let mut all = json!({
            "name": interface.attachment, "namespace": gateway.namespace, "interface": interface.name,
        });
        if !interface.addresses.is_empty() {
            all["ips"] = json!(interface.addresses);
        }
        all
    };
    let all: Vec<_> = gateway.interfaces.iter().map(one).collect();
    (!all.is_empty()).then(|| json!(all).to_string())
}

/// What the made attachments are like; nothing where none is made.
pub fn fingerprints(gateway: &Gateway) -> Option<String> {
    let all: Vec<_> =
        gateway.interfaces.iter().map(|one| one.fingerprint.as_str()).filter(|one| !one.is_empty()).collect();
    (!all.is_empty()).then(|| all.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::samples::{gateway, platform};

    fn on(networks: &str, wanted: &str) -> Result<Gateway, AttachError> {
        let platform = Platform { networks: serde_yaml::from_str(networks).unwrap(), ..platform() };
        let mut gateway = gateway(&format!(", networks: {wanted}"));
        gateway.interfaces = resolve(&gateway, &platform)?;
        Ok(gateway)
    }

    #[test]
    fn attachments_are_told_to_multus_by_name_interface_and_address() {
        let networks = "[{name: field, attachmentRef: {name: theirs}}, {name: meters, macvlan: {master: eth1}, ipam: {static: {}}}]";
        let gateway = on(
            networks,
            "[{ref: field, interface: net1}, {ref: meters, interface: net2, addresses: [172.31.9.7/24]}]",
        )
        .unwrap();
        assert_eq!(
            annotation(&gateway).unwrap(),
            r#"[{"interface":"net1","name":"theirs","namespace":"plant"},{"interface":"net2","ips":["172.31.9.7/24"],"name":"plant-meters","namespace":"plant"}]"#
        );
        assert_eq!(fingerprints(&gateway).unwrap().len(), 10, "only of what is made");
    }

    #[test]
    fn an_unknown_network_is_told_with_those_that_the_platform_has() {
        let error =
            on("[{name: field, attachmentRef: {name: a}}]", "[{ref: filed, interface: net1}]").unwrap_err();
        assert_eq!(error.reason(), "NetworkNotFound");
        assert!(error.to_string().ends_with("or write one that it has (field)"), "{error}");
    }

    #[test]
    fn addresses_go_with_networks_that_take_them() {
        let error = |ipam: &str, addresses: &str| {
            let networks = format!("[{{name: f, macvlan: {{master: eth1}}, ipam: {ipam}}}]");
            let wanted = format!("[{{ref: f, interface: net1, addresses: {addresses}}}]");
            on(&networks, &wanted).unwrap_err().to_string()
        };
        assert!(error("{static: {}}", "[]").contains("write one with its prefix"));
        assert!(error("{static: {}}", "[172.31.9.7]").contains("write for example 172.31.9.7/24"));
        assert!(error("{dhcp: {}}", "[172.31.9.7/24]").contains("ipam: {static: {}}"));
    }

    #[test]
    fn a_host_device_is_known_by_its_label() {
        let gateway =
            on("[{name: bus, hostDevice: {device: eth2}}]", "[{ref: bus, interface: net1}]").unwrap();
        let labels: Vec<_> = gateway.interfaces[0].device_labels().collect();
        assert_eq!(labels, ["tidegate.io/host-device.eth2"]);
    }
}
