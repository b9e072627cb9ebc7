//! `/healthz`, `/readyz` and `/metrics` on a port of their own. IO: one HTTP listener.

use crate::directory::Directory;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;
use std::convert::Infallible;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::http::{StatusCode, header};
use warp::{Filter as _, Reply};

/// What Prometheus asks for in `Accept` and gets.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `closed`.
///
/// `/readyz` says 200 from the moment the directory was read, whether Kafka is there or not: an unready gateway
/// could tell nobody anything. It says 503 again once the process is to end.
pub(crate) async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    directory: Directory,
    shutdown: Shutdown,
    closed: CancellationToken,
) {
    let healthz = warp::path!("healthz").map(|| "ok\n".into_response());
    let readyz = warp::path!("readyz").map(move || {
        let (status, text) = if shutdown.is_begun() {
            (StatusCode::SERVICE_UNAVAILABLE, "the gateway ends\n")
        } else if directory.is_ready() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the directory was not read yet\n")
        };
        warp::reply::with_status(text, status).into_response()
    });
    let metrics = warp::path!("metrics").map(move || {
        warp::reply::with_header(telemetry.encode(), header::CONTENT_TYPE, OPEN_METRICS).into_response()
    });
    let routes = warp::get().and(healthz.or(readyz).unify().or(metrics).unify());
    let service = routes.recover(|_| async { Ok::<_, Infallible>(StatusCode::NOT_FOUND) });
    warp::serve(service).incoming(listener).graceful(async move { closed.cancelled().await }).run().await;
}
