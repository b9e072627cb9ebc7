//! Counters of what waits for Kafka, in records and bytes. Soft bounds: a publish is taken while the count is
//! below its bound, so one record may overshoot it; librdkafka's own bounds are far above. No IO.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Records and bytes that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    pub(super) fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(super) fn below(&self, messages: usize, bytes: usize) -> bool {
        self.messages.load(Ordering::Acquire) < messages && self.bytes.load(Ordering::Acquire) < bytes
    }

    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }
}

/// The process's budget, and the signal for those who wait for room of any kind.
#[derive(Debug)]
pub(super) struct Budget {
    waiting: Waiting,
    max_messages: usize,
    max_bytes: usize,
    /// How many wait on `freed`: nearly always none, and then a release costs no lock.
    sleepers: AtomicUsize,
    freed: Notify,
}

impl Budget {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            waiting: Waiting::default(),
            max_messages,
            max_bytes,
            sleepers: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.below(self.max_messages, self.max_bytes)
    }

    pub(super) fn messages(&self) -> usize {
        self.waiting.messages()
    }

    pub(super) fn add(&self, bytes: usize) {
        self.waiting.add(bytes);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.waiting.remove(bytes);
        self.wake();
    }

    /// Lets those who wait look again.
    pub(super) fn wake(&self) {
        // SeqCst, as in `until`: either the sleeper sees the new counts or we see the sleeper
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Waits until `room` says yes; it is asked again after each release.
    pub(super) async fn until(&self, room: impl Fn() -> bool) {
        struct Sleeper<'a>(&'a AtomicUsize);
        impl Drop for Sleeper<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let _sleeper = Sleeper(&self.sleepers);
        loop {
            let freed = self.freed.notified();
            // `notify_waiters` reaches futures that exist, polled or not
            std::sync::atomic::fence(Ordering::SeqCst);
            if room() {
                return;
            }
            freed.await;
        }
    }
}

/// The budgets of one topic's partitions.
#[derive(Debug)]
pub(super) struct TopicBudget {
    name: Arc<str>,
    count: i32,
    partitions: Box<[Waiting]>,
}

impl TopicBudget {
    pub(super) fn new(name: &Arc<str>, count: i32) -> Self {
        let partitions = (0..count.max(1)).map(|_| Waiting::default()).collect();
        Self { name: Arc::clone(name), count, partitions }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn partitions(&self) -> i32 {
        self.count
    }

    pub(super) fn is(&self, name: &Arc<str>, count: i32) -> bool {
        self.count == count && (Arc::ptr_eq(&self.name, name) || self.name == *name)
    }

    pub(super) fn has_room(&self, partition: i32, messages: usize, bytes: usize) -> bool {
        self.partition(partition).is_none_or(|waiting| waiting.below(messages, bytes))
    }

    pub(super) fn partition(&self, partition: i32) -> Option<&Waiting> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}
