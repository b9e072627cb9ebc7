//! The certificate authorities of a fleet's devices, as a Secret holds them. Pure.

use crate::pki::parsed::{encode, minute};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;

/// What tells one authority from another: its name and its key. A renewed certificate is the same authority.
pub type Id = [u8; 32];

/// How much text all certificates may have: some hundred of them. Every gateway keeps it in memory.
const MAX_PEM: usize = 256 << 10;

/// Authorities that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Their certificates, PEM, nothing else.
    pub pem: String,
    /// Who they are.
    pub ids: BTreeSet<Id>,
    /// What is left out because it is out of date, or not yet valid; for people.
    pub left_out: Vec<String>,
    /// When that changes next.
    pub until: Option<OffsetDateTime>,
}

/// Why a text holds no authorities. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing at all.
    #[error("is empty: write the certificate of the authority that signs the devices' certificates, as PEM")]
    Empty,
    /// More than a fleet's record takes.
    #[error(
        "has {0} bytes: write the certificates of the authorities that sign the devices' certificates, and no others (at most {MAX_PEM} bytes)"
    )]
    TooLong(usize),
    /// No certificate.
    #[error(
        "holds no certificate: write the certificate of the authority that signs the devices' certificates, as PEM (-----BEGIN CERTIFICATE-----)"
    )]
    NoCertificate,
    /// A block that is no certificate inside.
    #[error("certificate {0} in it cannot be read: write it as the authority gave it, as PEM")]
    Broken(usize),
    /// A device's own certificate, or a server's.
    #[error(
        "certificate {at} in it ({subject}) is {what}, and no certificate authority (basic constraints CA): write the certificate of the authority that signs the devices' certificates"
    )]
    NoAuthority {
        /// Its place, from 1.
        at: usize,
        /// Whose it is.
        subject: String,
        /// What it is instead.
        what: String,
    },
    /// An authority that may not sign.
    #[error(
        "certificate {at} in it ({subject}) may not sign certificates (key usage lacks keyCertSign): write the one of an authority that may"
    )]
    MayNotSign {
        /// Its place, from 1.
        at: usize,
        /// Whose it is.
        subject: String,
    },
    /// All are out of date, or not yet valid.
    #[error("holds no certificate that is valid now: {}; write the new one beside the old", .left_out.join("; "))]
    OutOfDate {
        /// Each, and since or until when.
        left_out: Vec<String>,
        /// When one becomes valid.
        until: Option<OffsetDateTime>,
    },
}

/// Reads the authorities. What is out of date is left out: gateways do not look at the dates of what they trust.
pub fn read(pem: &[u8], now: OffsetDateTime) -> Result<Authorities, AuthorityError> {
    if pem.trim_ascii().is_empty() {
        return Err(AuthorityError::Empty);
    }
    if pem.len() > MAX_PEM {
        return Err(AuthorityError::TooLong(pem.len()));
    }
    let (mut found, mut count) = (Authorities::default(), 0);
    for block in Pem::iter_from_buffer(pem) {
        // The text between blocks is anybody's.
        let Ok(block) = block else { return Err(AuthorityError::Broken(count + 1)) };
        if block.label != "CERTIFICATE" {
            continue;
        }
        count += 1;
        let certificate = block.parse_x509().map_err(|_| AuthorityError::Broken(count))?;
        check(&certificate, count)?;
        let (from, until) =
            (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
        let next = if now < from { Some(from) } else { (now <= until).then_some(until) };
        found.until = found.until.into_iter().chain(next).min();
        let subject = certificate.subject();
        if now < from {
            found.left_out.push(format!("{subject} is not valid before {}", minute(from)));
        } else if now > until {
            found.left_out.push(format!("{subject} was valid until {}", minute(until)));
        } else if found.ids.insert(id(&certificate)) || !found.pem.contains(&encode(&block.contents)) {
            found.pem.push_str(&encode(&block.contents));
        }
    }
    match (count, found.ids.is_empty()) {
        (0, _) => Err(AuthorityError::NoCertificate),
        (_, true) => Err(AuthorityError::OutOfDate { left_out: found.left_out, until: found.until }),
        _ => Ok(found),
    }
}

/// Who the authorities in the record of a fleet are.
pub fn ids(pem: &str) -> BTreeSet<Id> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok).collect::<Vec<_>>();
    blocks.iter().filter_map(|block| block.parse_x509().ok().map(|certificate| id(&certificate))).collect()
}

fn check(certificate: &X509Certificate<'_>, at: usize) -> Result<(), AuthorityError> {
    let subject = certificate.subject().to_string();
    if !certificate.is_ca() {
        let what = if certificate.subject() == certificate.issuer() {
            "self-signed".to_owned()
        } else {
            format!("signed by {}", certificate.issuer())
        };
        return Err(AuthorityError::NoAuthority { at, subject, what });
    }
    let usage = certificate.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(AuthorityError::MayNotSign { at, subject });
    }
    Ok(())
}

fn id(certificate: &X509Certificate<'_>) -> Id {
    let mut hash = Sha256::new();
    hash.update(certificate.subject().as_raw());
    hash.update(certificate.public_key().raw);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::Certificate;
    use rcgen::KeyUsagePurpose;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn told(pem: &str) -> String {
        read(pem.as_bytes(), now()).unwrap_err().to_string()
    }

    #[test]
    fn authorities_are_taken_and_nothing_else_of_the_text() {
        let (one, two) =
            (Certificate::authority("one", now()).pem(), Certificate::authority("two", now()).pem());
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let text = format!("subject=one\n{one}{key}{two}\n{one}");
        let found = read(text.as_bytes(), now()).unwrap();
        assert_eq!((found.ids.len(), found.pem.matches("BEGIN CERTIFICATE").count()), (2, 2));
        assert!(!found.pem.contains("KEY"));
        assert_eq!(found.until, Some(now() + time::Duration::DAY));
        assert_eq!(ids(&found.pem), found.ids);
    }

    #[test]
    fn what_is_no_authority_is_told_with_what_to_write() {
        let leaf = Certificate { authority: false, ..Certificate::authority("meter-7", now()) };
        let text = told(&leaf.pem());
        assert!(
            text.starts_with("certificate 1 in it (CN=meter-7) is self-signed, and no certificate authority"),
            "{text}"
        );
        let mute =
            Certificate { usages: &[KeyUsagePurpose::CrlSign], ..Certificate::authority("mute", now()) };
        let bundle = format!("{}{}", Certificate::authority("one", now()).pem(), mute.pem());
        assert!(told(&bundle).starts_with("certificate 2 in it (CN=mute) may not sign"), "{}", told(&bundle));
        assert!(told(" \n").starts_with("is empty"));
        assert!(told("ca.crt").starts_with("holds no certificate:"), "{}", told("ca.crt"));
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(told(garbled).starts_with("certificate 1 in it cannot be read"), "{}", told(garbled));
        let cut = &Certificate::authority("one", now()).pem()[..300];
        assert!(told(cut).starts_with("certificate 1 in it cannot be read"), "{}", told(cut));
    }

    #[test]
    fn what_is_out_of_date_is_left_out_and_told_and_looked_at_again() {
        let day = time::Duration::DAY;
        let old = Certificate { until: now() - day / 2, ..Certificate::authority("old", now()) };
        let next = Certificate { from: now() + day / 2, ..Certificate::authority("next", now()) };
        let text = told(&old.pem());
        assert!(text.contains("CN=old was valid until 2027-01-14 20:00 UTC"), "{text}");
        let Err(AuthorityError::OutOfDate { until, .. }) =
            read(format!("{}{}", old.pem(), next.pem()).as_bytes(), now())
        else {
            panic!("none is valid")
        };
        assert_eq!(until, Some(now() + day / 2));
        let both = format!("{}{}", old.pem(), Certificate::authority("new", now()).pem());
        let found = read(both.as_bytes(), now()).unwrap();
        assert_eq!((found.ids.len(), found.left_out.len()), (1, 1));
    }
}
