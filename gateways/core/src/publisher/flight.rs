//! One publish on its way, and the queue of outcomes of its connection. IO: the runtime's clock.

use super::budget::{Budget, TopicBudget, Waiting};
use super::{Completion, PublishFailure};
use crate::record::Place;
use crate::telemetry::PublisherMetrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout_at;

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
    /// How long a publish waits for Kafka before it has failed.
    answer: Duration,
    outcomes: Mutex<Outcomes>,
    wake: Notify,
}

#[derive(Default)]
struct Outcomes {
    done: Vec<Completion>,
    /// What has no outcome yet, in the order of publishing.
    waiting: BTreeMap<u64, Wait>,
    next: u64,
}

struct Wait {
    token: u64,
    since: Instant,
    place: Late,
}

/// A partition that did not confirm a record in time. Cheap to clone.
#[derive(Clone)]
pub struct Late {
    topic: Arc<TopicBudget>,
    partition: i32,
    batch_bytes: usize,
}

impl Late {
    /// The topic's name in Kafka.
    pub fn topic(&self) -> &Arc<str> {
        self.topic.name()
    }

    /// The partition.
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// As in [`Outgoing`](super::Outgoing).
    pub const fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Whether records of it still wait for Kafka.
    pub fn waits(&self) -> bool {
        self.topic.partition(self.partition).is_some_and(|waiting| waiting.messages() > 0)
    }
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic.name(), self.partition)
    }
}

impl Outcomes {
    /// Since when the oldest publish without an outcome waits.
    fn oldest(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, wait)| wait.since)
    }
}

impl Line {
    pub(super) fn new(budget: &Arc<Budget>, metrics: &PublisherMetrics, answer: Duration) -> Self {
        Self {
            budget: Arc::clone(budget),
            metrics: metrics.clone(),
            waiting: Waiting::default(),
            open: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            answer,
            outcomes: Mutex::default(),
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

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for outcomes; returns where Kafka confirmed nothing in time, if that is why they are here.
    pub(super) async fn completed(&self, out: &mut Vec<Completion>) -> Option<Late> {
        let mut late = None;
        loop {
            let oldest = {
                let mut outcomes = self.outcomes();
                if !outcomes.done.is_empty() {
                    self.open.fetch_sub(outcomes.done.len(), Ordering::AcqRel);
                    out.append(&mut outcomes.done);
                    drop(outcomes);
                    self.budget.wake();
                    return late;
                }
                outcomes.oldest()
            };
            match oldest {
                None => self.wake.notified().await,
                Some(oldest) => {
                    let until = (oldest + self.answer).into();
                    if timeout_at(until, self.wake.notified()).await.is_err() {
                        late = self.give_up(Instant::now()).or(late);
                    }
                }
            }
        }
    }

    /// Fails everything that waits if the oldest has waited too long. Kafka's client keeps the records: taken back, one
    /// of them could be stored behind a later one, when its device sends it again.
    fn give_up(&self, now: Instant) -> Option<Late> {
        let mut outcomes = self.outcomes();
        let (_, oldest) = outcomes.waiting.first_key_value()?;
        if now < oldest.since + self.answer {
            return None;
        }
        let late = oldest.place.clone();
        for (_, wait) in std::mem::take(&mut outcomes.waiting) {
            self.metrics.landed(now.saturating_duration_since(wait.since), Some(PublishFailure::TimedOut));
            self.settle(&mut outcomes, wait.token, Err(PublishFailure::TimedOut));
        }
        Some(late)
    }

    fn depart(&self, token: u64, place: Late) -> u64 {
        let mut outcomes = self.outcomes();
        let number = outcomes.next;
        outcomes.next += 1;
        outcomes.waiting.insert(number, Wait { token, since: Instant::now(), place });
        number
    }

    fn arrive(&self, number: u64, result: Result<Place, PublishFailure>) {
        let mut outcomes = self.outcomes();
        // not there: its device was told already that nobody knows
        let Some(wait) = outcomes.waiting.remove(&number) else { return };
        self.metrics.landed(wait.since.elapsed(), result.as_ref().err().copied());
        self.settle(&mut outcomes, wait.token, result);
        let first = outcomes.done.len() == 1;
        drop(outcomes);
        if first {
            self.wake.notify_one();
        }
    }

    fn cancel(&self, number: u64) {
        self.outcomes().waiting.remove(&number);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Under the lock, so that no success is queued behind a failure.
    fn settle(&self, outcomes: &mut Outcomes, token: u64, result: Result<Place, PublishFailure>) {
        let result = if self.has_failed() {
            result.and(Err(PublishFailure::AfterFailure))
        } else {
            if result.is_err() {
                self.failed.store(true, Ordering::Release);
            }
            result
        };
        outcomes.done.push(Completion { token, result });
    }
}

/// One publish on its way: the sink gives it back with the outcome, exactly once. Dropped without one, it has
/// failed.
pub struct Flight {
    line: Arc<Line>,
    topic: Arc<TopicBudget>,
    partition: i32,
    bytes: usize,
    number: u64,
    landed: bool,
}

impl Flight {
    pub(super) fn take_off(
        line: &Arc<Line>,
        topic: &Arc<TopicBudget>,
        partition: i32,
        bytes: usize,
        batch_bytes: usize,
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
            number: line.depart(token, Late { topic: Arc::clone(topic), partition, batch_bytes }),
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
        self.line.cancel(self.number);
    }

    fn finish(&mut self, outcome: Result<i64, PublishFailure>) {
        self.landed = true;
        let topic = Arc::clone(self.topic.name());
        let result = outcome.map(|offset| Place { topic, partition: self.partition, offset });
        // what a connection hears of is not in flight any more
        self.release();
        self.line.arrive(self.number, result);
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
