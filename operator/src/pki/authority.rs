//! A certificate authority of a platform. Pure but for randomness.

use super::parsed::{Key, certificates};
use super::{CA_CRT, CA_KEY, PkiError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// How long an authority is valid.
const VALID: Duration = Duration::days(3650);
/// Clocks differ: certificates are valid from this much before they are made.
pub(super) const BACKDATE: Duration = Duration::minutes(5);

/// A certificate authority with its key, able to sign.
pub struct Authority {
    bundle: String,
    key: Key,
    issuer: Issuer<'static, KeyPair>,
    made: bool,
}

impl Authority {
    /// The authority that a Secret's data holds, or a new one where there is no data yet. What is there but
    /// cannot be read is an error, not a reason to replace the identity that everything trusts.
    pub fn keep_or_make(
        existing: Option<&BTreeMap<String, String>>,
        common_name: &str,
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        match existing {
            Some(data) if data.contains_key(CA_CRT) || data.contains_key(CA_KEY) => Self::read(data),
            _ => Self::make(common_name, now),
        }
    }

    fn make(common_name: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = now - BACKDATE;
        params.not_after = now + VALID;
        let certificate = params.self_signed(&key)?;
        let mut data = BTreeMap::new();
        data.insert(CA_CRT.to_owned(), certificate.pem());
        data.insert(CA_KEY.to_owned(), key.serialize_pem());
        let mut authority = Self::read(&data)?;
        authority.made = true;
        Ok(authority)
    }

    fn read(data: &BTreeMap<String, String>) -> Result<Self, PkiError> {
        let bundle = data.get(CA_CRT).ok_or(PkiError::Authority("ca.crt is missing"))?;
        let key = data.get(CA_KEY).ok_or(PkiError::Authority("ca.key is missing"))?;
        let certificates = certificates(bundle);
        let (first, facts) =
            certificates.first().ok_or(PkiError::Authority("ca.crt holds no certificate"))?;
        let pair =
            KeyPair::from_pem(key).map_err(|_| PkiError::Authority("ca.key is not a PKCS#8 private key"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&pair) != facts.public_key {
            return Err(PkiError::Authority("ca.key does not belong to the first certificate of ca.crt"));
        }
        if facts.key_id.is_none() {
            return Err(PkiError::Authority("ca.crt has no key identifier"));
        }
        let issuer = Issuer::from_ca_cert_pem(first, pair)
            .map_err(|_| PkiError::Authority("the first certificate of ca.crt is not one that signs"))?;
        let key = Key::new(key.clone());
        Ok(Self { bundle: bundle.clone(), key, issuer, made: false })
    }

    /// The Secret's data.
    pub fn data(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (CA_CRT.to_owned(), self.bundle.clone()),
            (CA_KEY.to_owned(), self.key.pem().to_owned()),
        ])
    }

    /// Whether it was made just now and is in no Secret yet.
    pub const fn is_new(&self) -> bool {
        self.made
    }

    /// The trusted certificates as PEM, the signing one first.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    pub(super) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_in_a_secret_is_kept() {
        let now = OffsetDateTime::now_utc();
        let made = Authority::keep_or_make(None, "plant Kafka", now).unwrap();
        assert!(made.is_new());
        let kept = Authority::keep_or_make(Some(&made.data()), "plant Kafka", now).unwrap();
        assert!(!kept.is_new());
        assert_eq!(kept.data(), made.data());
    }

    #[test]
    fn a_key_of_another_authority_is_refused_instead_of_replaced() {
        let now = OffsetDateTime::now_utc();
        let mut data = Authority::keep_or_make(None, "a", now).unwrap().data();
        let other = Authority::keep_or_make(None, "b", now).unwrap().data();
        data.insert(CA_KEY.to_owned(), other[CA_KEY].clone());
        assert!(matches!(Authority::keep_or_make(Some(&data), "a", now), Err(PkiError::Authority(_))));
        data.remove(CA_KEY);
        assert!(matches!(Authority::keep_or_make(Some(&data), "a", now), Err(PkiError::Authority(_))));
    }
}
