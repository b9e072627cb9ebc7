//! The producer: hands records to librdkafka and is renewed after a fatal error.

use super::context::Context;
use crate::publisher::{Flight, Outgoing, SendError, Sink};
use crate::telemetry::{Client, KafkaMetrics, PublisherMetrics};
use arc_swap::ArcSwapOption;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tidegate_contract::config::KafkaConfig;

/// Kafka as a [`Sink`].
pub struct KafkaSink {
    current: Arc<ArcSwapOption<ThreadedProducer<Context>>>,
}

impl KafkaSink {
    /// A producer with the settings of DESIGN §5. Kafka need not be there yet.
    pub fn new(
        kafka: &KafkaConfig,
        id: &str,
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        Self::with_config(super::producer(kafka, id), metrics, publisher)
    }

    /// The same with settings of a test's own on top: shorter times, a mock cluster.
    pub fn with_overrides(
        kafka: &KafkaConfig,
        overrides: &[(&str, &str)],
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        let mut config = super::producer(kafka, "test");
        for (key, value) in overrides {
            config.set(*key, *value);
        }
        Self::with_config(config, metrics, publisher)
    }

    fn with_config(
        config: ClientConfig,
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        let (fatal, errors) = sync_channel(1);
        let renewal = Renewal { config, metrics, publisher, fatal };
        let current = Arc::new(ArcSwapOption::from_pointee(renewal.create()?));
        let weak = Arc::downgrade(&current);
        std::thread::Builder::new()
            .name("producer renewal".to_owned())
            .spawn(move || renewal.run(&weak, &errors))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { current })
    }

    /// Gives the fatal error that only an idempotent producer can have to the client, for tests.
    #[doc(hidden)]
    pub fn fatal_error(&self) -> Option<String> {
        self.current
            .load()
            .as_ref()
            .and_then(|producer| producer.client().fatal_error())
            .map(|(_, text)| text)
    }
}

impl Sink for KafkaSink {
    fn send(&self, outgoing: Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)> {
        let current = self.current.load();
        let Some(producer) = current.as_ref() else {
            return Err((SendError::Unavailable, flight));
        };
        let mut headers = Some(OwnedHeaders::new_with_capacity(4));
        outgoing.record.metadata.write(|key, value| {
            headers = headers.take().map(|headers| headers.insert(Header { key, value: Some(value) }));
        });
        let mut record = BaseRecord::with_opaque_to(outgoing.topic, flight)
            .partition(outgoing.partition)
            .key(outgoing.record.address.as_str())
            .payload(outgoing.record.payload.as_ref());
        record.headers = headers;
        producer.send(record).map_err(|(error, record)| {
            let error = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
                _ => SendError::Unavailable,
            };
            (error, record.delivery_opaque)
        })
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.current.load_full().is_none_or(|producer| producer.flush(timeout).is_ok())
    }
}

/// Makes producers; owns the thread that waits for a fatal error.
struct Renewal {
    config: ClientConfig,
    metrics: KafkaMetrics,
    publisher: PublisherMetrics,
    fatal: SyncSender<String>,
}

impl Renewal {
    fn create(&self) -> KafkaResult<ThreadedProducer<Context>> {
        let context = Context {
            client: Client::producer,
            metrics: self.metrics.clone(),
            fatal: Some(self.fatal.clone()),
        };
        self.config.create_with_context(context)
    }

    fn run(
        &self,
        current: &std::sync::Weak<ArcSwapOption<ThreadedProducer<Context>>>,
        errors: &Receiver<String>,
    ) {
        loop {
            // the timeout is how the thread notices that the sink is gone
            let error = errors.recv_timeout(Duration::from_secs(1));
            let Some(current) = current.upgrade() else { return };
            let Ok(reason) = error else { continue };
            self.publisher.rebuilt(&reason);
            // nothing is taken from here on, so that no connection sees old and new mixed
            if let Some(old) = current.swap(None) {
                end(old);
            }
            // errors of the old one are not about the new one
            while errors.try_recv().is_ok() {}
            loop {
                match self.create() {
                    Ok(producer) => {
                        current.store(Some(Arc::new(producer)));
                        break;
                    }
                    Err(error) => {
                        self.metrics.error(Client::producer, &error, "failed to create a new producer");
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            }
        }
    }
}

/// Fails what is in flight and frees the client, here and not in a connection's task that happens to hold the
/// last reference.
fn end(mut producer: Arc<ThreadedProducer<Context>>) {
    loop {
        match Arc::try_unwrap(producer) {
            // dropping purges the queue and what is in flight: each flight lands as failed
            Ok(last) => return drop(last),
            Err(shared) => producer = shared,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
