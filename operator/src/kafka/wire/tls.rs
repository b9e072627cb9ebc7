//! TLS from the PEM texts that a Secret holds. Pure.

use super::error::WireError;
use crate::kafka::access::Tls;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What makes TLS connections with the operator's certificate, to brokers of these authorities.
pub fn connector(tls: &Tls) -> Result<TlsConnector, WireError> {
    let wrong = |what: &str| WireError::Certificates(what.to_owned());
    let mut roots = RootCertStore::empty();
    let (authorities, client) = tls.authorities.as_deref().zip(tls.client.as_ref()).ok_or_else(|| {
        wrong(
            "only a Kafka that Tidegate keeps is spoken to like this: with its authority and our certificate",
        )
    })?;
    for authority in certificates(authorities).ok_or_else(|| wrong("ca.crt is no PEM"))? {
        roots.add(authority)?;
    }
    if roots.is_empty() {
        return Err(wrong("ca.crt holds no certificate"));
    }
    let chain = certificates(&client.certificate).ok_or_else(|| wrong("tls.crt is no PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(client.key.pem().as_bytes())
        .map_err(|_| wrong("tls.key is no private key"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}
