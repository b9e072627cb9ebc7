//! Devices' certificates against the authorities of all fleets as they are now. No IO.

use super::certificate::DeviceCertificate;
use super::provider;
use crate::roster::{Authority, Roster};
use std::fmt;
use std::sync::{Arc, OnceLock};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

/// So many certificates a device may show: its own, three between, and the authority's.
const MAX_CHAIN: usize = 5;
/// So many authorities of one name are asked whether they signed it, those first whose key the certificate names.
const MAX_TRIES: usize = 64;

/// What a handshake finds out about the device; set once, and only by a chain that holds. That the device has the
/// certificate's key is true when the handshake has come to its end.
pub(super) type Found = Arc<OnceLock<DeviceCertificate>>;

/// More than [`MAX_CHAIN`] certificates.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a device shows at most {MAX_CHAIN} certificates")]
pub(super) struct ChainTooLong;

/// Verifies one connection's certificate.
pub(super) struct DeviceVerifier {
    roster: Roster,
    required: bool,
    found: Found,
}

impl DeviceVerifier {
    pub(super) const fn new(roster: Roster, required: bool, found: Found) -> Self {
        Self { roster, required, found }
    }

    /// Asks each authority whose name is an issuer's in the chain whether it signed it.
    fn authority(
        &self,
        leaf: (&CertificateDer<'_>, &X509Certificate<'_>),
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<Authority>, Error> {
        let others_parsed = others.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        let chain = || std::iter::once(leaf.1).chain(&others_parsed);
        let is_issuer = |authority: &Authority| {
            chain().any(|certificate| certificate.issuer().as_raw() == authority.subject())
        };
        let mut authorities = self.roster.authorities(is_issuer);
        let named = |authority: &Arc<Authority>| {
            let id = authority.key_id();
            id.is_some() && chain().any(|certificate| issuer_key_id(certificate) == id)
        };
        authorities.sort_by_cached_key(|authority| !named(authority));
        let mut refused = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for authority in authorities.into_iter().take(MAX_TRIES) {
            match authority.verifier().verify_client_cert(leaf.0, others, now) {
                Ok(_) => return Ok(authority),
                // of another one with the same name
                Err(Error::InvalidCertificate(
                    CertificateError::BadSignature | CertificateError::UnknownIssuer,
                )) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn issuer_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|each| match each.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

impl ClientCertVerifier for DeviceVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: whom the platform trusts is nobody's business who has no certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() >= MAX_CHAIN {
            let why = OtherError(Arc::new(ChainTooLong));
            return Err(CertificateError::Other(why).into());
        }
        let leaf = parse(end_entity)?;
        let authority = self.authority((end_entity, &leaf), intermediates, now)?;
        // a handshake verifies one certificate
        let _ = self.found.set(DeviceCertificate::new(authority, &leaf));
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceVerifier").field("required", &self.required).finish_non_exhaustive()
    }
}
