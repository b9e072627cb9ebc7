//! Metrics of who comes in.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Metrics of who comes in.
#[derive(Clone, Debug, Default)]
pub struct AccessMetrics {
    admissions: Family<Outcome, Counter>,
}

impl AccessMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Devices that asked to come in, by what became of it";
        registry.register("access_admissions", help, metrics.admissions.clone());
        metrics
    }

    /// A device was let in or not.
    pub(crate) fn admitted(&self, outcome: &'static str) {
        self.admissions.get_or_create(&Outcome { outcome }).inc();
    }
}
