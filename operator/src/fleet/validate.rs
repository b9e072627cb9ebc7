//! From a `DeviceFleet` to what can be carried out. Pure.

use crate::frame::{Class, StepError};
use kube::ResourceExt as _;
use std::collections::BTreeSet;
use tidegate_contract::desired::Document;
use tidegate_contract::fleet::{
    Authentication, DeviceFrom, DeviceLimits, FleetEntry, Permissions, Provision, X509,
};
use tidegate_contract::{Permission, principal};
use tidegate_crds::common::SecretKeyRef;
use tidegate_crds::conditions::ACCEPTED;
use tidegate_crds::{DeviceFleet, fleet, reasons};

/// How many wrong fields are told.
const TOLD: usize = 8;

/// A spec that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidFleet(Vec<String>);

impl InvalidFleet {
    /// One wrong field.
    pub fn of(field: &str, why: impl std::fmt::Display) -> Self {
        Self(vec![format!("{field}: {why}")])
    }
}

impl StepError for InvalidFleet {
    fn reason(&self) -> &'static str {
        reasons::INVALID
    }

    fn class(&self) -> Class {
        Class::Invalid
    }

    fn condition(&self) -> Option<&'static str> {
        Some(ACCEPTED)
    }
}

/// A fleet that can be.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// Its record, without certificate authorities and without the anonymous device: others may have those.
    pub entry: FleetEntry,
    /// Client certificates.
    pub x509: Option<ValidX509>,
    /// The device that everybody is who says nothing.
    pub anonymous: Option<String>,
    /// Its devices, each with another name.
    pub devices: Vec<fleet::Device>,
}

/// Client certificates, without those who sign them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidX509 {
    /// Who signs them.
    pub authorities: SecretKeyRef,
    device_from: DeviceFrom,
    provision: Provision,
}

impl ValidX509 {
    /// The record's part.
    pub fn entry(&self, authorities: String) -> X509 {
        X509 { authorities, device_from: self.device_from, provision: self.provision }
    }
}

impl Valid {
    /// The names of all Secrets that are referred to.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let passwords = self.devices.iter().filter_map(|device| device.password_secret_ref.as_ref());
        let authorities = self.x509.iter().map(|x509| &x509.authorities);
        passwords.chain(authorities).map(|secret| secret.name.as_str()).collect()
    }
}

/// Checks what the API server cannot.
pub fn validate(fleet: &DeviceFleet) -> Result<Valid, InvalidFleet> {
    let (name, spec) = (fleet.name_any(), &fleet.spec);
    let mut wrong = Vec::new();
    if let Err(error) = principal::check_fleet(&name) {
        wrong.push(format!("metadata.name {name:?}: {error}"));
    }
    let anonymous = spec.authentication.anonymous.as_ref().map(|one| one.device.clone());
    if let Some(device) = &anonymous
        && let Err(error) = principal::check_device(device)
    {
        wrong.push(format!("spec.authentication.anonymous.device {device:?}: {error}"));
    }
    let mut names = BTreeSet::new();
    for (index, device) in spec.devices.iter().enumerate() {
        if let Err(error) = principal::check_device(&device.name) {
            wrong.push(format!("spec.devices[{index}].name {:?}: {error}", device.name));
        } else if !names.insert(device.name.as_str()) {
            wrong.push(format!("spec.devices[{index}].name {:?}: another device has this name", device.name));
        }
    }
    let none = fleet::Permissions::default();
    let permissions = spec.permissions.as_ref().unwrap_or(&none);
    for (what, all) in [("publish", &permissions.publish), ("subscribe", &permissions.subscribe)] {
        for (index, text) in all.iter().enumerate() {
            if let Err(error) = Permission::parse(text) {
                wrong.push(format!("spec.permissions.{what}[{index}] {text:?}: {error}"));
            }
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(TOLD);
        wrong.truncate(TOLD);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        return Err(InvalidFleet(wrong));
    }
    if let Some(configuration) = &spec.configuration {
        let small = Document::new(configuration).check();
        small.map_err(|error| InvalidFleet::of("spec.configuration", error))?;
    }
    let entry = FleetEntry {
        authentication: Authentication {
            password: spec.authentication.password.is_some(),
            x509: None,
            anonymous: None,
        },
        permissions: Permissions {
            publish: permissions.publish.clone(),
            subscribe: permissions.subscribe.clone(),
        },
        limits: spec.limits.as_ref().map(limits).unwrap_or_default(),
        configuration: spec.configuration.clone(),
    };
    let x509 = spec.authentication.x509.as_ref().map(|x509| ValidX509 {
        authorities: x509.ca_secret_ref.clone(),
        device_from: match x509.device_from {
            fleet::DeviceFrom::CommonName => DeviceFrom::CommonName,
            fleet::DeviceFrom::UriSan => DeviceFrom::UriSan,
        },
        provision: match x509.provision {
            fleet::Provision::Automatic => Provision::Automatic,
            fleet::Provision::Declared => Provision::Declared,
        },
    });
    Ok(Valid { entry, x509, anonymous, devices: spec.devices.clone() })
}

fn limits(limits: &fleet::DeviceLimits) -> DeviceLimits {
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    DeviceLimits {
        publish_rate: number(limits.publish_rate),
        publish_bytes: limits
            .publish_bytes
            .as_ref()
            .map(|bytes| u64::try_from(bytes.value()).unwrap_or_default()),
        connections_per_device: number(limits.connections_per_device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::fleet;
    use serde_json::json;
    use tidegate_contract::desired::MAX_BYTES;

    #[test]
    fn the_example_becomes_its_record() {
        let fleet = fleet(
            "meters",
            &json!({
                "authentication": {"password": {}, "x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "deviceFrom": "UriSan"}},
                "devices": [{"name": "meter-7", "passwordSecretRef": {"name": "meter-7", "key": "password"}}],
                "permissions": {"publish": ["sites/+/telemetry/{device}/#"], "subscribe": ["commands/{fleet}/{device}/#"]},
                "limits": {"publishRate": 50, "publishBytes": "1Mi", "connectionsPerDevice": 2},
                "configuration": {"interval": "15m"},
            }),
        );
        let valid = validate(&fleet).unwrap();
        assert_eq!(
            serde_json::to_value(&valid.entry).unwrap(),
            json!({
                "authentication": {"password": true},
                "permissions": {"publish": ["sites/+/telemetry/{device}/#"], "subscribe": ["commands/{fleet}/{device}/#"]},
                "limits": {"publishRate": 50, "publishBytes": 1_048_576, "connectionsPerDevice": 2},
                "configuration": {"interval": "15m"},
            })
        );
        let x509 = valid.x509.as_ref().unwrap().entry("PEM".to_owned());
        assert_eq!((x509.device_from, x509.provision), (DeviceFrom::UriSan, Provision::Declared));
        assert_eq!(valid.secrets().into_iter().collect::<Vec<_>>(), ["ca", "meter-7"]);
    }

    #[test]
    fn every_wrong_field_is_told_with_what_to_write() {
        let device = |name: &str| json!({"name": name});
        let fleet = fleet(
            "meters",
            &json!({
                "authentication": {"anonymous": {"device": "."}},
                "devices": [device("a"), device(&"ä".repeat(65)), device("a"), device("b\u{7}")],
                "permissions": {"publish": ["ok/{device}", "a/{Device}"], "subscribe": ["a/#/b"]},
            }),
        );
        let error = validate(&fleet).unwrap_err();
        let text = error.to_string();
        for part in [
            "spec.authentication.anonymous.device \".\": a device's name",
            "spec.devices[1].name \"ääää",
            "1 to 128 bytes of UTF-8, this one has 130",
            "spec.devices[2].name \"a\": another device has this name",
            "spec.devices[3].name \"b\\u{7}\"",
            "spec.permissions.publish[1] \"a/{Device}\": only {fleet} and {device} stand in braces",
            "spec.permissions.subscribe[0] \"a/#/b\": ",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("ok/"), "{text}");
        assert_eq!((error.reason(), error.condition()), ("Invalid", Some("Accepted")));
    }

    #[test]
    fn many_wrong_fields_are_told_in_a_few_words() {
        let devices: Vec<_> = (0..20).map(|_| json!({"name": ".."})).collect();
        let fleet = fleet("meters", &json!({"authentication": {"password": {}}, "devices": devices}));
        let text = validate(&fleet).unwrap_err().to_string();
        assert!(text.ends_with("and 12 more"), "{text}");
    }

    #[test]
    fn a_configuration_that_devices_do_not_get_is_refused() {
        let text = "x".repeat(MAX_BYTES);
        let fleet =
            fleet("meters", &json!({"authentication": {"password": {}}, "configuration": {"text": text}}));
        let error = validate(&fleet).unwrap_err().to_string();
        assert!(error.starts_with("spec.configuration: as JSON it has 65547 bytes"), "{error}");
        assert!(error.contains("at most 65536"), "{error}");
    }
}
