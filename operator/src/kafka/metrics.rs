//! What the sweeps count. Pure.

use crate::frame::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// What the sweeps count.
#[derive(Debug)]
pub struct KafkaMetrics {
    seconds: Histogram,
    failures: Family<ByReason, Counter>,
    records: Counter,
    repairs: Counter,
}

impl KafkaMetrics {
    /// Adds them to the operator's metrics.
    pub fn register(metrics: &Metrics) -> Self {
        let own = Self {
            seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            failures: Family::default(),
            records: Counter::default(),
            repairs: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "kafka_sweep_seconds",
                "How long a sweep of a platform's Kafka took",
                own.seconds.clone(),
            );
            registry.register("kafka_sweep_failures", "Sweeps that failed, by reason", own.failures.clone());
            registry.register("directory_records", "Records written into directories", own.records.clone());
            registry.register(
                "kafka_config_repairs",
                "Topics in Kafka whose settings somebody else had changed, put back",
                own.repairs.clone(),
            );
        });
        own
    }

    /// Counts a sweep.
    pub fn sweep(&self, took: Duration, failed: Option<&'static str>) {
        self.seconds.observe(took.as_secs_f64());
        if let Some(reason) = failed {
            self.failures.get_or_create(&ByReason { reason }).inc();
        }
    }

    /// Counts topics whose settings were put back.
    pub fn repaired(&self, topics: usize) {
        self.repairs.inc_by(topics as u64);
    }

    /// Counts records of the directory.
    pub fn written(&self, records: usize) {
        self.records.inc_by(records as u64);
    }
}
