//! A producer that writes while something happens to Kafka, and what is stored of that in the end.

use super::wait;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::access::Access;

const LIMIT: Duration = Duration::from_secs(120);
pub const TOPIC: &str = "telemetry";
pub const PARTITIONS: i32 = 6;

/// What was acknowledged, with when.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<Vec<(u64, Instant)>>>);

impl Acknowledged {
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn wait(&self, more: usize) {
        let goal = self.count() + more;
        let there = wait(LIMIT, || self.count() >= goal);
        assert!(there, "{} of {goal} acknowledgements", self.count());
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        if result.is_ok() {
            self.0.lock().unwrap().push((*number, Instant::now()));
        }
    }
}

type Handle = ThreadedProducer<Acknowledged>;

/// Writes numbers, about 200 a second.
pub struct Writer {
    pub acknowledged: Acknowledged,
    successors: SyncSender<Handle>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

fn handle(access: &Access, acknowledged: &Acknowledged) -> Handle {
    access
        .config()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "60000")
        .set("socket.timeout.ms", "3000")
        .create_with_context(acknowledged.clone())
        .unwrap()
}

impl Writer {
    pub fn start(access: &Access) -> Self {
        let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
        let (successors, next) = sync_channel(1);
        let (first, ends) = (handle(access, &acknowledged), Arc::clone(&stop));
        let thread = std::thread::spawn(move || write(first, &next, &ends));
        Self { acknowledged, successors, stop, thread }
    }

    /// Goes on with these credentials, as a gateway does: what the old handle has in flight is confirmed first.
    pub fn switch(&self, access: &Access) {
        self.successors.send(handle(access, &self.acknowledged)).unwrap();
    }

    pub fn end(self) -> Vec<(u64, Instant)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.acknowledged.0.lock().unwrap().clone()
    }
}

fn write(mut producer: Handle, next: &Receiver<Handle>, ends: &AtomicBool) {
    for number in 0_u64.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        if let Ok(successor) = next.try_recv() {
            producer.flush(LIMIT).unwrap();
            producer = successor;
        }
        let (key, payload) = (format!("meter-{}", number % 40), number.to_string());
        let record = BaseRecord::with_opaque_to(TOPIC, Box::new(number)).key(&key).payload(&payload);
        // A full queue loses nothing that was acknowledged.
        let _ = producer.send(record);
        std::thread::sleep(Duration::from_millis(5));
    }
    producer.flush(LIMIT).unwrap();
}

/// Everything that is stored.
fn stored(access: &Access) -> Vec<u64> {
    let consumer: BaseConsumer =
        access.config().set("group.id", "reader").set("enable.partition.eof", "false").create().unwrap();
    let mut numbers = Vec::new();
    for partition in 0..PARTITIONS {
        let (_, end) = consumer.fetch_watermarks(TOPIC, partition, LIMIT).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut next = 0;
        let begun = Instant::now();
        while next < end {
            assert!(begun.elapsed() < LIMIT, "partition {partition} ends at {next}, {end} was promised");
            let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
            let message = message.unwrap();
            next = message.offset() + 1;
            numbers.push(std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap());
        }
    }
    numbers
}

/// Fails if anything that was acknowledged is not stored.
pub fn judge(access: &Access, acknowledged: &[(u64, Instant)]) {
    let stored = stored(access);
    let unique: BTreeSet<_> = stored.iter().collect();
    let lost = acknowledged.iter().filter(|(number, _)| !unique.contains(number)).count();
    let gap = acknowledged.windows(2).map(|two| two[1].1 - two[0].1).max().unwrap();
    eprintln!(
        "{} acknowledged, {lost} lost, {} duplicates, longest gap {:.1} s",
        acknowledged.len(),
        stored.len() - unique.len(),
        gap.as_secs_f64()
    );
    assert_eq!(lost, 0);
}
