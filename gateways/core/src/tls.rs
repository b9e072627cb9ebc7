//! TLS of the listeners: what a gateway shows to devices, and what it takes from them. IO: handshakes on accepted
//! sockets; a look at each listener's files every few seconds.
//!
//! - TLS 1.2 and 1.3, by rustls with the cipher suites that it takes for safe: AES-GCM and ChaCha20-Poly1305 with a key
//!   exchange of their own for each connection.
//! - No connection resumes another: each one's certificate is held against the directory as it is then.
//! - A device's certificate that does not hold ends the handshake, also where it may do without one: whoever shows
//!   something is never taken for nobody.

mod certificate;
mod identity;
mod stream;
mod verifier;

pub use certificate::DeviceCertificate;
pub use identity::IdentityError;
pub use stream::Stream;

use crate::files::{LOOK, Watch};
use crate::roster::Roster;
use crate::services::Services;
use crate::telemetry::TlsMetrics;
use identity::Identity;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tidegate_contract::config::{ClientCertificates, Listener};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, CertificateError, ConfigBuilder, ServerConfig};
use verifier::{ChainTooLong, DeviceVerifier, Found};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a device may take to close its side after it was told why there is no connection.
const FAREWELL: Duration = Duration::from_secs(1);
/// What it may still send meanwhile, in bytes.
const FAREWELL_BYTES: u64 = 64 << 10;
/// What may wait in a connection's encryption to be sent, in bytes: more would hide that a device takes nothing.
const OUTPUT: usize = 16 << 10;

/// The one provider of cryptography.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    &PROVIDER
}

/// A listener that devices come in by. Cheap to clone what a connection needs of it: [`Entrance::door`].
pub struct Entrance {
    name: Arc<str>,
    socket: TcpListener,
    door: Door,
}

/// What is done with an accepted socket before the protocol. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    tls: Option<Arc<Tls>>,
}

struct Tls {
    identity: Identity,
    clients: ClientCertificates,
    roster: Roster,
    protocol: &'static [u8],
    metrics: TlsMetrics,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener:?} cannot be opened")]
pub struct OpenError {
    listener: String,
    #[source]
    source: IdentityError,
}

/// Why a handshake did not come to its end: a constant name for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHandshake(pub &'static str);

/// Whether the files of a listener with TLS can be used; the error says which field names one that cannot.
pub fn check(listener: &Listener) -> Result<(), OpenError> {
    let tls = listener.tls.as_ref();
    tls.map_or(Ok(()), |tls| identity::read(tls).map(drop))
        .map_err(|source| OpenError { listener: listener.name.clone(), source })
}

/// Opens listeners for a protocol, whose name in ALPN is `protocol`. Once for each process.
pub fn open(
    listeners: Vec<(Listener, TcpListener)>,
    protocol: &'static str,
    services: &Services,
) -> Result<Vec<Entrance>, OpenError> {
    let metrics = services.telemetry.register(TlsMetrics::new);
    let open = |(listener, socket): (Listener, TcpListener)| {
        let tls = listener.tls.as_ref().map(|tls| {
            let (identity, files, in_use) = Identity::open(&listener.name, tls, metrics.clone())
                .map_err(|source| OpenError { listener: listener.name.clone(), source })?;
            let shutdown = services.shutdown.clone();
            let watch = Watch::new(files, in_use, LOOK);
            tokio::spawn(async move { watch.run(shutdown.begun()).await });
            Ok(Arc::new(Tls {
                identity,
                clients: tls.client_certificates,
                roster: services.directory.roster().clone(),
                protocol: protocol.as_bytes(),
                metrics: metrics.clone(),
            }))
        });
        Ok(Entrance { name: listener.name.as_str().into(), socket, door: Door { tls: tls.transpose()? } })
    };
    listeners.into_iter().map(open).collect()
}

impl Entrance {
    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next device. Cancel-safe.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }

    /// Whether nothing may be said before a handshake.
    pub const fn is_encrypted(&self) -> bool {
        self.door.tls.is_some()
    }

    /// What to do with its socket.
    pub fn door(&self) -> Door {
        self.door.clone()
    }
}

impl Door {
    /// Does the handshake, if there is one; who came with a certificate is in the second part. A device that is turned
    /// away is told why by an alert. Takes 11 s at most.
    pub async fn enter(&self, socket: TcpStream) -> Result<(Stream, Option<DeviceCertificate>), NoHandshake> {
        let Some(tls) = &self.tls else { return Ok((Stream::Plain(socket), None)) };
        let result = tls.handshake(socket).await;
        tls.metrics.handshake(result.as_ref().map_or_else(|failure| failure.0, |_| "Done"));
        result
    }
}

impl Tls {
    async fn handshake(&self, socket: TcpStream) -> Result<(Stream, Option<DeviceCertificate>), NoHandshake> {
        let found = Found::default();
        // neither has a reason to fail: the provider has both versions, and the key was tried
        let config = self.config(&found).map_err(|_| NoHandshake("Broken"))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accept = acceptor.accept_with(socket, |connection| connection.set_buffer_limit(Some(OUTPUT)));
        match timeout(HANDSHAKE, accept.into_fallible()).await {
            Ok(Ok(stream)) => Ok((Stream::Tls(Box::new(stream)), found.get().cloned())),
            Ok(Err((error, socket))) => {
                let reason = reason(&error);
                tracing::debug!(reason, %error, "a TLS handshake failed");
                farewell(socket).await;
                Err(NoHandshake(reason))
            }
            Err(_) => Err(NoHandshake("TooSlow")),
        }
    }

    /// One for each connection: what its verifier finds out is the connection's own.
    fn config(&self, found: &Found) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let required = match self.clients {
            ClientCertificates::None => None,
            ClientCertificates::Optional => Some(false),
            ClientCertificates::Required => Some(true),
        };
        let builder: ConfigBuilder<_, WantsServerCert> = match required {
            None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
            Some(required) => builder.with_client_cert_verifier(Arc::new(DeviceVerifier::new(
                self.roster.clone(),
                required,
                Arc::clone(found),
            ))),
        };
        let key: Arc<CertifiedKey> = self.identity.current();
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![self.protocol.to_vec()];
        Ok(config)
    }
}

/// Lets the alert arrive: a socket that is closed with something unread in it resets the connection.
async fn farewell(mut socket: TcpStream) {
    let wait = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // whatever goes wrong now, the connection is over
    let _ = timeout(FAREWELL, wait).await;
}

/// A constant name for why a handshake failed.
fn reason(error: &io::Error) -> &'static str {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return "BrokenOff";
    };
    match error {
        Error::NoCertificatesPresented => "NoCertificate",
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "CertificateExpired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "CertificateNotYetValid"
            }
            CertificateError::UnknownIssuer => "UnknownAuthority",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "CertificateUsage"
            }
            CertificateError::Other(other) if other.0.is::<ChainTooLong>() => "ChainTooLong",
            _ => "CertificateInvalid",
        },
        Error::AlertReceived(_) => "RefusedByDevice",
        Error::PeerIncompatible(_) => "NothingInCommon",
        Error::NoApplicationProtocol => "OtherProtocol",
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "NotTls",
        _ => "Broken",
    }
}
