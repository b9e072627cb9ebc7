//! A client that speaks TLS, and the files of a listener that does. IO: sockets on loopback, files.

use crate::pki::{Authority, Leaf};
use anyhow::{Context as _, Result};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tidegate_contract::config::{ClientCertificates, ListenerTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error, RootCertStore, SupportedProtocolVersion};

/// Both versions, for tests that run with each.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A connection of either kind.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Writes a listener's files.
pub fn listener(folder: &Path, shown: &Leaf, client_certificates: ClientCertificates) -> Result<ListenerTls> {
    let tls =
        ListenerTls { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_certificates };
    std::fs::write(&tls.certificate, &shown.certificate)?;
    std::fs::write(&tls.key, &shown.key)?;
    Ok(tls)
}

/// What a client does in its handshake.
#[derive(Clone, Copy)]
pub struct Hello<'a> {
    /// Who may have signed the server's certificate.
    pub trusted: &'a Authority,
    /// What it shows of itself.
    pub shown: Option<&'a Leaf>,
    /// What it speaks.
    pub version: &'static SupportedProtocolVersion,
    /// The protocols that it names.
    pub alpn: &'a [&'a str],
}

impl<'a> Hello<'a> {
    /// Without a certificate, in TLS 1.3.
    pub const fn new(trusted: &'a Authority) -> Self {
        Self { trusted, shown: None, version: &TLS13, alpn: &[] }
    }

    /// With this certificate, or none.
    #[must_use]
    pub const fn with(self, shown: Option<&'a Leaf>) -> Self {
        Self { shown, ..self }
    }

    /// How it is configured.
    pub fn config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusted.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version])?
            .with_root_certificates(roots);
        let mut config = match self.shown {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
                builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Connects. In TLS 1.3 the client's handshake ends before the server has seen its certificate: what the server
    /// thinks of it is in the first read.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config().map_err(io::Error::other)?;
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, socket).await
    }
}

/// The alert that ended a connection.
pub fn alert(error: &io::Error) -> Result<AlertDescription> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::AlertReceived(alert)) => Ok(*alert),
        _ => Err(anyhow::anyhow!("{error}")).context("no alert"),
    }
}
