//! What a listener shows to devices: certificate and key from two files that may be replaced while it is open. IO:
//! reads files.

use crate::files::{self, Files, News};
use crate::telemetry::{IdentityRefusal, TlsMetrics};
use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_contract::config::ListenerTls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why the files of a listener cannot be used. The message names the field.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or forbidden.
    #[error("tls.{field} names {}, which cannot be read", .path.display())]
    Unreadable {
        /// `certificate` or `key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("tls.{field} names {}, which holds no {what}", .path.display())]
    Useless {
        /// `certificate` or `key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Both can be read.
    #[error("tls.key names {}, whose key is not the one of the certificate that tls.certificate names", .0.display())]
    KeyOfAnother(PathBuf),
}

const CERTIFICATE: &str = "certificate that can be read (PEM, -----BEGIN CERTIFICATE-----)";
const KEY: &str = "key that can be used (PEM, -----BEGIN PRIVATE KEY-----; RSA, P-256, P-384 or Ed25519)";

/// What was read.
pub(super) struct Read {
    key: CertifiedKey,
    /// Until when the certificate is valid, in seconds since 1970.
    not_after: i64,
    fingerprint: u64,
}

/// What a listener shows to the next device. Cheap to clone.
#[derive(Clone)]
pub(super) struct Identity {
    key: Arc<ArcSwap<CertifiedKey>>,
}

/// The files behind it.
pub(super) struct IdentityFiles {
    listener: String,
    tls: ListenerTls,
    identity: Identity,
    metrics: TlsMetrics,
    pending: bool,
}

impl Identity {
    /// Reads the files; the last part is their fingerprint.
    pub(super) fn open(
        listener: &str,
        tls: &ListenerTls,
        metrics: TlsMetrics,
    ) -> Result<(Self, IdentityFiles, u64), IdentityError> {
        let Read { key, not_after, fingerprint } = read(tls)?;
        metrics.expires(listener, not_after);
        let identity = Self { key: Arc::new(ArcSwap::from_pointee(key)) };
        let files = IdentityFiles {
            listener: listener.to_owned(),
            tls: tls.clone(),
            identity: identity.clone(),
            metrics,
            pending: false,
        };
        Ok((identity, files, fingerprint))
    }

    /// As it is now.
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.key.load_full()
    }
}

/// Reads certificate and key, and tries them.
pub(super) fn read(tls: &ListenerTls) -> Result<Read, IdentityError> {
    let file = |field, path: &Path| {
        std::fs::read(path).map_err(|source| IdentityError::Unreadable { field, path: path.into(), source })
    };
    let (certificate, key) = (file("certificate", &tls.certificate)?, file("key", &tls.key)?);
    let no_certificate =
        || IdentityError::Useless { field: "certificate", path: tls.certificate.clone(), what: CERTIFICATE };
    let no_key = || IdentityError::Useless { field: "key", path: tls.key.clone(), what: KEY };
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| no_certificate())?;
    let first = chain.first().ok_or_else(no_certificate)?;
    let not_after = {
        let (_, parsed) = X509Certificate::from_der(first).map_err(|_| no_certificate())?;
        parsed.validity().not_after.timestamp()
    };
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| no_key())?;
    let certified =
        CertifiedKey::from_der(chain, private, super::provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                IdentityError::KeyOfAnother(tls.key.clone())
            }
            Error::InvalidCertificate(_) => no_certificate(),
            _ => no_key(),
        })?;
    Ok(Read { key: certified, not_after, fingerprint: files::of(&[certificate, key]) })
}

impl IdentityFiles {
    fn pending(&mut self, pending: bool) {
        if self.pending != pending {
            self.pending = pending;
            self.metrics.pending(pending);
        }
    }
}

impl Files for IdentityFiles {
    type Refusal = IdentityRefusal;

    fn fingerprint(&self) -> Option<u64> {
        files::fingerprint([self.tls.certificate.as_path(), self.tls.key.as_path()])
    }

    fn take(&mut self, fingerprint: u64) -> Result<(), (Self::Refusal, String)> {
        let read = read(&self.tls).map_err(|error| (IdentityRefusal::unusable, error.to_string()))?;
        if read.fingerprint != fingerprint {
            return Err((IdentityRefusal::changing, "the files changed while they were read".to_owned()));
        }
        self.identity.key.store(Arc::new(read.key));
        self.metrics.expires(&self.listener, read.not_after);
        Ok(())
    }

    fn tell(&mut self, news: News<'_, Self::Refusal>) {
        let listener = &self.listener;
        match news {
            News::Same { again } => {
                if again {
                    tracing::info!(listener, "the listener's certificate is the one in use again");
                }
                self.pending(false);
            }
            News::Different => self.pending(true),
            News::Taken => {
                self.metrics.reloaded(listener);
                self.pending(false);
            }
            News::Refused { refusal, why, first } => self.metrics.refused(listener, refusal, why, first),
        }
    }
}
