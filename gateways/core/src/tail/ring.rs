//! The newest records of one partition, bounded in records and bytes. Pure.

use super::TailLimits;
use crate::record::{Place, Record};
use std::collections::VecDeque;
use std::sync::Arc;

/// A record as the tail keeps it, shared by all who are given it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) record: Arc<Record>,
    pub(super) place: Place,
    pub(super) timestamp_ms: i64,
}

impl Kept {
    pub(super) fn bytes(&self) -> usize {
        self.record.memory_bytes()
    }
}

/// Covers every offset from `base` up to `next`: an offset in between without a record never had one that
/// matters (a control marker, a compacted one).
#[derive(Debug)]
pub(super) struct Ring {
    base: i64,
    next: i64,
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(from: i64) -> Self {
        Self { base: from, next: from, kept: VecDeque::new(), bytes: 0 }
    }

    /// The first offset that it covers.
    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// The first offset that was not read yet.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that `offset` was read and holds nothing.
    pub(super) fn skip(&mut self, offset: i64) {
        self.next = self.next.max(offset + 1);
    }

    /// Adds a record behind all others and lets the oldest go.
    pub(super) fn push(&mut self, kept: Kept, limits: &TailLimits) {
        self.next = kept.place.offset + 1;
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        while self.kept.len() > limits.ring_records.max(1)
            || (self.bytes > limits.ring_bytes && self.kept.len() > 1)
        {
            if let Some(oldest) = self.kept.pop_front() {
                self.bytes -= oldest.bytes();
                self.base = oldest.place.offset + 1;
            }
        }
    }

    /// The records from `offset` on.
    pub(super) fn from(&self, offset: i64) -> impl Iterator<Item = &Kept> {
        let at = self.kept.partition_point(|kept| kept.place.offset < offset);
        self.kept.range(at..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metadata;
    use bytes::Bytes;
    use tidegate_contract::Address;

    fn kept(offset: i64, bytes: usize) -> Kept {
        Kept {
            record: Arc::new(Record {
                address: Address::parse("a").unwrap(),
                payload: Bytes::from(vec![0; bytes]),
                metadata: Metadata::default(),
            }),
            place: Place { topic: "t".into(), partition: 0, offset },
            timestamp_ms: 0,
        }
    }

    fn offsets(ring: &Ring, from: i64) -> Vec<i64> {
        ring.from(from).map(|kept| kept.place.offset).collect()
    }

    #[test]
    fn the_oldest_records_go_first_and_the_base_says_so() {
        let limits = TailLimits { ring_records: 3, ..TailLimits::default() };
        let mut ring = Ring::new(10);
        assert_eq!((ring.base(), ring.next()), (10, 10));
        for offset in [10, 11, 13, 17] {
            ring.push(kept(offset, 1), &limits);
        }
        assert_eq!((ring.base(), ring.next()), (11, 18));
        assert_eq!(offsets(&ring, 12), [13, 17]);
        assert_eq!(offsets(&ring, 0), [11, 13, 17]);
        ring.skip(18);
        assert_eq!((ring.base(), ring.next()), (11, 19));
    }

    #[test]
    fn one_record_is_kept_whatever_its_size() {
        let limits = TailLimits { ring_bytes: 100, ..TailLimits::default() };
        let mut ring = Ring::new(0);
        ring.push(kept(0, 10), &limits);
        ring.push(kept(1, 5000), &limits);
        assert_eq!(offsets(&ring, 0), [1]);
        assert_eq!(ring.base(), 1);
    }

    #[test]
    fn what_a_record_has_beside_its_payload_counts() {
        let limits = TailLimits { ring_bytes: 10_000, ..TailLimits::default() };
        let mut ring = Ring::new(0);
        for offset in 0..10 {
            let mut kept = kept(offset, 0);
            let metadata = Metadata { user: vec![("n".to_owned(), "v".repeat(3000))], ..Metadata::default() };
            kept.record = Arc::new(Record { metadata, ..Record::clone(&kept.record) });
            ring.push(kept, &limits);
        }
        assert_eq!(offsets(&ring, 0), [7, 8, 9]);
        assert!(ring.bytes() <= limits.ring_bytes);
    }
}
