//! Sockets: accepting, and one task per connection. IO: TCP; TLS and Kafka through `tidegate-core`.

mod connection;
mod convert;
mod desired;
mod entry;
mod input;
mod leave;
mod metrics;
mod registry;
#[cfg(test)]
mod tests;
mod wire;

use crate::session::{Now, SessionConfig};
use connection::Connection;
use input::{Budget, INPUT_BYTES};
use metrics::Metrics;
use registry::Registry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_contract::config::{Limits, Listener};
use tidegate_core::tls::{self, Entrance, OpenError};
use tidegate_core::{Access, DeviceCertificate, Directory, Limiter, Publisher, Services, Shutdown, Tail};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The protocol's name in ALPN (RFC 7301), as IANA has it.
const ALPN: &str = "mqtt";
/// How long CONNECT may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what waits for it.
const STALLED_TIME: Duration = Duration::from_secs(30);
/// The longest keep-alive of a client of version 5, in seconds: a dead node's connections are noticed this soon.
const KEEP_ALIVE_MAX: u16 = 30;
/// Above so many unsent bytes nothing more is read or delivered.
const OUTPUT_HIGH: usize = 64 << 10;
/// The pause after a failed accept: the process is out of file descriptors, and trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why serving ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A configuration without a listener.
    #[error("failed to serve MQTT: the configuration names no listener")]
    NoListener,
    /// A listener's files cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Who is at the other end of a socket, as far as that is known before CONNECT.
#[derive(Clone)]
struct Client {
    source: IpAddr,
    certificate: Option<DeviceCertificate>,
}

/// Serves MQTT on `listeners` until the shutdown signal, then until every connection is drained. A connection that
/// breaks the protocol ends alone.
pub async fn serve(listeners: Vec<(Listener, TcpListener)>, services: Services) -> Result<(), ServeError> {
    let input = Budget::new(INPUT_BYTES, services.limits.limits().packet_bytes as usize);
    serve_within(listeners, services, input).await
}

async fn serve_within(
    listeners: Vec<(Listener, TcpListener)>,
    services: Services,
    input: Budget,
) -> Result<(), ServeError> {
    if listeners.is_empty() {
        return Err(ServeError::NoListener);
    }
    let entrances = tls::open(listeners, ALPN, &services)?;
    let metrics = services.telemetry.register(Metrics::new);
    let shared = Arc::new(Shared {
        directory: services.directory,
        publisher: services.publisher,
        tail: services.tail,
        access: services.access,
        limits: services.limits,
        shutdown: services.shutdown,
        metrics,
        input,
        registry: Registry::default(),
        clock: Clock::default(),
        names: Names::default(),
    });
    run(entrances, shared).await;
    Ok(())
}

/// What all connections share.
struct Shared {
    directory: Directory,
    publisher: Publisher,
    tail: Tail,
    access: Access,
    limits: Limiter,
    shutdown: Shutdown,
    metrics: Metrics,
    input: Budget,
    registry: Registry,
    clock: Clock,
    names: Names,
}

async fn run(entrances: Vec<Entrance>, shared: Arc<Shared>) {
    let connections = TaskTracker::new();
    let accepting = entrances.into_iter().map(|entrance| {
        let (shared, connections) = (Arc::clone(&shared), connections.clone());
        async move { accept(&entrance, &shared, &connections).await }
    });
    futures::future::join_all(accepting).await;
    connections.close();
    // every connection ends by itself, at the latest when the time to drain is over
    connections.wait().await;
}

async fn accept(entrance: &Entrance, shared: &Arc<Shared>, connections: &TaskTracker) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.shutdown.begun() => return,
            accepted = entrance.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => start(entrance, stream, peer, shared, connections),
            Err(error) => {
                tracing::warn!(listener = entrance.name(), %error, "failed to accept a connection");
                shared.metrics.turned_down("AcceptFailed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start(
    entrance: &Entrance,
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    connections: &TaskTracker,
) {
    let permit = match shared.limits.connect() {
        Ok(permit) => permit,
        // closing at once lets a balancer or the client try elsewhere
        Err(refused) => return shared.metrics.turned_down(refused.reason()),
    };
    // an acknowledgement is a few bytes that must not wait for more
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "failed to set TCP_NODELAY");
    }
    let span = tracing::info_span!("connection", protocol = "mqtt", listener = entrance.name(), %peer);
    let (shared, door) = (Arc::clone(shared), entrance.door());
    let task = async move {
        // what failed is counted there
        if let Ok((stream, certificate)) = door.enter(stream).await {
            Connection::new(stream, Client { source: peer.ip(), certificate }, shared).run().await;
        }
        drop(permit);
    };
    connections.spawn(task.instrument(span));
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The two clocks that a session is told.
#[derive(Debug)]
struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            steady_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn at(&self, steady_ms: u64) -> Instant {
        self.start + Duration::from_millis(steady_ms)
    }
}

/// Makes names that no other connection has, here or in another process.
#[derive(Debug)]
struct Names {
    process: u64,
    next: AtomicU64,
}

impl Default for Names {
    fn default() -> Self {
        // the standard library's keys are random per process
        Self { process: RandomState::new().hash_one(SystemTime::now()), next: AtomicU64::new(0) }
    }
}

impl Names {
    fn connection(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn mark(&self, connection: u64) -> String {
        format!("{:016x}-{connection:x}", self.process)
    }
}

fn session_config(limits: &Limits, mark: String) -> SessionConfig {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    SessionConfig {
        packet_bytes: limits.packet_bytes,
        in_flight: limits.in_flight,
        subscriptions: usize::try_from(limits.subscriptions).unwrap_or(usize::MAX),
        idle_ms: limits.idle_time_ms,
        connect_ms: ms(CONNECT_TIME),
        stalled_ms: ms(STALLED_TIME),
        keep_alive_max: KEEP_ALIVE_MAX,
        output_high: OUTPUT_HIGH,
        assigned_client_id: format!("tg-{mark}"),
        mark,
    }
}
