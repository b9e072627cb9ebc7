//! Why a pod was not given its networks, from what the kubelet says about its sandbox. Pure.

use tidegate_crds::reasons;

/// The reason of the kubelet's Events about pods that cannot be given their networks.
pub const EVENT: &str = "FailedCreatePodSandBox";

/// Words of plugins, the reason that they mean, and what to do.
const KNOWN: [(&str, &str, &str); 6] = [
    (
        "cannot find a network-attachment-definition",
        reasons::ATTACHMENT_NOT_FOUND,
        "create the NetworkAttachmentDefinition again",
    ),
    (
        "Could not allocate IP in range",
        reasons::ADDRESSES_EXHAUSTED,
        "the network's range has no free address: make it larger, or run fewer pods",
    ),
    (
        "no more tries",
        reasons::ADDRESSES_EXHAUSTED,
        "no DHCP server of the network gives an address: does it run, and has it a free one?",
    ),
    (
        "failed to lookup master",
        reasons::INTERFACE_NOT_FOUND,
        "the node has no such interface: correct the network, or keep the gateway to nodes that have it with spec.placement.capabilities",
    ),
    (
        "failed to find host device",
        reasons::INTERFACE_NOT_FOUND,
        "the node has no such device, or another pod has it: correct the network, or keep the gateway to nodes that have it with spec.placement.capabilities",
    ),
    (
        "Link not found",
        reasons::INTERFACE_NOT_FOUND,
        "the node has no such interface: correct the network, or keep the gateway to nodes that have it with spec.placement.capabilities",
    ),
];

/// The most of a plugin's words that are repeated.
const WORDS: usize = 300;

/// What an Event about a pod's sandbox means.
pub fn judge(pod: &str, node: &str, event: &str) -> (&'static str, String) {
    let known = KNOWN.iter().find(|(words, ..)| event.contains(words));
    let (reason, advice) = known
        .map_or((reasons::NETWORK_FAILED, "see the plugin's words"), |(_, reason, advice)| {
            (*reason, *advice)
        });
    // The beginning is the kubelet's and names containers by numbers; the plugin's words are at the end.
    let from =
        known.and_then(|(words, ..)| event.find(words)).or_else(|| event.find("plugin type=")).unwrap_or(0);
    let words: String = event.get(from..).unwrap_or(event).chars().take(WORDS).collect();
    (reason, format!("pod {pod} gets no network on {node}: {advice} ({})", words.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_plugins_have_reasons() {
        let before = r#"Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "5a0e…": plugin type="multus" name="multus" failed (add): "#;
        for (words, reason) in [
            (
                "[plant/mqtt-1/:plant-field]: error adding container to network \"plant-field\": error at storage engine: Could not allocate IP in range: ip: 172.31.9.100 / - 172.31.9.100 / range: 172.31.9.0/24 / excludeRanges: []",
                "AddressesExhausted",
            ),
            (
                "Multus: [plant/mqtt-1]: error getting k8s network: cannot find a network-attachment-definition (field) in namespace (plant): not found",
                "AttachmentNotFound",
            ),
            (
                "[plant/mqtt-1/:plant-field]: error adding container to network \"plant-field\": failed to lookup master \"eth9\": Link not found",
                "InterfaceNotFound",
            ),
            ("failed to find host device: Link not found", "InterfaceNotFound"),
            ("error calling DHCP.Allocate: no more tries", "AddressesExhausted"),
            ("error dialing DHCP daemon: no such file", "NetworkFailed"),
        ] {
            let (found, text) = judge("mqtt-1", "node2", &format!("{before}{words}"));
            assert_eq!(found, reason, "{words}");
            assert!(text.starts_with("pod mqtt-1 gets no network on node2: "), "{text}");
            assert!(!text.contains("5a0e"), "{text}");
        }
    }
}
