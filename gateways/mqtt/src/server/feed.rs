//! Where a connection's records come from: the tail, or a test's own source.

use tidegate_contract::Filter;
use tidegate_core::{Reliability, TailError, TailEvent, TailSession};

/// The part of [`TailSession`] that a connection uses.
pub(super) trait Feed: Send + 'static {
    /// Returns when the filter's start position is fixed.
    fn subscribe(
        &mut self,
        filter: Filter,
        reliability: Reliability,
    ) -> impl Future<Output = Result<(), TailError>> + Send;

    /// Ends a subscription.
    fn unsubscribe(&mut self, filter: &Filter);

    /// The next event. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = TailEvent> + Send;
}

impl Feed for TailSession {
    async fn subscribe(&mut self, filter: Filter, reliability: Reliability) -> Result<(), TailError> {
        Self::subscribe(self, filter, reliability).await.map(drop)
    }

    fn unsubscribe(&mut self, filter: &Filter) {
        Self::unsubscribe(self, filter);
    }

    async fn next(&mut self) -> TailEvent {
        Self::next(self).await
    }
}
