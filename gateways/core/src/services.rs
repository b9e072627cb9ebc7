//! What a protocol crate gets, and how it is started and ended. IO: starts everything that does.

use crate::history::HistoryLimits;
use crate::kafka::{Credentials, KafkaReaders, KafkaSink, Renew, follow_directory};
use crate::publisher::{ANSWER, PublishLimits};
use crate::reader::ReadError;
use crate::tail::TailLimits;
use crate::telemetry::{
    AccessMetrics, CredentialsMetrics, HistoryMetrics, KafkaMetrics, PublisherMetrics, TailMetrics,
};
use crate::{Access, Directory, History, Limiter, Publisher, Shutdown, Tail, Telemetry, admin, files};
use std::sync::Arc;
use std::time::Duration;
use tidegate_contract::GatewayConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long the last records may take to reach Kafka when the process ends: longer than any device waits for them.
const FLUSH: Duration = ANSWER.saturating_add(Duration::from_secs(1));

/// Everything a protocol crate builds on. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The process's configuration.
    pub config: Arc<GatewayConfig>,
    /// What the operator tells: routes from addresses to topics, fleets and devices.
    pub directory: Directory,
    /// The way into Kafka.
    pub publisher: Publisher,
    /// The live end of topics.
    pub tail: Tail,
    /// Bounded reads of what is stored.
    pub history: History,
    /// Who comes in.
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
    publisher: Publisher,
    tail: Tail,
    /// Looks after its consumers for as long as it is there.
    readers: Arc<KafkaReaders>,
    closed: CancellationToken,
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
    /// The same for a consumer.
    #[error("failed to create a Kafka consumer")]
    Reader(#[from] ReadError),
}

/// Starts everything but the protocol. Returns at once, whether Kafka is there or not:
/// [`Directory::ready`] tells when to serve. When the files with the credentials for Kafka change, connections to it
/// are made anew with them; devices stay connected.
pub async fn start(config: GatewayConfig) -> Result<(Services, Runtime), StartError> {
    start_looking(config, files::LOOK).await
}

/// [`start`] with another time between two looks at the credentials: for tests.
pub async fn start_looking(
    config: GatewayConfig,
    every: Duration,
) -> Result<(Services, Runtime), StartError> {
    let telemetry = Telemetry::new();
    let kafka_metrics = telemetry.register(KafkaMetrics::new);
    let publisher_metrics = telemetry.register(PublisherMetrics::new);
    let id = format!("{}{}", config.kafka.prefix, config.gateway);
    let closed = CancellationToken::new();
    let shutdown = Shutdown::new(Duration::from_millis(config.drain_ms));
    let directory = Directory::empty();

    let port = config.admin_port;
    let listener =
        TcpListener::bind(("0.0.0.0", port)).await.map_err(|source| StartError::Admin { port, source })?;

    let credentials = Credentials::new(&config.kafka, &id, telemetry.register(CredentialsMetrics::new));
    let sink = KafkaSink::new(&config.kafka, &id, kafka_metrics.clone(), publisher_metrics.clone())?;
    let sink = Arc::new(sink);
    let publisher = Publisher::new(
        Arc::clone(&sink) as Arc<_>,
        PublishLimits::from_config(&config.limits),
        publisher_metrics,
    );
    let readers = Arc::new(KafkaReaders::new(&config.kafka, &id, kafka_metrics));
    let tail =
        Tail::start(&*readers, &directory, TailLimits::default(), telemetry.register(TailMetrics::new))?;
    let history = History::start(
        &*readers,
        &directory,
        HistoryLimits::default(),
        telemetry.register(HistoryMetrics::new),
    )?;
    follow_directory(&readers, directory.clone(), closed.clone())?;
    // readers first: that costs nothing, while the producers wait for records in flight
    let handles: Vec<Arc<dyn Renew>> = vec![Arc::clone(&readers) as Arc<_>, sink];
    credentials.watch(handles, every, closed.clone());
    tokio::spawn(admin::serve(
        listener,
        telemetry.clone(),
        directory.clone(),
        shutdown.clone(),
        closed.clone(),
    ));

    let services = Services {
        limits: Limiter::new(config.limits.clone()),
        access: Access::new(directory.roster().clone(), telemetry.register(AccessMetrics::new)),
        config: Arc::new(config),
        directory,
        publisher: publisher.clone(),
        tail: tail.clone(),
        history,
        telemetry,
        shutdown,
    };
    Ok((services, Runtime { publisher, tail, readers, closed }))
}

impl Runtime {
    /// Flushes what is in flight, then ends the threads. The last step of a process.
    pub async fn close(self) {
        let publisher = self.publisher.clone();
        let flushed = tokio::task::spawn_blocking(move || publisher.flush(FLUSH)).await.unwrap_or(false);
        if !flushed {
            tracing::warn!(
                records = self.publisher.in_flight(),
                "ended before Kafka had confirmed everything"
            );
        }
        self.tail.close();
        self.closed.cancel();
        drop(self.readers);
    }
}
