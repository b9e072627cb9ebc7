//! How a process ends: stop accepting, tell or move clients, drain acknowledgements, flush, exit 0. No IO.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The one signal that the process is to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    drain: Duration,
    deadline: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    /// A signal that was not given yet; connections may drain for `drain`.
    pub fn new(drain: Duration) -> Self {
        Self { token: CancellationToken::new(), drain, deadline: Arc::default() }
    }

    /// Gives the signal; the time to drain counts from the first call.
    pub fn begin(&self) {
        self.deadline.get_or_init(|| Instant::now() + self.drain);
        self.token.cancel();
    }

    /// Whether the signal was given.
    pub fn is_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns when the signal is given: stop accepting, tell clients, answer what is in flight.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// When connections must be closed, whatever is still open on them. Nothing before the signal.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Returns when the time to drain is over.
    pub async fn drained(&self) {
        self.begun().await;
        if let Some(deadline) = self.deadline() {
            tokio::time::sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_to_drain_counts_from_the_first_signal() {
        let shutdown = Shutdown::new(Duration::from_secs(30));
        assert!(shutdown.deadline().is_none() && !shutdown.is_begun());
        let start = Instant::now();
        shutdown.begin();
        tokio::time::advance(Duration::from_secs(10)).await;
        shutdown.begin();
        shutdown.drained().await;
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}
