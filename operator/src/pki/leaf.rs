//! Leaf certificates: kept while they fit, issued anew for a reason. Pure but for randomness.

use super::authority::{BACKDATE, hex};
use super::parsed::{Facts, Key, certificates};
use super::{Authority, PkiError, Step};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use std::collections::BTreeSet;
use std::fmt;
use time::{Duration, OffsetDateTime};

/// How long a leaf is valid.
const VALID: Duration = Duration::days(365);
/// A leaf is made anew when less than this is left: a third, so that a roll that waits for a person has months.
const RENEW_BEFORE: Duration = Duration::days(120);

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSpec {
    /// Who it is: the principal in Kafka.
    pub common_name: String,
    /// DNS names and IP addresses it may serve under; empty for a client.
    pub names: BTreeSet<String>,
    /// Whether it may also be shown by who connects.
    pub connects: bool,
}

impl LeafSpec {
    /// A client's.
    pub fn client(common_name: &str) -> Self {
        Self { common_name: common_name.to_owned(), names: BTreeSet::new(), connects: true }
    }

    /// A server's, which is nobody's proof of who connects.
    pub fn server(common_name: &str, names: BTreeSet<String>) -> Self {
        Self { common_name: common_name.to_owned(), names, connects: false }
    }

    /// Of one that serves and connects.
    pub fn peer(common_name: &str, names: BTreeSet<String>) -> Self {
        Self { common_name: common_name.to_owned(), names, connects: true }
    }
}

/// A leaf as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS#8.
    pub key: Key,
    /// What it trusts: the authorities of the platform, and its own issuer while that is another one.
    pub authorities: String,
}

impl Issued {
    /// Key and certificate in one text, as Kafka's PEM key store wants it.
    pub fn key_store(&self) -> String {
        format!("{}{}", self.key.pem(), self.certificate)
    }

    /// The certificate alone, in whatever text it was found.
    pub fn public(&self) -> String {
        certificates(&self.certificate).into_iter().map(|(pem, _)| pem).collect()
    }
}

/// Why a leaf was made (anew).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// There was none.
    Missing,
    /// It cannot be read, or key and certificate do not belong together.
    Unreadable,
    /// It names somebody else, or other hosts.
    Renamed,
    /// No authority that it trusts signed it.
    Untrusted,
    /// Less than the renewal time is left.
    Expiring,
    /// The successor of the authority that signed it signs now.
    Succeeded,
    /// A person asked for new ones after it was made.
    Asked,
    /// Another one that is rolled out with it had to be.
    Together,
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there was none",
            Self::Unreadable => "the one there cannot be read",
            Self::Renamed => "its names changed",
            Self::Untrusted => "its authority is not known",
            Self::Expiring => "it expires soon",
            Self::Succeeded => "its authority has a successor, which signs now",
            Self::Asked => "new ones were asked for",
            Self::Together => "another one of the same Secret had to be",
        })
    }
}

/// Keeps `existing` (certificate, key, trusted authorities as PEM) if it fits `spec`, else issues a new leaf
/// and says why.
pub fn keep_or_issue(
    existing: Option<(&str, &str, &str)>,
    spec: &LeafSpec,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(Issued, Option<Renewal>), PkiError> {
    let why = match existing {
        None => Renewal::Missing,
        Some((certificate, key, trusted)) => match check(certificate, key, trusted, spec, authority, now) {
            Ok(authorities) => {
                let key = Key::new(key.to_owned());
                return Ok((Issued { certificate: certificate.to_owned(), key, authorities }, None));
            }
            Err(why) => why,
        },
    };
    Ok((issue(spec, authority, now)?, Some(why)))
}

fn check(
    certificate: &str,
    key: &str,
    trusted: &str,
    spec: &LeafSpec,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<String, Renewal> {
    let chain = certificates(certificate);
    let (_, leaf) = chain.first().ok_or(Renewal::Unreadable)?;
    let pair = KeyPair::from_pem(key).map_err(|_| Renewal::Unreadable)?;
    if pair.subject_public_key_info() != leaf.public_key {
        return Err(Renewal::Unreadable);
    }
    if leaf.common_name != spec.common_name || leaf.names != spec.names {
        return Err(Renewal::Renamed);
    }
    if leaf.not_after - now < RENEW_BEFORE || leaf.not_before > now {
        return Err(Renewal::Expiring);
    }
    let life = authority.life();
    if life.leaves_since.is_some_and(|since| leaf.not_before + BACKDATE < since) {
        return Err(Renewal::Asked);
    }
    let signer = |(_, issuer): &(String, Facts)| signed(leaf, issuer, now);
    match certificates(authority.bundle()).iter().position(signer) {
        Some(1..) if life.step == Step::NewLeaves => return Err(Renewal::Succeeded),
        Some(_) => return Ok(authority.bundle().to_owned()),
        None => {}
    }
    if life.dropped.is_some() && leaf.authority_key_id.as_deref().map(hex) == life.dropped {
        return Err(Renewal::Untrusted);
    }
    // The authority was replaced: what runs still trusts the old one, so leaf and trust stay until rolled.
    let old = certificates(trusted).into_iter().find(signer);
    old.map(|(pem, _)| format!("{}{pem}", authority.bundle())).ok_or(Renewal::Untrusted)
}

pub(super) fn signed(leaf: &Facts, issuer: &Facts, now: OffsetDateTime) -> bool {
    issuer.is_ca
        && issuer.not_after > now
        && leaf.issuer == issuer.subject
        && issuer.key_id.is_some()
        && leaf.authority_key_id == issuer.key_id
}

fn issue(spec: &LeafSpec, authority: &Authority, now: OffsetDateTime) -> Result<Issued, PkiError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(spec.names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if spec.connects {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if !spec.names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATE;
    params.not_after = now + VALID;
    let certificate = params.signed_by(&key, authority.issuer())?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: Key::new(key.serialize_pem()),
        authorities: authority.bundle().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(now: OffsetDateTime) -> Authority {
        Authority::keep_or_make(None, "plant Kafka", now).unwrap()
    }

    fn broker() -> LeafSpec {
        let names = ["plant-kafka-0.plant-kafka.plant.svc", "127.0.0.1", "::1"].map(str::to_owned).into();
        LeafSpec::peer("broker-0", names)
    }

    fn again(
        issued: &Issued,
        spec: &LeafSpec,
        authority: &Authority,
        now: OffsetDateTime,
    ) -> (Issued, Option<Renewal>) {
        let existing = (issued.certificate.as_str(), issued.key.pem(), issued.authorities.as_str());
        keep_or_issue(Some(existing), spec, authority, now).unwrap()
    }

    #[test]
    fn a_leaf_that_fits_is_kept() {
        let now = OffsetDateTime::now_utc();
        let authority = authority(now);
        let (issued, why) = keep_or_issue(None, &broker(), &authority, now).unwrap();
        assert_eq!(why, Some(Renewal::Missing));
        assert_eq!(again(&issued, &broker(), &authority, now), (issued.clone(), None));
    }

    #[test]
    fn a_leaf_is_made_anew_for_each_of_its_reasons() {
        let now = OffsetDateTime::now_utc();
        let authority = authority(now);
        let (issued, _) = keep_or_issue(None, &broker(), &authority, now).unwrap();
        let mut renamed = broker();
        renamed.names.insert("plant-kafka".to_owned());
        assert_eq!(again(&issued, &renamed, &authority, now).1, Some(Renewal::Renamed));
        let later = now + Duration::days(300);
        assert_eq!(again(&issued, &broker(), &authority, later).1, Some(Renewal::Expiring));
        let (other, _) = keep_or_issue(None, &broker(), &authority, now).unwrap();
        let mixed = Issued { key: other.key, ..issued.clone() };
        assert_eq!(again(&mixed, &broker(), &authority, now).1, Some(Renewal::Unreadable));
    }

    #[test]
    fn a_new_authority_is_trusted_beside_the_one_that_signed_what_runs() {
        let now = OffsetDateTime::now_utc();
        let (old, new) = (authority(now), authority(now));
        let (issued, _) = keep_or_issue(None, &broker(), &old, now).unwrap();
        let (kept, why) = again(&issued, &broker(), &new, now);
        assert_eq!(why, None);
        assert_eq!(kept.certificate, issued.certificate);
        assert_eq!(certificates(&kept.authorities).len(), 2);
        assert_eq!(again(&kept, &broker(), &new, now), (kept.clone(), None));
    }

    #[test]
    fn a_leaf_of_an_unknown_authority_is_made_anew() {
        let now = OffsetDateTime::now_utc();
        let (issued, _) = keep_or_issue(None, &broker(), &authority(now), now).unwrap();
        let stranger = Issued { authorities: String::new(), ..issued };
        assert_eq!(again(&stranger, &broker(), &authority(now), now).1, Some(Renewal::Untrusted));
    }

    #[test]
    fn a_server_is_no_client_and_a_client_no_server() {
        let now = OffsetDateTime::now_utc();
        let uses = |spec: &LeafSpec| {
            let (issued, _) = keep_or_issue(None, spec, &authority(now), now).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            (usage.client_auth, usage.server_auth)
        };
        assert_eq!(uses(&LeafSpec::client("gateway")), (true, false));
        assert_eq!(uses(&LeafSpec::server("mqtt", ["mqtt".to_owned()].into())), (false, true));
        assert_eq!(uses(&broker()), (true, true));
    }

    #[test]
    fn a_key_is_never_printed() {
        let now = OffsetDateTime::now_utc();
        let (issued, _) = keep_or_issue(None, &LeafSpec::client("operator"), &authority(now), now).unwrap();
        assert!(issued.key.pem().contains("PRIVATE KEY"));
        assert!(!format!("{issued:?}").contains("PRIVATE KEY"));
    }
}
