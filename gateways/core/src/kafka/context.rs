//! What librdkafka tells us beside records: logs, errors, statistics, delivery reports.

use super::doubts::Doubts;
use crate::publisher::{Flight, PublishFailure};
use crate::telemetry::{Client, KafkaMetrics};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// While Kafka is away every client reports errors all the time: one line in so long is enough for each.
const QUIET: Duration = Duration::from_secs(5);

pub(super) struct Context {
    client: Client,
    metrics: KafkaMetrics,
    /// Asks the producer's renewal to look whether an error was a fatal one: the error itself does not say.
    look: Option<SyncSender<()>>,
    doubts: Arc<Doubts>,
    said: Mutex<Option<Instant>>,
}

impl Context {
    pub(super) fn new(client: Client, metrics: KafkaMetrics) -> Self {
        Self { client, metrics, look: None, doubts: Arc::default(), said: Mutex::default() }
    }

    pub(super) fn of_producer(metrics: KafkaMetrics, look: SyncSender<()>, doubts: Arc<Doubts>) -> Self {
        Self { look: Some(look), doubts, ..Self::new(Client::producer, metrics) }
    }

    fn look(&self) {
        if let Some(look) = &self.look {
            // full: it is asked already
            let _ = look.try_send(());
        }
    }

    fn may_say(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = said.is_some_and(|said| said.elapsed() < QUIET);
        if !quiet {
            *said = Some(Instant::now());
        }
        !quiet
    }
}

/// The little that we want of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    /// Records that the producer holds.
    #[serde(default)]
    msg_cnt: u64,
    #[serde(default)]
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client.name();
        match level {
            // asked again by itself: a young or failing-over Kafka is not ready to number producers
            _ if facility == "GETPID" => tracing::info!(target: "librdkafka", client, facility, "{message}"),
            // the same as the error that is reported beside it
            _ if facility == "FAIL" => tracing::debug!(target: "librdkafka", client, facility, "{message}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", client, facility, "{message}"),
            RDKafkaLogLevel::Notice => tracing::info!(target: "librdkafka", client, facility, "{message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", client, facility, "{message}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) {
            let up = statistics.brokers.values().any(|broker| broker.state == "UP");
            self.metrics.brokers(up, statistics.msg_cnt > 0);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // a consumer's position: its reader handles and says it
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::PartitionEOF) => return,
            // a consumer that has nothing to read may be the only one whose connections are down
            Some(RDKafkaErrorCode::AllBrokersDown) if self.client == Client::producer => {
                self.metrics.brokers(false, false);
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            _ => self.look(),
        }
        self.metrics.error(self.client, &error, reason, self.may_say());
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, report: &DeliveryResult<'_>, flight: Box<Flight>) {
        flight.land(if let Ok(message) = report {
            self.metrics.confirmed();
            self.doubts.dispel(message.topic(), message.partition());
            Ok(message.offset())
        } else {
            self.look();
            Err(PublishFailure::Broken)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn only_the_producer_tells_that_kafka_is_away() {
        let metrics = KafkaMetrics::default();
        metrics.brokers(true, false);
        let away = || KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        Context::new(Client::history, metrics.clone()).error(away(), "4/4 brokers are down");
        assert!(metrics.is_available());
        let (look, _asked) = sync_channel(1);
        Context::of_producer(metrics.clone(), look, Arc::default()).error(away(), "4/4 brokers are down");
        assert!(!metrics.is_available());
    }
}
