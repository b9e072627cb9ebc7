//! One producer and what takes its place: after a fatal error, when it is stranded, and when credentials change. IO:
//! librdkafka's threads and one that looks whether the producer has to be replaced.

use super::context::Context;
use super::credentials::Switch;
use super::doubts::Doubts;
use crate::publisher::{ANSWER, Flight, Late, Outgoing, SendError};
use crate::record::Record;
use crate::telemetry::{Client, KafkaMetrics, PublisherMetrics};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

/// How often a producer is looked at for a fatal error that nothing told.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long the records in flight of a producer that is replaced may take: longer than any device waits for them.
const FLUSH: Duration = ANSWER.saturating_add(Duration::from_secs(1));
const PAUSE: Duration = Duration::from_millis(1);
/// How long Kafka may take to tell a new producer who leads a partition.
const ASK: Duration = Duration::from_secs(2);
/// A stranded producer's heir is not replaced in its turn within this; where that happens again and again, within more
/// each time, up to the last.
const STRANDED_AGAIN: Duration = Duration::from_secs(30);
const STRANDED_AT_LAST: Duration = Duration::from_mins(10);

type Producer = ThreadedProducer<Context>;

/// Makes the settings of a producer, with what the credentials' files hold at that moment.
pub(super) type Settings = Box<dyn Fn() -> KafkaResult<ClientConfig> + Send + Sync>;

/// One producer and its renewal.
pub(super) struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    metrics: KafkaMetrics,
    publisher: PublisherMetrics,
    look: SyncSender<()>,
    doubts: Arc<Doubts>,
    /// Read while a record is handed over, written to change where records go: whoever changes it knows that no
    /// record is on its way to the old producer.
    feed: RwLock<Feed>,
    /// Held by whoever replaces the producer.
    replacing: Mutex<()>,
}

/// Where records go.
enum Feed {
    To(Arc<Producer>),
    /// Nowhere until the old producer's records are confirmed: these wait, in order. The publisher's budgets bound them.
    Waiting(Vec<Held>),
    /// Nowhere: the producer is being replaced, and what it had has failed.
    Nothing,
}

/// A record that waits for a new producer.
struct Held {
    topic: Arc<str>,
    partition: i32,
    record: Record,
    flight: Box<Flight>,
}

impl Lane {
    pub(super) fn new(
        settings: Settings,
        metrics: KafkaMetrics,
        publisher: PublisherMetrics,
    ) -> KafkaResult<Self> {
        let (look, asked) = sync_channel(1);
        let (feed, replacing) = (RwLock::new(Feed::Nothing), Mutex::default());
        let doubts = Arc::default();
        let inner = Arc::new(Inner { settings, metrics, publisher, look, doubts, feed, replacing });
        let first = inner.create()?;
        *inner.change() = Feed::To(Arc::new(first));
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("producer renewal".to_owned())
            .spawn(move || renew(&weak, &asked))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { inner })
    }

    pub(super) fn send(
        &self,
        outgoing: &Outgoing<'_>,
        flight: Box<Flight>,
    ) -> Result<(), (SendError, Box<Flight>)> {
        if let Feed::To(producer) = &*self.inner.feed() {
            return hand_over(producer, outgoing.topic, outgoing.partition, outgoing.record, flight);
        }
        match &mut *self.inner.change() {
            Feed::To(producer) => {
                hand_over(producer, outgoing.topic, outgoing.partition, outgoing.record, flight)
            }
            Feed::Waiting(held) => {
                held.push(Held {
                    topic: Arc::clone(outgoing.topic),
                    partition: outgoing.partition,
                    record: outgoing.record.clone(),
                    flight,
                });
                Ok(())
            }
            Feed::Nothing => Err((SendError::Unavailable, flight)),
        }
    }

    /// A connection waited in vain for a record of this partition.
    pub(super) fn doubt(&self, late: Late) {
        self.inner.doubts.raise_late(late, Instant::now());
    }

    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            let producer = match &*self.inner.feed() {
                Feed::To(producer) => Some(Arc::clone(producer)),
                Feed::Waiting(_) => None,
                Feed::Nothing => return true,
            };
            let left = until.saturating_duration_since(Instant::now());
            match producer {
                Some(producer) => return settled(&producer, left),
                None if left.is_zero() => return false,
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Makes a producer with the credentials of now, and the way to it.
    pub(super) fn prepare(&self) -> KafkaResult<Switch> {
        let new = Arc::new(self.inner.create()?);
        let inner = Arc::clone(&self.inner);
        Ok(Box::new(move || inner.switch(new)))
    }
}

fn hand_over(
    producer: &Producer,
    topic: &str,
    partition: i32,
    record: &Record,
    flight: Box<Flight>,
) -> Result<(), (SendError, Box<Flight>)> {
    let mut headers = Some(OwnedHeaders::new_with_capacity(4));
    record.metadata.write(|key, value| {
        headers = headers.take().map(|headers| headers.insert(Header { key, value: Some(value) }));
    });
    let mut outgoing = BaseRecord::with_opaque_to(topic, flight)
        .partition(partition)
        .key(record.address.as_str())
        .payload(record.payload.as_ref());
    outgoing.headers = headers;
    producer.send(outgoing).map_err(|(error, record)| {
        let error = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
            _ => SendError::Unavailable,
        };
        (error, record.delivery_opaque)
    })
}

impl Inner {
    fn feed(&self) -> RwLockReadGuard<'_, Feed> {
        self.feed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Feed> {
        self.feed.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self) -> KafkaResult<Producer> {
        let (metrics, look, doubts) = (self.metrics.clone(), self.look.clone(), Arc::clone(&self.doubts));
        (self.settings)()?.create_with_context(Context::of_producer(metrics, look, doubts))
    }

    /// Feeds `new` from now on, after everything that the old producer had is confirmed or has failed: no record
    /// overtakes an earlier one, and none that was acknowledged was not confirmed.
    fn switch(&self, new: Arc<Producer>) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *self.change(), Feed::Waiting(Vec::new()));
        if let Feed::To(old) = old {
            if !settled(&old, FLUSH) {
                tracing::warn!(
                    "Kafka did not confirm in time what it had been sent with the old credentials"
                );
            }
            end(old);
            self.doubts.clear();
        }
        let mut feed = self.change();
        if let Feed::Waiting(held) = &mut *feed {
            for Held { topic, partition, record, flight } in held.drain(..) {
                if let Err((_, flight)) = hand_over(&new, &topic, partition, &record, flight) {
                    // dropped without an outcome it has failed, and its connection with it
                    drop(flight);
                }
            }
        }
        *feed = Feed::To(new);
    }

    /// Replaces a producer that had a fatal error; returns whether it had.
    fn replace_fatal(&self, renewed: Option<Instant>) -> bool {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match &*self.feed() {
            Feed::To(producer) => producer.client().fatal_error(),
            Feed::Waiting(_) | Feed::Nothing => None,
        };
        let Some((code, reason)) = error else { return false };
        if code == RDKafkaErrorCode::ClusterAuthorizationFailed {
            self.publisher.not_allowed(&reason);
        } else {
            self.publisher.rebuilt(&reason);
        }
        self.stop();
        // one that is fatal at once must not keep Kafka and us busy
        if let Some(renewed) = renewed {
            std::thread::sleep(LOOK.saturating_sub(renewed.elapsed()));
        }
        let new = self.create_at_last();
        *self.change() = Feed::To(new);
        true
    }

    /// Replaces a producer by an heir if Kafka serves that one and has confirmed nothing of a partition to the old one;
    /// returns whether it did. The heir is made at the first doubt and asked from then on.
    fn replace_stranded(&self, heir: &mut Option<Heir>) -> bool {
        let doubts = self.doubts.list(Instant::now());
        let current = match &*self.feed() {
            Feed::To(producer) if !doubts.is_empty() => Arc::downgrade(producer),
            _ => {
                *heir = None;
                return false;
            }
        };
        let known = heir.take().filter(|heir| heir.of.ptr_eq(&current));
        let new = || Some(Heir { producer: self.create().ok()?, of: current });
        let Some(next) = known.or_else(new) else { return false };
        let stranded = doubts.into_iter().find_map(|(topic, partition)| {
            let served = next.is_served(&topic, partition);
            self.doubts.judge(&topic, partition, served, Instant::now()).then_some((topic, partition))
        });
        let Some((topic, partition)) = stranded else {
            *heir = Some(next);
            return false;
        };
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // credentials may have changed meanwhile: then there is another producer, and the heir has the old ones
        if !matches!(&*self.feed(), Feed::To(producer) if Arc::downgrade(producer).ptr_eq(&next.of)) {
            return false;
        }
        self.publisher
            .rebuilt(&format!("it sends nothing to {topic}/{partition}, which Kafka serves to a new client"));
        self.stop();
        *self.change() = Feed::To(Arc::new(next.producer));
        true
    }

    /// Takes nothing from here on, so that no connection sees old and new mixed, and fails what is in flight.
    fn stop(&self) {
        if let Feed::To(old) = std::mem::replace(&mut *self.change(), Feed::Nothing) {
            end(old);
        }
        self.doubts.clear();
    }

    fn create_at_last(&self) -> Arc<Producer> {
        loop {
            match self.create() {
                Ok(producer) => return Arc::new(producer),
                Err(error) => {
                    self.metrics.brokers(false, false);
                    self.metrics.error(Client::producer, &error, "failed to create a new producer", true);
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Looks whether the producer has to be replaced, asked or not, until the lane is gone.
fn renew(inner: &Weak<Inner>, asked: &Receiver<()>) {
    let mut renewed: Option<Instant> = None;
    let (mut heir, mut stranded, mut pause) = (None, None::<Instant>, STRANDED_AGAIN);
    loop {
        let _ = asked.recv_timeout(LOOK);
        let Some(inner) = inner.upgrade() else { return };
        if inner.replace_fatal(renewed) {
            renewed = Some(Instant::now());
        }
        if stranded.is_some_and(|stranded| stranded.elapsed() < pause) {
            continue;
        }
        if inner.replace_stranded(&mut heir) {
            // where a new one does not help, others pay for each try
            let again = stranded.is_some_and(|stranded| stranded.elapsed() < 2 * pause);
            pause = if again { (pause * 2).min(STRANDED_AT_LAST) } else { STRANDED_AGAIN };
            stranded = Some(Instant::now());
        }
    }
}

/// A producer that would take another one's place.
struct Heir {
    producer: Producer,
    of: Weak<Producer>,
}

impl Heir {
    /// Whether the partition's leader answers it, and enough replicas are there that it would take a record: of three or
    /// more, one may be missing.
    fn is_served(&self, topic: &str, partition: i32) -> bool {
        let client = self.producer.client();
        let Ok(metadata) = client.fetch_metadata(Some(topic), ASK) else { return false };
        let mut partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        let enough = partitions.any(|one| {
            let (replicas, in_sync) = (one.replicas().len(), one.isr().len());
            one.id() == partition && (in_sync == replicas || (replicas > 2 && in_sync + 1 == replicas))
        });
        enough && client.fetch_watermarks(topic, partition, ASK).is_ok()
    }
}

/// Waits until Kafka has answered for everything that the producer was given. Its own `flush` would report from this
/// thread too, beside the producer's, and so in another order than Kafka's.
fn settled(producer: &Producer, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    while producer.in_flight_count() > 0 {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Fails what is in flight and frees the client, here and not in whoever happens to hold the last reference.
fn end(mut producer: Arc<Producer>) {
    loop {
        match Arc::try_unwrap(producer) {
            // dropping purges the queue and what is in flight: each flight lands as failed
            Ok(last) => return drop(last),
            Err(shared) => producer = shared,
        }
        std::thread::sleep(PAUSE);
    }
}
