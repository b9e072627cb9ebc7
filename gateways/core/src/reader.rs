//! What the tail, history and directory need of Kafka's reading side: a consumer with manual assignment, or a
//! test's memory. No IO of its own.

use crate::record::{Record, Undecodable};
use crate::telemetry::Client;
use std::sync::Arc;
use std::time::Duration;

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name in Kafka.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Why Kafka did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The topic or partition does not exist, as far as the brokers know.
    #[error("Kafka does not know the topic or partition")]
    UnknownPartition,
    /// No answer in time: a broker is away, a leader is being elected.
    #[error("Kafka did not answer")]
    Unavailable,
    /// librdkafka refused.
    #[error("Kafka's client refused: {0}")]
    Client(String),
}

/// A Kafka record as read: decoded once, for all who want it.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Where it was read.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Kafka's timestamp, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The record, or why something else wrote it.
    pub record: Result<Arc<Record>, Undecodable>,
}

/// What a reader tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record.
    Record(Box<RawRecord>),
    /// An assigned partition is read to its end (readers for sweeps, history and the directory only).
    End,
    /// The position of some assigned partition is not in Kafka any more.
    OutOfRange,
    /// Something else; the reader goes on by itself.
    Error(String),
}

/// One consumer: one position per partition. All calls may come from any thread at any time.
pub trait Reader: Send + Sync {
    /// The number of partitions of a topic. Blocks.
    fn partitions(&self, topic: &str, timeout: Duration) -> Result<i32, ReadError>;
    /// The offset after the newest record that a reader may see, as the leader knows it now: everything
    /// acknowledged before the call is below it. Blocks; one answer per partition.
    fn ends(&self, partitions: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>>;
    /// The offset of the oldest record. Blocks.
    fn starts(&self, partitions: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>>;
    /// The offset of the first record at or after a time; `i64::MAX` if there is none. Blocks.
    fn since(&self, partitions: &[Partition], time_ms: i64, timeout: Duration)
    -> Vec<Result<i64, ReadError>>;
    /// Begins to read a partition that is not assigned.
    fn assign(&self, partition: &Partition, from: i64) -> Result<(), ReadError>;
    /// Ends reading a partition. Records that were read before may still come.
    fn unassign(&self, partition: &Partition) -> Result<(), ReadError>;
    /// Told that this partition, which is assigned, gave nothing in the time that its reader had.
    fn in_vain(&self, _partition: &Partition) {}
    /// The next event, or nothing within `timeout`. Blocks.
    fn poll(&self, timeout: Duration) -> Option<Event>;
}

/// Makes readers.
pub trait Readers: Send + Sync {
    /// A reader of its own for `client`: own positions, own isolation level.
    fn reader(&self, client: Client) -> Result<Box<dyn Reader>, ReadError>;
}
