//! The moment at which a device's certificate is out of date. No IO.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, Sleep, sleep};

/// The clock that certificates follow may be set: it is looked at this often.
const LOOK: Duration = Duration::from_mins(1);

/// Waits for a moment of the wall clock.
pub(super) struct Expiry {
    at: SystemTime,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Expiry {
    pub(super) const fn new(at: SystemTime) -> Self {
        Self { at, sleep: None }
    }

    /// Ready when the moment has come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default().min(LOOK);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(left(self.at))));
        while sleep.as_mut().poll(context).is_ready() {
            let left = left(self.at);
            if left.is_zero() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(Instant::now() + left);
        }
        Poll::Pending
    }
}
