//! The accept loop and the life of a connection (HTTP/1.1, RFC 9112). IO: TCP; TLS through core.

use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::service::{Context, Peer, routes};
use crate::wire::{Due, Watch, Wire};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tidegate_contract::config::Listener;
use tidegate_core::tls::{self, Door, Entrance, OpenError, Stream};
use tidegate_core::{ConnectionPermit, Services};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use warp::Reply as _;
use warp::filters::BoxedFilter;

/// The protocol's name in ALPN (RFC 7301).
const ALPN: &str = "http/1.1";
/// The most header fields of a request.
const MAX_HEADERS: usize = 64;
/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What hyper reads ahead on one connection, in bytes.
const MAX_BUFFER: usize = 64 * 1024;
/// After a failed accept (out of file descriptors), wait so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener's task failed.
    #[error("failed to serve listener {0}")]
    Listener(String),
    /// A listener's files cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Serves every listener until the shutdown begins, then lets open requests end, and returns when all connections are
/// closed or the time to drain is over.
pub async fn serve(listeners: Vec<(Listener, TcpListener)>, services: Services) -> Result<(), ServeError> {
    let entrances = tls::open(listeners, ALPN, &services)?;
    let metrics = services.telemetry.register(Metrics::new);
    let shutdown = services.shutdown.clone();
    let context = Context::new(services.clone(), metrics.clone());
    let server = Server { services, metrics, routes: routes(context) };
    let mut tasks = JoinSet::new();
    for entrance in entrances {
        let server = server.clone();
        tasks.spawn(async move {
            let name = entrance.name().to_owned();
            server.accept(entrance).await;
            name
        });
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(name) if !shutdown.is_begun() => return Err(ServeError::Listener(name)),
            Ok(_) => {}
            Err(error) => return Err(ServeError::Listener(error.to_string())),
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Server {
    services: Services,
    metrics: Metrics,
    routes: BoxedFilter<(Response<Bytes>,)>,
}

impl Server {
    async fn accept(self, entrance: Entrance) {
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(self.services.shutdown.begun());
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = entrance.accept() => match accepted {
                    Ok((socket, peer)) => match self.services.limits.connect() {
                        Ok(permit) => {
                            let (server, door) = (self.clone(), entrance.door());
                            connections.spawn(async move { server.enter(door, socket, peer, permit).await });
                        }
                        Err(refused) => {
                            self.metrics.refused(refused.reason());
                            if !entrance.is_encrypted() {
                                turn_away(&socket);
                            }
                        }
                    },
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a connection");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
            }
        }
        drop(entrance);
        while connections.join_next().await.is_some() {}
    }

    async fn enter(self, door: Door, socket: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
        // without it an answer may wait for more; whether there is a connection shows soon enough
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        // what failed is counted there
        if let Ok((stream, certificate)) = door.enter(socket).await {
            self.metrics.opened();
            let reason = self.serve(stream, Peer { source: peer.ip(), certificate }).await;
            self.metrics.closed(reason);
        }
        drop(permit);
    }

    /// Serves a connection to its end and says why it ended.
    async fn serve(&self, stream: Stream, peer: Peer) -> &'static str {
        let idle = Duration::from_millis(self.services.limits.limits().idle_time_ms);
        let (wire, watch) = Wire::new(stream);
        let service = {
            let (server, watch) = (self.clone(), watch.clone());
            hyper::service::service_fn(move |request| {
                server.clone().request(request, peer.clone(), watch.clone())
            })
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // Both times are kept by the watch: hyper would count idle time as a slow head.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER)
            .half_close(false)
            .serve_connection(TokioIo::new(wire), service);
        let mut connection = pin!(connection);
        let (mut draining, mut reason) = (false, "Done");
        let mut look = Instant::now();
        loop {
            tokio::select! {
                result = &mut connection => return match result {
                    Ok(()) => reason,
                    Err(error) => broken(&error),
                },
                () = self.services.shutdown.begun(), if !draining => {
                    (draining, reason) = (true, "Shutdown");
                    connection.as_mut().graceful_shutdown();
                }
                () = self.services.shutdown.drained() => return "DrainTimeout",
                () = sleep_until(look) => match watch.due(idle) {
                    Due::At(next) => look = next,
                    Due::Idle => return "Idle",
                    Due::SlowHead => return "SlowHead",
                    Due::SlowRead => return "SlowRead",
                },
            }
        }
    }

    async fn request(
        self,
        mut request: Request<Incoming>,
        peer: Peer,
        watch: Watch,
    ) -> Result<warp::reply::Response, Infallible> {
        let (begun, method) = (Instant::now(), request.method().clone());
        let ambiguity = watch.request().map(Problem::Framing);
        let problem = ambiguity.or_else(|| host(request.version(), request.headers()));
        let mut response = if let Some(problem) = problem {
            self.metrics.problem(&problem);
            problem.response(matches!(method, http::Method::PUT | http::Method::POST)).into_response()
        } else {
            request.extensions_mut().insert(peer);
            TowerToHyperService::new(warp::service(self.routes.clone())).call(request).await?
        };
        if self.services.shutdown.is_begun() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        watch.answered();
        self.metrics.answered(&method, response.status(), begun.elapsed());
        Ok(response)
    }
}

/// RFC 9112 §3.2: a request of HTTP/1.1 has exactly one `Host`.
fn host(version: Version, headers: &HeaderMap) -> Option<Problem> {
    let hosts = headers.get_all(header::HOST).iter().count();
    let good = hosts == 1 || (hosts == 0 && version < Version::HTTP_11);
    (!good).then_some(Problem::Host)
}

/// Why hyper gave a connection up; where the request was malformed it has answered 400, 414 or 431 by itself.
fn broken(error: &hyper::Error) -> &'static str {
    if error.is_parse_too_large() {
        "HeadTooLarge"
    } else if error.is_parse() {
        "Malformed"
    } else if error.is_incomplete_message() {
        "Incomplete"
    } else {
        "Broken"
    }
}

/// Tells a connection that is one too many, as far as its empty send buffer takes it, which it always does.
fn turn_away(socket: &TcpStream) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _ = socket.try_write(ANSWER);
}
