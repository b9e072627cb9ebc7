//! Finds a broker that answers. Does network IO.

use super::connection::{Connection, Socket};
use super::error::WireError;
use super::tls::connector;
use crate::kafka::access::Access;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long one address may take to be connected to, TLS included.
const CONNECT: Duration = Duration::from_millis(1500);
/// How many addresses are tried.
const ATTEMPTS: usize = 8;

/// Connects to the first broker of the list that answers: any of them passes on what is for the active controller.
pub async fn connect(access: &Access) -> Result<Connection, WireError> {
    let tls = access.tls.as_ref().map(connector).transpose()?;
    let mut last = WireError::Address(access.bootstrap.clone());
    let mut left = ATTEMPTS;
    for broker in access.bootstrap.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let failed = |source| WireError::Connect { address: broker.to_owned(), source };
        let Some((host, _)) = broker.rsplit_once(':') else {
            last = WireError::Address(broker.to_owned());
            continue;
        };
        let addresses = match timeout(CONNECT, lookup_host(broker)).await {
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
            Ok(Err(source)) => {
                last = failed(source);
                continue;
            }
            Err(_) => {
                last = failed(io::ErrorKind::TimedOut.into());
                continue;
            }
        };
        for address in addresses {
            if left == 0 {
                return Err(last);
            }
            left -= 1;
            let socket = match timeout(CONNECT, open(address, host, tls.as_ref())).await {
                Ok(Ok(socket)) => socket,
                Ok(Err(source)) => {
                    last = failed(source);
                    continue;
                }
                Err(_) => {
                    last = failed(io::ErrorKind::TimedOut.into());
                    continue;
                }
            };
            match Connection::open(socket).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn open(address: SocketAddr, host: &str, tls: Option<&TlsConnector>) -> io::Result<Box<dyn Socket>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name =
        ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(tls.connect(name, stream).await?))
}
