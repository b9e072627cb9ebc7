//! What the administrator decides when the operator starts. Pure.

use crate::network::allow::NetworkRule;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// Images of what the operator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `tidegate-gateway`.
    pub gateway: String,
    /// Kafka's jars in `/opt/kafka/libs` and a Java runtime.
    pub kafka: String,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images of what the operator runs.
    pub images: Images,
    /// The namespaces it works in; empty: all.
    pub namespaces: Vec<String>,
    /// Addresses that platforms may take for their load balancers; empty: none.
    pub address_allow_list: Vec<AddressRange>,
    /// Networks that platforms may have made; empty: none.
    pub network_allow_list: Vec<NetworkRule>,
    /// The namespace of MetalLB's own objects.
    pub metallb_namespace: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// How often an object is looked at of which nothing is heard, before jitter.
    pub resync: Duration,
    /// How soon an object that is not ready yet is looked at again without an event, the first time; later less often.
    pub look_again: Duration,
    /// How long pods need at most until they use what changed in a Secret that they mount.
    pub secret_spread: Duration,
    /// How long applications outside have to take new certificates into use, after each step of a rotation.
    pub applications_wait: Duration,
}

/// A range of addresses: `first-last` or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: u128,
    last: u128,
    v4: bool,
}

/// Why a text is no [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no address range: write for example 172.31.0.200-172.31.0.220 or 172.31.0.192/27")]
pub struct RangeError(String);

fn number(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    }
}

impl AddressRange {
    /// Whether every address of `other` lies in this range.
    pub const fn covers(&self, other: &Self) -> bool {
        self.v4 == other.v4 && self.first <= other.first && other.last <= self.last
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(small) if self.v4 => Ipv4Addr::from(small).into(),
            _ => Ipv6Addr::from(number).into(),
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let parse = |part: &str| part.trim().parse::<IpAddr>().map(number).map_err(|_| bad());
        if let Some((first, last)) = text.split_once('-') {
            let ((first, v4), (last, same)) = (parse(first)?, parse(last)?);
            return if v4 == same && first <= last { Ok(Self { first, last, v4 }) } else { Err(bad()) };
        }
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let (address, v4) = parse(address)?;
        let width = if v4 { 32 } else { 128 };
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(bad)?;
        let mask = if bits == width { 0 } else { u128::MAX >> (128 - (width - bits)) };
        Ok(Self { first: address & !mask, last: address | mask, v4 })
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.address(self.first), self.address(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_and_networks_read_alike() {
        assert_eq!(range("172.31.0.200-172.31.0.220").to_string(), "172.31.0.200-172.31.0.220");
        assert_eq!(range("172.31.0.201/27").to_string(), "172.31.0.192-172.31.0.223");
        assert_eq!(range("10.0.0.1/32").to_string(), "10.0.0.1-10.0.0.1");
        assert_eq!(range("0.0.0.0/0").to_string(), "0.0.0.0-255.255.255.255");
        assert_eq!(range("fd00::/126").to_string(), "fd00::-fd00::3");
        assert_eq!(range("::/0"), range("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    }

    #[test]
    fn a_range_covers_only_what_lies_in_it() {
        let allowed = range("172.31.0.192/27");
        assert!(allowed.covers(&range("172.31.0.200-172.31.0.220")));
        assert!(!allowed.covers(&range("172.31.0.200-172.31.0.224")));
        assert!(!range("::/0").covers(&allowed));
    }

    #[test]
    fn what_is_no_range_is_refused_with_an_example() {
        for text in ["", "x", "1.2.3.4", "1.2.3.4-", "1.2.3.9-1.2.3.4", "1.2.3.4/33", "1.2.3.4-fd00::1"] {
            assert!(
                text.parse::<AddressRange>().unwrap_err().to_string().contains("172.31.0.192/27"),
                "{text}"
            );
        }
    }
}
