//! Metrics and logs. Labels come from small closed sets only; one struct per group of metrics that change
//! together with a log line or an event. IO: log lines to standard error.

mod access;
mod availability;
mod credentials;
mod metrics;
mod tls;

pub use access::AccessMetrics;
pub use credentials::CredentialsMetrics;
pub(crate) use credentials::Refusal;
pub use metrics::{Client, HistoryMetrics, KafkaMetrics, PublisherMetrics, TailMetrics};
pub(crate) use tls::IdentityRefusal;
pub use tls::TlsMetrics;

use prometheus_client::registry::Registry;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::EnvFilter;

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

    /// All metrics in the `OpenMetrics` text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // writing into a String cannot fail
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// What is logged where `RUST_LOG` says nothing. `warp` serves the admin port only, and calls each reset of a
/// connection an error there; the operator's probes end so, three times a second.
const LOG: &str = "warn,tidegate=info,librdkafka=info,warp::server=off";

/// Starts logging to standard error: JSON lines, or text where a person watches. The environment variable
/// `RUST_LOG` chooses what; by default our own information and others' warnings. Only the first call in a
/// process has an effect.
pub fn init_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // a second call finds a subscriber in place, which is what it wanted
    let _ = if std::io::stderr().is_terminal() {
        logs.try_init()
    } else {
        logs.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
}
