//! Fleets and certificates for tests.

use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::DeviceFleet;
use time::OffsetDateTime;

/// A fleet of the platform `plant`.
pub fn fleet(name: &str, spec: &Value) -> DeviceFleet {
    let mut spec = spec.clone();
    spec["platformRef"] = json!({"name": "plant"});
    let object = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet",
        "metadata": {"name": name, "namespace": "plant", "uid": format!("uid-of-{name}"), "generation": 4},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A Secret with one key.
pub fn secret(key: &str, value: &[u8]) -> Secret {
    let data = BTreeMap::from([(key.to_owned(), k8s_openapi::ByteString(value.to_vec()))]);
    Secret { data: Some(data), ..Secret::default() }
}

/// What a certificate is to be.
pub struct Certificate {
    pub name: &'static str,
    pub authority: bool,
    pub usages: &'static [KeyUsagePurpose],
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

impl Certificate {
    /// An authority that is valid for a day around `now`.
    pub fn authority(name: &'static str, now: OffsetDateTime) -> Self {
        let day = time::Duration::DAY;
        Self {
            name,
            authority: true,
            usages: &[KeyUsagePurpose::KeyCertSign],
            from: now - day,
            until: now + day,
        }
    }

    /// Self-signed, as PEM.
    pub fn pem(&self) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.is_ca =
            if self.authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = self.usages.to_vec();
        params.not_before = self.from;
        params.not_after = self.until;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }
}
