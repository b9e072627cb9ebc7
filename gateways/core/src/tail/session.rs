//! One session: its subscriptions, its cursors and the few records that wait for it in memory. No IO.

use super::ring::Kept;
use super::{Delivery, Gap, Reliability, SessionOptions, SubscriptionId, TailEvent};
use crate::reader::Partition;
use crate::telemetry::TailMetrics;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_contract::Filter;
use tokio::sync::Notify;

pub(super) struct Session {
    pub(super) key: u64,
    options: SessionOptions,
    metrics: TailMetrics,
    inner: Mutex<Inner>,
    wake: Notify,
}

pub(super) struct Inner {
    queue: VecDeque<TailEvent>,
    bytes: usize,
    pub(super) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    next_id: u32,
    pub(super) cursors: HashMap<Partition, Cursor>,
    /// Some cursor may be behind that no sweep serves: there is something to do as soon as there is room.
    pub(super) lagging: bool,
    /// Set once: nothing is registered for it any more.
    pub(super) closed: bool,
}

pub(super) struct Subscription {
    pub(super) filter: Filter,
    pub(super) reliability: Reliability,
    /// When it was made, in milliseconds since 1970 UTC.
    pub(super) since_ms: i64,
    /// The first offset of each partition that it wants.
    pub(super) starts: HashMap<Partition, i64>,
}

/// A session's place in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Subscriptions that need the partition.
    pub(super) needed: usize,
    /// The first offset that was not looked at for this session; nothing while it keeps up with the tail.
    pub(super) behind: Option<i64>,
    /// A sweep was asked for and has not ended.
    pub(super) sweeping: bool,
}

/// What [`Session::pop`] found.
pub(super) struct Popped {
    pub(super) event: Option<TailEvent>,
    /// There is room, and perhaps a cursor is behind that no sweep serves.
    pub(super) lagging: bool,
}

/// What became of an offered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits for the session.
    Taken,
    /// No subscription wants it.
    Unwanted,
    /// A best-effort subscription lost it.
    Dropped,
    /// No room: a reliable subscription needs it later.
    Full,
}

impl Session {
    pub(super) fn new(key: u64, options: SessionOptions, metrics: TailMetrics) -> Self {
        let inner = Inner {
            queue: VecDeque::new(),
            bytes: 0,
            subscriptions: BTreeMap::new(),
            next_id: 0,
            cursors: HashMap::new(),
            lagging: false,
            closed: false,
        };
        Self { key, options, metrics, inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// Taken after the state's lock where both are needed, never before it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// The same filter again: only its reliability changes.
    pub(super) fn renew(&self, filter: &Filter, reliability: Reliability) -> Option<SubscriptionId> {
        let mut inner = self.lock();
        let (id, known) = inner.subscriptions.iter_mut().find(|(_, known)| known.filter == *filter)?;
        known.reliability = reliability;
        Some(*id)
    }

    pub(super) fn pop(&self) -> Popped {
        let mut inner = self.lock();
        let event = inner.queue.pop_front();
        if let Some(TailEvent::Delivery(delivery)) = &event {
            inner.bytes -= bytes_of(delivery);
            self.metrics.deliveries.inc();
        }
        // asked for at half, so that a session that catches up does not wait for each sweep
        let room = inner.queue.len() <= self.options.records / 2 && inner.bytes <= self.options.bytes / 2;
        let lagging =
            room && inner.cursors.values().any(|cursor| cursor.behind.is_some() && !cursor.sweeping);
        Popped { event, lagging }
    }

    /// A record at the tail, with the subscriptions whose filters match it.
    pub(super) fn offer_live(&self, partition: &Partition, kept: &Kept, matched: &[SubscriptionId]) {
        let mut inner = self.lock();
        let Some(cursor) = inner.cursors.get(partition) else { return };
        if cursor.behind.is_some() {
            return;
        }
        let wanted = |inner: &Inner, id: SubscriptionId| {
            inner
                .subscriptions
                .get(&id)
                .filter(|subscription| subscription.wants(partition, kept.place.offset))
                .map(|s| s.reliability)
        };
        let mut reliability = None;
        let mut ids = Vec::with_capacity(matched.len());
        for &id in matched {
            if let Some(each) = wanted(&inner, id) {
                ids.push(id);
                reliability = reliability.max(Some(each));
            }
        }
        match inner.take(&self.options, kept, ids, reliability) {
            Offered::Taken => self.notify(),
            Offered::Unwanted => {}
            Offered::Dropped => self.metrics.dropped(),
            Offered::Full => {
                self.metrics.fell_behind.inc();
                inner.lagging = true;
                if let Some(cursor) = inner.cursors.get_mut(partition) {
                    cursor.behind = Some(kept.place.offset);
                }
            }
        }
    }
}

impl Inner {
    /// A record that this session has not looked at: matches it against its own subscriptions.
    pub(super) fn offer(&mut self, options: &SessionOptions, partition: &Partition, kept: &Kept) -> Offered {
        let mut reliability = None;
        let mut ids = Vec::new();
        for (id, subscription) in &self.subscriptions {
            if subscription.wants(partition, kept.place.offset)
                && subscription.filter.matches(&kept.record.address)
            {
                ids.push(*id);
                reliability = reliability.max(Some(subscription.reliability));
            }
        }
        // while it catches up nothing is dropped: the record is there again when there is room
        let reliability = reliability.map(|_| Reliability::Reliable);
        self.take(options, kept, ids, reliability)
    }

    fn take(
        &mut self,
        options: &SessionOptions,
        kept: &Kept,
        mut matched: Vec<SubscriptionId>,
        reliability: Option<Reliability>,
    ) -> Offered {
        let Some(reliability) = reliability else { return Offered::Unwanted };
        if self.queue.len() >= options.records || self.bytes >= options.bytes {
            return match reliability {
                Reliability::Reliable => Offered::Full,
                Reliability::BestEffort => Offered::Dropped,
            };
        }
        matched.sort_unstable();
        let delivery = Delivery {
            record: Arc::clone(&kept.record),
            place: kept.place.clone(),
            timestamp_ms: kept.timestamp_ms,
            matched,
        };
        self.bytes += bytes_of(&delivery);
        self.queue.push_back(TailEvent::Delivery(delivery));
        Offered::Taken
    }

    /// Tells the session that offsets are gone; always taken.
    pub(super) fn gap(&mut self, partition: &Partition, from: i64, to: i64) {
        let gap = Gap { topic: Arc::clone(&partition.topic), partition: partition.partition, from, to };
        self.queue.push_back(TailEvent::Gap(gap));
    }

    /// Kafka's offsets of a partition went back: what the subscriptions want begins there.
    pub(super) fn restart(&mut self, partition: &Partition, from: i64) {
        for subscription in self.subscriptions.values_mut() {
            if let Some(start) = subscription.starts.get_mut(partition) {
                *start = (*start).min(from);
            }
        }
    }

    pub(super) fn new_id(&mut self) -> SubscriptionId {
        self.next_id += 1;
        SubscriptionId(self.next_id)
    }
}

impl Subscription {
    fn wants(&self, partition: &Partition, offset: i64) -> bool {
        self.starts.get(partition).is_some_and(|start| *start <= offset)
    }
}

impl Session {
    pub(super) fn options(&self) -> &SessionOptions {
        &self.options
    }
}

fn bytes_of(delivery: &Delivery) -> usize {
    delivery.record.memory_bytes()
}
