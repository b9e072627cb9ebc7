//! The live end of Kafka's topics, shared by every session of the process.
//!
//! A session is a cursor into Kafka, not a queue. IO: through librdkafka's own threads and two threads of ours.

use crate::record::{Place, Record};
use std::sync::Arc;
use tidegate_contract::Filter;

/// Reads what local sessions need; one per process. Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    _private: (),
}

/// One subscriber's subscriptions and its cursors.
pub struct TailSession {
    _private: (),
}

/// Bounds of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Records that wait in memory for this session at a time; more wait in Kafka.
    pub records: usize,
    /// Payload bytes of the same.
    pub bytes: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { records: 256, bytes: 1 << 20 }
    }
}

/// What a subscription does when its session is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reliability {
    /// Loses what the session cannot take, counted (QoS 0).
    BestEffort,
    /// Catches up from Kafka; loses nothing inside retention (QoS 1).
    Reliable,
}

/// Names one subscription within its session; never used twice there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u32);

/// What a session is given.
#[derive(Clone, Debug)]
pub enum TailEvent {
    /// A record that at least one subscription matched.
    Delivery(Delivery),
    /// Records fell out of retention before this session read them.
    Gap(Gap),
}

/// One record for one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The record, shared with other sessions.
    pub record: Arc<Record>,
    /// Where Kafka holds it.
    pub place: Place,
    /// Kafka's timestamp, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The subscriptions that matched, at least one, in ascending order.
    pub matched: Vec<SubscriptionId>,
}

/// Offsets that are gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic's name in Kafka.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset that is gone.
    pub from: i64,
    /// The first offset after the gap.
    pub to: i64,
}

/// Why a subscription was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// Kafka did not tell the end of a partition in time; trying again may help.
    #[error("Kafka did not answer where the topic ends")]
    Unavailable,
    /// The process ends.
    #[error("the gateway ends")]
    Closed,
}

impl Tail {
    /// A session without subscriptions. Dropping it ends them.
    pub fn session(&self, _options: SessionOptions) -> TailSession {
        unimplemented!()
    }
}

impl TailSession {
    /// Subscribes. On return the start position is fixed: every record that is acknowledged from now on and
    /// matches will be delivered, none that was acknowledged before the call. Topics that start to overlap the
    /// filter later are picked up by themselves. The same filter again keeps its position and its id and
    /// takes the new `reliability`. If cancelled, the subscription may or may not be made: unsubscribe or drop.
    pub async fn subscribe(
        &mut self,
        _filter: Filter,
        _reliability: Reliability,
    ) -> Result<SubscriptionId, TailError> {
        unimplemented!()
    }

    /// Ends a subscription; what already waits for the session only because of it is still delivered. False if there was none.
    pub fn unsubscribe(&mut self, _filter: &Filter) -> bool {
        unimplemented!()
    }

    /// The next event. Call it only when the device can take one: what is not asked for waits in Kafka. Cancel-safe.
    pub async fn next(&mut self) -> TailEvent {
        unimplemented!()
    }
}
