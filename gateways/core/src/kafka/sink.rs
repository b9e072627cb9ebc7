//! The producers: one for usual topics and one for those that take a record a batch.

use super::BATCH_BYTES;
use super::credentials::{Renew, Switch};
use super::lane::{LOOK, Lane, Settings};
use crate::publisher::{Flight, Late, Outgoing, SendError, Sink};
use crate::telemetry::{Client, KafkaMetrics, PublisherMetrics};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::config::KafkaConfig;

/// Kafka as a [`Sink`].
pub struct KafkaSink {
    /// For topics that take whole batches.
    usual: Lane,
    /// For topics whose limit is below a batch of ours, made when the first one is written: one record a batch.
    single: OnceLock<Lane>,
    /// Held while it is made; when that failed.
    making: Mutex<Option<Instant>>,
    recipe: Arc<Recipe>,
    metrics: KafkaMetrics,
    publisher: PublisherMetrics,
}

/// What the settings of a producer are made of, each time anew: credentials change.
struct Recipe {
    kafka: KafkaConfig,
    id: String,
    overrides: Mutex<Vec<(String, String)>>,
}

impl Recipe {
    fn usual(&self) -> KafkaResult<ClientConfig> {
        let mut config = super::producer(&self.kafka, &self.id)?;
        for (key, value) in self.overrides.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            config.set(key, value);
        }
        Ok(config)
    }

    fn single(&self) -> KafkaResult<ClientConfig> {
        let mut config = self.usual()?;
        // the usual producer tells whether Kafka is there
        config.set("batch.num.messages", "1").set("statistics.interval.ms", "0");
        Ok(config)
    }
}

impl KafkaSink {
    /// Producers with the settings of DESIGN §5. Kafka need not be there yet.
    pub fn new(
        kafka: &KafkaConfig,
        id: &str,
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        Self::with(kafka, id, &[], metrics, publisher)
    }

    /// The same with settings of a test's own on top: shorter times.
    pub fn with_overrides(
        kafka: &KafkaConfig,
        overrides: &[(&str, &str)],
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        Self::with(kafka, "test", overrides, metrics, publisher)
    }

    fn with(
        kafka: &KafkaConfig,
        id: &str,
        overrides: &[(&str, &str)],
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        let overrides = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let recipe = Arc::new(Recipe {
            kafka: kafka.clone(),
            id: id.to_owned(),
            overrides: Mutex::new(overrides.collect()),
        });
        let settings = Arc::clone(&recipe);
        let settings: Settings = Box::new(move || settings.usual());
        let usual = Lane::new(settings, metrics.clone(), publisher.clone())?;
        Ok(Self { usual, single: OnceLock::new(), making: Mutex::default(), recipe, metrics, publisher })
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
            let recipe = Arc::clone(&self.recipe);
            match Lane::new(Box::new(move || recipe.single()), self.metrics.clone(), self.publisher.clone()) {
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

    fn unconfirmed(&self, late: Late) {
        self.metrics.timed_out();
        if let Some(lane) = self.lane(late.batch_bytes()) {
            lane.doubt(late);
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let usual = self.usual.flush(timeout);
        let single = self.single.get();
        usual & single.is_none_or(|lane| lane.flush(until.saturating_duration_since(Instant::now())))
    }
}

impl Renew for KafkaSink {
    fn prepare(&self) -> KafkaResult<Switch> {
        let usual = self.usual.prepare()?;
        let single = self.single.get().map(Lane::prepare).transpose()?;
        Ok(Box::new(move || {
            usual();
            if let Some(single) = single {
                single();
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::{PublishFailure, PublishLimits};
    use crate::{Directory, Metadata, Publisher, Record};
    use rdkafka::config::FromClientConfig as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Message as _;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{Offset, TopicPartitionList};
    use tidegate_contract::directory::TopicEntry;
    use tidegate_contract::{Address, Route, Routes};

    fn record(number: u64) -> Record {
        let payload = number.to_string().into_bytes().into();
        Record { address: Address::parse("t/a").unwrap(), payload, metadata: Metadata::default() }
    }

    /// The numbers that partition 0 of `t` holds.
    fn stored(bootstrap: &str, count: usize) -> Vec<u64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "test");
        let consumer = BaseConsumer::from_config(&config).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let (mut numbers, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        while numbers.len() < count && Instant::now() < until {
            // beside records it tells errors, which pass
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                numbers.push(std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap());
            }
        }
        numbers
    }

    struct Mocked {
        cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
        bootstrap: String,
        sink: Arc<KafkaSink>,
        publisher: Publisher,
        target: Arc<Route>,
    }

    fn mocked(limits: PublishLimits) -> Mocked {
        mocked_with(limits, &[])
    }

    fn mocked_with(limits: PublishLimits, overrides: &[(&str, &str)]) -> Mocked {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let bootstrap = cluster.bootstrap_servers();
        let kafka = KafkaConfig::plain(bootstrap.clone());
        let (kafka_metrics, metrics) = (KafkaMetrics::default(), PublisherMetrics::default());
        let sink = KafkaSink::with_overrides(&kafka, overrides, kafka_metrics, metrics.clone()).unwrap();
        let sink = Arc::new(sink);
        let publisher = Publisher::new(Arc::clone(&sink) as Arc<_>, limits, metrics);
        let entry = TopicEntry {
            name: "t".to_owned(),
            kafka_name: "t".to_owned(),
            filters: vec!["t/#".to_owned()],
            partitions: 1,
            max_message_bytes: 1_000_000,
        };
        let directory = Directory::fixed(Routes::new(&[entry]));
        let target = Arc::clone(directory.routes().route(&record(0).address).unwrap());
        Mocked { cluster, bootstrap, sink, publisher, target }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_waits_for_any_more_is_stored_before_what_is_sent_again() {
        let hasty = PublishLimits { answer: Duration::from_secs(3), ..PublishLimits::default() };
        let Mocked { cluster, bootstrap, publisher, target, .. } = mocked(hasty);
        publisher.publish_once(&target, &record(1)).await.unwrap().unwrap();
        let publish = |numbers: &[u64]| {
            let mut handle = publisher.connection();
            for &number in numbers {
                handle.publish(&target, &record(number), number).unwrap();
            }
            handle
        };

        cluster.broker_down(1).unwrap();
        let mut first = publish(&[2, 3]);
        let mut done = Vec::new();
        first.completed(&mut done).await;
        let timed_out = |one: &crate::Completion| one.result == Err(PublishFailure::TimedOut);
        assert!(done.len() == 2 && done.iter().all(timed_out), "{done:?}");
        let mut again = publish(&[2, 3, 4]);
        cluster.broker_up(1).unwrap();
        let numbers = tokio::task::spawn_blocking(move || stored(&bootstrap, 6)).await.unwrap();
        assert_eq!(numbers, [1, 2, 3, 2, 3, 4]);
        let mut done = Vec::new();
        while again.in_flight() > 0 {
            again.completed(&mut done).await;
        }
        assert!(done.iter().all(|one| one.result.is_ok()), "{done:?}");
    }

    /// A producer that does not come back to a broker for ten minutes stands for one that lost track of it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_producer_that_sends_nothing_to_a_kafka_that_serves_others_is_replaced() {
        let hasty = PublishLimits { answer: Duration::from_secs(2), ..PublishLimits::default() };
        let never = [("reconnect.backoff.ms", "600000"), ("reconnect.backoff.max.ms", "600000")];
        let Mocked { cluster, bootstrap, sink, publisher, target } = mocked_with(hasty, &never);
        publisher.publish_once(&target, &record(1)).await.unwrap().unwrap();
        sink.recipe.overrides.lock().unwrap().clear();

        cluster.broker_down(1).unwrap();
        let away = publisher.publish_once(&target, &record(2)).await.unwrap();
        assert_eq!(away.unwrap_err(), PublishFailure::TimedOut);
        let rebuilt = || sink.publisher.times_rebuilt();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(rebuilt(), 0, "while Kafka is away no other client helps");

        cluster.broker_up(1).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let mut outcome = None;
        while outcome.is_none() && Instant::now() < until {
            outcome = publisher.publish_once(&target, &record(3)).await.ok().and_then(Result::ok);
        }
        assert!(outcome.is_some() && rebuilt() == 1, "{outcome:?}, replaced {} times", rebuilt());
        let stored = tokio::task::spawn_blocking(move || stored(&bootstrap, 2)).await.unwrap();
        assert_eq!(stored, [1, 3], "what the old one had was given up");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_producer_waits_for_what_the_old_one_has_in_flight() {
        let Mocked { cluster, bootstrap, sink, publisher, target } = mocked(PublishLimits::default());
        publisher.publish_once(&target, &record(0)).await.unwrap().unwrap();

        let switch = sink.prepare().unwrap();
        let mut handle = publisher.connection();
        let mut number = 1;
        let mut publish = |handle: &mut crate::PublishHandle| {
            handle.publish(&target, &record(number), number).unwrap();
            number += 1;
        };
        // the first one is refused three times and sent again, within half a second; what a new producer sends
        // meanwhile would be stored before it
        let again = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 3];
        cluster.request_errors(RDKafkaApiKey::Produce, &again);
        publish(&mut handle);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let switched = tokio::task::spawn_blocking(switch);
        while !switched.is_finished() && handle.has_room() {
            publish(&mut handle);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        switched.await.unwrap();
        publish(&mut handle);
        let mut done = Vec::new();
        while handle.in_flight() > 0 {
            handle.completed(&mut done).await;
        }
        assert!(done.iter().map(|one| one.token).eq(1..number), "{done:?}");
        assert!(done.iter().all(|one| one.result.is_ok()), "{done:?}");
        let numbers =
            tokio::task::spawn_blocking(move || stored(&bootstrap, usize::try_from(number).unwrap()));
        assert_eq!(numbers.await.unwrap(), (0..number).collect::<Vec<_>>());
    }

    #[test]
    fn a_producer_for_small_batches_that_could_not_be_made_is_tried_again() {
        let nowhere = KafkaConfig::plain("127.0.0.1:1");
        let sink =
            KafkaSink::new(&nowhere, "test", KafkaMetrics::default(), PublisherMetrics::default()).unwrap();
        sink.recipe.overrides.lock().unwrap().push(("no.such.setting".to_owned(), "1".to_owned()));
        assert!(sink.lane(1).is_none());
        sink.recipe.overrides.lock().unwrap().clear();
        let start = Instant::now();
        while sink.lane(1).is_none() {
            assert!(start.elapsed() < 10 * LOOK);
            std::thread::yield_now();
        }
        assert!(start.elapsed() > LOOK / 2);
    }
}
