//! Fleets and devices as the directory has them, in the little memory that 100,000 devices leave for each. No IO.

use super::authorities::{Authority, Certificates};
use crate::tls::DeviceCertificate;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;
use tidegate_contract::credential::Credential;
use tidegate_contract::desired::Document;
use tidegate_contract::fleet::{DeviceEntry, DeviceFrom, DeviceLimits, FleetEntry, Permissions, Provision};
use tidegate_contract::{Permission, Principal};

/// All fleets and devices.
#[derive(Debug, Default)]
pub(crate) struct Records {
    fleets: HashMap<Box<str>, Fleet>,
    /// The anonymous devices, by their fleets' names.
    anonymous: BTreeMap<Box<str>, Principal>,
    /// What is taken by fleets that take certificates, by their names. Of several with one authority the first has it.
    certificates: BTreeMap<Box<str>, Certificates>,
}

#[derive(Debug, Default)]
struct Fleet {
    /// Nothing while only devices of it are known: they count for nothing without their fleet.
    rules: Option<Arc<Rules>>,
    devices: HashMap<Box<str>, Device>,
}

#[derive(Debug)]
struct Device {
    credential: Option<Box<Credential>>,
    disabled: bool,
}

/// What is true for every device of a fleet.
#[derive(Debug)]
pub(crate) struct Rules {
    password: bool,
    pub(crate) publish: Vec<Permission>,
    pub(crate) subscribe: Vec<Permission>,
    pub(crate) limits: DeviceLimits,
    /// The desired document, one for all devices.
    pub(crate) configuration: Option<Arc<Document>>,
}

/// The way in which a device proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// With the password of this very credential.
    Password(Box<Credential>),
    /// Not at all.
    Anonymous,
    /// With a certificate.
    Certificate(Shown),
}

/// A certificate that a device came with.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    authority: Arc<Authority>,
    device_from: DeviceFrom,
    not_after: SystemTime,
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.authority.is(&other.authority)
            && (self.device_from, self.not_after) == (other.device_from, other.not_after)
    }
}

impl Eq for Shown {}

impl Way {
    /// When it is over by itself.
    pub(crate) const fn not_after(&self) -> Option<SystemTime> {
        match self {
            Self::Certificate(shown) => Some(shown.not_after),
            Self::Password(_) | Self::Anonymous => None,
        }
    }
}

/// Why a certificate is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// No fleet has its authority any more.
    Authority,
    /// It has no name where its fleet looks for one, several, or one that no device can have.
    Name,
}

/// Why a device may not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// There is no such device, or it may not come in like this.
    Unknown,
    /// It proved who it is, and has no record, as it should.
    Undeclared,
    /// It proved who it is, and is disabled.
    Disabled,
}

impl Records {
    /// Takes a fleet's record, or that it has none any more. Whether its authorities are others: that may concern
    /// devices of other fleets.
    pub(crate) fn put_fleet(&mut self, name: &str, entry: Option<&FleetEntry>) -> bool {
        let fleet = self.fleets.entry(name.into()).or_default();
        fleet.rules = entry.map(|entry| Arc::new(Rules::new(entry)));
        let anonymous = entry.and_then(|entry| entry.authentication.anonymous.as_deref());
        match anonymous.and_then(|device| Principal::new(name, device).ok()) {
            Some(principal) => self.anonymous.insert(name.into(), principal),
            None => self.anonymous.remove(name),
        };
        if fleet.rules.is_none() && fleet.devices.is_empty() {
            self.fleets.remove(name);
        }
        let x509 = entry.and_then(|entry| entry.authentication.x509.as_ref());
        let before = match x509.map(|x509| Certificates::new(name, x509)) {
            Some(certificates) => self.certificates.insert(name.into(), certificates),
            None => self.certificates.remove(name),
        };
        let old = before.map(|before| before.authorities).unwrap_or_default();
        let new = self.certificates.get(name).map_or(&[][..], |now| &now.authorities);
        old.len() != new.len() || old.iter().zip(new).any(|(old, new)| !old.is(new))
    }

    /// Takes a device's record, or that it has none any more. A credential that cannot be read lets nobody in; then
    /// the answer is false.
    pub(crate) fn put_device(&mut self, principal: &Principal, entry: Option<&DeviceEntry>) -> bool {
        let fleet = self.fleets.entry(principal.fleet().into()).or_default();
        let Some(entry) = entry else {
            fleet.devices.remove(principal.device());
            if fleet.rules.is_none() && fleet.devices.is_empty() {
                self.fleets.remove(principal.fleet());
            }
            return true;
        };
        let parsed = entry.credential.as_deref().map(Credential::parse);
        let readable = !matches!(parsed, Some(Err(_)));
        let credential = parsed.and_then(Result::ok).map(Box::new);
        fleet.devices.insert(principal.device().into(), Device { credential, disabled: entry.disabled });
        readable
    }

    /// The credential that a device's password has to fit.
    pub(crate) fn credential(&self, principal: &Principal) -> Option<Credential> {
        let fleet = self.fleets.get(principal.fleet())?;
        fleet.rules.as_ref().filter(|rules| rules.password)?;
        fleet.devices.get(principal.device())?.credential.as_deref().copied()
    }

    /// Who somebody is who says nothing at all.
    pub(crate) fn anonymous(&self) -> Option<&Principal> {
        self.anonymous.values().next()
    }

    /// The authorities for which the question is answered with yes.
    pub(crate) fn authorities(&self, which: impl Fn(&Authority) -> bool) -> Vec<Arc<Authority>> {
        let all = self.certificates.values().flat_map(|certificates| &certificates.authorities);
        all.filter(|authority| which(authority)).map(Arc::clone).collect()
    }

    /// Whose devices an authority signs for, and what that fleet takes.
    fn holder(&self, authority: &Authority) -> Option<(&str, &Certificates)> {
        let mut fleets = self.certificates.iter();
        let (name, found) =
            fleets.find(|(_, taken)| taken.authorities.iter().any(|each| each.is(authority)))?;
        Some((name, found))
    }

    /// Who came with a certificate.
    pub(crate) fn named(&self, certificate: &DeviceCertificate) -> Result<(Principal, Way), Unnamed> {
        let (fleet, taken) = self.holder(certificate.authority()).ok_or(Unnamed::Authority)?;
        let device_from = taken.device_from;
        let device = certificate.device(device_from).ok_or(Unnamed::Name)?;
        let principal = Principal::new(fleet, device).map_err(|_| Unnamed::Name)?;
        let authority = Arc::clone(certificate.authority());
        let shown = Shown { authority, device_from, not_after: certificate.not_after() };
        Ok((principal, Way::Certificate(shown)))
    }

    /// Whether a device that came in this way may be here, and by which rules. Asked when it comes and whenever
    /// something changes.
    pub(crate) fn standing(&self, principal: &Principal, way: &Way) -> Result<&Arc<Rules>, Barred> {
        let fleet = self.fleets.get(principal.fleet()).ok_or(Barred::Unknown)?;
        let rules = fleet.rules.as_ref().ok_or(Barred::Unknown)?;
        let device = fleet.devices.get(principal.device());
        let proven = match way {
            Way::Password(proven) => {
                rules.password && device.and_then(|device| device.credential.as_ref()) == Some(proven)
            }
            Way::Anonymous => self.anonymous() == Some(principal),
            Way::Certificate(shown) => {
                let holder = self.holder(&shown.authority).filter(|(name, taken)| {
                    *name == principal.fleet() && taken.device_from == shown.device_from
                });
                if device.is_none() && holder.is_some_and(|(_, taken)| taken.provision == Provision::Declared)
                {
                    return Err(Barred::Undeclared);
                }
                holder.is_some()
            }
        };
        match (proven, device) {
            (false, _) => Err(Barred::Unknown),
            (true, Some(device)) if device.disabled => Err(Barred::Disabled),
            (true, _) => Ok(rules),
        }
    }

    /// How many fleets and devices there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let fleets = self.fleets.values().filter(|fleet| fleet.rules.is_some());
        let devices = fleets.clone().map(|fleet| fleet.devices.len()).sum();
        (fleets.count(), devices)
    }
}

impl Rules {
    fn new(entry: &FleetEntry) -> Self {
        Self {
            password: entry.authentication.password,
            publish: Permissions::parse(&entry.permissions.publish),
            subscribe: Permissions::parse(&entry.permissions.subscribe),
            limits: entry.limits,
            configuration: entry.configuration.as_ref().map(|map| Arc::new(Document::new(map))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_contract::fleet::Authentication;

    const PASSWORD: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn principal(text: &str) -> Principal {
        Principal::parse(text).unwrap()
    }

    fn device(salt: u8, disabled: bool) -> (DeviceEntry, Way) {
        let credential = Credential::new(PASSWORD, [salt; 16]).unwrap();
        let entry = DeviceEntry { disabled, credential: Some(credential.to_string()), source: None };
        (entry, Way::Password(Box::new(credential)))
    }

    fn fleet(password: bool, anonymous: Option<&str>) -> FleetEntry {
        let anonymous = anonymous.map(str::to_owned);
        let authentication = Authentication { password, anonymous, ..Authentication::default() };
        FleetEntry { authentication, ..FleetEntry::default() }
    }

    #[test]
    fn a_device_counts_while_its_fleet_has_a_record_whichever_came_first() {
        let (meter, (entry, way)) = (principal("meters/1"), device(1, false));
        let mut records = Records::default();
        assert!(records.put_device(&meter, Some(&entry)));
        assert_eq!(records.standing(&meter, &way).unwrap_err(), Barred::Unknown);
        assert_eq!((records.credential(&meter), records.count()), (None, (0, 0)));
        records.put_fleet("meters", Some(&fleet(true, None)));
        assert!(records.standing(&meter, &way).is_ok());
        assert_eq!(records.count(), (1, 1));
        records.put_fleet("meters", None);
        assert!(records.standing(&meter, &way).is_err());
        records.put_device(&meter, None);
        assert!(records.fleets.is_empty());
    }

    #[test]
    fn who_may_not_come_in_like_this_is_unknown_and_who_may_not_come_in_now_is_disabled() {
        let mut records = Records::default();
        records.put_fleet("meters", Some(&fleet(true, None)));
        let (entry, way) = device(1, false);
        records.put_device(&principal("meters/1"), Some(&entry));
        let (off, off_way) = device(2, true);
        records.put_device(&principal("meters/2"), Some(&off));
        let barred = |name, way: &Way| records.standing(&principal(name), way).err();
        assert_eq!(barred("meters/1", &way), None);
        assert_eq!(barred("meters/1", &off_way), Some(Barred::Unknown));
        assert_eq!(barred("meters/1", &Way::Anonymous), Some(Barred::Unknown));
        assert_eq!(barred("meters/2", &off_way), Some(Barred::Disabled));
        assert_eq!(barred("meters/2", &way), Some(Barred::Unknown));
        assert_eq!(barred("meters/3", &way), Some(Barred::Unknown));
        assert_eq!(barred("others/1", &way), Some(Barred::Unknown));
        records.put_fleet("meters", Some(&fleet(false, None)));
        assert_eq!(records.standing(&principal("meters/1"), &way).err(), Some(Barred::Unknown));
        assert_eq!(records.credential(&principal("meters/1")), None);
    }

    #[test]
    fn of_several_fleets_with_an_anonymous_device_the_first_by_name_has_it() {
        let mut records = Records::default();
        records.put_fleet("b", Some(&fleet(false, Some("guest"))));
        records.put_fleet("c", Some(&fleet(false, Some("guest"))));
        assert_eq!(records.anonymous(), Some(&principal("b/guest")));
        assert!(records.standing(&principal("c/guest"), &Way::Anonymous).is_err());
        records.put_fleet("a", Some(&fleet(true, Some("no/device"))));
        assert_eq!(records.anonymous(), Some(&principal("b/guest")));
        let disabled = DeviceEntry { disabled: true, ..DeviceEntry::default() };
        records.put_device(&principal("b/guest"), Some(&disabled));
        assert_eq!(records.standing(&principal("b/guest"), &Way::Anonymous).err(), Some(Barred::Disabled));
    }

    #[test]
    fn a_credential_that_cannot_be_read_lets_nobody_in() {
        let mut records = Records::default();
        records.put_fleet("meters", Some(&fleet(true, None)));
        let entry = DeviceEntry { credential: Some("secret".to_owned()), ..DeviceEntry::default() };
        assert!(!records.put_device(&principal("meters/1"), Some(&entry)));
        assert_eq!(records.credential(&principal("meters/1")), None);
    }
}
