//! What an administrator lets platforms make: kinds of networks, and interfaces of nodes that they are made on. Pure.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use tidegate_crds::network::Network;

/// One entry of the allow-list: `<kind>:<interface>`, for VLANs with their numbers behind another colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    kind: &'static str,
    interface: String,
    vlans: Option<RangeInclusive<i32>>,
}

/// The kinds of networks, as the resource names them.
const KINDS: [&str; 4] = ["hostDevice", "macvlan", "bridge", "vlan"];

/// Why a text is no [`NetworkRule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" allows no network: write hostDevice, macvlan, bridge or vlan, a colon and the interface, for example macvlan:eth1, hostDevice:enp3s0*, vlan:eth1 or vlan:eth1:100-199"
)]
pub struct RuleError(String);

/// What a network is made on: kind, interface, and for a VLAN its number; nothing for a reference.
pub fn subject(network: &Network) -> Option<(&'static str, &str, Option<i32>)> {
    let device = network.host_device.as_ref().map(|it| (KINDS[0], it.device.as_str(), None));
    let macvlan = network.macvlan.as_ref().map(|it| (KINDS[1], it.master.as_str(), None));
    let bridge = network.bridge.as_ref().map(|it| (KINDS[2], it.name.as_str(), None));
    let vlan = network.vlan.as_ref().map(|it| (KINDS[3], it.master.as_str(), Some(it.id)));
    device.or(macvlan).or(bridge).or(vlan)
}

impl NetworkRule {
    /// Whether a network of this kind may be made on this interface.
    pub fn allows(&self, kind: &str, interface: &str, vlan: Option<i32>) -> bool {
        let named = match self.interface.strip_suffix('*') {
            Some(start) => interface.starts_with(start),
            None => interface == self.interface,
        };
        let numbered = match (&self.vlans, vlan) {
            (Some(range), Some(id)) => range.contains(&id),
            (Some(_), None) => false,
            (None, _) => true,
        };
        kind == self.kind && named && numbered
    }
}

impl FromStr for NetworkRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let bad = || RuleError(text.to_owned());
        let mut parts = text.split(':').map(str::trim);
        let kind =
            parts.next().and_then(|kind| KINDS.into_iter().find(|one| *one == kind)).ok_or_else(bad)?;
        let interface = parts.next().filter(|name| !name.is_empty()).ok_or_else(bad)?;
        let inside = interface.strip_suffix('*').unwrap_or(interface);
        let numbers = parts.next();
        if inside.contains(['*', '/', ' ']) || parts.next().is_some() || numbers.is_some() && kind != "vlan" {
            return Err(bad());
        }
        let vlans = numbers.map(|numbers| {
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            let number = |text: &str| text.parse().ok().filter(|id| (1..=4094).contains(id));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Ok(first..=last),
                _ => Err(bad()),
            }
        });
        Ok(Self { kind, interface: interface.to_owned(), vlans: vlans.transpose()? })
    }
}

impl fmt::Display for NetworkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.interface)?;
        self.vlans.as_ref().map_or(Ok(()), |vlans| write!(f, ":{}-{}", vlans.start(), vlans.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(rule: &str, network: &str) -> bool {
        let network: Network = serde_yaml::from_str(network).unwrap();
        let (kind, interface, vlan) = subject(&network).unwrap();
        rule.parse::<NetworkRule>().unwrap().allows(kind, interface, vlan)
    }

    #[test]
    fn a_rule_allows_its_kind_on_its_interfaces_and_nothing_else() {
        let macvlan = "{name: a, macvlan: {master: eth1}}";
        assert!(
            allows("macvlan:eth1", macvlan)
                && allows("macvlan:eth*", macvlan)
                && allows("macvlan:*", macvlan)
        );
        assert!(!allows("macvlan:eth", macvlan) && !allows("macvlan:eth10", macvlan));
        assert!(!allows("hostDevice:eth1", macvlan) && !allows("bridge:eth1", macvlan));
        assert!(allows("hostDevice:eth1", "{name: a, hostDevice: {device: eth1}}"));
        assert!(allows("bridge:br0", "{name: a, bridge: {name: br0}}"));
    }

    #[test]
    fn a_vlan_is_allowed_by_its_number_where_numbers_are_said() {
        let vlan = "{name: a, vlan: {master: eth1, id: 150}}";
        assert!(
            allows("vlan:eth1", vlan) && allows("vlan:eth1:100-199", vlan) && allows("vlan:eth1:150", vlan)
        );
        assert!(!allows("vlan:eth1:151-199", vlan) && !allows("vlan:eth2", vlan));
    }

    #[test]
    fn a_reference_is_made_by_nobody_here() {
        let network: Network = serde_yaml::from_str("{name: a, attachmentRef: {name: b}}").unwrap();
        assert_eq!(subject(&network), None);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_an_example() {
        for text in [
            "",
            "eth1",
            "macvlan:",
            "Macvlan:eth1",
            "macvlan:eth1:1-2",
            "vlan:eth1:0",
            "vlan:eth1:9-1",
            "vlan:a:1:2",
            "bridge:a*b",
        ] {
            let error = text.parse::<NetworkRule>().unwrap_err().to_string();
            assert!(error.contains("macvlan:eth1"), "{text}");
        }
        for text in ["macvlan:eth1", "vlan:eth1:100-199", "hostDevice:enp3s0*"] {
            assert_eq!(text.parse::<NetworkRule>().unwrap().to_string(), text);
        }
    }
}
