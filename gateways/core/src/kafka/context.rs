//! What librdkafka tells us beside records: logs, errors, statistics, delivery reports.

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

pub(super) struct Context {
    pub(super) client: Client,
    pub(super) metrics: KafkaMetrics,
    /// Where a fatal error is told: the producer's renewal.
    pub(super) fatal: Option<SyncSender<String>>,
}

/// The little that we want of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
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
            self.metrics.available(statistics.brokers.values().any(|broker| broker.state == "UP"));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // a consumer's position: its reader handles and says it
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::PartitionEOF) => return,
            Some(RDKafkaErrorCode::AllBrokersDown) => self.metrics.available(false),
            Some(RDKafkaErrorCode::Fatal) => {
                if let Some(fatal) = &self.fatal {
                    // full: a renewal is asked for already
                    let _ = fatal.try_send(reason.to_owned());
                }
            }
            _ => {}
        }
        self.metrics.error(self.client, &error, reason);
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, report: &DeliveryResult<'_>, flight: Box<Flight>) {
        flight.land(match report {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageTimedOut) => PublishFailure::TimedOut,
                _ => PublishFailure::Broken,
            }),
        });
    }
}
