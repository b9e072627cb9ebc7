//! Bounded reads of the newest records of one address. IO: a Kafka consumer on a thread of its own.

use crate::record::{Place, Record};
use tidegate_contract::Address;

/// Reads what is stored; one per process. Cheap to clone.
#[derive(Clone)]
pub struct History {
    _private: (),
}

/// One stored record.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Where Kafka holds it.
    pub place: Place,
    /// Kafka's timestamp, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct HistoryRead {
    /// The newest records of the address, oldest first.
    pub records: Vec<Stored>,
    /// Whether the read stopped at its bound (10,000 records looked at, or 2 s) before it had as many as asked
    /// for: there may be older ones.
    pub truncated: bool,
}

/// Why a read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// No topic holds the address: permanent (HTTP 404).
    #[error("no topic holds the address")]
    NoTopic,
    /// Too many reads wait: passing (HTTP 503).
    #[error("too many reads wait")]
    Busy,
    /// Kafka did not answer: passing (HTTP 503).
    #[error("Kafka did not answer")]
    Unavailable,
}

impl History {
    /// The newest `count` records of `address`.
    pub async fn last(&self, _address: &Address, _count: usize) -> Result<HistoryRead, HistoryError> {
        unimplemented!()
    }
}
