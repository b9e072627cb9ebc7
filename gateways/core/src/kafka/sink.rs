//! The producers: hand records to librdkafka and are renewed after a fatal error.

use super::BATCH_BYTES;
use super::context::Context;
use crate::publisher::{Flight, Outgoing, SendError, Sink};
use crate::telemetry::{Client, KafkaMetrics, PublisherMetrics};
use arc_swap::ArcSwapOption;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tidegate_contract::config::KafkaConfig;

/// How often a producer is looked at for a fatal error that nothing told.
const LOOK: Duration = Duration::from_secs(1);

type Producer = ThreadedProducer<Context>;

/// Kafka as a [`Sink`].
pub struct KafkaSink {
    /// For topics that take whole batches.
    usual: Lane,
    /// For topics whose limit is below a batch of ours, made when the first one is written: one record a batch.
    single: OnceLock<Lane>,
    /// Held while it is made; when that failed.
    making: Mutex<Option<Instant>>,
    config: ClientConfig,
    metrics: KafkaMetrics,
    publisher: PublisherMetrics,
}

impl KafkaSink {
    /// Producers with the settings of DESIGN §5. Kafka need not be there yet.
    pub fn new(
        kafka: &KafkaConfig,
        id: &str,
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        Self::with_config(super::producer(kafka, id)?, metrics, publisher)
    }

    /// The same with settings of a test's own on top: shorter times.
    pub fn with_overrides(
        kafka: &KafkaConfig,
        overrides: &[(&str, &str)],
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        let mut config = super::producer(kafka, "test")?;
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
        let usual = Lane::new(config.clone(), metrics.clone(), publisher.clone())?;
        Ok(Self { usual, single: OnceLock::new(), making: Mutex::default(), config, metrics, publisher })
    }

    fn lane(&self, batch_bytes: usize) -> Option<&Lane> {
        if batch_bytes >= 2 * BATCH_BYTES {
            return Some(&self.usual);
        }
        if let Some(single) = self.single.get() {
            return Some(single);
        }
        let mut failed = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // a failure passes (a certificate's file that is being renewed), but not within every record's time
        if self.single.get().is_none() && failed.is_none_or(|failed| failed.elapsed() >= LOOK) {
            let mut config = self.config.clone();
            // the usual producer tells whether Kafka is there
            config.set("batch.num.messages", "1").set("statistics.interval.ms", "0");
            match Lane::new(config, self.metrics.clone(), self.publisher.clone()) {
                Ok(lane) => return Some(self.single.get_or_init(|| lane)),
                Err(error) => {
                    self.metrics.error(Client::producer, &error, "failed to create a producer", true);
                    *failed = Some(Instant::now());
                }
            }
        }
        self.single.get()
    }
}

impl Sink for KafkaSink {
    fn send(&self, outgoing: Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)> {
        match self.lane(outgoing.batch_bytes) {
            Some(lane) => lane.send(&outgoing, flight),
            None => Err((SendError::Unavailable, flight)),
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let usual = self.usual.flush(timeout);
        let single = self.single.get();
        usual & single.is_none_or(|lane| lane.flush(until.saturating_duration_since(Instant::now())))
    }
}

/// One producer and its renewal.
struct Lane {
    current: Arc<ArcSwapOption<Producer>>,
}

impl Lane {
    fn new(config: ClientConfig, metrics: KafkaMetrics, publisher: PublisherMetrics) -> KafkaResult<Self> {
        let (look, asked) = sync_channel(1);
        let renewal = Renewal { config, metrics, publisher, look };
        let current = Arc::new(ArcSwapOption::from_pointee(renewal.create()?));
        let weak = Arc::downgrade(&current);
        std::thread::Builder::new()
            .name("producer renewal".to_owned())
            .spawn(move || renewal.run(&weak, &asked))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { current })
    }

    fn send(&self, outgoing: &Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)> {
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

/// Makes producers; owns the thread that looks for a fatal error.
struct Renewal {
    config: ClientConfig,
    metrics: KafkaMetrics,
    publisher: PublisherMetrics,
    look: SyncSender<()>,
}

impl Renewal {
    fn create(&self) -> KafkaResult<Producer> {
        self.config.create_with_context(Context::of_producer(self.metrics.clone(), self.look.clone()))
    }

    fn run(&self, current: &Weak<ArcSwapOption<Producer>>, asked: &Receiver<()>) {
        let mut renewed: Option<Instant> = None;
        loop {
            // asked or not: look
            let _ = asked.recv_timeout(LOOK);
            let Some(current) = current.upgrade() else { return };
            let error = current.load().as_ref().and_then(|producer| producer.client().fatal_error());
            let Some((_, reason)) = error else { continue };
            self.publisher.rebuilt(&reason);
            // nothing is taken from here on, so that no connection sees old and new mixed
            if let Some(old) = current.swap(None) {
                end(old);
            }
            // one that is fatal at once must not keep Kafka and us busy
            if let Some(renewed) = renewed {
                std::thread::sleep(LOOK.saturating_sub(renewed.elapsed()));
            }
            current.store(Some(self.create_at_last()));
            renewed = Some(Instant::now());
        }
    }

    fn create_at_last(&self) -> Arc<Producer> {
        loop {
            match self.create() {
                Ok(producer) => return Arc::new(producer),
                Err(error) => {
                    self.metrics.brokers(false);
                    self.metrics.error(Client::producer, &error, "failed to create a new producer", true);
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Fails what is in flight and frees the client, here and not in a connection's task that happens to hold the
/// last reference.
fn end(mut producer: Arc<Producer>) {
    loop {
        match Arc::try_unwrap(producer) {
            // dropping purges the queue and what is in flight: each flight lands as failed
            Ok(last) => return drop(last),
            Err(shared) => producer = shared,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_for_small_batches_that_could_not_be_made_is_tried_again() {
        let nowhere = KafkaConfig::plain("127.0.0.1:1");
        let mut sink =
            KafkaSink::new(&nowhere, "test", KafkaMetrics::default(), PublisherMetrics::default()).unwrap();
        sink.config.set("no.such.setting", "1");
        assert!(sink.lane(1).is_none());
        sink.config.remove("no.such.setting");
        let start = Instant::now();
        while sink.lane(1).is_none() {
            assert!(start.elapsed() < 10 * LOOK);
            std::thread::yield_now();
        }
        assert!(start.elapsed() > LOOK / 2);
    }
}
