//! Bounds of one process on connections: how many at a time, and how many new ones per second. No IO.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_contract::config::Limits;

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `limits.connections` are open.
    #[error("the gateway has as many connections as it may have")]
    TooMany,
    /// More than `limits.connectRate` came within a second.
    #[error("more devices connect at once than the gateway may take")]
    TooFast,
}

impl Refused {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooMany => "TooManyConnections",
            Self::TooFast => "ConnectRate",
        }
    }
}

/// Gives out permits for connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limiter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    open: AtomicU32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// One open connection; dropping it gives the place back.
#[derive(Debug)]
pub struct ConnectionPermit {
    inner: Arc<Inner>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.inner.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limiter {
    /// A limiter with a full second's worth of new connections.
    pub fn new(limits: Limits) -> Self {
        let bucket = Bucket { tokens: f64::from(limits.connect_rate), filled: Instant::now() };
        Self { inner: Arc::new(Inner { limits, open: AtomicU32::new(0), bucket: Mutex::new(bucket) }) }
    }

    /// The bounds as configured.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The number of permits out.
    pub fn open(&self) -> u32 {
        self.inner.open.load(Ordering::Acquire)
    }

    /// A permit for a connection that was just accepted.
    pub fn connect(&self) -> Result<ConnectionPermit, Refused> {
        self.connect_at(Instant::now())
    }

    fn connect_at(&self, now: Instant) -> Result<ConnectionPermit, Refused> {
        let inner = &self.inner;
        if inner.open.fetch_add(1, Ordering::AcqRel) >= inner.limits.connections {
            inner.open.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::TooMany);
        }
        // from here on dropping it gives the place back
        let permit = ConnectionPermit { inner: Arc::clone(inner) };
        let rate = f64::from(inner.limits.connect_rate);
        let mut bucket = inner.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(rate);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Err(Refused::TooFast);
        }
        bucket.tokens -= 1.0;
        Ok(permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limiter(connections: u32, connect_rate: u32) -> Limiter {
        Limiter::new(Limits { connections, connect_rate, ..Limits::default() })
    }

    #[test]
    fn a_closed_connection_makes_room_for_another() {
        let limiter = limiter(1, 100);
        let first = limiter.connect().unwrap();
        assert_eq!(limiter.connect().unwrap_err(), Refused::TooMany);
        drop(first);
        assert!(limiter.connect().is_ok());
        assert_eq!(limiter.open(), 0);
    }

    #[test]
    fn more_than_a_seconds_worth_at_once_waits_for_the_next_moment() {
        let limiter = limiter(1000, 10);
        let now = Instant::now();
        let permits: Vec<_> = std::iter::from_fn(|| limiter.connect_at(now).ok()).collect();
        assert_eq!(permits.len(), 10);
        assert_eq!(limiter.connect_at(now).unwrap_err(), Refused::TooFast);
        assert_eq!(limiter.open(), 10);
        assert!(limiter.connect_at(now + Duration::from_millis(100)).is_ok());
    }
}
