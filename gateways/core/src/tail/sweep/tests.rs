use super::*;
use crate::record::{Metadata, Record};
use crate::tail::state::{Registration, State};
use crate::tail::{Reliability, SessionOptions, SubscriptionId, TailEvent, TailLimits, TailMetrics};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tidegate_contract::{Address, Filter};
use tokio_util::sync::CancellationToken;

fn subscribe(
    state: &State,
    session: &Arc<Session>,
    filter: &str,
    ends: Vec<(Partition, i64)>,
) -> SubscriptionId {
    let (session, filter) = (Arc::clone(session), Filter::parse(filter).unwrap());
    let new = Registration { session, filter, reliability: Reliability::Reliable, since_ms: 0, ends };
    state.register(&new).unwrap().0
}

/// A leader that was elected just now: what it has is committed, and it says so only after it was asked for the end.
#[derive(Default)]
struct NewLeader {
    asked: AtomicBool,
    next: AtomicI64,
}

const BASE: i64 = 3;

impl Reader for NewLeader {
    fn partitions(&self, _: &str, _: Duration) -> Result<i32, ReadError> {
        Ok(1)
    }
    fn ends(&self, all: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        self.asked.store(true, Ordering::SeqCst);
        all.iter().map(|_| Ok(BASE)).collect()
    }
    fn starts(&self, all: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        all.iter().map(|_| Ok(0)).collect()
    }
    fn since(&self, _: &[Partition], _: i64, _: Duration) -> Vec<Result<i64, ReadError>> {
        Vec::new()
    }
    fn assign(&self, _: &Partition, from: i64) -> Result<(), ReadError> {
        self.next.store(from, Ordering::SeqCst);
        Ok(())
    }
    fn unassign(&self, _: &Partition) -> Result<(), ReadError> {
        Ok(())
    }
    fn poll(&self, _: Duration) -> Option<Event> {
        let offset = self.next.load(Ordering::SeqCst);
        if offset >= if self.asked.load(Ordering::SeqCst) { BASE } else { 1 } {
            return Some(Event::End);
        }
        self.next.store(offset + 1, Ordering::SeqCst);
        Some(Event::Record(Box::new(raw(offset))))
    }
}

fn shared() -> Shared {
    Shared {
        state: State::new(TailLimits::default(), TailMetrics::default()),
        sweeper: Sweeper::default(),
        commands: tokio::sync::mpsc::channel(1).0,
        metrics: TailMetrics::default(),
        closed: CancellationToken::new(),
    }
}

fn partition() -> Partition {
    Partition { topic: "t".into(), partition: 0 }
}

fn raw(offset: i64) -> RawRecord {
    let record = Record {
        address: Address::parse("a").unwrap(),
        payload: Bytes::new(),
        metadata: Metadata::default(),
    };
    RawRecord { partition: partition(), offset, timestamp_ms: 0, record: Ok(Arc::new(record)) }
}

#[test]
fn a_new_leader_that_does_not_know_yet_what_is_committed_costs_a_sweep_nothing() {
    let shared = shared();
    let partition = partition();
    let others = shared.state.open(SessionOptions::default());
    subscribe(&shared.state, &others, "b", vec![(partition.clone(), BASE)]);
    let session = shared.state.open(SessionOptions::default());
    let id = subscribe(&shared.state, &session, "a", Vec::new());
    shared.state.pick_up(&session, id, &partition, 0);
    let sweeps = shared.state.refill(&session);
    assert_eq!(sweeps, [(partition.clone(), 0)]);

    sweep(&shared, &NewLeader::default(), &partition, vec![Arc::clone(&session)]);
    let offsets = std::iter::from_fn(|| match session.pop().event {
        Some(TailEvent::Delivery(delivery)) => Some(delivery.place.offset),
        _ => None,
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(session.lock().cursors[&partition].behind, Some(BASE));
}

#[test]
fn a_subscription_that_wants_older_records_is_not_carried_past_them_by_a_sweep_under_way() {
    let (shared, partition) = (shared(), partition());
    let session = shared.state.open(SessionOptions::default());
    subscribe(&shared.state, &session, "a", vec![(partition.clone(), 5)]);
    let later = subscribe(&shared.state, &session, "b", Vec::new());
    let cursor = || session.lock().cursors[&partition];
    let sweeping = Cursor { behind: Some(5), sweeping: true, ..cursor() };
    session.lock().cursors.insert(partition.clone(), sweeping);
    let mut participants = vec![Participant { session: Arc::clone(&session), at: 5 }];

    shared.state.pick_up(&session, later, &partition, 2);
    // it asks for a sweep of its own
    let sweeping = Cursor { sweeping: true, ..cursor() };
    session.lock().cursors.insert(partition.clone(), sweeping);
    let raw = raw(5);
    advance(&partition, &mut participants, 7);
    assert_eq!(cursor().behind, Some(2));
    participants[0].at = 5;
    offer(&shared, &partition, &raw, &mut participants);
    assert_eq!(cursor().behind, Some(2));
    assert!(participants.is_empty() && session.is_empty());
}
