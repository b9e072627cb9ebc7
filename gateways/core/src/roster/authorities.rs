//! Who signs the devices' certificates: a fleet's authorities. No IO.

use crate::tls::provider;
use std::sync::Arc;
use tidegate_contract::fleet::{DeviceFrom, Provision, X509};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

/// One certificate of an authority.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Its name, DER.
    subject: Box<[u8]>,
    /// Its key, DER.
    key: Box<[u8]>,
    key_id: Option<Box<[u8]>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// What a fleet takes.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) authorities: Vec<Arc<Authority>>,
    pub(crate) device_from: DeviceFrom,
    pub(crate) provision: Provision,
}

impl Certificates {
    /// Reads a fleet's rules for certificates. What cannot be read of its authorities lets nobody in.
    pub(crate) fn new(fleet: &str, x509: &X509) -> Self {
        let blocks = CertificateDer::pem_slice_iter(x509.authorities.as_bytes());
        let mut authorities = Vec::new();
        for block in blocks {
            let read = block.map_err(|error| error.to_string()).and_then(Authority::new);
            match read {
                Ok(authority) => authorities.push(Arc::new(authority)),
                Err(error) => {
                    tracing::warn!(fleet, error, "an authority of a fleet cannot be read and lets nobody in");
                }
            }
        }
        Self { authorities, device_from: x509.device_from, provision: x509.provision }
    }
}

impl Authority {
    fn new(der: CertificateDer<'static>) -> Result<Self, String> {
        let (subject, key, key_id) = {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
            let key_id = certificate.extensions().iter().find_map(|each| match each.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.into()),
                _ => None,
            });
            (certificate.subject().as_raw().into(), certificate.public_key().raw.into(), key_id)
        };
        let mut roots = RootCertStore::empty();
        roots.add(der).map_err(|error| error.to_string())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        Ok(Self { subject, key, key_id, verifier })
    }

    /// Its name, DER.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// What its certificate calls its key, if it does.
    pub(crate) fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// Says whether it signed a chain.
    pub(crate) fn verifier(&self) -> &dyn ClientCertVerifier {
        &*self.verifier
    }

    /// Whether both are one authority: a renewed certificate of the same name and key is no other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.subject == other.subject && self.key == other.key)
    }
}
