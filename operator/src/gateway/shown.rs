//! Whether a listener can show what a Secret holds, and for how long. Pure.
//!
//! Certificate and key are judged with the library that gateways load them with, so that what is said here is what they
//! do. No text of a key is ever part of a message.

use crate::pki::parsed::minute;
use crate::pki::{TLS_CRT, TLS_KEY};
use k8s_openapi::api::core::v1::Secret;
use tidegate_crds::reasons;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

/// Whoever renews certificates does it with more than this left; a short one earlier: see [`Validity::soon`].
const SOON: Duration = Duration::days(14);

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub from: OffsetDateTime,
    /// The last second.
    pub until: OffsetDateTime,
}

/// Where in its life a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// It has time.
    Good,
    /// It should have been renewed.
    Soon,
    /// Its time has not begun.
    NotYet,
    /// Its time is over.
    Expired,
}

impl Validity {
    /// From when on it expires soon: cert-manager renews at a third of the life, others weeks before its end.
    fn soon(&self) -> OffsetDateTime {
        self.until - SOON.min((self.until - self.from) / 6)
    }

    /// Where in its life it is.
    pub fn age(&self, now: OffsetDateTime) -> Age {
        if now < self.from {
            Age::NotYet
        } else if now > self.until {
            Age::Expired
        } else if now >= self.soon() {
            Age::Soon
        } else {
            Age::Good
        }
    }

    /// When its age is another next.
    pub fn next(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        // It is valid to the end of its last second.
        [self.from, self.soon(), self.until + Duration::SECOND].into_iter().find(|next| now < *next)
    }

    /// Its end, for people.
    pub fn end(&self) -> String {
        minute(self.until)
    }

    /// Its beginning, for people.
    pub fn beginning(&self) -> String {
        minute(self.from)
    }
}

/// Why a listener cannot show what a Secret holds. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is no such Secret.
    #[error("there is no Secret {0:?} in this namespace; create it, or name another")]
    Missing(String),
    /// It lacks a key.
    #[error(
        "Secret {secret:?} has no key {key:?} (it has {}); write the certificate chain as \"tls.crt\" and its key as \"tls.key\"",
        keys(.there)
    )]
    NoKey {
        /// The Secret.
        secret: String,
        /// The key.
        key: &'static str,
        /// The keys that it has.
        there: Vec<String>,
    },
    /// What it holds cannot be used.
    #[error("key {key:?} of Secret {secret:?} {what}")]
    Wrong {
        /// The Secret.
        secret: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to write.
        what: String,
    },
}

fn keys(there: &[String]) -> String {
    if there.is_empty() { "none".to_owned() } else { there.join(", ") }
}

impl Unusable {
    /// A constant of [`reasons`].
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => reasons::SECRET_NOT_FOUND,
            Self::NoKey { .. } | Self::Wrong { .. } => reasons::SECRET_UNUSABLE,
        }
    }
}

/// Judges the Secret of this name.
pub fn judge(secret: Option<&Secret>, name: &str) -> Result<Validity, Unusable> {
    let Some(secret) = secret else { return Err(Unusable::Missing(name.to_owned())) };
    let value = |key: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.map(|value| value.0.as_slice()).ok_or_else(|| {
            let there = secret.data.iter().flatten().map(|(key, _)| format!("{key:?}")).collect();
            Unusable::NoKey { secret: name.to_owned(), key, there }
        })
    };
    let wrong = |key| move |what| Unusable::Wrong { secret: name.to_owned(), key, what };
    let (certificates, key) = (value(TLS_CRT)?, value(TLS_KEY)?);
    let (chain, validity) = chain(certificates).map_err(wrong(TLS_CRT))?;
    fits(&chain, key).map_err(wrong(TLS_KEY))?;
    Ok(validity)
}

/// The certificates of a text, the first of which has to be a server's.
fn chain(text: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Validity), String> {
    const WRITE: &str = "write the server's certificate and those that lead to its authority, as PEM";
    if text.trim_ascii().is_empty() {
        return Err(format!("is empty: {WRITE}"));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("cannot be read: {WRITE}"))?;
    let first = chain
        .first()
        .ok_or_else(|| format!("holds no certificate: {WRITE} (-----BEGIN CERTIFICATE-----)"))?;
    for (index, each) in chain.iter().enumerate() {
        if X509Certificate::from_der(each).is_err() {
            return Err(format!("holds as its certificate {} what cannot be read: {WRITE}", index + 1));
        }
    }
    let (_, server) = X509Certificate::from_der(first).map_err(|_| format!("cannot be read: {WRITE}"))?;
    let subject = server.subject();
    if server.version() != X509Version::V3 {
        return Err(format!(
            "holds a certificate ({subject}) of an X.509 version before 3, which TLS libraries refuse: sign it with extensions (openssl x509 -req … -extfile FILE, with subjectAltName in it)"
        ));
    }
    let usage = server.extended_key_usage().map_err(|_| format!("cannot be read: {WRITE}"))?;
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Err(format!(
            "holds a certificate ({subject}) that is not for servers: sign one with the extended key usage serverAuth"
        ));
    }
    let (from, until) =
        (server.validity().not_before.to_datetime(), server.validity().not_after.to_datetime());
    Ok((chain, Validity { from, until }))
}

/// Whether this is the private key of the first certificate.
fn fits(chain: &[CertificateDer<'static>], text: &[u8]) -> Result<(), String> {
    const WRITE: &str = "write the private key of the certificate in \"tls.crt\", as PEM";
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    if text.trim_ascii().is_empty() {
        return Err(format!("is empty: {WRITE}"));
    }
    if has(b"ENCRYPTED") {
        return Err("is protected with a passphrase: write the key without one".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(text)
        .map_err(|_| format!("holds no private key: {WRITE} (-----BEGIN PRIVATE KEY-----)"))?;
    let key = any_supported_type(&key).map_err(|_| {
        "holds a key that gateways cannot use: make one of ECDSA P-256 or P-384, RSA with 2048 to 8192 bits, or Ed25519".to_owned()
    })?;
    let fits = |chain: &[CertificateDer<'static>]| {
        let both = CertifiedKey::new(chain.to_vec(), std::sync::Arc::clone(&key));
        !matches!(both.keys_match(), Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)))
    };
    match (1..=chain.len()).find(|at| fits(&chain[at - 1..])) {
        Some(1) => Ok(()),
        Some(at) => Err(format!(
            "is the key of certificate {at} in \"tls.crt\": write the server's own certificate first, and its authorities after it"
        )),
        None => Err(format!("is not the key of the certificate in \"tls.crt\": {WRITE}")),
    }
}
