//! From a record to Kafka and back to the connection that waits for the acknowledgement.
//!
//! A delivery report is the only source of an acknowledgement. IO: through librdkafka's own threads; nothing
//! here blocks.

use crate::record::{Place, Record};
use std::sync::Arc;
use tidegate_contract::Route;

/// Writes records; one per process. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    _private: (),
}

/// One connection's way into Kafka: its budget and its queue of completions.
///
/// Once a publish on a handle has failed, nothing later on it is acknowledged: every further completion is a
/// failure and every further [`publish`](Self::publish) is [`PublishError::Failed`]. Close the connection.
pub struct PublishHandle {
    _private: (),
}

/// Why a record was not taken. Nothing of it reached Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Larger than the topic takes: permanent (MQTT 5 0x95, HTTP 413).
    #[error("the record has {bytes} bytes with its metadata, the topic takes {limit}")]
    TooLarge {
        /// The record's size, key and metadata included.
        bytes: usize,
        /// What the topic takes.
        limit: usize,
    },
    /// A budget is used up: stop reading the socket until [`PublishHandle::room`] returns. Passing.
    #[error("too many publishes wait for Kafka")]
    Budget,
    /// An earlier publish on this handle failed: close the connection.
    #[error("an earlier publish on this connection failed")]
    Failed,
    /// The process ends, or Kafka's client is being renewed: close the connection. Passing.
    #[error("the publisher takes no records now")]
    Unavailable,
}

/// The outcome of one publish.
#[derive(Clone, Debug)]
pub struct Completion {
    /// What the caller gave to [`PublishHandle::publish`].
    pub token: u64,
    /// The place where Kafka holds it (acks=all, min ISR met), or why nobody knows whether it does.
    pub result: Result<Place, PublishFailure>,
}

/// Why a publish was not acknowledged. The record may still be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// Kafka did not confirm it within `message.timeout.ms`.
    #[error("Kafka did not confirm the record in time")]
    TimedOut,
    /// Kafka refused it; trying again does not help (too large for the topic after all, no right).
    #[error("Kafka refused the record")]
    Refused,
    /// Something broke on the way; trying again may help.
    #[error("Kafka could not store the record")]
    Broken,
    /// An earlier publish on the same connection had failed.
    #[error("an earlier publish on this connection failed")]
    AfterFailure,
}

impl Publisher {
    /// A handle for one device connection.
    pub fn connection(&self) -> PublishHandle {
        unimplemented!()
    }

    /// Writes one record and waits for its acknowledgement, on a handle of its own.
    pub async fn publish_once(
        &self,
        _route: &Arc<Route>,
        _record: &Record,
    ) -> Result<Result<Place, PublishFailure>, PublishError> {
        unimplemented!()
    }
}

impl PublishHandle {
    /// Hands a record to Kafka's client; never blocks. The outcome comes from [`completed`](Self::completed) with
    /// the same token.
    pub fn publish(
        &mut self,
        _route: &Arc<Route>,
        _record: &Record,
        _token: u64,
    ) -> Result<(), PublishError> {
        unimplemented!()
    }

    /// Waits for at least one completion and appends all that are there to `out`, in the order in which Kafka
    /// reported them. Pending while nothing is in flight. Cancel-safe.
    pub async fn completed(&mut self, _out: &mut Vec<Completion>) {
        unimplemented!()
    }

    /// Whether a publish would be within the budgets now. While it is not, stop reading the socket.
    pub fn has_room(&self) -> bool {
        unimplemented!()
    }

    /// Returns when there is room. Cancel-safe. It does not take completions: poll
    /// [`completed`](Self::completed) as well.
    pub async fn room(&self) {
        unimplemented!()
    }

    /// The number of publishes without a completion taken.
    pub fn in_flight(&self) -> usize {
        unimplemented!()
    }
}
