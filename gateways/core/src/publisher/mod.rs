//! From a record to Kafka and back to the connection that waits for the acknowledgement.
//!
//! A delivery report is the only source of an acknowledgement: it is pushed to the connection's queue on the
//! thread that librdkafka reports on, and wakes the connection once per batch. A connection that waits too long gives up;
//! its records stay where they are and are stored in their order when Kafka returns. IO: through the [`Sink`]'s own
//! threads; nothing here blocks.

mod budget;
mod flight;
mod sink;

pub use flight::{Flight, Late};
pub(crate) use sink::MAX_RECORD_BYTES;
pub use sink::{Outgoing, SendError, Sink};

use crate::partition::partition_of;
use crate::record::{Place, Record};
use crate::telemetry::PublisherMetrics;
use budget::{Budget, TopicBudget};
use flight::Line;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_contract::{Route, config::Limits};

/// How long a device waits at most for the outcome of a publish.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Bounds of what waits for Kafka in this process. Far below librdkafka's own bounds, so that its queue is
/// never full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishLimits {
    /// Records of the process.
    pub messages: usize,
    /// Bytes of the process.
    pub bytes: usize,
    /// Records of one partition: one that is away must not take everything.
    pub partition_messages: usize,
    /// Bytes of one partition.
    pub partition_bytes: usize,
    /// Records of one connection whose completions were not taken.
    pub connection_messages: usize,
    /// Bytes of one connection.
    pub connection_bytes: usize,
    /// How long a publish waits for Kafka before it has failed. Nothing else bounds that: Kafka's client drops no record
    /// that waits, so that none is ever stored behind a later one of the same connection.
    pub answer: Duration,
}

impl PublishLimits {
    /// The bounds that follow from a gateway's configuration.
    pub fn from_config(limits: &Limits) -> Self {
        let packet = usize::try_from(limits.packet_bytes).unwrap_or(usize::MAX);
        Self {
            connection_messages: usize::from(limits.in_flight).max(1),
            connection_bytes: packet,
            ..Self::default()
        }
    }
}

impl Default for PublishLimits {
    fn default() -> Self {
        Self {
            messages: 100_000,
            bytes: 64 << 20,
            partition_messages: 25_000,
            partition_bytes: 16 << 20,
            connection_messages: 64,
            connection_bytes: 1 << 20,
            answer: ANSWER,
        }
    }
}

/// Writes records; one per process. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    sink: Arc<dyn Sink>,
    limits: PublishLimits,
    budget: Arc<Budget>,
    topics: Mutex<HashMap<Arc<str>, Arc<TopicBudget>>>,
    metrics: PublisherMetrics,
}

/// One connection's way into Kafka: its budget and its queue of completions.
///
/// Once a publish on a handle has failed, nothing later on it is acknowledged: every further completion is a
/// failure and every further [`publish`](Self::publish) is [`PublishError::Failed`]. Close the connection.
pub struct PublishHandle {
    publisher: Arc<Inner>,
    line: Arc<Line>,
    /// The topic of the last publish: most connections use one.
    topic: Option<Arc<TopicBudget>>,
    /// The partition whose budget refused the last publish.
    blocked: Option<(Arc<TopicBudget>, i32)>,
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

impl PublishError {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "TooLarge",
            Self::Budget => "Budget",
            Self::Failed => "AfterFailure",
            Self::Unavailable => "Unavailable",
        }
    }
}

/// The outcome of one publish.
#[derive(Clone, Debug)]
pub struct Completion {
    /// What the caller gave to [`PublishHandle::publish`].
    pub token: u64,
    /// The place where Kafka holds it (acks=all, min ISR met), or why nobody knows whether it does.
    pub result: Result<Place, PublishFailure>,
}

/// Why a publish was not acknowledged. The record may still be stored. All are passing: what is permanent is
/// known before Kafka is asked, and a client that is told "permanent" drops its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// Kafka did not confirm it within [`PublishLimits::answer`].
    #[error("Kafka did not confirm the record in time")]
    TimedOut,
    /// Something broke on the way, or Kafka refused it.
    #[error("Kafka did not store the record")]
    Broken,
    /// An earlier publish on the same connection had failed.
    #[error("an earlier publish on this connection failed")]
    AfterFailure,
}

impl PublishFailure {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TimedOut => "TimedOut",
            Self::Broken => "Broken",
            Self::AfterFailure => "AfterFailure",
        }
    }
}

impl Publisher {
    /// A publisher on top of a sink: Kafka, or a test's memory.
    pub fn new(sink: Arc<dyn Sink>, limits: PublishLimits, metrics: PublisherMetrics) -> Self {
        let budget = Arc::new(Budget::new(limits.messages, limits.bytes));
        Self { inner: Arc::new(Inner { sink, limits, budget, topics: Mutex::default(), metrics }) }
    }

    /// A handle for one device connection; cheap enough for one request.
    pub fn connection(&self) -> PublishHandle {
        let line = Arc::new(Line::new(&self.inner.budget, &self.inner.metrics, self.inner.limits.answer));
        PublishHandle { publisher: Arc::clone(&self.inner), line, topic: None, blocked: None }
    }

    /// Writes one record on a handle of its own and waits for its acknowledgement. The outer error says that
    /// nothing reached Kafka, the inner one that nobody knows.
    pub async fn publish_once(
        &self,
        route: &Arc<Route>,
        record: &Record,
    ) -> Result<Result<Place, PublishFailure>, PublishError> {
        let mut handle = self.connection();
        handle.publish(route, record, 0)?;
        let mut completions = Vec::with_capacity(1);
        handle.completed(&mut completions).await;
        Ok(completions.pop().map_or(Err(PublishFailure::Broken), |completion| completion.result))
    }

    /// Waits at most `timeout` until nothing is in flight. Blocks: not for an async task.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.inner.sink.flush(timeout)
    }

    /// Records in flight in the whole process.
    pub fn in_flight(&self) -> usize {
        self.inner.budget.messages()
    }
}

impl Inner {
    fn topic(&self, route: &Route) -> Arc<TopicBudget> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let known = topics.get(&route.kafka_name).filter(|topic| topic.partitions() == route.partitions);
        if let Some(topic) = known {
            return Arc::clone(topic);
        }
        let topic = Arc::new(TopicBudget::new(&route.kafka_name, route.partitions));
        topics.insert(Arc::clone(&route.kafka_name), Arc::clone(&topic));
        topic
    }

    fn partition_has_room(&self, topic: &TopicBudget, partition: i32) -> bool {
        topic.has_room(partition, self.limits.partition_messages, self.limits.partition_bytes)
    }

    fn has_room(&self, line: &Line, blocked: Option<&(Arc<TopicBudget>, i32)>) -> bool {
        self.budget.has_room()
            && line.has_room(self.limits.connection_messages, self.limits.connection_bytes)
            && blocked.is_none_or(|(topic, partition)| self.partition_has_room(topic, *partition))
    }
}

impl PublishHandle {
    /// Hands a record to Kafka's client; never blocks. The outcome comes from [`completed`](Self::completed)
    /// with the same token.
    pub fn publish(&mut self, route: &Arc<Route>, record: &Record, token: u64) -> Result<(), PublishError> {
        if self.line.has_failed() {
            return Err(PublishError::Failed);
        }
        let bytes = record.stored_bytes();
        let limit = route.max_message_bytes.min(MAX_RECORD_BYTES);
        if bytes > limit {
            return Err(PublishError::TooLarge { bytes, limit });
        }
        let topic = match &self.topic {
            Some(topic) if topic.is(&route.kafka_name, route.partitions) => Arc::clone(topic),
            _ => Arc::clone(self.topic.insert(self.publisher.topic(route))),
        };
        let partition = partition_of(record.address.as_str().as_bytes(), route.partitions);
        if !self.publisher.partition_has_room(&topic, partition) {
            self.blocked = Some((topic, partition));
            return Err(PublishError::Budget);
        }
        self.blocked = None;
        if !self.has_room() {
            return Err(PublishError::Budget);
        }
        let flight = Box::new(Flight::take_off(&self.line, &topic, partition, bytes, limit, token));
        self.publisher
            .sink
            .send(Outgoing { topic: topic.name(), partition, batch_bytes: limit, record }, flight)
            .map_err(|(error, flight)| {
                flight.cancel();
                match error {
                    SendError::Full => PublishError::Budget,
                    SendError::Unavailable => PublishError::Unavailable,
                }
            })
    }

    /// Waits for at least one completion and appends all that are there to `out`, in the order in which Kafka
    /// reported them. Pending while nothing is in flight. Cancel-safe.
    pub async fn completed(&mut self, out: &mut Vec<Completion>) {
        if let Some(late) = self.line.completed(out).await {
            self.publisher.sink.unconfirmed(late);
        }
    }

    /// Whether a publish would be within the budgets now. While it is not, stop reading the socket.
    pub fn has_room(&self) -> bool {
        self.publisher.has_room(&self.line, self.blocked.as_ref())
    }

    /// Completes when there is room. The future borrows nothing, so it can wait beside
    /// [`completed`](Self::completed) (make it first). It takes no completions: where the connection's own
    /// bound is reached, room comes with taking them.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        let (publisher, line, blocked) =
            (Arc::clone(&self.publisher), Arc::clone(&self.line), self.blocked.clone());
        async move {
            let budget = Arc::clone(&publisher.budget);
            budget.until(|| publisher.has_room(&line, blocked.as_ref())).await;
        }
    }

    /// The number of publishes whose completions were not taken.
    pub fn in_flight(&self) -> usize {
        self.line.open()
    }
}
