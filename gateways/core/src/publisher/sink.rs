//! Where the publisher hands records over: Kafka's client, or a test's memory.

use super::{Flight, Late};
use crate::record::Record;
use std::sync::Arc;
use std::time::Duration;

/// The largest record that any sink takes, in bytes (`message.max.bytes` of the client); a topic's own limit is
/// below it.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 20;

/// A record with its place to go.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The topic's name in Kafka.
    pub topic: &'a Arc<str>,
    /// The partition: chosen here and not by Kafka's client, so that a topic that somebody grew moves no address.
    pub partition: i32,
    /// The largest batch that the topic takes, in bytes: Kafka refuses a larger one as a whole.
    pub batch_bytes: usize,
    /// The record.
    pub record: &'a Record,
}

/// Why a sink did not take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Its queue is full.
    #[error("the queue is full")]
    Full,
    /// It is being renewed or has ended.
    #[error("the client is being renewed")]
    Unavailable,
}

/// Takes records and reports what became of them.
pub trait Sink: Send + Sync {
    /// Takes a record without blocking. From then on [`Flight::land`] is called exactly once, on any thread and however late;
    /// with an offset only after the record is stored for good. Records of one partition are stored in the order in
    /// which they were taken, and none that failed before one that is stored.
    fn send(&self, record: Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)>;

    /// Told that a connection has waited in vain for the outcome of a record of this partition.
    fn unconfirmed(&self, _late: Late) {}

    /// Waits at most `timeout` until every flight has landed; false if one has not. Blocks.
    fn flush(&self, timeout: Duration) -> bool;
}
