//! The directory's records of fleets and devices: who may come in, how they prove it, and what they may do.
//!
//! The platform is closed by default: whoever no record lets in stays out, and what no permission allows is refused.
//! A record that cannot be read counts as none. Secrets are in none of them, only hashes ([`crate::credential`]).

use crate::permission::Permission;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The value under [`Key::Fleet`](crate::directory::Key::Fleet).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetEntry {
    /// How its devices may prove who they are; any of these.
    #[serde(default)]
    pub authentication: Authentication,
    /// What they may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// Bounds of each device, in each gateway process.
    #[serde(default)]
    pub limits: DeviceLimits,
    /// The desired document of every device: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How devices prove who they are. What is absent lets nobody in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Whether `<fleet>/<device>` and the password of the device's record do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub password: bool,
    /// Client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509: Option<X509>,
    /// The device that everybody is who says nothing at all. One fleet of a platform has it at most; if there are
    /// more, gateways take the first by the fleets' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<String>,
}

/// Client certificates that a fleet takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct X509 {
    /// Who signs them: one certificate or more, PEM. No two fleets of a platform have the same one.
    pub authorities: String,
    /// Where the device's name is in them.
    pub device_from: DeviceFrom,
    /// Whether a device needs a record of its own.
    pub provision: Provision,
}

/// Where a device's name is in its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceFrom {
    /// The subject's one common name.
    CommonName,
    /// The one URI among the alternative names.
    UriSan,
}

/// Whether a valid certificate suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provision {
    /// It does, unless the device has a record that disables it.
    Automatic,
    /// Only devices with a record.
    Declared,
}

/// What devices may do: addresses that no filter allows are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permissions {
    /// Addresses that a device may write; each a [`Permission`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Addresses that a device may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
}

/// Bounds of each device. What is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceLimits {
    /// Messages per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_rate: Option<u32>,
    /// Payload bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_bytes: Option<u64>,
    /// Connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_device: Option<u32>,
}

/// The value under [`Key::Device`](crate::directory::Key::Device). Kept small: there may be 100,000. Its credential shows
/// itself in no log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceEntry {
    /// Whether it is refused, however it proves who it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// The hash of its password, the text of a [`Credential`](crate::credential::Credential). Absent: no password
    /// lets it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What the operator knows the password's Secret by, so that it hashes only what changed. Gateways do not look
    /// at it: where nothing but this changes, nobody is disconnected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl fmt::Debug for DeviceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = self.credential.as_ref().map(|_| "(hidden)");
        let Self { disabled, source, .. } = self;
        let mut entry = f.debug_struct("DeviceEntry");
        entry.field("disabled", disabled).field("credential", &credential).field("source", source).finish()
    }
}

impl Permissions {
    /// Permissions by filters, none of which is checked here.
    pub fn new(publish: &[&str], subscribe: &[&str]) -> Self {
        let owned = |all: &[&str]| all.iter().map(|&each| each.to_owned()).collect();
        Self { publish: owned(publish), subscribe: owned(subscribe) }
    }

    /// Those that parse. One that does not allows nothing, and takes none of the others down.
    pub fn parse(texts: &[String]) -> Vec<Permission> {
        texts.iter().filter_map(|text| Permission::parse(text).ok()).collect()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;

    #[test]
    fn a_record_reads_back_as_written() {
        let json = r#"{"authentication":{"password":true,"x509":{"authorities":"-----BEGIN…","deviceFrom":"uriSan","provision":"automatic"},"anonymous":"guest"},
            "permissions":{"publish":["sites/+/telemetry/{device}/#"],"subscribe":["commands/{fleet}/{device}/#"]},
            "limits":{"publishRate":50,"publishBytes":1048576,"connectionsPerDevice":2},"configuration":{"interval":"15m"}}"#;
        let entry: FleetEntry = serde_json::from_str(json).unwrap();
        assert_eq!(entry.limits.publish_bytes, Some(1 << 20));
        assert_eq!(entry.authentication.x509.as_ref().unwrap().provision, Provision::Automatic);
        assert_eq!(entry.configuration.as_ref().unwrap()["interval"], "15m");
        let again = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<FleetEntry>(&again).unwrap(), entry);
    }

    #[test]
    fn what_a_record_does_not_say_lets_nobody_in() {
        let fleet: FleetEntry = serde_json::from_str("{}").unwrap();
        assert_eq!(fleet, FleetEntry::default());
        assert!(!fleet.authentication.password && fleet.permissions.publish.is_empty());
        let device: DeviceEntry = serde_json::from_str(r#"{"later":1}"#).unwrap();
        assert_eq!(device, DeviceEntry::default());
    }

    #[test]
    fn a_devices_record_is_small_and_shows_no_hash_in_a_log() {
        for (password, most) in [("0123456789abcdef0123456789abcdef", 100), ("secret", 130)] {
            let credential = Credential::new(password.as_bytes(), [7; 16]).unwrap().to_string();
            let json =
                serde_json::to_string(&DeviceEntry { credential: Some(credential), ..Default::default() });
            let json = json.unwrap();
            let entry: DeviceEntry = serde_json::from_str(&json).unwrap();
            assert!(!format!("{entry:?}").contains('$'), "{entry:?}");
            assert!(json.len() <= most, "{} bytes: {json}", json.len());
        }
    }
}
