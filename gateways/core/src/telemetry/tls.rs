//! The metrics of TLS on listeners.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a listener's new certificate is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // as the label's values read
pub(crate) enum IdentityRefusal {
    /// A file holds no certificate or key, or a key that does not belong to its certificate.
    unusable,
    /// The files changed again while they were read.
    changing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: IdentityRefusal,
}

/// Metrics of TLS. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TlsMetrics {
    handshakes: Family<Outcome, Counter>,
    reloads: Counter,
    failures: Family<Why, Counter>,
    pending: Gauge,
    expires: Gauge,
    /// The moments behind `expires`, by listener: the earliest counts.
    moments: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl TlsMetrics {
    /// Registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "TLS handshakes, by what became of them";
        registry.register("tls_handshakes", help, metrics.handshakes.clone());
        registry.register(
            "tls_certificate_reloads",
            "Times that a listener's new certificate was taken into use",
            metrics.reloads.clone(),
        );
        registry.register(
            "tls_certificate_failures",
            "Tries of a listener's new certificate that failed; the old one stays in use",
            metrics.failures.clone(),
        );
        registry.register(
            "tls_certificates_pending",
            "Listeners whose mounted certificate is not the one in use",
            metrics.pending.clone(),
        );
        registry.register(
            "tls_certificate_not_after_seconds",
            "When the first listener's certificate in use goes out of date, in seconds since 1970; 0 without TLS",
            metrics.expires.clone(),
        );
        metrics
    }

    /// A handshake came to its end, this one or that.
    pub(crate) fn handshake(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&Outcome { outcome }).inc();
    }

    /// A listener has a certificate that is valid until then.
    pub(crate) fn expires(&self, listener: &str, not_after: i64) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.insert(listener.to_owned(), not_after);
        self.expires.set(moments.values().copied().min().unwrap_or_default());
    }

    /// A listener's new certificate is in use.
    pub(crate) fn reloaded(&self, listener: &str) {
        self.reloads.inc();
        tracing::info!(listener, "the listener has a new certificate; open connections go on");
    }

    /// A listener's new files do not work; `say`: in a log line that is read by default.
    pub(crate) fn refused(&self, listener: &str, reason: IdentityRefusal, why: &str, say: bool) {
        self.failures.get_or_create(&Why { reason }).inc();
        if say {
            tracing::warn!(
                listener,
                ?reason,
                why,
                "the listener's new certificate does not work: the old one stays in use, the new one is tried again"
            );
        } else {
            tracing::debug!(listener, ?reason, why, "the listener's new certificate still does not work");
        }
    }

    /// The files of one more listener hold something else than what is in use, or of one less.
    pub(crate) fn pending(&self, more: bool) {
        self.pending.inc_by(if more { 1 } else { -1 });
    }
}
