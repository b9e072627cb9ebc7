//! What a platform tells everybody: by which authority devices know its listeners. Pure.

use super::secrets::data;
use crate::kafka::names::Names;
use crate::pki::CA_CRT;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::BTreeMap;

/// The ConfigMap with the public certificates of the devices' authority, from its Secret. Its name never changes, and its
/// content does when the authority is rotated: people and scripts fetch it by name, and no pod mounts it.
pub fn devices_authority(names: &Names, authority: &Secret) -> ConfigMap {
    let bundle = data(authority).remove(CA_CRT).unwrap_or_default();
    ConfigMap {
        metadata: names.metadata(names.devices_ca(), "certificates"),
        data: Some(BTreeMap::from([(CA_CRT.to_owned(), bundle)])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::secrets::device_authority;
    use time::OffsetDateTime;

    #[test]
    fn the_authoritys_certificate_is_told_and_its_key_is_not() {
        let names = Names::new("iot", "plant", "cluster.local");
        let authority = device_authority(&names, None, OffsetDateTime::now_utc()).unwrap();
        let map = devices_authority(&names, &authority);
        assert_eq!(map.metadata.name.as_deref(), Some("plant-devices-ca"));
        let text = &map.data.unwrap()[CA_CRT];
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("KEY"), "{text}");
    }
}
