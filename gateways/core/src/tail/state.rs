//! All partitions that are read, all subscriptions, and who is where. No IO: the tail's thread feeds it, the
//! control task registers, sessions take.

use super::ring::{Kept, Ring};
use super::session::{Cursor, Inner as SessionInner, Offered, Session, Subscription};
use super::{Reliability, SessionOptions, SubscriptionId, TailLimits};
use crate::reader::{Partition, RawRecord};
use crate::record::Place;
use crate::telemetry::TailMetrics;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_contract::{Filter, FilterTree};

pub(super) struct State {
    inner: Mutex<Inner>,
    limits: TailLimits,
    metrics: TailMetrics,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<Partition, Slot>,
    tree: FilterTree<Entry>,
    sessions: BTreeMap<u64, Arc<Session>>,
    next_key: u64,
    /// Whether a slot may have lost its last reader.
    idle: bool,
}

/// A partition that is read.
struct Slot {
    ring: Ring,
    /// Subscriptions that need it.
    needed: usize,
}

struct Entry {
    session: Arc<Session>,
    id: SubscriptionId,
}

/// A subscription to register.
pub(super) struct Registration {
    pub(super) session: Arc<Session>,
    pub(super) filter: Filter,
    pub(super) reliability: Reliability,
    pub(super) since_ms: i64,
    /// The partitions that it needs, with the end of each as asked after the subscription was.
    pub(super) ends: Vec<(Partition, i64)>,
}

/// A live subscription, as the control task looks at it when the directory changes.
pub(super) struct Known {
    pub(super) session: Arc<Session>,
    pub(super) id: SubscriptionId,
    pub(super) filter: Filter,
    pub(super) since_ms: i64,
    pub(super) partitions: HashSet<Partition>,
}

/// Partitions to begin to read, with the offset.
pub(super) type ToAssign = Vec<(Partition, i64)>;

impl State {
    pub(super) fn new(limits: TailLimits, metrics: TailMetrics) -> Self {
        Self { inner: Mutex::default(), limits, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, options: SessionOptions) -> Arc<Session> {
        let mut inner = self.lock();
        inner.next_key += 1;
        let session = Arc::new(Session::new(inner.next_key, options, self.metrics.clone()));
        inner.sessions.insert(session.key, Arc::clone(&session));
        session
    }

    pub(super) fn close(&self, session: &Arc<Session>) {
        let mut inner = self.lock();
        inner.sessions.remove(&session.key);
        let mut own = session.lock();
        own.closed = true;
        while let Some((id, subscription)) = own.subscriptions.pop_first() {
            self.forget(&mut inner, &mut own, session.key, id, &subscription);
        }
    }

    pub(super) fn unsubscribe(&self, session: &Arc<Session>, filter: &Filter) -> bool {
        let mut inner = self.lock();
        let mut own = session.lock();
        let id = own.subscriptions.iter().find(|(_, known)| known.filter == *filter).map(|(id, _)| *id);
        let Some((id, subscription)) = id.and_then(|id| own.subscriptions.remove_entry(&id)) else {
            return false;
        };
        self.forget(&mut inner, &mut own, session.key, id, &subscription);
        true
    }

    fn forget(
        &self,
        inner: &mut Inner,
        own: &mut SessionInner,
        key: u64,
        id: SubscriptionId,
        subscription: &Subscription,
    ) {
        self.metrics.subscriptions.dec();
        inner.tree.remove(&subscription.filter, |entry| entry.session.key == key && entry.id == id);
        for partition in subscription.starts.keys() {
            if let Some(cursor) = own.cursors.get_mut(partition) {
                cursor.needed -= 1;
                if cursor.needed == 0 {
                    own.cursors.remove(partition);
                }
            }
            if let Some(slot) = inner.slots.get_mut(partition) {
                slot.needed -= 1;
                inner.idle |= slot.needed == 0;
            }
        }
    }

    /// Makes a subscription. From then on everything that the tail reads reaches it. Nothing if the session is
    /// gone.
    pub(super) fn register(&self, new: &Registration) -> Option<(SubscriptionId, ToAssign)> {
        let mut inner = self.lock();
        let mut own = new.session.lock();
        if own.closed {
            return None;
        }
        // the same filter twice at the same time: one subscription
        if let Some((id, known)) = own.subscriptions.iter_mut().find(|(_, known)| known.filter == new.filter)
        {
            known.reliability = new.reliability;
            return Some((*id, Vec::new()));
        }
        let id = own.new_id();
        let mut subscription = Subscription {
            filter: new.filter.clone(),
            reliability: new.reliability,
            since_ms: new.since_ms,
            starts: HashMap::new(),
        };
        let mut assign = Vec::new();
        for (partition, end) in &new.ends {
            let slot = inner.slots.entry(partition.clone()).or_insert_with(|| {
                assign.push((partition.clone(), *end));
                Slot { ring: Ring::new(*end), needed: 0 }
            });
            slot.needed += 1;
            own.cursors.entry(partition.clone()).or_default().needed += 1;
            // what the tail has read by now was written before the subscription's answer
            subscription.starts.insert(partition.clone(), (*end).max(slot.ring.next()));
        }
        own.subscriptions.insert(id, subscription);
        inner.tree.insert(&new.filter, Entry { session: Arc::clone(&new.session), id });
        self.metrics.subscriptions.inc();
        self.metrics.partitions.inc_by(i64::try_from(assign.len()).unwrap_or(0));
        Some((id, assign))
    }

    /// A partition that a live subscription needs from now on, `start` being where its records since the
    /// subscription begin. Returns whether to begin to read it, there.
    pub(super) fn pick_up(
        &self,
        session: &Arc<Session>,
        id: SubscriptionId,
        partition: &Partition,
        start: i64,
    ) -> bool {
        let mut inner = self.lock();
        let mut own = session.lock();
        let own = &mut *own;
        let missing = own.subscriptions.get(&id).is_some_and(|known| !known.starts.contains_key(partition));
        if !missing {
            return false;
        }
        let mut assign = false;
        let slot = inner.slots.entry(partition.clone()).or_insert_with(|| {
            assign = true;
            Slot { ring: Ring::new(start), needed: 0 }
        });
        slot.needed += 1;
        if assign {
            self.metrics.partitions.inc();
        }
        let next = slot.ring.next();
        let cursor = own.cursors.entry(partition.clone()).or_default();
        cursor.needed += 1;
        let looked_at = cursor.behind.unwrap_or(next);
        if start < looked_at {
            // read again from there, but not for those that have seen it
            for (other, known) in &mut own.subscriptions {
                if let Some(begin) = known.starts.get_mut(partition).filter(|_| *other != id) {
                    *begin = (*begin).max(looked_at);
                }
            }
            cursor.behind = Some(start);
            // a sweep under way is past it
            cursor.sweeping = false;
            own.lagging = true;
            session.notify();
        }
        if let Some(known) = own.subscriptions.get_mut(&id) {
            known.starts.insert(partition.clone(), start);
        }
        assign
    }

    /// A record at the end of its partition.
    pub(super) fn follow(&self, raw: &RawRecord) {
        let mut inner = self.lock();
        let Inner { slots, tree, .. } = &mut *inner;
        // what was fetched before the partition was let go, or taken again further on
        let Some(slot) = slots.get_mut(&raw.partition).filter(|slot| raw.offset >= slot.ring.next()) else {
            return;
        };
        self.metrics.records.inc();
        let Some(kept) = self.keep(raw) else {
            slot.ring.skip(raw.offset);
            return;
        };
        let before = slot.ring.bytes();
        slot.ring.push(kept.clone(), &self.limits);
        self.metrics.ring_bytes.inc_by(difference(slot.ring.bytes(), before));
        let mut matches: Vec<&Entry> = Vec::new();
        tree.matches(&kept.record.address, |entry| matches.push(entry));
        matches.sort_unstable_by_key(|entry| (entry.session.key, entry.id));
        let mut ids = Vec::new();
        for group in matches.chunk_by(|a, b| a.session.key == b.session.key) {
            ids.clear();
            ids.extend(group.iter().map(|entry| entry.id));
            group[0].session.offer_live(&raw.partition, &kept, &ids);
        }
    }

    pub(super) fn keep(&self, raw: &RawRecord) -> Option<Kept> {
        let Ok(record) = &raw.record else {
            self.metrics.undecodable.inc();
            return None;
        };
        Some(Kept {
            record: Arc::clone(record),
            place: Place {
                topic: Arc::clone(&raw.partition.topic),
                partition: raw.partition.partition,
                offset: raw.offset,
            },
            timestamp_ms: raw.timestamp_ms,
        })
    }

    /// Lets a session catch up from the rings as far as it has room. Returns the partitions that only Kafka
    /// has, marked as swept.
    pub(super) fn refill(&self, session: &Arc<Session>) -> Vec<(Partition, i64)> {
        let inner = self.lock();
        let mut own = session.lock();
        let lagging: Vec<_> = own
            .cursors
            .iter()
            .filter(|(_, cursor)| !cursor.sweeping)
            .filter_map(|(partition, cursor)| Some((partition.clone(), cursor.behind?)))
            .collect();
        own.lagging = false;
        let mut sweeps = Vec::new();
        for (partition, behind) in lagging {
            let Some(slot) = inner.slots.get(&partition) else { continue };
            let after = if behind < slot.ring.base() {
                sweeps.push((partition.clone(), behind));
                Cursor { sweeping: true, behind: Some(behind), needed: 0 }
            } else {
                let full = slot
                    .ring
                    .from(behind)
                    .find(|kept| own.offer(session.options(), &partition, kept) == Offered::Full);
                Cursor { sweeping: false, behind: full.map(|kept| kept.place.offset), needed: 0 }
            };
            own.lagging |= after.behind.is_some() && !after.sweeping;
            if let Some(cursor) = own.cursors.get_mut(&partition) {
                *cursor = Cursor { needed: cursor.needed, ..after };
            }
        }
        sweeps
    }

    /// Where the ring of a partition begins: a sweep ends there. Nothing if nobody reads the partition.
    pub(super) fn ring_base(&self, partition: &Partition) -> Option<i64> {
        self.lock().slots.get(partition).map(|slot| slot.ring.base())
    }

    pub(super) fn has_idle(&self) -> bool {
        self.lock().idle
    }

    /// Forgets partitions that nobody needs and returns them: they are to be let go in Kafka, too.
    pub(super) fn take_idle(&self) -> Vec<Partition> {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.idle) {
            return Vec::new();
        }
        let idle: Vec<_> = inner.slots.extract_if(|_, slot| slot.needed == 0).collect();
        for (_, slot) in &idle {
            self.metrics.ring_bytes.inc_by(difference(0, slot.ring.bytes()));
            self.metrics.partitions.dec();
        }
        idle.into_iter().map(|(partition, _)| partition).collect()
    }

    /// All live subscriptions.
    pub(super) fn known(&self) -> Vec<Known> {
        let inner = self.lock();
        let mut all = Vec::new();
        for session in inner.sessions.values() {
            let own = session.lock();
            all.extend(own.subscriptions.iter().map(|(id, subscription)| Known {
                session: Arc::clone(session),
                id: *id,
                filter: subscription.filter.clone(),
                since_ms: subscription.since_ms,
                partitions: subscription.starts.keys().cloned().collect(),
            }));
        }
        all
    }

    /// All partitions that are read, with the first offset that was not.
    pub(super) fn positions(&self) -> Vec<(Partition, i64)> {
        self.lock().slots.iter().map(|(partition, slot)| (partition.clone(), slot.ring.next())).collect()
    }

    /// The first offset of a partition that was not read.
    pub(super) fn position(&self, partition: &Partition) -> Option<i64> {
        self.lock().slots.get(partition).map(|slot| slot.ring.next())
    }

    /// Offsets from the tail's position up to `to` are gone (or, if `to` is lower, Kafka forgot what it had):
    /// tells every session that kept up, and goes on at `to`.
    pub(super) fn jump(&self, partition: &Partition, to: i64) {
        let mut inner = self.lock();
        let Inner { slots, sessions, .. } = &mut *inner;
        let Some(slot) = slots.get_mut(partition) else { return };
        let from = slot.ring.next();
        self.metrics.ring_bytes.inc_by(difference(0, slot.ring.bytes()));
        slot.ring = Ring::new(to);
        for session in sessions.values() {
            let mut own = session.lock();
            let Some(cursor) = own.cursors.get_mut(partition) else { continue };
            match cursor.behind {
                // a sweep finds out how much of what it still wants is there
                Some(behind) if behind < to => {}
                _ => {
                    cursor.behind = None;
                    own.restart(partition, to);
                    own.gap(partition, from, to);
                    self.metrics.gap(&partition.topic, partition.partition, from, to);
                    session.notify();
                }
            }
        }
    }
}

fn difference(after: usize, before: usize) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
}
