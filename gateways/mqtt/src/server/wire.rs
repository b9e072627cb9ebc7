//! The bytes of one connection, encrypted or not. IO: the socket.

use std::io;
use std::time::Duration;
use tidegate_core::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// How long the last bytes may take to leave, and how long the client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a client's bytes come from.
pub(super) type Reading = ReadHalf<Stream>;

/// Where bytes for a client go.
pub(super) struct Writing {
    half: WriteHalf<Stream>,
    buffered: bool,
    /// Something may wait in the encryption.
    unflushed: bool,
}

/// The two directions of a connection.
pub(super) fn split(stream: Stream) -> (Reading, Writing) {
    let buffered = stream.is_buffered();
    let (reading, half) = tokio::io::split(stream);
    (reading, Writing { half, buffered, unflushed: false })
}

impl Writing {
    /// Whether there is something to do while this waits to be sent.
    pub(super) const fn has_work(&self, output: &[u8]) -> bool {
        !output.is_empty() || self.unflushed
    }

    /// Sends a part of `output`, and says how much; where there is none, what waits in the encryption. Cancel-safe.
    pub(super) async fn send(&mut self, output: &[u8]) -> io::Result<usize> {
        if output.is_empty() {
            self.half.flush().await?;
            self.unflushed = false;
            return Ok(0);
        }
        let sent = self.half.write(output).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = self.buffered;
        Ok(sent)
    }
}

/// Sends what is left and closes. Reading on until the client closes (`wait`) keeps a reset from overtaking the last
/// packet.
pub(super) async fn farewell(reading: &mut Reading, writing: &mut Writing, output: &[u8], wait: bool) {
    let last = async {
        writing.half.write_all(output).await?;
        writing.half.shutdown().await?;
        if wait {
            let mut rest = [0; 1024];
            while reading.read(&mut rest).await? > 0 {}
        }
        io::Result::Ok(())
    };
    // whatever goes wrong now, the connection is over
    let _ = tokio::time::timeout(FAREWELL, last).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::Arc;
    use tidegate_testkit::pki::Authority;
    use tidegate_testkit::tls::Hello;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    async fn pair() -> (Stream, impl tidegate_testkit::tls::Socket) {
        let authority = Authority::new("server's").unwrap();
        let leaf = authority.leaf("server").unwrap();
        let chain = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hello = Hello::new(&authority);
        let server = async {
            let (stream, _) = socket.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap()
        };
        let (server, client) = tokio::join!(server, hello.connect(socket.local_addr().unwrap()));
        (Stream::Tls(Box::new(server)), client.unwrap())
    }

    #[tokio::test]
    async fn what_waits_in_the_encryption_leaves_without_anything_behind_it() {
        let (server, mut client) = pair().await;
        let (_reading, mut writing) = split(server);
        let (chunk, mut sent) = ([7; 10_000], 0);
        while let Some(more) = writing.send(&chunk).now_or_never() {
            sent += more.unwrap();
            // the socket is woken by this alone
            tokio::task::yield_now().await;
        }
        assert!(writing.has_work(&[]));
        let rest = async {
            while writing.has_work(&[]) {
                writing.send(&[]).await.unwrap();
            }
        };
        let mut got = vec![0; sent];
        let read = client.read_exact(&mut got);
        let both = async { tokio::join!(rest, read) };
        let ((), read) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("everything came");
        assert_eq!(read.unwrap(), sent);
    }
}
