//! From a fleet, its Secrets' versions and what is known of its passwords to its records in the directory. Pure.

use super::passwords::{Made, Need, Trouble};
use super::validate::Valid;
use crate::kafka::fleets::FleetRecords;
use std::collections::HashMap;
use tidegate_contract::fleet::{DeviceEntry, FleetEntry};
use tidegate_crds::common::SecretKeyRef;
use tidegate_crds::fleet::Device;

/// What is known of a device's password beside the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was asked for, by this source.
    Asked(String),
    /// This came of it.
    Made(Made),
}

/// The certificate authorities in a fleet's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// None.
    None,
    /// These.
    Some(&'a str),
    /// Those that it has.
    AsBefore,
}

/// What a fleet's records follow from.
pub struct Given<'a> {
    /// What is declared.
    pub valid: &'a Valid,
    /// The records of before.
    pub before: &'a FleetRecords,
    /// The certificate authorities.
    pub authority: Authority<'a>,
    /// Whether it takes those who say nothing.
    pub anonymous: bool,
    /// What is known of passwords, by device.
    pub progress: &'a HashMap<String, Progress>,
    /// The source that a Secret is now; nothing where there is none.
    pub source: &'a dyn Fn(&SecretKeyRef) -> Option<String>,
}

/// A fleet's records, and what is missing in them.
#[derive(Debug, Default)]
pub struct Built {
    /// The records.
    pub records: FleetRecords,
    /// How many devices may connect by name.
    pub registered: i64,
    /// How many passwords are not hashed yet.
    pub pending: usize,
    /// Those of them that nobody was asked for yet, with the source.
    pub needs: Vec<(String, Need)>,
    /// What is not well with Secrets of passwords, by device.
    pub troubles: Vec<(String, Trouble)>,
}

/// Builds a fleet's records.
pub fn build(given: &Given<'_>) -> Built {
    let valid = given.valid;
    let mut entry = valid.entry.clone();
    if let Some(x509) = &valid.x509 {
        let before = || given.before.fleet.as_deref().and_then(fleet)?.authentication.x509;
        entry.authentication.x509 = match given.authority {
            Authority::None => None,
            Authority::Some(pem) => Some(x509.entry(pem.to_owned())),
            Authority::AsBefore => before().map(|before| x509.entry(before.authorities)),
        };
    }
    entry.authentication.anonymous = valid.anonymous.clone().filter(|_| given.anonymous);
    let mut built = Built::default();
    built.records.fleet = serde_json::to_vec(&entry).ok().map(Vec::into_boxed_slice);
    let certificate = entry.authentication.x509.is_some();
    for device in &valid.devices {
        let Some(own) = device_entry(given, device, &mut built) else { continue };
        let anonymous = entry.authentication.anonymous.as_ref() == Some(&device.name);
        if !own.disabled && (own.credential.is_some() || certificate || anonymous) {
            built.registered += 1;
        }
        if let Ok(json) = serde_json::to_vec(&own) {
            built.records.devices.insert(device.name.as_str().into(), json.into());
        }
    }
    built
}

/// One device's record; nothing while its first password is hashed and nothing else is to be said of it.
fn device_entry(given: &Given<'_>, device: &Device, built: &mut Built) -> Option<DeviceEntry> {
    let disabled = device.disabled;
    let bare = DeviceEntry { disabled, ..DeviceEntry::default() };
    let password = given.valid.entry.authentication.password;
    let Some(secret) = device.password_secret_ref.as_ref().filter(|_| password) else { return Some(bare) };
    let before: Option<DeviceEntry> =
        given.before.devices.get(device.name.as_str()).and_then(|json| serde_json::from_slice(json).ok());
    let Some(source) = (given.source)(secret) else {
        // Whoever is kept out needs no password.
        if !disabled {
            built.troubles.push((device.name.clone(), Trouble::Missing(secret.name.clone())));
        }
        return Some(bare);
    };
    if let Some(before) = &before
        && before.credential.is_some()
        && before.source.as_ref() == Some(&source)
    {
        return Some(DeviceEntry { disabled, ..before.clone() });
    }
    if disabled {
        return Some(bare);
    }
    match given.progress.get(&device.name) {
        Some(Progress::Made((of, Ok(credential)))) if *of == source => {
            return Some(DeviceEntry {
                disabled,
                credential: Some(credential.clone()),
                source: Some(source),
            });
        }
        Some(Progress::Made((of, Err(trouble)))) if *of == source => {
            built.troubles.push((device.name.clone(), trouble.clone()));
            return Some(bare);
        }
        Some(Progress::Asked(of)) if *of == source => {}
        _ => {
            let old = before.as_ref().and_then(|before| before.credential.clone());
            let (name, key) = (secret.name.clone(), secret.key.clone());
            built.needs.push((source, Need { device: device.name.clone(), secret: name, key, old }));
        }
    }
    built.pending += 1;
    // Until then the password of before holds: it may be the same.
    match before {
        Some(before) => Some(DeviceEntry { disabled, ..before }),
        None => given.valid.x509.is_some().then_some(bare),
    }
}

/// A fleet's record.
pub fn fleet(json: &[u8]) -> Option<FleetEntry> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples;
    use crate::fleet::validate::validate;
    use serde_json::{Value, json};

    fn valid(spec: &Value) -> Valid {
        validate(&samples::fleet("meters", spec)).unwrap()
    }

    fn one(device: &Value) -> Valid {
        valid(&json!({"authentication": {"password": {}}, "devices": [device]}))
    }

    fn secured() -> Value {
        json!({"name": "a", "passwordSecretRef": {"name": "s", "key": "password"}})
    }

    fn before(entry: &Value) -> FleetRecords {
        let devices = [("a".into(), entry.to_string().into_bytes().into())].into();
        FleetRecords { fleet: None, devices }
    }

    fn none() -> FleetRecords {
        FleetRecords::default()
    }

    fn built(
        valid: &Valid,
        before: &FleetRecords,
        progress: Option<Progress>,
        source: Option<&str>,
    ) -> Built {
        let progress = progress.into_iter().map(|one| ("a".to_owned(), one)).collect();
        let source = |_: &SecretKeyRef| source.map(str::to_owned);
        let authority = Authority::None;
        build(&Given { valid, before, authority, anonymous: false, progress: &progress, source: &source })
    }

    fn entry(built: &Built) -> Option<Value> {
        built.records.devices.get("a").map(|json| serde_json::from_slice(json).unwrap())
    }

    fn made(source: &str, credential: &str) -> Progress {
        Progress::Made((source.to_owned(), Ok(credential.to_owned())))
    }

    #[test]
    fn an_unchanged_secret_is_not_hashed_again() {
        let known = json!({"credential": "old", "source": "v1"});
        let built = built(&one(&secured()), &before(&known), None, Some("v1"));
        assert_eq!((entry(&built), built.pending, built.needs.len()), (Some(known), 0, 0));
        assert_eq!(built.registered, 1);
    }

    #[test]
    fn a_changed_secret_is_hashed_once_and_the_old_password_holds_meanwhile() {
        let (fleet, known) = (one(&secured()), json!({"credential": "old", "source": "v1"}));
        let first = built(&fleet, &before(&known), None, Some("v2"));
        assert_eq!(entry(&first), Some(known.clone()));
        assert_eq!((first.pending, first.needs.len()), (1, 1));
        assert_eq!((first.needs[0].0.as_str(), first.needs[0].1.old.as_deref()), ("v2", Some("old")));
        let asked = Some(Progress::Asked("v2".to_owned()));
        let second = built(&fleet, &before(&known), asked.clone(), Some("v2"));
        assert_eq!((second.pending, second.needs.len()), (1, 0));
        assert_eq!(built(&fleet, &before(&known), asked, Some("v3")).needs.len(), 1, "changed once more");
        let third = built(&fleet, &before(&known), Some(made("v2", "new")), Some("v2"));
        assert_eq!(entry(&third), Some(json!({"credential": "new", "source": "v2"})));
        assert_eq!((third.pending, third.needs.len()), (0, 0));
    }

    #[test]
    fn a_new_device_comes_with_its_credential_or_at_once_where_a_certificate_does() {
        let asked = || Some(Progress::Asked("v1".to_owned()));
        let fleet = one(&secured());
        assert_eq!(entry(&built(&fleet, &none(), asked(), Some("v1"))), None);
        let both = valid(&json!({
            "authentication": {"password": {}, "x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}},
            "devices": [secured()],
        }));
        assert_eq!(entry(&built(&both, &none(), asked(), Some("v1"))), Some(json!({})));
    }

    #[test]
    fn a_secret_that_is_gone_or_useless_takes_the_credential_with_it() {
        let (fleet, known) = (one(&secured()), json!({"credential": "old", "source": "v1"}));
        let gone = built(&fleet, &before(&known), None, None);
        assert_eq!((entry(&gone), gone.registered), (Some(json!({})), 0));
        assert_eq!(gone.troubles, [("a".to_owned(), Trouble::Missing("s".to_owned()))]);
        let trouble = Trouble::Missing("x".to_owned());
        let useless = Some(Progress::Made(("v2".to_owned(), Err(trouble.clone()))));
        let useless = built(&fleet, &before(&known), useless, Some("v2"));
        assert_eq!((entry(&useless), useless.pending), (Some(json!({})), 0));
        assert_eq!(useless.troubles, [("a".to_owned(), trouble)]);
    }

    #[test]
    fn a_disabled_device_is_kept_out_at_once_and_nothing_is_hashed_for_it() {
        let mut device = secured();
        device["disabled"] = json!(true);
        let (fleet, known) = (one(&device), json!({"credential": "old", "source": "v1"}));
        let same = built(&fleet, &before(&known), None, Some("v1"));
        assert_eq!(entry(&same), Some(json!({"disabled": true, "credential": "old", "source": "v1"})));
        assert_eq!(same.registered, 0);
        let changed = built(&fleet, &before(&known), None, Some("v2"));
        assert_eq!((entry(&changed), changed.needs.len()), (Some(json!({"disabled": true})), 0));
        let gone = built(&fleet, &before(&known), None, None);
        assert_eq!((entry(&gone), gone.troubles.len()), (Some(json!({"disabled": true})), 0));
    }

    #[test]
    fn a_fleet_without_passwords_keeps_none() {
        let fleet = valid(&json!({"authentication": {"anonymous": {"device": "a"}}, "devices": [secured()]}));
        let known = json!({"credential": "old", "source": "v1"});
        let built = built(&fleet, &before(&known), None, Some("v1"));
        assert_eq!((entry(&built), built.needs.len()), (Some(json!({})), 0));
    }

    #[test]
    fn authorities_and_the_anonymous_device_are_in_the_record_of_who_has_them() {
        let fleet = valid(&json!({"authentication": {
            "x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "provision": "Automatic"},
            "anonymous": {"device": "guest"},
        }}));
        let (progress, source) = (HashMap::new(), |_: &SecretKeyRef| None);
        let of = |before: &FleetRecords, authority: Authority<'_>, anonymous: bool| {
            let given =
                Given { valid: &fleet, before, authority, anonymous, progress: &progress, source: &source };
            let records = build(&given).records;
            let entry: Value = serde_json::from_slice(records.fleet.as_ref().unwrap()).unwrap();
            (records, entry["authentication"].clone())
        };
        let x509 = json!({"authorities": "PEM", "deviceFrom": "commonName", "provision": "automatic"});
        let (has, entry) = of(&none(), Authority::Some("PEM"), true);
        assert_eq!(entry, json!({"x509": x509, "anonymous": "guest"}));
        assert_eq!(of(&has, Authority::None, false).1, json!({}));
        assert_eq!(of(&has, Authority::AsBefore, false).1, json!({"x509": x509}));
        assert_eq!(of(&none(), Authority::AsBefore, false).1, json!({}));
    }
}
