//! Consumers that are stranded (see `doubts`) are replaced. IO: a thread that looks, and a consumer of its own, the
//! witness, which asks Kafka the same; one that does not answer is replaced by another at the next look.

use super::handle::{Consumer, Handle, New};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode::AutoOffsetReset;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long Kafka may take to answer the witness.
const ASK: Duration = Duration::from_secs(2);
/// After so many questions in a row without an answer the witness is another one.
const UNANSWERED: u32 = 5;

/// All consumers that were made and live.
#[derive(Default)]
pub(super) struct Made(Mutex<Vec<Weak<Handle>>>);

impl Made {
    pub(super) fn add(&self, handle: &Arc<Handle>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(handle));
    }

    pub(super) fn live(&self) -> Vec<Arc<Handle>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|handle| handle.strong_count() > 0);
        made.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Starts the thread that looks after `made` until that is gone.
pub(super) fn look_after(made: &Arc<Made>, new: New) -> std::io::Result<()> {
    let made = Arc::downgrade(made);
    let mut witness = Witness { new, consumer: None, unanswered: 0 };
    let look = move || {
        // by address: a handle lives longer than its silences are kept
        let mut silences: HashMap<usize, Silences> = HashMap::new();
        loop {
            std::thread::sleep(LOOK);
            let Some(made) = made.upgrade() else { return };
            let live = made.live();
            silences.retain(|key, _| live.iter().any(|handle| Arc::as_ptr(handle).addr() == *key));
            for handle in live {
                let silences = silences.entry(Arc::as_ptr(&handle).addr()).or_default();
                look(&handle, silences, &mut witness);
            }
        }
    };
    std::thread::Builder::new().name("kafka witness".to_owned()).spawn(look).map(drop)
}

/// Where each partition that is read was at the last look that saw something of it, and where it ended then.
type Silences = HashMap<(String, i32), (Offset, Option<i64>)>;

fn look(handle: &Handle, silences: &mut Silences, witness: &mut Witness) {
    let now = Instant::now();
    if handle.listens() {
        for (topic, partition) in silent(handle, silences, witness) {
            handle.read.raise(&topic, partition, now);
        }
    }
    // all of them at once, as they were asked: one partition without a leader leaves the whole question without an answer
    let asked = handle.asked.list(now);
    let served = !asked.is_empty() && witness.ends(&asked).len() == asked.len();
    let asked = asked
        .into_iter()
        .find(|(topic, partition)| handle.asked.judge(topic, *partition, served, Instant::now()));
    let stranded = asked.or_else(|| {
        handle.read.list(now).into_iter().find(|(topic, partition)| {
            let served = witness.reads(topic, *partition, handle.position(topic, *partition));
            if served == Some(false) {
                // nothing to read for a reader: the end of a transaction takes an offset too
                handle.read.dispel(topic, *partition);
                silences.remove(&(topic.to_string(), *partition));
            }
            handle.read.judge(topic, *partition, served == Some(true), Instant::now())
        })
    });
    if let Some((topic, partition)) = stranded {
        handle.renew(&topic, partition);
    }
}

/// The partitions that grew since something came of them.
fn silent(handle: &Handle, silences: &mut Silences, witness: &mut Witness) -> Vec<(Arc<str>, i32)> {
    let positions = handle.positions();
    silences.retain(|(topic, partition), _| positions.find_partition(topic, *partition).is_some());
    let mut quiet: HashMap<String, Vec<(Arc<str>, i32)>> = HashMap::new();
    for element in positions.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        match silences.get(&(topic.to_owned(), partition)) {
            Some((position, _)) if *position == element.offset() => {
                quiet.entry(topic.to_owned()).or_default().push((topic.into(), partition));
            }
            _ => drop(silences.insert((topic.to_owned(), partition), (element.offset(), None))),
        }
    }
    let mut grown = Vec::new();
    for ((topic, partition), end) in quiet.values().flat_map(|each| witness.ends(each)).collect::<Vec<_>>() {
        let Some((_, before)) = silences.get_mut(&(topic.clone(), partition)) else { continue };
        if *before.get_or_insert(end) < end {
            grown.push((topic.into(), partition));
        }
    }
    grown
}

struct Witness {
    new: New,
    consumer: Option<Consumer>,
    /// Questions in a row without an answer.
    unanswered: u32,
}

impl Witness {
    fn consumer(&mut self) -> Option<&Consumer> {
        if self.consumer.is_none() {
            self.consumer = (self.new)().ok();
        }
        self.consumer.as_ref()
    }

    /// A witness may be stranded too; while Kafka is away, a new one each time would be a storm of connections.
    fn answered(&mut self, answered: bool) {
        self.unanswered = if answered { 0 } else { self.unanswered + 1 };
        if self.unanswered >= UNANSWERED {
            (self.consumer, self.unanswered) = (None, 0);
        }
    }

    /// Where partitions end, as far as Kafka says.
    fn ends(&mut self, partitions: &[(Arc<str>, i32)]) -> Vec<((String, i32), i64)> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            // a name and a number that Kafka gave
            let _ = list.add_partition_offset(topic, *partition, Offset::End);
        }
        let answer = self.consumer().map(|consumer| consumer.offsets_for_times(list, ASK));
        self.answered(matches!(&answer, Some(Ok(_))));
        let Some(Ok(answer)) = answer else { return Vec::new() };
        let elements = answer.elements();
        let known = elements.iter().filter(|element| element.error().is_ok());
        let ends = known.filter_map(|element| match element.offset() {
            Offset::Offset(end) => Some(((element.topic().to_owned(), element.partition()), end)),
            _ => None,
        });
        ends.collect()
    }

    /// Whether there is a record at a position or behind it; without one, whether anything can be read at all. Nothing if
    /// Kafka does not serve.
    fn reads(&mut self, topic: &str, partition: i32, position: Option<Offset>) -> Option<bool> {
        let from = if let Some(position) = position {
            position
        } else {
            let (_, end) = self.ends(&[(topic.into(), partition)]).pop()?;
            Offset::Offset((end - 1).max(0))
        };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, from).ok()?;
        let consumer = self.consumer()?;
        consumer.incremental_assign(&list).ok()?;
        let until = Instant::now() + ASK;
        let mut found = None;
        while found.is_none() && Instant::now() < until {
            found = match consumer.poll(until.saturating_duration_since(Instant::now())) {
                Some(Ok(_)) => Some(true),
                Some(Err(KafkaError::PartitionEOF(_))) => Some(position.is_none()),
                // retention went past it: a reader has to hear that
                Some(Err(error)) if error.rdkafka_error_code() == Some(AutoOffsetReset) => Some(true),
                Some(Err(_)) | None => None,
            };
        }
        let unassigned = consumer.incremental_unassign(&list).is_ok();
        self.answered(unassigned && found.is_some());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::context::Context;
    use crate::telemetry::{Client, KafkaMetrics};
    use rdkafka::ClientConfig;
    use rdkafka::message::Message as _;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tidegate_contract::config::KafkaConfig;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A Kafka, and consumers of which the first ones do not come back to a broker for ten minutes: they stand for those
    /// that lost track of it.
    struct Stranding {
        cluster: MockCluster<'static, DefaultProducerContext>,
        metrics: KafkaMetrics,
        made: Arc<Made>,
        healthy: Arc<AtomicBool>,
    }

    impl Stranding {
        fn new() -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("t", 1, 1).unwrap();
            let (metrics, made) = (KafkaMetrics::default(), Arc::default());
            let stranding = Self { cluster, metrics, made, healthy: Arc::default() };
            let witness = stranding.consumers(Client::witness, Arc::new(AtomicBool::new(true)));
            look_after(&stranding.made, witness).unwrap();
            stranding
        }

        fn consumers(&self, client: Client, healthy: Arc<AtomicBool>) -> New {
            let kafka = KafkaConfig::plain(self.cluster.bootstrap_servers());
            let metrics = self.metrics.clone();
            Box::new(move || {
                let mut config = super::super::consumer(&kafka, client, "test")?;
                if !healthy.load(Ordering::Acquire) {
                    config.set("reconnect.backoff.ms", "600000").set("reconnect.backoff.max.ms", "600000");
                }
                config.create_with_context(Context::new(client, metrics.clone()))
            })
        }

        fn handle(&self, client: Client) -> Arc<Handle> {
            let new = self.consumers(client, Arc::clone(&self.healthy));
            let handle = Arc::new(Handle::new(client, self.metrics.clone(), new).unwrap());
            self.made.add(&handle);
            handle
        }

        fn write(&self) {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", self.cluster.bootstrap_servers());
            let producer: ThreadedProducer<_> = config.create().unwrap();
            producer.send(BaseRecord::<str, str>::to("t").partition(0).payload("x")).unwrap();
            producer.flush(PATIENCE).unwrap();
        }

        /// Kafka goes and comes back; consumers that are made from here on are good ones.
        fn outage(&self) {
            self.cluster.broker_down(1).unwrap();
            std::thread::sleep(Duration::from_secs(1));
            self.healthy.store(true, Ordering::Release);
            self.cluster.broker_up(1).unwrap();
        }
    }

    fn within<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < until, "it was not replaced");
        }
    }

    fn partition(offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, offset).unwrap();
        list
    }

    #[test]
    fn a_tail_that_does_not_hear_what_others_read_goes_on_with_another_client_where_it_was() {
        let stranding = Stranding::new();
        stranding.write();
        let tail = stranding.handle(Client::tail);
        tail.assign(&partition(Offset::Offset(0))).unwrap();
        let offset = |tail: &Handle| {
            tail.poll(Duration::from_millis(100), |event| event.ok().map(|message| message.offset()))
                .flatten()
        };
        assert_eq!(within(|| offset(&tail)), 0);

        stranding.outage();
        // silence alone is no reason
        let until = Instant::now() + Duration::from_secs(6);
        while Instant::now() < until {
            assert_eq!(offset(&tail), None);
        }
        assert_eq!(stranding.metrics.times_stranded(Client::tail), 0);
        stranding.write();
        assert_eq!(within(|| offset(&tail)), 1);
        assert_eq!(stranding.metrics.times_stranded(Client::tail), 1);
    }

    #[test]
    fn a_reader_whose_questions_kafka_answers_to_others_is_replaced() {
        let stranding = Stranding::new();
        stranding.write();
        let history = stranding.handle(Client::history);
        let ask = || {
            let answer = history.consumer().offsets_for_times(partition(Offset::End), Duration::from_secs(1));
            let end = answer.ok()?.find_partition("t", 0)?.offset();
            (end == Offset::Offset(1)).then_some(())
        };
        within(ask);
        stranding.outage();
        let topic: Arc<str> = "t".into();
        within(|| {
            let answer = ask();
            if answer.is_none() {
                history.asked.raise(&topic, 0, Instant::now());
            }
            answer
        });
        assert_eq!(stranding.metrics.times_stranded(Client::history), 1);
    }

    #[test]
    fn a_reader_that_gets_nothing_of_what_others_read_is_replaced() {
        let stranding = Stranding::new();
        stranding.write();
        let history = stranding.handle(Client::history);
        let topic: Arc<str> = "t".into();
        let read = || {
            history.assign(&partition(Offset::Offset(0))).unwrap();
            let found = history.poll(Duration::from_millis(1500), |event| event.is_ok());
            history.unassign(&partition(Offset::Invalid)).unwrap();
            if found == Some(true) {
                return Some(());
            }
            history.read.raise(&topic, 0, Instant::now());
            None
        };
        within(read);
        stranding.outage();
        within(read);
        assert_eq!(stranding.metrics.times_stranded(Client::history), 1);
    }
}
