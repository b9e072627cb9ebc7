//! The operator's metrics. Labels come from small closed sets only, but for those of [`ConditionMetrics`]. Pure.

use super::conditions::ConditionMetrics;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByController {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByAnswer {
    verb: &'static str,
    code: u16,
}

type Seconds = Family<ByController, Histogram, fn() -> Histogram>;

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    passes: Family<ByController, Counter>,
    failures: Family<ByReason, Counter>,
    seconds: Seconds,
    leader: Gauge,
    requests: Family<ByAnswer, Counter>,
    conditions: Arc<ConditionMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let passes = Family::default();
        let failures = Family::default();
        let seconds = Seconds::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14)));
        let leader = Gauge::default();
        let requests = Family::default();
        registry.register("reconciles", "Passes over an object", passes.clone());
        registry.register("reconcile_failures", "Passes that failed, by reason", failures.clone());
        registry.register("reconcile_seconds", "How long a pass took", seconds.clone());
        registry.register("leader", "1 in the replica that leads", leader.clone());
        registry.register(
            "kubernetes_requests",
            "Answers of the API server by verb and code; code 0: none came",
            requests.clone(),
        );
        let conditions = Arc::<ConditionMetrics>::default();
        registry.register_collector(Box::new(Arc::clone(&conditions)));
        Self { registry: Mutex::new(registry), passes, failures, seconds, leader, requests, conditions }
    }
}

impl Metrics {
    /// Counts a pass that ended.
    pub fn pass(&self, controller: &'static str, took: Duration) {
        let by = ByController { controller };
        self.passes.get_or_create(&by).inc();
        self.seconds.get_or_create(&by).observe(took.as_secs_f64());
    }

    /// Counts a pass that failed.
    pub fn failure(&self, controller: &'static str, reason: &'static str) {
        self.failures.get_or_create(&ByReason { controller, reason }).inc();
    }

    /// Counts a request to the API server; `code` is 0 where no answer came.
    pub fn request(&self, verb: &'static str, code: u16) {
        self.requests.get_or_create(&ByAnswer { verb, code }).inc();
    }

    /// Says whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// What objects say of themselves.
    pub fn conditions(&self) -> &ConditionMetrics {
        &self.conditions
    }

    /// Adds a controller's own metrics, under the prefix `tidegate_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything in the text format of `OpenMetrics` 1.0.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            Err(_) => "# EOF\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_and_failures_are_counted_by_controller_and_reason() {
        let metrics = Metrics::default();
        metrics.pass("gateway", Duration::from_millis(7));
        metrics.failure("gateway", "PlatformNotFound");
        metrics.leads(true);
        let text = metrics.render();
        for line in [
            "tidegate_reconciles_total{controller=\"gateway\"} 1",
            "tidegate_reconcile_failures_total{controller=\"gateway\",reason=\"PlatformNotFound\"} 1",
            "tidegate_reconcile_seconds_count{controller=\"gateway\"} 1",
            "tidegate_leader 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
