//! Devices' certificates, as a table that every protocol runs through its own sockets: what a device shows, and what
//! becomes of it. Pure.

use crate::pki::{Authority, Leaf};
use anyhow::Result;
use rcgen::{CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use tidegate_contract::Principal;
use tidegate_contract::fleet::{
    Authentication, DeviceEntry, DeviceFrom, FleetEntry, Permissions, Provision, X509,
};
use tidegate_core::Roster;
use tokio_rustls::rustls::AlertDescription;

/// What becomes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in, as this device.
    In(&'static str),
    /// The handshake fails, with this alert.
    Alert(AlertDescription),
    /// The handshake succeeds, and then the protocol refuses it for this reason (`NotAdmitted::reason`).
    Refused(&'static str),
}

/// A device and what becomes of it.
pub struct Case {
    /// For people.
    pub name: &'static str,
    /// What it shows.
    pub shown: Option<Leaf>,
    /// What becomes of it.
    pub fate: Fate,
}

/// The authorities of three fleets, and of none.
pub struct Cast {
    /// Of the fleet `auto`, which takes every name.
    pub auto: Authority,
    /// Of the fleet `declared`, which has one device, `d1`.
    pub declared: Authority,
    /// Of the fleet `uris`, which looks for names in URIs.
    pub uris: Authority,
    /// Of no fleet.
    pub stranger: Authority,
    /// Of no fleet, with the name of `auto`'s.
    pub twin: Authority,
}

impl Cast {
    /// New authorities.
    pub fn new() -> Result<Self> {
        Ok(Self {
            auto: Authority::new("auto's authority")?,
            declared: Authority::new("declared's authority")?,
            uris: Authority::new("uris' authority")?,
            stranger: Authority::new("somebody's authority")?,
            twin: Authority::new("auto's authority")?,
        })
    }

    /// Lets devices in. `auto/off` is disabled.
    pub fn declare(&self, roster: &Roster) -> Result<()> {
        use DeviceFrom::{CommonName, UriSan};
        roster.put_fleet("auto", Some(&fleet(&[&self.auto], CommonName, Provision::Automatic)));
        roster.put_fleet("declared", Some(&fleet(&[&self.declared], CommonName, Provision::Declared)));
        roster.put_fleet("uris", Some(&fleet(&[&self.uris], UriSan, Provision::Automatic)));
        roster.put_device(&Principal::parse("declared/d1")?, Some(&DeviceEntry::default()));
        let off = DeviceEntry { disabled: true, ..DeviceEntry::default() };
        roster.put_device(&Principal::parse("auto/off")?, Some(&off));
        Ok(())
    }

    /// The table, for listeners that ask for certificates.
    pub fn cases(&self) -> Result<Vec<Case>> {
        use AlertDescription::{CertificateExpired, CertificateUnknown, UnknownCA, UnsupportedCertificate};
        let between = self.auto.under("between")?;
        let (mut deep, mut over) = (Vec::new(), self.auto.under("below 0")?);
        for depth in 1..5 {
            let next = over.under(&format!("below {depth}"))?;
            deep.insert(0, std::mem::replace(&mut over, next));
        }
        let mut too_long = over.device("a1")?.behind(&[&over]);
        too_long = too_long.behind(&deep.iter().collect::<Vec<_>>());
        let rows = [
            ("good", self.auto.device("a1")?, Fate::In("auto/a1")),
            (
                "good, with its authority behind it",
                self.auto.device("a2")?.behind(&[&self.auto]),
                Fate::In("auto/a2"),
            ),
            ("good, by an intermediate", between.device("a3")?.behind(&[&between]), Fate::In("auto/a3")),
            ("an intermediate is missing", between.device("a1")?, Fate::Alert(UnknownCA)),
            ("declared", self.declared.device("d1")?, Fate::In("declared/d1")),
            ("not declared", self.declared.device("d2")?, Fate::Refused("NotDeclared")),
            ("named in a URI", self.uris.with(&uri(&["spiffe://plant/m/u1"]))?, Fate::In("uris/u1")),
            (
                "named in a URN",
                self.uris.with(&uri(&["urn:dev:mac:0024befffe804ff1"]))?,
                Fate::In("uris/0024befffe804ff1"),
            ),
            (
                "two URIs",
                self.uris.with(&uri(&["urn:a:u1", "urn:a:u2"]))?,
                Fate::Refused("CertificateWithoutName"),
            ),
            (
                "a common name where a URI is wanted",
                self.uris.device("u1")?,
                Fate::Refused("CertificateWithoutName"),
            ),
            ("expired", self.auto.with(&valid("a1", 2000, 2001))?, Fate::Alert(CertificateExpired)),
            ("not yet valid", self.auto.with(&valid("a1", 3000, 3001))?, Fate::Alert(CertificateExpired)),
            ("self-signed", Leaf::self_signed(&device("a1"))?, Fate::Alert(UnknownCA)),
            ("of an authority of no fleet", self.stranger.device("a1")?, Fate::Alert(UnknownCA)),
            ("of an authority with another one's name", self.twin.device("a1")?, Fate::Alert(UnknownCA)),
            (
                "of another fleet's authority, with a name of this one",
                self.auto.device("d1")?,
                Fate::In("auto/d1"),
            ),
            ("for servers only", self.auto.with(&server_only("a1"))?, Fate::Alert(UnsupportedCertificate)),
            ("a chain of six", too_long, Fate::Alert(CertificateUnknown)),
            ("two common names", self.auto.with(&two_names())?, Fate::Refused("CertificateWithoutName")),
            ("no common name", self.auto.with(&nameless())?, Fate::Refused("CertificateWithoutName")),
            (
                "a common name with a slash",
                self.auto.device("declared/d1")?,
                Fate::Refused("CertificateWithoutName"),
            ),
            (
                "a common name with a wildcard",
                self.auto.device("#")?,
                Fate::Refused("CertificateWithoutName"),
            ),
            ("disabled", self.auto.device("off")?, Fate::Refused("DeviceDisabled")),
        ];
        Ok(rows.into_iter().map(|(name, shown, fate)| Case { name, shown: Some(shown), fate }).collect())
    }
}

/// A fleet that takes certificates, and may do everything.
pub fn fleet(authorities: &[&Authority], device_from: DeviceFrom, provision: Provision) -> FleetEntry {
    let x509 = X509 { authorities: crate::pki::bundle(authorities), device_from, provision };
    FleetEntry {
        authentication: Authentication { x509: Some(x509), ..Authentication::default() },
        permissions: Permissions::new(&["#"], &["#"]),
        ..FleetEntry::default()
    }
}

/// A certificate for a client with this common name.
pub fn device(name: &str) -> CertificateParams {
    let mut params = nameless();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    // rcgen gives it one by itself
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "plant");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// rcgen has one value for each type of attribute; a type of the same number is another one to it.
fn two_names() -> CertificateParams {
    let mut params = device("a1");
    let common_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    params.distinguished_name.push(common_name, DnValue::Utf8String("a2".to_owned()));
    params
}

fn uri(uris: &[&str]) -> CertificateParams {
    let mut params = device("not/a/device");
    let uris = uris.iter().filter_map(|uri| (*uri).try_into().ok().map(SanType::URI));
    params.subject_alt_names = uris.collect();
    params
}

fn valid(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = device(name);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

fn server_only(name: &str) -> CertificateParams {
    let mut params = device(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
