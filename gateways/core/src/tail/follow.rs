//! The thread that follows the ends of partitions. IO: blocks on the reader.

use super::Shared;
use super::control::Command;
use crate::reader::{Event, ReadError, Reader};
use std::sync::Arc;
use std::time::Duration;

/// How often the thread looks whether it is to end; records come at once.
const POLL: Duration = Duration::from_millis(200);

pub(super) fn spawn(shared: Arc<Shared>, reader: Arc<dyn Reader>) -> Result<(), ReadError> {
    std::thread::Builder::new()
        .name("tail".to_owned())
        .spawn(move || {
            // a reader says only once that it has stopped: while the queue is full the request waits here
            let mut stopped = false;
            while !shared.closed.is_cancelled() {
                match reader.poll(POLL) {
                    Some(Event::Record(record)) => shared.state.follow(&record),
                    Some(Event::OutOfRange) => stopped = true,
                    Some(Event::Error(error)) => {
                        tracing::debug!(error, "the tail's reader reported an error");
                    }
                    Some(Event::End) | None => {}
                }
                if stopped {
                    stopped = shared.commands.try_send(Command::Recover).is_err();
                }
            }
        })
        .map(drop)
        .map_err(|error| ReadError::Client(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Partition;
    use crate::tail::state::State;
    use crate::tail::sweep::Sweeper;
    use crate::tail::{TailLimits, TailMetrics};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio_util::sync::CancellationToken;

    /// Has lost its place, and says so once.
    #[derive(Default)]
    struct Lost(AtomicU32);

    impl Reader for Lost {
        fn partitions(&self, _: &str, _: Duration) -> Result<i32, ReadError> {
            Err(ReadError::Unavailable)
        }
        fn ends(&self, _: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
            Vec::new()
        }
        fn starts(&self, _: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
            Vec::new()
        }
        fn since(&self, _: &[Partition], _: i64, _: Duration) -> Vec<Result<i64, ReadError>> {
            Vec::new()
        }
        fn assign(&self, _: &Partition, _: i64) -> Result<(), ReadError> {
            Ok(())
        }
        fn unassign(&self, _: &Partition) -> Result<(), ReadError> {
            Ok(())
        }
        fn poll(&self, _: Duration) -> Option<Event> {
            std::thread::yield_now();
            (self.0.fetch_add(1, Ordering::SeqCst) == 0).then_some(Event::OutOfRange)
        }
    }

    #[tokio::test]
    async fn a_lost_place_is_reported_even_if_the_queue_was_full_at_that_moment() {
        let (commands, mut queue) = tokio::sync::mpsc::channel(1);
        commands.try_send(Command::Tidy).unwrap();
        let shared = Arc::new(Shared {
            state: State::new(TailLimits::default(), TailMetrics::default()),
            sweeper: Sweeper::default(),
            commands,
            metrics: TailMetrics::default(),
            closed: CancellationToken::new(),
        });
        let reader = Arc::new(Lost::default());
        spawn(Arc::clone(&shared), Arc::clone(&reader) as Arc<dyn Reader>).unwrap();
        while reader.0.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(queue.recv().await, Some(Command::Tidy)));
        let next = tokio::time::timeout(Duration::from_secs(30), queue.recv()).await.unwrap();
        assert!(matches!(next, Some(Command::Recover)));
        shared.closed.cancel();
    }
}
