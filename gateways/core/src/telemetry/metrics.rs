//! The metrics of this crate.

use super::availability::Availability;
use crate::publisher::PublishFailure;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::{Duration, Instant};

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: OutcomeValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // as the label's values read
enum OutcomeValue {
    acknowledged,
    timed_out,
    broken,
}

/// Metrics of the publisher.
#[derive(Clone, Debug, Default)]
pub struct PublisherMetrics {
    records: Family<Outcome, Counter>,
    seconds: Option<Histogram>,
    messages: Gauge,
    bytes: Gauge,
    rebuilt: Counter,
}

impl PublisherMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        // 0.5 ms to 16 s: after 10 s nobody waits
        let metrics =
            Self { seconds: Some(Histogram::new(exponential_buckets(0.0005, 2.0, 16))), ..Self::default() };
        registry.register(
            "publish_records",
            "Records handed to Kafka, by what became of them",
            metrics.records.clone(),
        );
        if let Some(seconds) = &metrics.seconds {
            registry.register(
                "publish_seconds",
                "Time from handing a record to Kafka to its acknowledgement",
                seconds.clone(),
            );
        }
        registry.register("publish_in_flight", "Records that wait for Kafka", metrics.messages.clone());
        registry.register("publish_in_flight_bytes", "Bytes that wait for Kafka", metrics.bytes.clone());
        registry.register(
            "publish_producer_rebuilt",
            "Times that the producer was renewed: a fatal error, or it sent nothing to a Kafka that serves others",
            metrics.rebuilt.clone(),
        );
        metrics
    }

    pub(crate) fn in_flight(&self, messages: i64, bytes: usize) {
        self.messages.inc_by(messages);
        self.bytes.inc_by(messages * i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn landed(&self, after: Duration, failure: Option<PublishFailure>) {
        let outcome = match failure {
            None => OutcomeValue::acknowledged,
            Some(PublishFailure::TimedOut) => OutcomeValue::timed_out,
            Some(_) => OutcomeValue::broken,
        };
        self.records.get_or_create(&Outcome { outcome }).inc();
        if let (None, Some(seconds)) = (failure, &self.seconds) {
            seconds.observe(after.as_secs_f64());
        }
    }

    #[cfg(test)]
    pub(crate) fn times_rebuilt(&self) -> u64 {
        self.rebuilt.get()
    }

    /// Kafka refuses the producer, which is renewed until it does not: in a platform that was just made gateways come
    /// before their rights.
    pub(crate) fn not_allowed(&self, reason: &str) {
        tracing::warn!(reason, "Kafka gives this gateway no right to write: it tries again until it does");
        self.rebuilt.inc();
    }

    /// The producer is of no use any more and is renewed.
    pub(crate) fn rebuilt(&self, reason: &str) {
        tracing::error!(
            reason,
            "Kafka's client is of no use any more: publishing connections are closed and it is renewed"
        );
        self.rebuilt.inc();
    }
}

/// Which of the process's Kafka clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // as the label's values read
pub enum Client {
    /// Writes records.
    producer,
    /// Reads the live end.
    tail,
    /// Catches up.
    sweep,
    /// Reads what is stored.
    history,
    /// Reads `tg-directory`.
    directory,
    /// Asks what another client waits for in vain.
    witness,
}

impl Client {
    /// As in logs, metrics and Kafka's `client.id`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::producer => "producer",
            Self::tail => "tail",
            Self::sweep => "sweep",
            Self::history => "history",
            Self::directory => "directory",
            Self::witness => "witness",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClientLabel {
    client: Client,
}

/// Metrics of the connections to Kafka.
#[derive(Clone, Debug, Default)]
pub struct KafkaMetrics {
    available: Availability,
    errors: Family<ClientLabel, Counter>,
    stranded: Family<ClientLabel, Counter>,
    directory_topics: Gauge,
    directory_fleets: Gauge,
    directory_devices: Gauge,
    directory_rejected: Counter,
}

impl KafkaMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "kafka_available",
            "1 while a broker is up and records are confirmed, 0 while Kafka is away",
            metrics.available.gauge(),
        );
        registry.register("kafka_errors", "Errors that a Kafka client reported", metrics.errors.clone());
        registry.register(
            "kafka_clients_renewed",
            "Consumers that were renewed because they got nothing of a partition that Kafka serves to others",
            metrics.stranded.clone(),
        );
        registry.register(
            "directory_topics",
            "Topics that the directory holds",
            metrics.directory_topics.clone(),
        );
        registry.register(
            "directory_fleets",
            "Fleets that the directory holds",
            metrics.directory_fleets.clone(),
        );
        registry.register(
            "directory_devices",
            "Devices of fleets that the directory holds",
            metrics.directory_devices.clone(),
        );
        registry.register(
            "directory_rejected",
            "Directory records that could not be read and were passed over",
            metrics.directory_rejected.clone(),
        );
        metrics
    }

    /// Some broker is up, or none is; and whether records wait for one.
    pub(crate) fn brokers(&self, up: bool, waiting: bool) {
        self.available.brokers(up, waiting, Instant::now());
    }

    /// Kafka confirmed a record.
    pub(crate) fn confirmed(&self) {
        self.available.confirmed(Instant::now());
    }

    /// Kafka did not confirm a record in time.
    pub(crate) fn timed_out(&self) {
        self.available.timed_out(Instant::now());
    }

    /// Whether a broker is up and records are confirmed, as far as is known.
    pub fn is_available(&self) -> bool {
        self.available.is_available()
    }

    /// A client reported an error; `say`: in a log line that is read by default.
    pub(crate) fn error(&self, client: Client, error: &dyn std::fmt::Display, reason: &str, say: bool) {
        self.errors.get_or_create(&ClientLabel { client }).inc();
        if !say {
            tracing::debug!(client = client.name(), %error, reason, "a Kafka client reported an error");
            return;
        }
        tracing::warn!(client = client.name(), %error, reason, "a Kafka client reported an error");
    }

    /// A consumer got nothing of a partition that Kafka serves to others, and is renewed.
    pub(crate) fn stranded(&self, client: Client) {
        self.stranded.get_or_create(&ClientLabel { client }).inc();
    }

    #[cfg(test)]
    pub(crate) fn times_stranded(&self, client: Client) -> u64 {
        self.stranded.get_or_create(&ClientLabel { client }).get()
    }

    pub(crate) fn directory(&self, topics: usize, fleets: usize, devices: usize) {
        let gauges = [(&self.directory_topics, topics), (&self.directory_fleets, fleets)];
        for (gauge, count) in gauges.into_iter().chain([(&self.directory_devices, devices)]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn directory_rejected(&self, key: &str, error: &dyn std::fmt::Display) {
        self.directory_rejected.inc();
        tracing::warn!(key, %error, "a directory record could not be read and is passed over");
    }
}

/// Metrics of the tail.
#[derive(Clone, Debug, Default)]
pub struct TailMetrics {
    pub(crate) partitions: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) records: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) undecodable: Counter,
    dropped: Counter,
    pub(crate) fell_behind: Counter,
    pub(crate) sweeps: Counter,
    gap_records: Counter,
    pub(crate) ring_bytes: Gauge,
}

impl TailMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tail_partitions",
            "Partitions that local subscriptions need",
            metrics.partitions.clone(),
        );
        registry.register("tail_subscriptions", "Local subscriptions", metrics.subscriptions.clone());
        registry.register("tail_records", "Records read from Kafka's live end", metrics.records.clone());
        registry.register("tail_deliveries", "Records handed to sessions", metrics.deliveries.clone());
        registry.register(
            "tail_undecodable",
            "Records that no gateway wrote, passed over",
            metrics.undecodable.clone(),
        );
        registry.register(
            "tail_dropped",
            "Deliveries that slow best-effort subscriptions lost",
            metrics.dropped.clone(),
        );
        registry.register(
            "tail_fell_behind",
            "Times that a reliable session fell out of the live end",
            metrics.fell_behind.clone(),
        );
        registry.register(
            "tail_sweeps",
            "Sweeps that let sessions catch up from Kafka",
            metrics.sweeps.clone(),
        );
        registry.register(
            "tail_gap_records",
            "Offsets that fell out of retention before a session read them",
            metrics.gap_records.clone(),
        );
        registry.register("tail_ring_bytes", "Payload bytes in the shared rings", metrics.ring_bytes.clone());
        metrics
    }

    pub(crate) fn dropped(&self) {
        self.dropped.inc();
    }

    /// Offsets are gone for a session.
    pub(crate) fn gap(&self, topic: &str, partition: i32, from: i64, to: i64) {
        let lost = u64::try_from(to - from).unwrap_or(0);
        self.gap_records.inc_by(lost);
        tracing::warn!(
            topic,
            partition,
            from,
            to,
            "records fell out of retention before a session read them"
        );
    }
}

/// Metrics of history reads.
#[derive(Clone, Debug, Default)]
pub struct HistoryMetrics {
    pub(crate) reads: Counter,
    pub(crate) truncated: Counter,
    pub(crate) refused: Counter,
    pub(crate) scanned: Counter,
}

impl HistoryMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("history_reads", "Reads of stored records", metrics.reads.clone());
        registry.register(
            "history_truncated",
            "Reads that stopped at their bound",
            metrics.truncated.clone(),
        );
        registry.register(
            "history_refused",
            "Reads refused because too many waited",
            metrics.refused.clone(),
        );
        registry.register("history_scanned", "Records looked at", metrics.scanned.clone());
        metrics
    }
}
