//! Real clients of a closed Kafka: traffic that goes on all the time, and what one client may do.
#![allow(dead_code, reason = "each test uses its part")]

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::access::Access;

/// How long one client may take for what it does.
const LIMIT: Duration = Duration::from_secs(40);

/// Whether Kafka says that a right is missing.
pub fn is_denial(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// What a client heard.
#[derive(Clone, Default)]
pub struct Heard {
    denied: Arc<Mutex<Vec<String>>>,
    acknowledged: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<Code>>>,
}

impl Heard {
    fn hear(&self, code: Code, what: &str) {
        if is_denial(code) {
            self.denied.lock().unwrap().push(format!("{what}: {code}"));
        }
    }
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.hear(code, reason);
        }
    }
}

impl ConsumerContext for Heard {}

impl ProducerContext<NoCustomPartitioner> for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::SeqCst)),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                self.hear(code, "a record");
                *self.failed.lock().unwrap() = Some(code);
            }
        }
    }
}

fn producing(access: &Access, id: Option<&str>) -> ClientConfig {
    let mut config = access.config();
    config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "1");
    if let Some(id) = id {
        config.set("transactional.id", id);
    }
    config
}

fn reading(access: &Access, group: &str) -> ClientConfig {
    let mut config = access.config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000");
    config
}

/// A producer and a consumer, as gateways have them.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    heard: Heard,
    read: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Writes numbered records into the topic's first partition and reads them.
    pub fn start(access: &Access, topic: &'static str) -> Self {
        let (stop, heard, read) =
            (Arc::<AtomicBool>::default(), Heard::default(), Arc::<AtomicU64>::default());
        let mut config = producing(access, None);
        config.set("message.timeout.ms", "0");
        let producer: ThreadedProducer<Heard> = config.create_with_context(heard.clone()).unwrap();
        let consumer: BaseConsumer<Heard> =
            reading(access, "tg-tail").create_with_context(heard.clone()).unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let (ended, said) = (Arc::clone(&stop), heard.clone());
        let writer = std::thread::spawn(move || {
            for number in 0_u64.. {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let payload = number.to_string();
                let record = BaseRecord::<str, str>::to(topic).partition(0).payload(&payload);
                if let Err((error, _)) = producer.send(record) {
                    said.hear(error.rdkafka_error_code().unwrap_or(Code::Fail), "sending");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            producer.flush(LIMIT).unwrap();
        });
        let (ended, said, count) = (Arc::clone(&stop), heard.clone(), Arc::clone(&read));
        let reader = std::thread::spawn(move || {
            let mut quiet = Instant::now();
            // Whatever was acknowledged is read to its end.
            while !ended.load(Ordering::SeqCst) || quiet.elapsed() < Duration::from_secs(5) {
                match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(record)) => {
                        let number: u64 =
                            std::str::from_utf8(record.payload().unwrap()).unwrap().parse().unwrap();
                        assert_eq!(number, count.fetch_add(1, Ordering::SeqCst), "in order, each once");
                        quiet = Instant::now();
                    }
                    Some(Err(error)) => {
                        said.hear(error.rdkafka_error_code().unwrap_or(Code::Fail), "reading");
                    }
                    None => {}
                }
            }
        });
        Self { stop, heard, read, threads: vec![writer, reader] }
    }

    /// How many records were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.heard.acknowledged.load(Ordering::SeqCst)
    }

    /// How often Kafka said that a right is missing.
    pub fn denials(&self) -> Vec<String> {
        self.heard.denied.lock().unwrap().clone()
    }

    /// Ends it: how many were acknowledged, all of which were read; and what was denied.
    pub fn end(mut self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        (self.acknowledged(), self.read.load(Ordering::SeqCst), self.denials())
    }
}

/// Writes one record. What Kafka says to that.
pub fn write(access: &Access, topic: &str) -> Result<(), Code> {
    let heard = Heard::default();
    let mut config = producing(access, None);
    config.set("message.timeout.ms", "20000");
    let producer: ThreadedProducer<Heard> = config.create_with_context(heard.clone()).unwrap();
    let record = BaseRecord::<str, str>::to(topic).payload("x");
    producer.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail))?;
    producer.flush(LIMIT).map_err(|error| error.rdkafka_error_code().unwrap_or(Code::Fail))?;
    // Who may write nothing at all gets no producer's id, and then everything is given up.
    if let Some((code, _)) = producer.client().fatal_error() {
        return Err(code);
    }
    let failed = *heard.failed.lock().unwrap();
    failed.map_or(Ok(()), Err)
}

/// Writes one record in a transaction with this id.
pub fn write_in_a_transaction(access: &Access, topic: &str, id: &str) -> Result<(), Code> {
    let code = |error: KafkaError| match error {
        KafkaError::Transaction(error) => error.code(),
        other => other.rdkafka_error_code().unwrap_or(Code::Fail),
    };
    let producer: ThreadedProducer<Heard> =
        producing(access, Some(id)).create_with_context(Heard::default()).unwrap();
    producer.init_transactions(LIMIT).map_err(code)?;
    producer.begin_transaction().map_err(code)?;
    producer.send(BaseRecord::<str, str>::to(topic).payload("x")).map_err(|(error, _)| code(error))?;
    producer.commit_transaction(LIMIT).map_err(code)
}

/// Joins a group and reads the topic's first record.
pub fn read(access: &Access, group: &str, topic: &str) -> Result<(), Code> {
    let consumer: BaseConsumer<Heard> = reading(access, group).create_with_context(Heard::default()).unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                if is_denial(code) {
                    return Err(code);
                }
            }
            None => {}
        }
    }
    Err(Code::OperationTimedOut)
}
