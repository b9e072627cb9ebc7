//! `/healthz`, `/readyz` and `/metrics`. IO: one listening socket.

use super::metrics::Metrics;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::Filter as _;
use warp::http::StatusCode;

/// A loop that has not turned for so long hangs.
const STUCK: Duration = Duration::from_secs(60);

/// How this replica is.
#[derive(Debug)]
pub struct Health {
    ready: AtomicBool,
    turned: Mutex<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { ready: AtomicBool::new(false), turned: Mutex::new(Instant::now()) }
    }
}

impl Health {
    /// Says that this replica, leader or not, can do its work.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Says that the election's loop turned.
    pub fn tick(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether this replica can do its work.
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether the election's loop turns.
    pub fn alive(&self, now: Instant) -> bool {
        now.duration_since(*self.turned.lock().unwrap_or_else(PoisonError::into_inner)) < STUCK
    }
}

/// Serves until `shutdown`. Fails at once where the port cannot be had.
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address).await?;
    let ready = Arc::clone(&health);
    let readyz = warp::path!("readyz").map(move || answer(ready.ready()));
    let healthz = warp::path!("healthz").map(move || answer(health.alive(Instant::now())));
    let metrics = warp::path!("metrics").map(move || {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        warp::reply::with_header(metrics.render(), "content-type", kind)
    });
    let routes = warp::get().and(readyz.or(healthz).or(metrics));
    Ok(warp::serve(routes).incoming(listener).graceful(shutdown.cancelled_owned()).run())
}

fn answer(good: bool) -> impl warp::Reply {
    let (text, code) =
        if good { ("ok\n", StatusCode::OK) } else { ("not ok\n", StatusCode::SERVICE_UNAVAILABLE) };
    warp::reply::with_status(text, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_hangs_is_not_alive() {
        let health = Health::default();
        health.tick();
        assert!(health.alive(Instant::now()));
        assert!(!health.alive(Instant::now() + STUCK + Duration::from_secs(1)));
    }
}
