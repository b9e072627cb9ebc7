//! A certificate authority of a platform, with its successor while it has one. Pure but for randomness.

use super::life::{Life, Step, text, whole};
use super::parsed::{Facts, Key, certificates, public_key};
use super::{CA_CRT, CA_KEY, NEXT_KEY, PkiError, ROTATION};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
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
    expires: OffsetDateTime,
    /// The successor's key, while it is trusted and does not sign yet.
    next: Option<Key>,
    life: Life,
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
        let (certificate, key) = generate(common_name, now)?;
        let data = BTreeMap::from([(CA_CRT.to_owned(), certificate), (CA_KEY.to_owned(), key)]);
        let mut authority = Self::read(&data)?;
        authority.made = true;
        Ok(authority)
    }

    /// A new authority in the place of one whose Secret is lost. `trusted` is what leaves trust that were signed by it: they
    /// are kept until everybody trusts the new one.
    pub fn replace(trusted: &str, title: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let mut made = Self::make(&format!("{title} {}", text(now)), now)?;
        let old: String = certificates(trusted)
            .into_iter()
            .filter(|(_, facts)| facts.is_ca && facts.not_after > now)
            .map(|(pem, _)| pem)
            .collect();
        if !old.is_empty() {
            made.bundle.push_str(&old);
            made.life.enter(Step::Replace, now);
        }
        Ok(made)
    }

    /// The authority that a Secret's data holds.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, PkiError> {
        let bundle = data.get(CA_CRT).ok_or(PkiError::Authority("ca.crt is missing"))?;
        let key = data.get(CA_KEY).ok_or(PkiError::Authority("ca.key is missing"))?;
        let life = data.get(ROTATION).map(|text| Life::read(text)).transpose()?.unwrap_or_default();
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
        // A Secret that was put back from a backup may keep it after it became the other.
        let next = successor(&life, &certificates, data.get(NEXT_KEY).filter(|next| *next != key))?;
        let (key, bundle, expires) = (Key::new(key.clone()), bundle.clone(), facts.not_after);
        Ok(Self { bundle, key, issuer, expires, next, life, made: false })
    }

    /// The Secret's data.
    pub fn data(&self) -> BTreeMap<String, String> {
        let mut data = BTreeMap::from([
            (CA_CRT.to_owned(), self.bundle.clone()),
            (CA_KEY.to_owned(), self.key.pem().to_owned()),
        ]);
        data.extend(self.next.iter().map(|key| (NEXT_KEY.to_owned(), key.pem().to_owned())));
        data.extend(self.life.text().map(|text| (ROTATION.to_owned(), text)));
        data
    }

    /// Whether it was made just now and is in no Secret yet.
    pub const fn is_new(&self) -> bool {
        self.made
    }

    /// The trusted certificates as PEM, the signing one first.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Notes a request as answered: of what is new, nothing newer can be asked for.
    pub fn answer(&mut self, asked: &str) {
        self.life.answered = Some(asked.to_owned());
    }

    /// Where it is in its life.
    pub const fn life(&self) -> &Life {
        &self.life
    }

    /// When the one that signs expires.
    pub const fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    pub(super) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) const fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    /// Makes a successor, which is trusted from now on and does not sign yet. Its name says when it was made: where two
    /// authorities of one name are trusted, some libraries look at one of them only.
    pub(super) fn beget(&mut self, title: &str, now: OffsetDateTime) -> Result<(), PkiError> {
        let (certificate, key) = generate(&format!("{title} {}", text(now)), now)?;
        let mut all = certificates(&self.bundle).into_iter().map(|(pem, _)| pem);
        let signer = all.next().unwrap_or_default();
        self.bundle = [signer, certificate].into_iter().chain(all).collect();
        self.next = Some(Key::new(key));
        self.life.enter(Step::TrustBoth, now);
        Ok(())
    }

    /// Lets the successor sign. All that is trusted still is.
    pub(super) fn succeed(&mut self, now: OffsetDateTime) -> Result<(), PkiError> {
        let mut data = self.data();
        let mut all: Vec<_> = certificates(&self.bundle).into_iter().map(|(pem, _)| pem).collect();
        if let Some(next) = data.remove(NEXT_KEY)
            && all.len() > 1
        {
            all.swap(0, 1);
            data.insert(CA_KEY.to_owned(), next);
        }
        data.insert(CA_CRT.to_owned(), all.concat());
        let mut life = self.life.clone();
        life.enter(Step::NewLeaves, now);
        data.extend(life.text().map(|text| (ROTATION.to_owned(), text)));
        *self = Self::read(&data)?;
        Ok(())
    }

    /// Trusts only the one that signs.
    pub(super) fn drop_others(&mut self, now: OffsetDateTime) {
        let mut all = certificates(&self.bundle).into_iter();
        let Some((signer, _)) = all.next() else { return };
        self.life.dropped = all.next().and_then(|(_, facts)| facts.key_id).map(|id| hex(&id));
        self.bundle = signer;
        self.life.enter(Step::DropOld, now);
    }

    /// When the last of the others that are trusted expires.
    pub(super) fn others_expire(&self) -> Option<OffsetDateTime> {
        certificates(&self.bundle).into_iter().skip(1).map(|(_, facts)| facts.not_after).max()
    }

    /// Has everybody given a new leaf.
    pub(super) fn renew(&mut self, now: OffsetDateTime) {
        self.life.enter(Step::Renew, now);
        self.life.leaves_since = Some(whole(now));
    }
}

/// The successor's key, where what is remembered and what is there fit.
fn successor(
    life: &Life,
    certificates: &[(String, Facts)],
    key: Option<&String>,
) -> Result<Option<Key>, PkiError> {
    let failed = |why| Err(PkiError::Authority(why));
    match (life.step, key) {
        (Step::TrustBoth, Some(key)) => {
            let Some(public) = public_key(key) else {
                return failed("next.key is not a PKCS#8 private key");
            };
            match certificates.get(1) {
                Some((_, facts)) if facts.public_key == public => Ok(Some(Key::new(key.clone()))),
                _ => failed("next.key does not belong to the second certificate of ca.crt"),
            }
        }
        (Step::TrustBoth, None) => {
            failed("next.key is missing, and rotation.json says that there is a successor")
        }
        (_, Some(_)) => failed("next.key is there, and rotation.json does not say that there is a successor"),
        (Step::NewLeaves | Step::Replace, None) if certificates.len() < 2 => {
            failed("ca.crt holds one certificate, and rotation.json says that the old one is still trusted")
        }
        (_, None) => Ok(None),
    }
}

/// A new authority's certificate and key.
fn generate(common_name: &str, now: OffsetDateTime) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = now - BACKDATE;
    params.not_after = now + VALID;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
        assert_eq!(made.data().len(), 2, "nothing is remembered of what did not happen");
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

    #[test]
    fn a_secret_of_which_somebody_took_a_part_or_put_one_in_is_an_error_and_no_new_identity() {
        let now = OffsetDateTime::now_utc();
        let mut authority = Authority::keep_or_make(None, "a", now).unwrap();
        let steady = authority.data();
        authority.beget("a", now).unwrap();
        let both = authority.data();
        authority.succeed(now).unwrap();
        let signing = authority.data();
        let stranger = Authority::keep_or_make(None, "b", now).unwrap().data();
        let edits: [(&BTreeMap<String, String>, &str, Option<&str>); 11] = [
            (&steady, ROTATION, Some("{}}")),
            (&steady, NEXT_KEY, Some(&stranger[CA_KEY])),
            (&both, ROTATION, None),
            (&both, NEXT_KEY, None),
            (&both, NEXT_KEY, Some("nonsense")),
            (&both, NEXT_KEY, Some(&stranger[CA_KEY])),
            (&both, CA_CRT, Some(&steady[CA_CRT])),
            (&both, CA_KEY, Some(&both[NEXT_KEY])),
            (&signing, NEXT_KEY, Some(&steady[CA_KEY])),
            (&signing, CA_KEY, Some(&steady[CA_KEY])),
            (&signing, CA_CRT, Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ];
        for (number, (data, key, value)) in edits.into_iter().enumerate() {
            let mut data = data.clone();
            data.remove(key);
            data.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            let read = Authority::keep_or_make(Some(&data), "a", now);
            assert!(matches!(read, Err(PkiError::Authority(_))), "edit {number} of {key}");
        }
        let mut twice = signing.clone();
        twice.insert(NEXT_KEY.to_owned(), signing[CA_KEY].clone());
        assert_eq!(Authority::read(&twice).unwrap().data(), signing);
    }
}
