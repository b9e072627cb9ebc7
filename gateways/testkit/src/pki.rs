//! Certificate authorities and what they sign: for a Kafka with mutual TLS on loopback, for listeners and devices. IO:
//! writes files.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tidegate_contract::config::{KafkaClientCertificate, KafkaTls};

/// A certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Result<Self> {
        let (params, key) = (Self::params(name, BasicConstraints::Constrained(0)), KeyPair::generate()?);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// One that this one signs.
    pub fn under(&self, name: &str) -> Result<Self> {
        let (params, key) = (Self::params(name, BasicConstraints::Unconstrained), KeyPair::generate()?);
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Its certificate made anew: of the same name and key.
    pub fn renewed(&self, name: &str) -> Result<Self> {
        let key = KeyPair::from_pem(&self.issuer.key().serialize_pem())?;
        let params = Self::params(name, BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    fn params(name: &str, constraints: BasicConstraints) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
    }

    /// A device's certificate with this common name.
    pub fn device(&self, name: &str) -> Result<Leaf> {
        self.with(&crate::certificates::device(name))
    }

    /// A certificate as it is asked for.
    pub fn with(&self, params: &CertificateParams) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a client and server on loopback.
    pub fn leaf(&self, name: &str) -> Result<Leaf> {
        self.leaf_at(name, "localhost")
    }

    /// The same, at one more address of this machine.
    pub fn leaf_at(&self, name: &str, host: &str) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let names = BTreeSet::from(["127.0.0.1", "localhost", host]);
        let mut params = CertificateParams::new(names.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }
}

impl Leaf {
    /// A certificate that nobody else signed.
    pub fn self_signed(params: &CertificateParams) -> Result<Self> {
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// The same with more certificates behind it.
    #[must_use]
    pub fn behind(mut self, authorities: &[&Authority]) -> Self {
        self.certificate.push_str(&bundle(authorities));
        self
    }
}

/// All certificates in one PEM text.
pub fn bundle(authorities: &[&Authority]) -> String {
    authorities.iter().map(|authority| authority.pem()).collect()
}

/// Where a client's files are in a folder.
pub fn client_files(folder: &Path) -> KafkaTls {
    let client = KafkaClientCertificate { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    KafkaTls { ca: Some(folder.join("ca.crt")), client: Some(client) }
}

/// Puts a client's files into a folder as the kubelet does: a new folder of versions, and one rename of the link that
/// all files go through.
pub fn mount(folder: &Path, version: &str, leaf: &Leaf, trusted: &str) -> Result<()> {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data)?;
    let files = [("tls.crt", leaf.certificate.as_str()), ("tls.key", &leaf.key), ("ca.crt", trusted)];
    for (name, text) in files {
        fs::write(data.join(name), text)?;
        let link = folder.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link)?;
        }
    }
    let new = folder.join("..data_tmp");
    std::os::unix::fs::symlink(format!("..{version}"), &new)?;
    fs::rename(new, folder.join("..data"))?;
    Ok(())
}
