//! What a protocol crate gets, and how it is started and ended. IO: starts everything that does.

use crate::{Access, Directory, History, Limiter, Publisher, Shutdown, Tail, Telemetry};
use std::sync::Arc;
use tidegate_contract::GatewayConfig;

/// Everything a protocol crate builds on. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The process's configuration.
    pub config: Arc<GatewayConfig>,
    /// Routes from addresses to topics.
    pub directory: Directory,
    /// The way into Kafka.
    pub publisher: Publisher,
    /// The live end of topics.
    pub tail: Tail,
    /// Bounded reads of what is stored.
    pub history: History,
    /// Who may do what.
    pub access: Access,
    /// Permits for connections.
    pub limits: Limiter,
    /// Metrics.
    pub telemetry: Telemetry,
    /// The signal to end.
    pub shutdown: Shutdown,
}

/// Owns the threads behind [`Services`].
pub struct Runtime {
    _private: (),
}

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin port is taken or forbidden.
    #[error("failed to listen on admin port {port}")]
    Admin {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// librdkafka refused its configuration (certificate files, bootstrap).
    #[error("failed to create a Kafka client")]
    Kafka(#[from] rdkafka::error::KafkaError),
}

/// Starts everything but the protocol. Returns at once: [`Directory::ready`] tells when to serve.
pub async fn start(_config: GatewayConfig) -> Result<(Services, Runtime), StartError> {
    unimplemented!()
}

impl Runtime {
    /// Flushes the publisher and ends the threads.
    pub async fn close(self) {
        unimplemented!()
    }
}
