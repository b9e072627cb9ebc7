//! The metrics of Kafka's credentials.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why new credentials are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // as the label's values read
pub(crate) enum Refusal {
    /// A file holds no certificate or key, or a key that does not belong to its certificate.
    unreadable,
    /// The files changed again while they were read.
    changing,
    /// Kafka did not answer somebody who came with them.
    refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: Refusal,
}

/// Metrics of the credentials for Kafka.
#[derive(Clone, Debug, Default)]
pub struct CredentialsMetrics {
    reloads: Counter,
    failures: Family<Why, Counter>,
    pending: Gauge,
}

impl CredentialsMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "kafka_credentials_reloads",
            "Times that new credentials for Kafka were taken into use",
            metrics.reloads.clone(),
        );
        registry.register(
            "kafka_credentials_failures",
            "Tries of new credentials for Kafka that failed; the old ones stay in use",
            metrics.failures.clone(),
        );
        registry.register(
            "kafka_credentials_pending",
            "1 while the mounted credentials for Kafka are not the ones in use",
            metrics.pending.clone(),
        );
        metrics
    }

    /// New ones are in use.
    pub(crate) fn reloaded(&self) {
        self.reloads.inc();
        self.pending(false);
        tracing::info!("new credentials for Kafka are in use");
    }

    /// New ones do not work; `say`: in a log line that is read by default.
    pub(crate) fn failed(&self, reason: Refusal, why: &str, say: bool) {
        self.failures.get_or_create(&Why { reason }).inc();
        if say {
            tracing::warn!(
                ?reason,
                why,
                "the new credentials for Kafka do not work: the old ones stay in use, the new ones are tried again"
            );
        } else {
            tracing::debug!(?reason, why, "the new credentials for Kafka still do not work");
        }
    }

    /// The files hold something else than what is in use, or not.
    pub(crate) fn pending(&self, pending: bool) {
        self.pending.set(i64::from(pending));
    }

    /// Times that new credentials were taken into use.
    pub fn reloads(&self) -> u64 {
        self.reloads.get()
    }

    /// Whether the files hold something else than what is in use.
    pub fn is_pending(&self) -> bool {
        self.pending.get() == 1
    }
}
