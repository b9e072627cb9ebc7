//! One publish on its way, and the queue of outcomes of its connection. No IO.

use super::budget::{Budget, TopicBudget, Waiting};
use super::{Completion, PublishFailure};
use crate::record::Place;
use crate::telemetry::PublisherMetrics;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// One connection's outcomes.
pub(super) struct Line {
    budget: Arc<Budget>,
    metrics: PublisherMetrics,
    /// What Kafka has not reported yet.
    waiting: Waiting,
    /// What was published and whose completion was not taken.
    open: AtomicUsize,
    /// Set by the first failure; nothing later is acknowledged.
    failed: AtomicBool,
    done: Mutex<Vec<Completion>>,
    wake: Notify,
}

impl Line {
    pub(super) fn new(budget: &Arc<Budget>, metrics: &PublisherMetrics) -> Self {
        Self {
            budget: Arc::clone(budget),
            metrics: metrics.clone(),
            waiting: Waiting::default(),
            open: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            done: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.open() < messages && self.waiting.below(usize::MAX, bytes)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(super) async fn completed(&self, out: &mut Vec<Completion>) {
        loop {
            {
                let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
                if !done.is_empty() {
                    self.open.fetch_sub(done.len(), Ordering::AcqRel);
                    out.append(&mut done);
                    drop(done);
                    self.budget.wake();
                    return;
                }
            }
            self.wake.notified().await;
        }
    }

    fn push(&self, token: u64, result: Result<Place, PublishFailure>) {
        let first = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            // under the lock, so that no success is queued behind a failure
            let result = if self.has_failed() {
                result.and(Err(PublishFailure::AfterFailure))
            } else {
                if result.is_err() {
                    self.failed.store(true, Ordering::Release);
                }
                result
            };
            done.push(Completion { token, result });
            done.len() == 1
        };
        if first {
            self.wake.notify_one();
        }
    }
}

/// One publish on its way: the sink gives it back with the outcome, exactly once. Dropped without one, it has
/// failed.
pub struct Flight {
    line: Arc<Line>,
    topic: Arc<TopicBudget>,
    partition: i32,
    bytes: usize,
    token: u64,
    since: Instant,
    landed: bool,
}

impl Flight {
    pub(super) fn take_off(
        line: &Arc<Line>,
        topic: &Arc<TopicBudget>,
        partition: i32,
        bytes: usize,
        token: u64,
    ) -> Self {
        line.budget.add(bytes);
        line.waiting.add(bytes);
        line.open.fetch_add(1, Ordering::AcqRel);
        if let Some(waiting) = topic.partition(partition) {
            waiting.add(bytes);
        }
        line.metrics.in_flight(1, bytes);
        Self {
            line: Arc::clone(line),
            topic: Arc::clone(topic),
            partition,
            bytes,
            token,
            since: Instant::now(),
            landed: false,
        }
    }

    /// Gives the outcome to the connection: the offset that Kafka confirmed, or why there is none.
    pub fn land(mut self, outcome: Result<i64, PublishFailure>) {
        self.finish(outcome);
    }

    /// The sink did not take it: as if it had never been.
    pub(super) fn cancel(mut self) {
        self.landed = true;
        self.release();
        self.line.open.fetch_sub(1, Ordering::AcqRel);
    }

    fn finish(&mut self, outcome: Result<i64, PublishFailure>) {
        self.landed = true;
        self.line.metrics.landed(self.since.elapsed(), outcome.err());
        let topic = Arc::clone(self.topic.name());
        let result = outcome.map(|offset| Place { topic, partition: self.partition, offset });
        self.line.push(self.token, result);
        self.release();
    }

    fn release(&self) {
        self.line.metrics.in_flight(-1, self.bytes);
        self.line.waiting.remove(self.bytes);
        if let Some(waiting) = self.topic.partition(self.partition) {
            waiting.remove(self.bytes);
        }
        self.line.budget.remove(self.bytes);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.finish(Err(PublishFailure::Broken));
        }
    }
}
