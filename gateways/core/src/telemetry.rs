//! Metrics and logs. Labels come from small closed sets only. IO: log lines to standard error.

use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};

/// The process's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// An empty registry; every metric's name starts with `tidegate_`.
    pub fn new() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("tidegate"))) }
    }

    /// Lets a crate register its metrics: `telemetry.register(|registry| MqttMetrics::new(registry))`.
    pub fn register<T>(&self, metrics: impl FnOnce(&mut Registry) -> T) -> T {
        metrics(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // writing into a String cannot fail
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}
